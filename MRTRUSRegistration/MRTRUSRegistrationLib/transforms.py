"""Displacement fields, their composition with a rigid transform, and the way back for points.

Everything is LPS and millimetres; a resampling transform maps TRUS points to MR points.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import RegistrationError
from .geometry import Grid

_INVERSE_TOLERANCE_MM = 1e-4
_INVERSE_ITERATIONS = 50
_STEP_HALVINGS = 8
_DIFFERENCE_MM = 1e-3


def displacement_mm(displacement_vox: np.ndarray, grid: Grid) -> np.ndarray:
    """From a network's field to ITK's: (3, k, j, i) in voxels along the array axes to (k, j, i, 3) LPS mm."""
    index_order = np.moveaxis(displacement_vox[::-1], 0, -1).astype(np.float64)
    return index_order @ grid.index_to_point[:3, :3].T


def displacement_vox(field_mm: np.ndarray, grid: Grid) -> np.ndarray:
    """The inverse of `displacement_mm`: (k, j, i, 3) LPS mm to (3, k, j, i) voxels along the array axes."""
    index_order = field_mm @ np.linalg.inv(grid.index_to_point[:3, :3]).T
    return np.moveaxis(index_order, -1, 0)[::-1].astype(np.float32)


def displacements_mm(transform: sitk.Transform, grid: Grid) -> np.ndarray:
    """(k, j, i, 3) float64: how far a transform takes each voxel of a grid, in LPS mm."""
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, grid.size_vox, grid.origin_mm, grid.spacing_mm, grid.direction
    )
    return sitk.GetArrayFromImage(field)


def edge_fade(shape_kji: tuple[int, ...], margin_vox: int) -> np.ndarray:
    """(k, j, i) weights: 1 inside, falling smoothly to 0 over the outermost `margin_vox` voxels."""
    weights = np.ones(shape_kji)
    for axis, n in enumerate(shape_kji):
        from_edge = np.minimum(np.arange(n), np.arange(n)[::-1])
        ramp = np.clip(from_edge / margin_vox, 0, 1)
        smooth = ramp * ramp * (3 - 2 * ramp)
        weights *= smooth.reshape([-1 if a == axis else 1 for a in range(3)])
    return weights


def field_transform(field_mm: np.ndarray, grid: Grid, *, rim_vox: int = 2) -> sitk.DisplacementFieldTransform:
    """A transform from displacements (k, j, i, 3) in LPS mm; the grid is grown by a rim of zeros.

    Slicer continues a grid with its edge value, ITK with zero: the rim makes both agree.
    """
    widths = [(rim_vox, rim_vox)] * 3 + [(0, 0)]
    image = grid.padded(rim_vox).image(np.pad(field_mm, widths).astype(np.float64), vector=True)
    return sitk.DisplacementFieldTransform(image)


def field_image(transform: sitk.DisplacementFieldTransform) -> sitk.Image:
    """The displacement field of a transform, as a vector image that the caller may change."""
    return sitk.Image(transform.GetDisplacementField())


def compose(
    rigid: sitk.Transform, deformation: sitk.DisplacementFieldTransform | None
) -> sitk.CompositeTransform:
    """x ↦ rigid(x + u(x)): ITK applies the last transform of a composite first."""
    composite = sitk.CompositeTransform(3)
    composite.AddTransform(rigid)
    if deformation is not None:
        composite.AddTransform(deformation)
    return composite


def transform_points_mm(transform: sitk.Transform, points_mm: np.ndarray) -> np.ndarray:
    """Map (n, 3) LPS points from TRUS space to MR space."""
    mapped = [transform.TransformPoint(point) for point in np.asarray(points_mm, float).tolist()]
    return np.array(mapped).reshape(-1, 3)


def inverse_points_mm(
    rigid: sitk.Transform, deformation: sitk.DisplacementFieldTransform | None, points_mm: np.ndarray
) -> np.ndarray:
    """Carry (n, 3) LPS points from MR space to TRUS space: the inverse of `compose(rigid, deformation)`.

    The field is inverted by Newton's method, which also converges where the field turns or stretches too much
    for fixed-point iteration; `RegistrationError` where no point is found to 1e-4 mm, which only a folded
    field causes.
    """
    undone = transform_points_mm(rigid.GetInverse(), points_mm)
    if deformation is None or len(undone) == 0:
        return undone
    found = undone.copy()
    for _ in range(_INVERSE_ITERATIONS):
        error = _gap(deformation, found, undone)
        if np.abs(error).max() < _INVERSE_TOLERANCE_MM:
            return found
        found = _newton_step(deformation, found, error, undone)
    raise RegistrationError("The deformation cannot be inverted at a landmark, because it folds there.")


def _newton_step(
    deformation: sitk.Transform, points_mm: np.ndarray, error_mm: np.ndarray, target_mm: np.ndarray
) -> np.ndarray:
    """A Newton step for every point, halved until it brings that point's image nearer to its target."""
    inverse = np.linalg.pinv(_jacobians(deformation, points_mm))
    step = (inverse @ error_mm[..., None])[..., 0]
    least = np.linalg.norm(error_mm, axis=1)
    for _ in range(_STEP_HALVINGS):
        worse = np.linalg.norm(_gap(deformation, points_mm - step, target_mm), axis=1) >= least
        if not worse.any():
            break
        step[worse] /= 2
    return points_mm - step


def _jacobians(transform: sitk.Transform, points_mm: np.ndarray) -> np.ndarray:
    """(n, 3, 3) derivatives of a transform at (n, 3) points, by central differences."""
    columns = [
        transform_points_mm(transform, points_mm + offset)
        - transform_points_mm(transform, points_mm - offset)
        for offset in np.eye(3) * _DIFFERENCE_MM
    ]
    return np.stack(columns, axis=-1) / (2 * _DIFFERENCE_MM)


def _gap(deformation: sitk.Transform, points_mm: np.ndarray, target_mm: np.ndarray) -> np.ndarray:
    return transform_points_mm(deformation, points_mm) - target_mm
