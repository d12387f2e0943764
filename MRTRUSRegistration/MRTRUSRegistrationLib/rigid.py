"""Initial and rigid alignment of MR to TRUS from the two gland masks (paper A, section 2.1, step 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from .ants_masks import AntsMetric, MaskPair, mask_pair, run_ants
from .errors import InputError
from .geometry import mask_centroid_mm, resample
from .results import QualityWarning, RigidAlignment


@dataclass(frozen=True)
class RigidSettings:
    """How ANTs aligns the masks.

    `metric`: mean squares is the paper's, Mattes its official code's. A rotation beyond `max_rotation_deg` is
    cut back to it, because near-symmetric glands can spin. Both defaults are those with the least landmark
    error on the training pairs (`python -m MRTRUSTraining.evaluation.rigid_choice`).
    """

    metric: AntsMetric = "meansquares"
    max_rotation_deg: float = 10.0
    spacing_mm: float = 1.5
    sampling_rate: float = 0.25
    iterations: tuple[int, ...] = (500, 300, 100)
    shrink_factors: tuple[int, ...] = (4, 2, 1)
    smoothing_vox: tuple[float, ...] = (2, 1, 0)
    unsupported_rotation_deg: float = 4.0
    unsupported_gain: float = 0.005


def gland_initial(mr_gland: sitk.Image, trus_gland: sitk.Image) -> sitk.Transform:
    """The translation that brings the TRUS gland's centroid to the MR gland's."""
    shift = mask_centroid_mm(mr_gland) - mask_centroid_mm(trus_gland)
    return sitk.TranslationTransform(3, shift.tolist())


def as_rigid(transform: sitk.Transform, centre_mm: np.ndarray) -> sitk.Euler3DTransform:
    """Any rigid transform as an Euler transform about `centre_mm`; `InputError` when it is not rigid."""
    matrix, offset = linear_parts(transform)
    if not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-3) or np.linalg.det(matrix) < 0:
        raise InputError(
            "The initial transform is not rigid (it scales, shears or mirrors); give a rigid one."
        )
    # Re-orthonormalised, so that single-precision files pass.
    u, _, v = np.linalg.svd(matrix)
    euler = sitk.Euler3DTransform()
    euler.SetCenter(np.asarray(centre_mm, float).tolist())
    euler.SetMatrix((u @ v).ravel().tolist(), 1e-6)
    euler.SetTranslation((matrix @ centre_mm + offset - centre_mm).tolist())
    return euler


def linear_parts(transform: sitk.Transform) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) matrix A and (3,) offset b of a linear transform x ↦ A x + b."""
    offset = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(axis)) - offset for axis in np.eye(3).tolist()]
    return np.stack(columns, axis=1), offset


def rotation_deg(transform: sitk.Transform) -> float:
    """Angle of the rotation in a rigid transform."""
    return float(np.degrees(Rotation.from_matrix(linear_parts(transform)[0]).magnitude()))


def turn_deg(start: sitk.Transform, end: sitk.Transform) -> float:
    """Angle of the rotation that leads from one rigid transform to another."""
    before, after = (linear_parts(transform)[0] for transform in (start, end))
    return float(np.degrees(Rotation.from_matrix(before.T @ after).magnitude()))


def nearest_rigid(points_mm: np.ndarray, targets_mm: np.ndarray) -> sitk.Euler3DTransform:
    """The rigid transform that takes (n, 3) points nearest to their targets.

    Least squares by singular values (Kabsch 1976), never a reflection (Umeyama 1991).
    """
    centre, goal = points_mm.mean(axis=0), targets_mm.mean(axis=0)
    turn, _ = Rotation.align_vectors(targets_mm - goal, points_mm - centre)
    found = sitk.Euler3DTransform()
    found.SetCenter(centre.tolist())
    found.SetMatrix(turn.as_matrix().ravel().tolist(), 1e-6)
    found.SetTranslation((goal - centre).tolist())
    return found


