"""The deformation made visible: length, volume change and confidence as overlays, arrows and a grid.

Arrows and grid in 3-D are models clipped to the gland; in slices Slicer's own display of the transform draws
them in the plane.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
from scipy.ndimage import binary_dilation, find_objects

from ..errors import InputError
from ..geometry import Grid, resample
from ..jacobian import jacobian_determinant
from ..transforms import displacements_mm, transform_points_mm
from .case_nodes import CaseNodes
from .colors import CONFIDENCE, DISPLACEMENT, JACOBIAN, ColorScale, color_node, show_colors
from .comparison import show_volume
from .frames import points_ras
from .hierarchy import put_beside
from .models import arrows, polylines, show_model
from .readers import check_volume, gland_mask_of, resampling_transform, volume_grid
from .stages import transformed

Overlay = Literal["none", "displacement", "jacobian", "confidence"]
OVERLAYS: tuple[Overlay, ...] = get_args(Overlay)
SCALES: dict[str, ColorScale] = {
    "displacement": DISPLACEMENT,
    "jacobian": JACOBIAN,
    "confidence": CONFIDENCE,
}
# What voxels outside of the gland hold: far below any length and any determinant.
OUTSIDE = -100.0
_LOWEST_SHOWN = OUTSIDE / 2
_MARGIN_MM = 5.0
_ARROW_SPACING_MM = 5.0
_GRID_SPACING_MM = 6.0
_LINE_STEP_MM = 1.5


def overlays_of(case: CaseNodes) -> tuple[Overlay, ...]:
    """The overlays that the case has now."""
    found: list[Overlay] = ["none"]
    if case.deformation is not None and case.trus is not None:
        found += ["displacement", "jacobian"]
    if case.confidence is not None:
        found.append("confidence")
    return tuple(found)


def overlay_volume(case: CaseNodes, overlay: Overlay) -> slicer.vtkMRMLScalarVolumeNode | None:
    """The volume of an overlay with its colours; made when it is first asked for, `None` for "none".

    Displacement and Jacobian describe the deformable part alone, on the TRUS grid and inside the TRUS gland.
    `InputError` where the case has no such overlay.
    """
    if overlay == "none":
        return None
    if overlay not in overlays_of(case):
        raise InputError(f"{case.name} has no {overlay} to show: register again with a deformable method.")
    node = case.confidence if overlay == "confidence" else case.get(overlay)
    if node is None:
        node = show_volume(case, overlay, _deformation_image(case, overlay), SCALES[overlay].title)
        put_beside(node, case.rigid or case.measures)
    # Confidence is 0 outside of the gland, where it was not estimated.
    show_colors(node, SCALES[overlay], lowest_shown=1e-6 if overlay == "confidence" else _LOWEST_SHOWN)
    return node


def _deformation_image(case: CaseNodes, overlay: Overlay) -> sitk.Image:
    """float32 on the TRUS grid: the values within the gland, `OUTSIDE` elsewhere."""
    grid = volume_grid(case.trus)
    gland, deformation = _gland(case, grid), resampling_transform(case.deformation)
    values = np.full(gland.shape, OUTSIDE, np.float32)
    box = find_objects(gland.astype(np.uint8))[0]
    part = _part(grid, box)
    if overlay == "displacement":
        inside = np.linalg.norm(displacements_mm(deformation, part), axis=-1)
    else:
        inside = sitk.GetArrayFromImage(jacobian_determinant(deformation, part))
    values[box] = np.where(gland[box], inside, OUTSIDE)
    return grid.image(values)


def _part(grid: Grid, box_kji: tuple[slice, ...]) -> Grid:
    """The part of a grid inside a box of array slices."""
    start = np.array([part.start for part in box_kji[::-1]] + [1.0])
    size = tuple(part.stop - part.start for part in box_kji[::-1])
    origin = tuple((grid.index_to_point @ start)[:3].tolist())
    return Grid(size, grid.spacing_mm, origin, grid.direction)


def _gland(case: CaseNodes, grid: Grid) -> np.ndarray:
    """(k, j, i) booleans of the TRUS gland; everything where it was deleted."""
    if case.trus_gland is None:
        return np.ones(grid.size_vox[::-1], bool)
    return sitk.GetArrayFromImage(gland_mask_of(case.trus_gland, grid, "TRUS")) > 0


def show_arrows(case: CaseNodes, *, spacing_mm: float = _ARROW_SPACING_MM) -> slicer.vtkMRMLModelNode:
    """Arrows in the gland from where the rigid alignment put the tissue to where the deformation moves it.

    They are coloured by their length, which is true to scale.
    """
    _require_deformation(case)
    grid = volume_grid(case.trus)
    heads = _lattice(case, grid, spacing_mm)
    deformation = resampling_transform(case.deformation)
    tails = transform_points_mm(deformation, heads)
    shapes = arrows(points_ras(tails), points_ras(heads))
    node = show_model(case, "arrows", shapes, "Displacement arrows")
    _color_by_length(node)
    node.GetDisplayNode().SetVisibility2D(False)
    return node


def show_warped_grid(case: CaseNodes, *, spacing_mm: float = _GRID_SPACING_MM) -> slicer.vtkMRMLModelNode:
    """A regular grid of lines on the rigidly aligned MR, as the deformation bends it, within the gland."""
    _require_deformation(case)
    lines = _grid_lines(case, volume_grid(case.trus), spacing_mm)
    to_trus = case.deformation.GetTransformToParent()
    points = transformed(to_trus, points_ras(np.concatenate(lines))) if lines else np.zeros((0, 3))
    bent = np.split(points, np.cumsum([len(line) for line in lines])[:-1]) if lines else []
    node = show_model(case, "warpedGrid", polylines(bent), "Deformed grid", color=(0.9, 0.9, 0.9))
    node.GetDisplayNode().SetVisibility2D(False)
    return node


def show_in_slices(case: CaseNodes, style: Literal["none", "arrows", "grid"]) -> None:
    """Let Slicer draw the deformation in its slice views: arrows or a bent grid, or neither."""
    if case.deformation is None:
        return
    display = case.deformation.GetDisplayNode()
    if style == "none":
        if display is not None:
            display.SetVisibility(False)
        return
    if display is None:
        case.deformation.CreateDefaultDisplayNodes()
        display = case.deformation.GetDisplayNode()
    display.SetAndObserveRegionNode(case.trus)
    display.SetVisualizationMode(display.VIS_MODE_GLYPH if style == "arrows" else display.VIS_MODE_GRID)
    display.SetGlyphSpacingMm(_ARROW_SPACING_MM)
    display.SetGridSpacingMm(_GRID_SPACING_MM)
    display.SetGridLineDiameterMm(0.5)
    display.SetVisibility(True)
    display.SetVisibility2D(True)
    # In 3-D it fills the whole volume; there the models show the gland alone.
    display.SetVisibility3D(False)


def _require_deformation(case: CaseNodes) -> None:
    check_volume(case.trus, "TRUS")
    if case.deformation is None:
        raise InputError(f"{case.name} has no deformation to show: register again with a deformable method.")


def _color_by_length(node: slicer.vtkMRMLModelNode) -> None:
    display = node.GetDisplayNode()
    display.SetActiveScalarName("length_mm")
    display.SetAndObserveColorNodeID(color_node(node.GetScene(), DISPLACEMENT).GetID())
    display.SetScalarRangeFlag(display.UseManualScalarRange)
    display.SetScalarRange(DISPLACEMENT.low, DISPLACEMENT.high)
    display.SetScalarVisibility(True)


def _lattice(case: CaseNodes, grid: Grid, spacing_mm: float) -> np.ndarray:
    """(n, 3) LPS points in the gland, `spacing_mm` apart along the axes of the TRUS volume."""
    return _points_at(np.argwhere(_at_spacing(case, grid, spacing_mm)), grid, spacing_mm)


def _at_spacing(case: CaseNodes, grid: Grid, spacing_mm: float, *, margin_mm: float = 0.0) -> np.ndarray:
    """(k, j, i) booleans of the gland, with a margin, on a grid of that spacing."""
    coarse = grid.with_spacing((spacing_mm,) * 3)
    gland = grid.image(_gland(case, grid).astype(np.uint8))
    inside = sitk.GetArrayFromImage(resample(gland, coarse, nearest=True)) > 0
    steps = int(np.ceil(margin_mm / spacing_mm))
    return binary_dilation(inside, iterations=steps) if steps else inside


def _points_at(index_kji: np.ndarray, grid: Grid, spacing_mm: float) -> np.ndarray:
    coarse = grid.with_spacing((spacing_mm,) * 3)
    return index_kji[:, ::-1] @ coarse.index_to_point[:3, :3].T + np.array(coarse.origin_mm)


def _grid_lines(case: CaseNodes, grid: Grid, spacing_mm: float) -> list[np.ndarray]:
    """Straight lines along the three axes of the TRUS volume through the gland; each (n, 3) LPS points."""
    inside = _at_spacing(case, grid, spacing_mm, margin_mm=_MARGIN_MM)
    substeps = max(round(spacing_mm / _LINE_STEP_MM), 1)
    lines = []
    for axis in range(3):
        for run in _runs(inside, axis):
            fine = np.linspace(run[0], run[1], substeps * int(np.ptp(run, axis=0).max()) + 1)
            lines.append(_points_at(fine, grid, spacing_mm))
    return lines


def _runs(inside: np.ndarray, axis: int) -> list[np.ndarray]:
    """First and last index (2, 3) of every row along `axis` that passes through at least two voxels."""
    rows = np.moveaxis(inside, axis, -1)
    found = []
    for others in np.argwhere(rows.sum(axis=-1) > 1):
        along = np.flatnonzero(rows[tuple(others)])
        ends = np.insert(np.repeat(others[None], 2, axis=0), axis, along[[0, -1]], axis=1)
        found.append(ends.astype(float))
    return found
