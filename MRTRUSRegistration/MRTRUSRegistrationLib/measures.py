"""How good a registration is: overlap and surface distance of the glands, error of the landmarks.

Everything is measured on the grid of the TRUS image, in LPS millimetres. Definitions of other groups, which
give other numbers for the same registration, are in `compat_measures`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

from .geometry import Grid, mask_centroid_mm, resample
from .jacobian import displacement_statistics, jacobian_statistics
from .results import LandmarkRow, Landmarks, Measures

Stage = Literal["initial", "rigid", "final"]
# How far from the TRUS image a landmark is still looked for.
SURROUNDINGS_MM = 45.0
_SEARCH_SPACING_MM = 1.0


@dataclass(frozen=True)
class PointMap:
    """One stage of a registration, in both directions.

    `resampling` maps TRUS points to MR points, as ITK resamples; `inverse_points` carries (n, 3) LPS points
    in mm from MR space to TRUS space.
    """

    resampling: sitk.Transform
    inverse_points: Callable[[np.ndarray], np.ndarray]


def dsc(a: sitk.Image, b: sitk.Image) -> float:
    """Dice similarity coefficient of two binary masks on one grid: 2|a∩b| / (|a|+|b|).

    0 if one mask is empty, nan if both are. `ValueError` if the grids differ.
    """
    in_a, in_b = _on_one_grid(a, b)
    total = np.count_nonzero(in_a) + np.count_nonzero(in_b)
    return 2 * np.count_nonzero(in_a & in_b) / total if total else float("nan")


def hd95_mm(a: sitk.Image, b: sitk.Image) -> float:
    """95th percentile of the surface distances of two binary masks, both directions pooled, in mm.

    The surface is the mask's voxels with a face neighbour outside the mask; beyond the volume is outside.
    nan if a mask is empty, `ValueError` if the grids differ.
    """
    distances = _surface_distances_mm(a, b)
    return float(np.percentile(distances, 95)) if distances.size else float("nan")


def mean_surface_distance_mm(a: sitk.Image, b: sitk.Image) -> float:
    """Mean of the surface distances of two binary masks, both directions pooled, in mm; see `hd95_mm`."""
    distances = _surface_distances_mm(a, b)
    return float(distances.mean()) if distances.size else float("nan")


def gland_centroid_mm(a: sitk.Image, b: sitk.Image) -> float:
    """Distance in mm between the centroids of two binary masks; nan if one is empty."""
    if not all(np.any(mask) for mask in _on_one_grid(a, b)):
        return float("nan")
    return float(np.linalg.norm(mask_centroid_mm(a) - mask_centroid_mm(b)))


def pooled_surface_distances(a: np.ndarray, b: np.ndarray, *, spacing: Sequence[float]) -> np.ndarray:
    """Distances from every surface voxel of either boolean array to the other's surface, as one array.

    `a` and `b` have the same shape; `spacing` is in array-axis order and gives the unit. Empty if a mask is.
    """
    if not (a.any() and b.any()):
        return np.empty(0)
    box = find_objects((a | b).astype(np.uint8))[0]
    surface_a, surface_b = (_surface(mask[box]) for mask in (a, b))
    to_b = distance_transform_edt(~surface_b, sampling=spacing)[surface_a]
    to_a = distance_transform_edt(~surface_a, sampling=spacing)[surface_b]
    return np.concatenate([to_b, to_a])


def landmark_rows(
    mr_landmarks: Landmarks,
    trus_landmarks: Landmarks,
    *,
    transform: PointMap,
    initial: PointMap,
    rigid: PointMap | None = None,
    trus_grid: Grid,
) -> tuple[LandmarkRow, ...]:
    """The error of every landmark before and after, as the distance of its centroids in TRUS space.

    Landmarks given as labels are warped linearly onto `trus_grid`, continued for `SURROUNDINGS_MM` where they
    reach its border, and located by the voxels above one half; where none is, by the centroid weighted with
    the warped label; where that is empty too (it was carried farther away) the landmark is lost: it has
    no distance (initial: nan) and `lost` says so. Points are carried from MR to TRUS by the inverse, and are
    never lost.

    The pairs must have the same names in the same order, else `ValueError`. A landmark without a position in
    either original (an empty label) is left out.
    """
    if mr_landmarks.names != trus_landmarks.names:
        raise ValueError("The landmarks of both images must have the same names in the same order.")
    moving, fixed = _with_positions(mr_landmarks, trus_landmarks)
    stages = [
        _warped_positions_mm(moving, stage, trus_grid) if stage else None
        for stage in (initial, rigid, transform)
    ]
    return tuple(
        _row(name, fixed.points_mm[n], [None if stage is None else stage[n] for stage in stages])
        for n, name in enumerate(fixed.names)
    )


def landmark_errors_mm(rows: Sequence[LandmarkRow], *, stage: Stage = "final") -> np.ndarray:
    """The errors of the landmarks that have one after the given stage."""
    errors = [_error_at(row, stage) for row in rows]
    return np.array([error for error in errors if error is not None and np.isfinite(error)])


def tre_rms_mm(rows: Sequence[LandmarkRow], *, stage: Stage = "final") -> float:
    """Target registration error of a case: root mean square over its landmarks, the gland left out.

    No landmark is dropped for being small or far off. A lost one has no distance, so it cannot enter:
    read this figure together with `landmarks_lost`. nan without landmarks.
    """
    errors = landmark_errors_mm(rows, stage=stage)
    return float(np.sqrt(np.mean(errors**2))) if errors.size else float("nan")


def tre_mean_mm(rows: Sequence[LandmarkRow], *, stage: Stage = "final") -> float:
    """Mean error over the landmarks of a case; lost ones as in `tre_rms_mm`, nan without landmarks."""
    errors = landmark_errors_mm(rows, stage=stage)
    return float(errors.mean()) if errors.size else float("nan")


def landmarks_lost(rows: Sequence[LandmarkRow], *, stage: Stage = "final") -> int:
    """How many landmarks were carried so far from the TRUS image that they have no distance."""
    return len(rows) - landmark_errors_mm(rows, stage=stage).size


def registration_measures(
    registered_mask: sitk.Image,
    trus_mask: sitk.Image,
    rows: Sequence[LandmarkRow] = (),
    *,
    deformation: sitk.Transform | None = None,
    stage: Stage = "final",
) -> Measures:
    """All figures of one stage of a registration.

    `registered_mask` (the MR's gland on the TRUS grid) is compared with `trus_mask`; `rows` gives the errors
    after `stage`. With `deformation` (x ↦ x + u(x) in TRUS space, the rigid part left out) its Jacobian and
    its displacements within `trus_mask` are described too. A figure that cannot be computed is absent.
    """
    values = {
        "dsc": dsc(registered_mask, trus_mask),
        "hd95_mm": hd95_mm(registered_mask, trus_mask),
        "msd_mm": mean_surface_distance_mm(registered_mask, trus_mask),
        "gland_centroid_mm": gland_centroid_mm(registered_mask, trus_mask),
        "tre_rms_mm": tre_rms_mm(rows, stage=stage),
        "tre_mean_mm": tre_mean_mm(rows, stage=stage),
        "landmarks": float(len(rows)),
        "landmarks_lost": float(landmarks_lost(rows, stage=stage)),
    }
    if deformation is not None:
        values |= _deformation_values(deformation, trus_mask)
    return Measures({name: value for name, value in values.items() if np.isfinite(value)}, tuple(rows))


def _deformation_values(deformation: sitk.Transform, gland: sitk.Image) -> dict[str, float]:
    jacobian = jacobian_statistics(deformation, gland)
    displacement = displacement_statistics(deformation, gland)
    return {
        "jacobian_min": jacobian.minimum,
        "folds_percent": jacobian.folds_percent,
        "jacobian_log_std": jacobian.log_std,
        "gland_volume_change_percent": jacobian.volume_change_percent,
        "displacement_mean_mm": displacement.mean_mm,
        "displacement_p95_mm": displacement.p95_mm,
        "displacement_max_mm": displacement.max_mm,
    }


def _on_one_grid(a: sitk.Image, b: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    if not Grid.of(a).same_as(Grid.of(b)):
        raise ValueError("The two masks must lie on the same grid.")
    return sitk.GetArrayViewFromImage(a) > 0, sitk.GetArrayViewFromImage(b) > 0


def _surface_distances_mm(a: sitk.Image, b: sitk.Image) -> np.ndarray:
    return pooled_surface_distances(*_on_one_grid(a, b), spacing=a.GetSpacing()[::-1])


def _surface(mask: np.ndarray) -> np.ndarray:
    return mask & ~binary_erosion(mask)


def _with_positions(*sides: Landmarks) -> list[Landmarks]:
    """The landmarks that have a position on every side."""
    points_mm = [np.asarray(side.points_mm, float).reshape(-1, 3) for side in sides]
    kept = np.flatnonzero(np.isfinite(points_mm).all(axis=(0, 2)))
    return [
        Landmarks(
            tuple(side.names[n] for n in kept),
            points[kept],
            tuple(side.labels[n] for n in kept if side.labels),
        )
        for side, points in zip(sides, points_mm, strict=True)
    ]


def _warped_positions_mm(landmarks: Landmarks, stage: PointMap, grid: Grid) -> list[np.ndarray | None]:
    if not landmarks.labels:
        return list(stage.inverse_points(landmarks.points_mm))
    return [_warped_centroid_mm(label, stage.resampling, grid) for label in landmarks.labels]


def _warped_centroid_mm(label: sitk.Image, transform: sitk.Transform, grid: Grid) -> np.ndarray | None:
    soft = sitk.Cast(label > 0, sitk.sitkFloat32)
    weights = sitk.GetArrayFromImage(resample(soft, grid, transform))
    if not weights.any() or _reaches_border(weights):
        grid = _reached(soft, transform, grid) or grid
        weights = sitk.GetArrayFromImage(resample(soft, grid, transform))
    index_kji = centroid_vox(weights)
    if index_kji is None:
        return None
    return (grid.index_to_point @ np.append(index_kji[::-1], 1.0))[:3]


def _reached(soft: sitk.Image, transform: sitk.Transform, grid: Grid) -> Grid | None:
    """The part of the grid's lattice, up to `SURROUNDINGS_MM` beyond the grid, that a warped label reaches.

    It is looked for coarsely first: all surroundings of a fine volume are hundreds of millions of voxels.
    """
    spacing_mm = np.maximum(grid.spacing_mm, _SEARCH_SPACING_MM)
    extent_mm = np.array(grid.size_vox) * np.array(grid.spacing_mm) + 2 * SURROUNDINGS_MM
    size = np.ceil(extent_mm / spacing_mm).astype(int)
    coarse = Grid.centred(grid.centre_mm, tuple(size.tolist()), tuple(spacing_mm.tolist()), grid.direction)
    found = np.argwhere(sitk.GetArrayFromImage(resample(soft, coarse, transform)) > 0)[:, ::-1]
    if len(found) == 0:
        return None
    points = found @ coarse.index_to_point[:3, :3].T + np.array(coarse.origin_mm)
    places = np.linalg.solve(grid.index_to_point[:3, :3], (points - np.array(grid.origin_mm)).T).T
    margin = spacing_mm / np.array(grid.spacing_mm)
    first = np.floor(places.min(axis=0) - margin).astype(int)
    last = np.ceil(places.max(axis=0) + margin).astype(int)
    start = grid.index_to_point @ np.append(first, 1.0)
    return Grid(
        tuple((last - first + 1).tolist()), grid.spacing_mm, tuple(start[:3].tolist()), grid.direction
    )


def _reaches_border(weights: np.ndarray) -> bool:
    return any(np.take(weights, end, axis).any() for axis in range(3) for end in (0, -1))


def centroid_vox(weights: np.ndarray) -> np.ndarray | None:
    """Centroid of a soft label in voxels along the array axes: mean index of the voxels above one half.

    Where no voxel is, the centroid weighted with the label's values; None for an empty label.
    """
    if (weights > 0.5).any():
        return np.argwhere(weights > 0.5).mean(axis=0)
    index = np.argwhere(weights > 0)
    return np.average(index, axis=0, weights=weights[tuple(index.T)]) if len(index) else None


def _row(name: str, fixed_mm: np.ndarray, positions_mm: Sequence[np.ndarray | None]) -> LandmarkRow:
    initial, rigid, final = (
        None if position is None else float(np.linalg.norm(position - fixed_mm)) for position in positions_mm
    )
    warped_mm = positions_mm[-1]
    return LandmarkRow(
        name=name,
        fixed_mm=_triple(fixed_mm),
        warped_mm=None if warped_mm is None else _triple(warped_mm),
        initial_error_mm=float("nan") if initial is None else initial,
        rigid_error_mm=rigid,
        error_mm=final,
        lost=final is None,
    )


def _triple(point: np.ndarray) -> tuple[float, float, float]:
    return float(point[0]), float(point[1]), float(point[2])


def _error_at(row: LandmarkRow, stage: Stage) -> float | None:
    if stage == "initial":
        return row.initial_error_mm
    return row.rigid_error_mm if stage == "rigid" else row.error_mm