def align_centroids(mr_gland: sitk.Image, trus_gland: sitk.Image, initial: sitk.Transform) -> RigidAlignment:
    """The initial rotation, and the translation that makes the glands' centroids coincide."""
    centre = mask_centroid_mm(trus_gland)
    start = as_rigid(initial, centre)
    start.SetTranslation((mask_centroid_mm(mr_gland) - centre).tolist())
    return RigidAlignment(start, "centroid", 0.0)


def align_rigid(
    mr_gland: sitk.Image,
    trus_gland: sitk.Image,
    initial: sitk.Transform,
    *,
    settings: RigidSettings | None = None,
    seed: int = 0,
) -> RigidAlignment:
    """ANTs' rigid registration of the masks from `initial`, MR moving; deterministic for a seed."""
    settings = settings or RigidSettings()
    pair = mask_pair(mr_gland, trus_gland, initial, spacing_mm=settings.spacing_mm)
    centre = mask_centroid_mm(trus_gland)
    found = as_rigid(sitk.CompositeTransform(_ants_rigid(pair, settings, seed)), centre)
    correction, warnings = _limited(found, pair, settings)
    total = as_rigid(sitk.CompositeTransform([initial, correction]), centre)
    return RigidAlignment(total, f"ants-{settings.metric}", rotation_deg(correction), warnings)


def _ants_rigid(pair: MaskPair, settings: RigidSettings, seed: int) -> list[sitk.Transform]:
    return run_ants(
        pair,
        kind="Rigid",
        seed=seed,
        aff_metric=settings.metric,
        aff_random_sampling_rate=settings.sampling_rate,
        aff_iterations=settings.iterations,
        aff_shrink_factors=settings.shrink_factors,
        aff_smoothing_sigmas=settings.smoothing_vox,
    )


def _limited(
    found: sitk.Euler3DTransform, pair: MaskPair, settings: RigidSettings
) -> tuple[sitk.Euler3DTransform, tuple[QualityWarning, ...]]:
    """Cut the rotation back to its limit, and say when the gland's shape does not support it."""
    angle = rotation_deg(found)
    if angle > settings.max_rotation_deg:
        limited = scaled_rotation(found, settings.max_rotation_deg / angle)
        message = (
            f"The masks alone asked for a rotation of {angle:.0f}°; it was limited to "
            f"{settings.max_rotation_deg:.0f}°, compare with the centroid method."
        )
        return limited, (QualityWarning("rotation_limited", message),)
    gain = _overlap(pair, found) - _overlap(pair, scaled_rotation(found, 0.0))
    if angle > settings.unsupported_rotation_deg and gain < settings.unsupported_gain:
        message = (
            f"A rotation of {angle:.0f}° raises the overlap of the glands by only {max(gain, 0):.3f}: the "
            "gland's shape does not determine it, compare with the centroid method."
        )
        return found, (QualityWarning("rotation_unsupported", message),)
    return found, ()


def scaled_rotation(rigid: sitk.Euler3DTransform, factor: float) -> sitk.Euler3DTransform:
    """The same translation of the centre with the rotation angle scaled by `factor`."""
    vector = Rotation.from_matrix(np.reshape(rigid.GetMatrix(), (3, 3))).as_rotvec()
    scaled = sitk.Euler3DTransform(rigid)
    scaled.SetMatrix(Rotation.from_rotvec(vector * factor).as_matrix().ravel().tolist(), 1e-6)
    return scaled


def _overlap(pair: MaskPair, transform: sitk.Transform) -> float:
    """Soft Dice of the two masks with the moving one resampled by `transform`."""
    moved = sitk.GetArrayFromImage(resample(pair.moving, pair.grid, transform))
    fixed = sitk.GetArrayViewFromImage(pair.fixed)
    return float(2 * np.minimum(moved, fixed).sum() / (moved.sum() + fixed.sum()))
