"""Correcting the rigid part by hand: from pairs of landmarks, or by a nudge.

Frame: LPS, millimetres. Transforms map TRUS points to MR points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from .errors import InputError
from .geometry import mask_points_mm
from .results import QualityWarning
from .rigid import as_rigid, nearest_rigid
from .transforms import transform_points_mm

_LEAST_PAIRS = 3
# Points that stay this close to one line (RMS) leave the turn about it to the error of marking them, which
# is up to 3 mm between people.
_LEAST_BREADTH_MM = 2.0
# Where the alignment is expected to be further off in the gland than a single mark is, marking harms. Three
# pairs at the corners of an equilateral triangle around the middle of a ball get there at 58 % of its radius.
_LARGEST_ERROR_RATIO = 1.0


def rigid_from_landmarks(mr_points_mm: np.ndarray, trus_points_mm: np.ndarray) -> sitk.Euler3DTransform:
    """The rotation and translation that bring (n, 3) TRUS points nearest to their (n, 3) MR partners.

    See `nearest_rigid`; row n of both is one structure. Raises `InputError` for fewer than three pairs, for
    points nearly on one line, and for positions that are no numbers.
    """
    mr, trus = _checked_pairs(mr_points_mm, trus_points_mm)
    return nearest_rigid(trus, mr)


def expected_error_ratio(trus_points_mm: np.ndarray, gland_points_mm: np.ndarray) -> float:
    """The error that marking pairs leaves in the gland, over the error of marking one pair.

    Root of the mean square over (m, 3) points of the gland, for pairs at the (n, 3) points: the closer
    together they lie, the more an error of one of them turns the whole gland. From the target registration
    error of rigid point fits (Fitzpatrick, West and Maurer, IEEE TMI 17, 1998): 1/n · (1 + Σ d²/3f²) of the
    marking error squared, d and f being the distances of target and points from the points' principal axes.
    """
    centre = trus_points_mm.mean(axis=0)
    axes = np.linalg.svd(trus_points_mm - centre, full_matrices=True)[2]
    points, gland = (
        np.square((positions - centre) @ axes.T).mean(axis=0)
        for positions in (trus_points_mm, gland_points_mm)
    )
    lever = (gland.sum() - gland) / (points.sum() - points)
    return float(np.sqrt((1 + lever.sum() / 3) / len(trus_points_mm)))


def pair_warnings(trus_points_mm: np.ndarray, trus_gland: sitk.Image) -> tuple[QualityWarning, ...]:
    """A warning where (n, 3) marked points lie so close together that they align the gland badly."""
    ratio = expected_error_ratio(np.asarray(trus_points_mm, float), mask_points_mm(trus_gland))
    if ratio <= _LARGEST_ERROR_RATIO:
        return ()
    message = (
        f"The landmark pairs lie close together, so that errors of marking them grow to {ratio:.1f} times "
        "their size in the gland; mark structures far apart, such as apex, base and one to a side."
    )
    return (QualityWarning("pairs_close_together", message),)


def landmark_residuals_mm(
    transform: sitk.Transform, mr_points_mm: np.ndarray, trus_points_mm: np.ndarray
) -> np.ndarray:
    """(n,) distances in MR space that a transform leaves between pairs of (n, 3) points.

    For the transform fitted to these very pairs they are smaller than the error elsewhere.
    """
    mapped = transform_points_mm(transform, np.asarray(trus_points_mm, float).reshape(-1, 3))
    return np.linalg.norm(mapped - np.asarray(mr_points_mm, float).reshape(-1, 3), axis=1)


def nudge(
    transform: sitk.Transform,
    *,
    centre_mm: Sequence[float] | np.ndarray,
    translation_mm: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
    rotation_deg: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
) -> sitk.Euler3DTransform:
    """A rigid transform after the MR was moved by hand as it is seen over the TRUS.

    The picture of the MR turns about `centre_mm` (the TRUS gland's centre) by `rotation_deg`, a rotation
    vector: its direction is the axis, right-handed, its length the angle. Then it moves by `translation_mm`.
    All are LPS in TRUS space. `InputError` for a transform that is not rigid.
    """
    centre = np.asarray(centre_mm, float)
    moved = sitk.Euler3DTransform()
    moved.SetCenter(centre.tolist())
    moved.SetMatrix(Rotation.from_rotvec(rotation_deg, degrees=True).as_matrix().ravel().tolist(), 1e-6)
    moved.SetTranslation(np.asarray(translation_mm, float).tolist())
    # A picture moves against the transform that resamples it.
    return as_rigid(sitk.CompositeTransform([transform, moved.GetInverse()]), centre)


def _checked_pairs(mr_points_mm: np.ndarray, trus_points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mr, trus = (np.asarray(points, float).reshape(-1, 3) for points in (mr_points_mm, trus_points_mm))
    if len(mr) != len(trus):
        raise InputError(
            f"There are {len(mr)} landmarks on the MR and {len(trus)} on the TRUS: mark the same ones on"
            " both."
        )
    if len(mr) < _LEAST_PAIRS:
        raise InputError(
            f"There are {len(mr)} landmark pairs: mark at least {_LEAST_PAIRS} structures on both images."
        )
    for points, name in ((mr, "MR"), (trus, "TRUS")):
        _check_points(points, name)
    return mr, trus


def _check_points(points_mm: np.ndarray, name: str) -> None:
    if not np.isfinite(points_mm).all():
        raise InputError(f"A landmark on the {name} has no position: place it or remove it.")
    breadth = np.linalg.svd(points_mm - points_mm.mean(axis=0), compute_uv=False)[1] / np.sqrt(len(points_mm))
    if breadth < _LEAST_BREADTH_MM:
        raise InputError(
            f"The landmarks on the {name} lie nearly on one line, which leaves the turn about it open: mark"
            " one more to the side."
        )
