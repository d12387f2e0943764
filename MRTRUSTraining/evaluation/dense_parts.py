"""Which part of the error against a true map is global: what a shift, a turn or a shear would mend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.geometry import mask_points_mm
from MRTRUSRegistrationLib.landmark_correction import rigid_from_landmarks
from MRTRUSRegistrationLib.rigid import rotation_deg
from MRTRUSRegistrationLib.transforms import transform_points_mm

from ..data.cases import LoadedCase


@dataclass(frozen=True)
class DenseParts:
    """Mean error (mm) over the reference TRUS gland that the best map of a kind, fitted to it, would leave.

    `rotation_deg` is the angle of the best rigid one: how far the registration has the gland turned. The best
    map minimises squares, so that its mean distance need not be the smallest.
    """

    after_translation_mm: float = np.nan
    after_rigid_mm: float = np.nan
    after_affine_mm: float = np.nan
    rotation_deg: float = np.nan


def dense_parts(case: LoadedCase, transform: sitk.Transform) -> DenseParts:
    """Parts of the error of a TRUS→MR transform; all nan for a case without a true map."""
    if case.truth is None:
        return DenseParts()
    points = mask_points_mm(case.trus_gland)
    return parts_of(transform_points_mm(transform, points), transform_points_mm(case.truth, points))


def parts_of(reached: np.ndarray, true: np.ndarray) -> DenseParts:
    """As `dense_parts`, of corresponding points (n, 3) in mm, four at least and not in one plane."""
    rigid = rigid_from_landmarks(true, reached)
    moving, fixed = reached - reached.mean(axis=0), true - true.mean(axis=0)
    affine = np.linalg.lstsq(moving, fixed, rcond=None)[0]
    return DenseParts(
        after_translation_mm=_mean_distance(moving, fixed),
        after_rigid_mm=_mean_distance(transform_points_mm(rigid, reached), true),
        after_affine_mm=_mean_distance(moving @ affine, fixed),
        rotation_deg=rotation_deg(rigid),
    )


def _mean_distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.linalg.norm(first - second, axis=1).mean())
