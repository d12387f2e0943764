"""What a transform does to volumes and points: Jacobian determinant, folds, displacements.

Frame: LPS, millimetres. A transform maps TRUS points x to T(x); its Jacobian is dT/dx, taken by differences
of T between neighbouring voxel centres, with the grid's spacing and direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import find_objects

from .geometry import Grid
from .transforms import displacements_mm


@dataclass(frozen=True)
class JacobianStatistics:
    """The Jacobian determinant within the gland.

    `minimum` is the smallest of the central, forward and backward determinants; `folds_percent` the
    percentage of voxels where any of the three is ≤ 0; `log_std` the standard deviation of the logarithm of
    the central determinant, over the voxels where that is positive (nan if none is);
    `volume_change_percent` by how much the gland, carried from MR to TRUS, grows (> 0) or shrinks (< 0).
    """

    minimum: float
    folds_percent: float
    log_std: float
    volume_change_percent: float


@dataclass(frozen=True)
class DisplacementStatistics:
    """Lengths of the displacements T(x) − x within the gland."""

    mean_mm: float
    p95_mm: float
    max_mm: float


def jacobian_determinant(transform: sitk.Transform, grid: Grid) -> sitk.Image:
    """det dT/dx at the voxel centres of `grid`, by central differences, as a 64-bit float image."""
    return grid.image(_determinants(transform, grid)["central"])


def jacobian_statistics(transform: sitk.Transform, gland: sitk.Image) -> JacobianStatistics:
    """Describe the Jacobian determinant of `transform` within a binary mask; all nan for an empty mask.

    Central differences alone do not see a displacement that alternates from voxel to voxel, so a voxel
    counts as folded if the determinant is ≤ 0 by central, by forward or by backward differences.

    T carries the gland of TRUS space to a region of MR space whose volume is the integral of det dT/dx:
    the volume change MR → TRUS is the ratio of the gland's volume to that integral, less one.
    """
    grid, inside = _region(gland)
    if not inside.any():
        return JacobianStatistics(*[float("nan")] * 4)
    determinants = {name: values[inside] for name, values in _determinants(transform, grid).items()}
    lowest = np.minimum.reduce(list(determinants.values()))
    central = determinants["central"]
    positive = central[central > 0]
    mean = float(central.mean())
    return JacobianStatistics(
        minimum=float(lowest.min()),
        folds_percent=float(100 * np.mean(lowest <= 0)),
        log_std=float(np.log(positive).std()) if positive.size else float("nan"),
        volume_change_percent=100 * (1 / mean - 1) if mean > 0 else float("nan"),
    )


def forward_jacobian_std(transform: sitk.Transform, gland: sitk.Image) -> float:
    """Standard deviation of det dT/dx by forward differences within a binary mask; nan for an empty one."""
    grid, inside = _region(gland)
    if not inside.any():
        return float("nan")
    return float(_determinants(transform, grid)["forward"][inside].std())


def displacement_statistics(transform: sitk.Transform, gland: sitk.Image) -> DisplacementStatistics:
    """Describe the lengths of T(x) − x at the voxel centres of a binary mask; all nan for an empty mask."""
    grid, inside = _region(gland)
    if not inside.any():
        return DisplacementStatistics(*[float("nan")] * 3)
    length_mm = np.linalg.norm(displacements_mm(transform, grid)[inside], axis=-1)
    return DisplacementStatistics(
        float(length_mm.mean()), float(np.percentile(length_mm, 95)), float(length_mm.max())
    )


def _region(gland: sitk.Image) -> tuple[Grid, np.ndarray]:
    """The part of the mask's grid around its voxels, and the mask there: (k, j, i) booleans."""
    inside = sitk.GetArrayViewFromImage(gland) > 0
    if not inside.any():
        return Grid.of(gland), inside
    box = find_objects(inside.astype(np.uint8))[0]
    start, stop = ([int(getattr(part, end)) for part in box[::-1]] for end in ("start", "stop"))
    region = gland[start[0] : stop[0], start[1] : stop[1], start[2] : stop[2]]
    return Grid.of(region), inside[box]


def _determinants(transform: sitk.Transform, grid: Grid) -> dict[str, np.ndarray]:
    """(k, j, i) arrays of det dT/dx by central, forward and backward differences."""
    field_mm = displacements_mm(transform, grid.padded(1))
    steps = [np.diff(field_mm, axis=axis) for axis in (2, 1, 0)]  # along i, j, k
    forward = np.stack(
        [_trimmed(step, axis, 1) for step, axis in zip(steps, (2, 1, 0), strict=True)], axis=-1
    )
    backward = np.stack(
        [_trimmed(step, axis, 0) for step, axis in zip(steps, (2, 1, 0), strict=True)], axis=-1
    )
    differences = {"central": (forward + backward) / 2, "forward": forward, "backward": backward}
    # du/dx = du/dindex · dindex/dx, with the step of one voxel along each index axis.
    index_per_mm = np.linalg.inv(grid.index_to_point[:3, :3])
    return {name: np.linalg.det(np.eye(3) + step @ index_per_mm) for name, step in differences.items()}


def _trimmed(step: np.ndarray, axis: int, first: int) -> np.ndarray:
    """Differences of the padded field, cut to the voxels of the unpadded grid."""
    cut = [slice(1, -1)] * 3
    cut[axis] = slice(first, step.shape[axis] - 1 + first)
    return step[tuple(cut)]
