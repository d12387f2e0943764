"""Pages of pictures by which a reader judges the simulation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, opposite, orientation_code, resample, resample_mask

from ..picture_sides import write_sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .cases import SimulatedCase

_PAIR_FOLDERS = ("moving_images", "moving_labels", "fixed_images", "fixed_labels")
_PLANES = ("axial", "sagittal", "coronal")
_COLOURS = {
    "gland": "red",
    "transition_zone": "orange",
    "urethra": "cyan",
    "lesions": "magenta",
    "cysts": "deepskyblue",
    "calcifications": "yellow",
    "seminal_vesicles": "lime",
}


def blurred(image: sitk.Image, *, sigma_mm: float = 3.2, spacing_mm: float = 1.5) -> sitk.Image:
    """The image as smooth and coarse as the public test pairs.

    The default smoothing gives their fall of spectral power inside the gland between 0.05 and 0.11
    cycles/mm.
    """
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(image, sitk.sitkFloat32), sigma_mm)
    return resample(smooth, Grid.of(image).with_spacing((spacing_mm,) * 3))


def _planes(array: np.ndarray, centre_kji: np.ndarray) -> list[np.ndarray]:
    """Axial (rows anterior to posterior), sagittal and coronal (rows superior to inferior)."""
    k, j, i = centre_kji
    return [array[k].T, array[::-1, j, :], array[::-1, :, i]]


def side_letters(image: sitk.Image) -> list[tuple[str, str, str, str]]:
    """The patient's sides at left, right, top and bottom of each of `_planes`, as the header says."""
    code = orientation_code(image.GetDirection())
    (i_from, i_to), (j_from, j_to), (k_from, k_to) = zip(opposite(code), code, strict=True)
    return [
        (j_from, j_to, i_from, i_to),
        (i_from, i_to, k_to, k_from),
        (j_from, j_to, k_to, k_from),
    ]


def _draw_plane(axis: Axes, plane: np.ndarray, white: float, outlines: dict[str, np.ndarray]) -> None:
    axis.imshow(plane, cmap="gray", vmin=0, vmax=white)
    axis.set_axis_off()
    for name, outline in outlines.items():
        if outline.any():
            axis.contour(outline, [0.5], colors=_COLOURS[name], linewidths=0.7)


def _name_colours(figure: Figure, names: Iterable[str]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=_COLOURS[name], label=name.replace("_", " ")) for name in names]
    figure.legend(handles=lines, loc="lower center", ncols=len(lines), fontsize=8)


def _draw_row(
    axes: np.ndarray,
    image: sitk.Image,
    labels: dict[str, sitk.Image],
    title: str,
    *,
    sides_known: bool = True,
) -> None:
    """Three planes through the gland's middle, and where there are six axes, the same with contours."""
    array = sitk.GetArrayFromImage(image)
    masks = {name: sitk.GetArrayFromImage(mask) for name, mask in labels.items() if name in _COLOURS}
    centre = np.argwhere(masks["gland"] > 0).mean(axis=0).astype(int)
    white = float(np.percentile(array, 99.8))
    cuts = {name: _planes(mask, centre) for name, mask in masks.items()}
    letters = side_letters(image)
    for column, axis in enumerate(axes):
        number = column % 3
        outlines = {name: planes[number] for name, planes in cuts.items()} if column >= len(axes) - 3 else {}
        _draw_plane(axis, _planes(array, centre)[number], white, outlines)
        if sides_known:
            write_sides(axis, letters[number])
        axis.set_title(f"{title}, {_PLANES[0]}" if column == 0 else _PLANES[number], fontsize=8)


def coarse(image: sitk.Image, labels: dict[str, sitk.Image]) -> tuple[sitk.Image, dict[str, sitk.Image]]:
    """An image and its masks as smooth and coarse as the public test pairs."""
    soft = blurred(image)
    return soft, {name: resample_mask(mask, Grid.of(soft)) for name, mask in labels.items()}


def draw_case(case: SimulatedCase, path: Path) -> None:
    """A page with both sides in three planes, sharp and blurred, with and without contours."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 10))
    axes = figure.subplots(4, 6)
    sides = ((case.mr, case.mr_labels, "MR"), (case.trus, case.trus_labels, "TRUS"))
    for row, (image, labels, side) in enumerate(sides):
        _draw_row(axes[row], image, labels, f"{side}, seed {case.parameters.seed}")
        _draw_row(axes[row + 2], *coarse(image, labels), f"{side}, blurred like the public pairs")
    _name_colours(figure, _COLOURS)
    _save(figure, path)


def public_pairs(folder: Path, count: int) -> list[tuple[str, dict[str, sitk.Image]]]:
    """(name, images and gland masks) of evenly spread pairs of the public mrus data."""
    names = sorted(path.name for path in (folder / "moving_images").glob("*.nii.gz"))
    if not names:
        raise InputError(f"{folder} holds no pairs: name the folder with moving_images and fixed_images.")
    pairs = []
    for name in names[:: max(1, len(names) // count)][:count]:
        images = {kind: sitk.ReadImage(str(folder / kind / name)) for kind in _PAIR_FOLDERS}
        for kind in ("moving_labels", "fixed_labels"):
            label = images[kind]
            images[kind] = label[..., 0] if label.GetDimension() == 4 else label
        pairs.append((name.split(".")[0], images))
    return pairs


def draw_comparison(cases: list[SimulatedCase], pairs_folder: Path, path: Path) -> None:
    """Simulated cases, blurred, on the left of as many public pairs; `InputError` without pairs."""
    from matplotlib.figure import Figure

    pairs = public_pairs(pairs_folder, len(cases))
    figure = Figure(figsize=(15, 4.6 * len(cases)))
    axes = figure.subplots(2 * len(cases), 6)
    for row, case in enumerate(cases):
        title = f"simulated, seed {case.parameters.seed}"
        gland = {side: {"gland": labels["gland"]} for side, labels in _truths(case).items()}
        _draw_row(axes[2 * row, :3], *coarse(case.mr, gland["mr"]), f"MR {title}")
        _draw_row(axes[2 * row + 1, :3], *coarse(case.trus, gland["trus"]), f"TRUS {title}")
    for row, (name, images) in enumerate(pairs):
        for offset, side in enumerate(("moving", "fixed")):
            mask = {"gland": sitk.Cast(images[f"{side}_labels"] > 0.5, sitk.sitkUInt8)}
            # The headers of public pairs do not say how the patient lies.
            _draw_row(
                axes[2 * row + offset, 3:],
                images[f"{side}_images"],
                mask,
                f"real {name}",
                sides_known=False,
            )
    _name_colours(figure, ["gland"])
    _save(figure, path)


def _truths(case: SimulatedCase) -> dict[str, dict[str, sitk.Image]]:
    return {"mr": case.mr_labels, "trus": case.trus_labels}


def _save(figure: Figure, path: Path) -> None:
    # Room for the colours' names below.
    figure.tight_layout(pad=0.4, rect=(0, 0.25 / figure.get_figheight(), 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
