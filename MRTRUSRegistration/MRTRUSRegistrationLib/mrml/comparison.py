"""MR and TRUS in one picture: blended, flickering, as a checkerboard or split.

The MR is brought on to the voxels of the TRUS once a stage; after that a new opacity, number of squares or
position of the split is a choice between two arrays of grey values.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer

from ..errors import InputError
from ..geometry import Grid, resample
from .case_nodes import CaseNodes
from .frames import points_ras, right_handed
from .readers import check_volume, image_of, volume_grid, voxels
from .stages import Stage, resampling_of, stage_transforms
from .volumes import add_volume

# Patient axes, RAS in this order; positions grow from the side named first to the other one.
Axis = Literal["left-right", "posterior-anterior", "inferior-superior"]
AXES: tuple[Axis, ...] = get_args(Axis)
_GREY_LEVELS = 255.0
# Cosine of about 2.5°: below it an axis is oblique.
_ALONG = 0.999


def flicker_opacity(time_s: float, *, period_s: float = 1.0) -> float:
    """The MR's opacity when MR and TRUS take turns: TRUS in the first half of every period, then MR."""
    return 0.0 if time_s % period_s < period_s / 2 else 1.0


def rock_opacity(time_s: float, *, period_s: float = 3.0) -> float:
    """The MR's opacity when MR fades in and out; starts with TRUS alone."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * time_s / period_s)


def grey_levels(array: np.ndarray, window: float, level: float) -> np.ndarray:
    """Intensities as they look under a window: uint8, black below it and white above."""
    scaled = (array.astype(np.float32) - (level - window / 2)) * (_GREY_LEVELS / max(window, 1e-6))
    return np.clip(np.rint(scaled), 0, _GREY_LEVELS).astype(np.uint8)


def checkerboard_pattern(grid: Grid, squares: int) -> np.ndarray:
    """(k, j, i) booleans of a 3-D checkerboard of cubes, `squares` of them along the longest side."""
    extent_mm = np.array(grid.size_vox) * np.array(grid.spacing_mm)
    side_mm = extent_mm.max() / squares
    parity = [
        np.floor((np.arange(n) + 0.5) * s / side_mm).astype(int)
        for n, s in zip(grid.size_vox, grid.spacing_mm, strict=True)
    ]
    i, j, k = parity
    return (k[:, None, None] + j[:, None] + i) % 2 == 1


def split_pattern(grid: Grid, position: float, axis: Axis) -> np.ndarray:
    """(k, j, i) booleans: true on the first-named side of a plane across a patient axis.

    `position` runs from 0 to 1 over the extent of the grid along that axis.
    """
    along_mm = _along(grid, axis)
    low, high = float(along_mm.min()), float(along_mm.max())
    return along_mm < low + position * (high - low + 1e-6)


def _along(grid: Grid, axis: Axis) -> np.ndarray:
    """(k, j, i) positions of the voxel centres along a patient axis, in mm."""
    number = AXES.index(axis)
    steps = points_ras(grid.index_to_point[:3, :3].T)[:, number]
    i, j, k = (np.arange(n) * step for n, step in zip(grid.size_vox, steps, strict=True))
    return k[:, None, None] + j[:, None] + i + points_ras(np.array(grid.origin_mm))[number]


class RegisteredImages:
    """The MR of a case on the voxels of its TRUS, computed once for every stage.

    Anything that changes an image, its place or a transform makes the next request compute again.
    """

    def __init__(self, case: CaseNodes) -> None:
        self._case = case
        self._mr: dict[Stage, tuple[tuple, np.ndarray]] = {}

    def grid(self) -> Grid:
        """The grid of the TRUS volume; `InputError` when it was deleted."""
        check_volume(self._case.trus, "TRUS")
        return volume_grid(self._case.trus)

    def trus(self) -> np.ndarray:
        """(k, j, i) voxels of the TRUS volume, sharing its memory."""
        check_volume(self._case.trus, "TRUS")
        return voxels(self._case.trus.GetImageData())

    def mr(self, stage: Stage) -> np.ndarray:
        """(k, j, i) float32 intensities of the MR at a stage, 0 outside of the MR."""
        state = self._state(stage)
        known = self._mr.get(stage)
        if known is None or known[0] != state:
            mr = sitk.Cast(image_of(self._case.mr, what="MR"), sitk.sitkFloat32)
            moved = resample(mr, self.grid(), resampling_of(self._case, stage))
            known = (state, sitk.GetArrayFromImage(moved))
            self._mr[stage] = known
        return known[1]

    def _state(self, stage: Stage) -> tuple:
        """What the resampled MR depends on."""
        check_volume(self._case.mr, "MR")
        transforms = stage_transforms(self._case, stage)
        mr = self._case.mr
        return (
            mr.GetID(),
            mr.GetImageData().GetMTime(),
            volume_grid(mr),
            self.grid(),
            *((node.GetID(), node.GetTransformFromParent().GetMTime()) for node in transforms),
        )


class Comparison:
    """One volume node that shows MR and TRUS together, updated in place."""

    def __init__(self, case: CaseNodes, images: RegisteredImages) -> None:
        self._case = case
        self._images = images
        # The MR itself stands for its state: another one may lie at the address of one that is gone.
        self._known_mr: np.ndarray | None = None
        self._known: tuple[tuple, tuple[np.ndarray, np.ndarray]] | None = None

    def blend(self, stage: Stage, opacity: float) -> slicer.vtkMRMLScalarVolumeNode:
        """TRUS under the MR with that opacity (0 to 1)."""
        mr, trus = self._grey(stage)
        return self._show((trus * (1 - opacity) + mr * opacity + 0.5).astype(np.uint8), smooth=True)

    def checkerboard(self, stage: Stage, squares: int) -> slicer.vtkMRMLScalarVolumeNode:
        """MR and TRUS in turn, `squares` fields along the longest side of the TRUS."""
        if squares < 1:
            raise InputError(f"A checkerboard cannot have {squares} squares: give 1 or more.")
        mr, trus = self._grey(stage)
        return self._show(np.where(checkerboard_pattern(self._images.grid(), squares), mr, trus))

    def split(self, stage: Stage, position: float, axis: Axis) -> slicer.vtkMRMLScalarVolumeNode:
        """MR on the first-named side of a plane across `axis`, TRUS on the other."""
        mr, trus = self._grey(stage)
        return self._show(np.where(split_pattern(self._images.grid(), position, axis), mr, trus))

    def _grey(self, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
        """MR and TRUS as they look under their own windows, so that both have the same range."""
        mr, trus = self._images.mr(stage), self._images.trus()
        windows = window_of(self._case.mr), window_of(self._case.trus)
        state = (self._case.trus.GetImageData().GetMTime(), windows)
        if self._known is None or self._known_mr is not mr or self._known[0] != state:
            self._known_mr = mr
            self._known = (state, (grey_levels(mr, *windows[0]), grey_levels(trus, *windows[1])))
        return self._known[1]

    def _show(self, grey: np.ndarray, *, smooth: bool = False) -> slicer.vtkMRMLScalarVolumeNode:
        grid = self._images.grid()
        image = grid.image(grey)
        node = show_volume(self._case, "comparison", image, "MR and TRUS")
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevel(_GREY_LEVELS, _GREY_LEVELS / 2)
        # Half-way between two layers of a checkerboard, a slice along them would show a blend and no squares;
        # slices across oblique voxels never do, and are ragged without interpolation.
        node.GetDisplayNode().SetInterpolate(smooth or _oblique(grid))
        return node


def _oblique(grid: Grid) -> bool:
    """Whether the voxels' axes are turned against the patient's, along which slice views lie at first."""
    return bool(np.abs(grid.axes).max(axis=0).min() < _ALONG)


def show_volume(case: CaseNodes, role: str, image: sitk.Image, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Give the case's volume with that role new voxels; the volume is made when there is none.

    `image` is on the grid of the TRUS volume, and the node follows that volume's transform.
    """
    image, node = right_handed(image), case.get(role)
    if node is not None and _fits(node, image):
        scalars = node.GetImageData().GetPointData().GetScalars()
        voxels(node.GetImageData())[...] = sitk.GetArrayViewFromImage(image)
        scalars.Modified()
        node.GetImageData().Modified()
    else:
        case.remove(role)
        node = add_volume(case.scene, image, name)
        case.set(role, node)
    node.SetAndObserveTransformNodeID(case.trus.GetTransformNodeID())
    return node


def _fits(node: slicer.vtkMRMLScalarVolumeNode, image: sitk.Image) -> bool:
    data = node.GetImageData()
    same_type = data is not None and voxels(data).dtype == sitk.GetArrayViewFromImage(image).dtype
    return bool(same_type) and volume_grid(node).same_as(Grid.of(image))


def window_of(volume: slicer.vtkMRMLScalarVolumeNode) -> tuple[float, float]:
    """Window and level under which a volume is shown; its whole range where it has no display."""
    display = volume.GetDisplayNode()
    if display is not None:
        return display.GetWindow(), display.GetLevel()
    low, high = volume.GetImageData().GetScalarRange()
    return max(high - low, 1e-6), (high + low) / 2


def copy_window(source: slicer.vtkMRMLScalarVolumeNode, target: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Show `target` under the window of `source`."""
    window, level = window_of(source)
    display = target.GetDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevel(window, level)
