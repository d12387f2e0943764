"""Tiny data sets on disk in the public layouts, made of ellipsoids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from shapes import array, ellipsoid, points_mm, turned

from MRTRUSRegistrationLib.geometry import Grid

# Where the landmarks of the MR are; those of the TRUS lie 2 mm to the left of them, about its own centre.
LANDMARKS_MM = ((6.0, 3.0, -4.0), (-7.0, -2.0, 5.0))
TRUS_SHIFT_MM = (2.0, 0.0, 0.0)
_FOLDERS = {"mrus": ("moving", "fixed"), "muregpro": ("mr", "us")}


def _grid(layout: str, size_vox: tuple[int, int, int], spacing_mm: float) -> Grid:
    """Public files have a default header; others an oblique one about the origin of the patient."""
    spacing = (spacing_mm,) * 3
    if layout == "mrus":
        return Grid(size_vox, spacing)
    return Grid.centred(np.zeros(3), size_vox, spacing, turned(0.1, 0.05, -0.1))


def _labels(grid: Grid, shift_mm: np.ndarray, landmarks: int) -> list[sitk.Image]:
    middle = grid.centre_mm + shift_mm
    labels = [ellipsoid(grid, (17, 14, 15), centre_mm=tuple(middle))]
    for place in LANDMARKS_MM[:landmarks]:
        labels.append(ellipsoid(grid, (3, 3, 3), centre_mm=tuple(middle + place)))
    return labels


def write_dataset(
    folder: Path,
    layout: str,
    names: Sequence[str],
    *,
    landmarks: int = 2,
    empty_mr: Sequence[int] = (),
) -> None:
    """Write pairs whose TRUS differs from MR by TRUS_SHIFT_MM; channels in `empty_mr` are emptied in MR."""
    moving, fixed = _FOLDERS[layout]
    for part, size, spacing, shift in (
        (moving, (34, 32, 30), 1.6, np.zeros(3)),
        (fixed, (36, 33, 31), 1.5, np.array(TRUS_SHIFT_MM)),
    ):
        for kind in ("images", "labels"):
            (folder / f"{part}_{kind}").mkdir(exist_ok=True, parents=True)
        grid = _grid(layout, size, spacing)
        labels = _labels(grid, shift, landmarks)
        if part == moving:
            labels = [label * (0 if n in empty_mr else 1) for n, label in enumerate(labels)]
        texture = 20 * np.sin(points_mm(grid).sum(-1) / 4)
        image = grid.image((60 + texture + 100 * array(labels[0])).astype(np.uint8))
        stack = [sitk.Cast(label, sitk.sitkFloat64) for label in labels]
        channels = sitk.JoinSeries(stack) if len(stack) > 1 else stack[0]
        for name in names:
            sitk.WriteImage(image, str(folder / f"{part}_images" / f"{name}.nii.gz"))
            sitk.WriteImage(channels, str(folder / f"{part}_labels" / f"{name}.nii.gz"))
