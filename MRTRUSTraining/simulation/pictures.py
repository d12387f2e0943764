"""Pages of pictures by which a reader judges the simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813
from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask

if TYPE_CHECKING:
    from .cases import SimulatedCase

_COLOURS = {
    "gland": "red",
    "transition_zone": "orange",
    "urethra": "cyan",
    "lesions": "magenta",
    "cysts": "deepskyblue",
    "calcifications": "yellow",
    "seminal_vesicles": "lime",
}


def blurred(image: sitk.Image, *, sigma_mm: float = 1.8, spacing_mm: float = 1.5) -> sitk.Image:
    """The image as blurred and coarse as the public test pairs are."""
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(image, sitk.sitkFloat32), sigma_mm)
    return resample(smooth, Grid.of(image).with_spacing((spacing_mm,) * 3))


def _planes(array: np.ndarray, centre_kji: np.ndarray) -> list[np.ndarray]:
    """Axial (rows anterior to posterior), sagittal and coronal (rows superior to inferior)."""
    k, j, i = centre_kji
    return [array[k].T, array[::-1, j, :], array[::-1, :, i]]


def _draw_row(axes: np.ndarray, image: sitk.Image, labels: dict[str, sitk.Image], title: str) -> None:
    array = sitk.GetArrayFromImage(image)
    masks = {name: sitk.GetArrayFromImage(mask) for name, mask in labels.items() if name in _COLOURS}
    centre = np.argwhere(masks["gland"] > 0).mean(axis=0).astype(int)
    for number, plane in enumerate(_planes(array, centre)):
        for column, contours in ((number, False), (number + 3, True)):
            axis = axes[column]
            axis.imshow(plane, cmap="gray", vmin=0, vmax=255 if array.max() > 200 else array.max())
            axis.set_axis_off()
            for name in masks if contours else ():
                outline = _planes(masks[name], centre)[number]
                if outline.any():
                    axis.contour(outline, [0.5], colors=_COLOURS[name], linewidths=0.7)
    axes[0].set_title(title, fontsize=8)


def draw_case(case: SimulatedCase, path: Path) -> None:
    """A page with both sides in three planes, sharp and blurred, with and without contours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 10))
    axes = figure.subplots(4, 6)
    for row, (image, labels, side) in enumerate(
        ((case.mr, case.mr_labels, "MR"), (case.trus, case.trus_labels, "TRUS"))
    ):
        soft = blurred(image)
        coarse = {name: resample_mask(mask, Grid.of(soft)) for name, mask in labels.items()}
        _draw_row(axes[row], image, labels, f"{side}, seed {case.parameters.seed}")
        _draw_row(axes[row + 2], soft, coarse, f"{side}, blurred to 1.5 mm")
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
