"""Measures as other groups compute them, each under its own name.

They exist to read published figures, not to judge a registration: several rest on defects that are kept
on purpose and described where they occur. Numbers of different definitions cannot be compared.

- `srm`: the published code of Feng, Ni and Wang, "Salient region matching for fully automated MR-TRUS
  registration" (TRUS fixed).
- `mureg_code`: the scorer in the baseline repository of the µ-RegPro challenge (MR fixed).
- `mureg_site`: the same challenge's web page, which defines most figures otherwise (MR fixed).

The caller chooses the direction: arrays are labels on the fixed image's grid, the warped ones as they come
out of the warp. All lengths are voxels of that grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, zoom

from .measures import centroid_vox, pooled_surface_distances

_SRM_LABELS = range(1, 7)
# 50 voxels of the 0.8 mm grid that the code works on.
_SRM_SMALLEST_MM3 = 50 * 0.8**3
_ROBUST_SHARE = 0.68
_SITE_TARGETS = 3


def collapsed_label_map(channels: Sequence[np.ndarray]) -> np.ndarray:
    """One integer map from binary channels of one shape: the gland is 1, the landmarks 2, 3, ….

    A landmark overwrites the gland and the landmarks before it, so 1 is the gland without its landmarks.
    """
    labels = np.zeros(np.shape(channels[0]), np.uint8)
    for value, channel in enumerate(channels, start=1):
        labels[np.asarray(channel) > 0.5] = value
    return labels


def tre_srm_compat(fixed: np.ndarray, warped: np.ndarray, *, voxel_volume_mm3: float) -> float:
    """Mean centroid distance in voxels over the labels 1 to 6 of two collapsed label maps (k, j, i).

    `warped` comes from a nearest-neighbour warp. Label 1, the gland without its landmarks, counts as a
    landmark; a label below 25.6 mm³ in either map is dropped without a word. nan if none is left.
    """
    distances = [
        np.linalg.norm(np.argwhere(fixed == label).mean(axis=0) - np.argwhere(warped == label).mean(axis=0))
        for label in _SRM_LABELS
        if all(_srm_large_enough(labels == label, voxel_volume_mm3) for labels in (fixed, warped))
    ]
    return float(np.mean(distances)) if distances else float("nan")


def dsc_srm_compat(fixed: np.ndarray, warped: np.ndarray) -> float:
    """Dice coefficient of label 1, the gland without its landmarks, of two collapsed label maps (k, j, i)."""
    return _dice(fixed == 1, warped == 1)


@dataclass(frozen=True)
class MuregCase:
    """The ingredients of the challenge's figures for one case; lengths in voxels of the fixed grid.

    `label_errors_vox` has one entry a label that counts: all of them with the gland first (code), or the
    landmarks alone (site).
    """

    dsc: float
    hd95_vox: float
    label_errors_vox: tuple[float, ...]
    tre_vox: float
    rts_vox: float


@dataclass(frozen=True)
class MuregCohort:
    """The challenge's figures over the cases of a cohort; lengths in voxels, not normalised."""

    dsc: float
    rdsc: float
    tre_vox: float
    rtre_vox: float
    rts_vox: float
    hd95_vox: float


def mureg_code_case(fixed: np.ndarray, warped: np.ndarray) -> MuregCase:
    """The scorer's ingredients from labels (label, k, j, i), gland first; `warped` linear, not thresholded.

    DSC is soft. The error of a label is the mean, not the length, of the centroids' difference along the
    three axes, between centroids cut to whole voxels; the gland counts as a landmark; a label empty on one
    side is taken to lie at index 0, one empty on both has the error 0. HD95 is the mean over all labels, see
    `mureg_code_hd95_vox`.
    """
    errors = tuple(_code_error_vox(f, w) for f, w in zip(fixed, warped, strict=True))
    hd95_vox = [mureg_code_hd95_vox(f, w) for f, w in zip(fixed, warped, strict=True)]
    return MuregCase(
        dsc=_dice(fixed[0], warped[0]),
        hd95_vox=float(np.mean(hd95_vox)),
        label_errors_vox=errors,
        tre_vox=_rms(errors),
        rts_vox=_rms(_best(errors, highest=False)),
    )


def mureg_code_hd95_vox(fixed: np.ndarray, warped: np.ndarray) -> float:
    """The scorer's HD95 of one label (k, j, i): between whole masks, not surfaces; 0 if either is empty.

    The scorer means to erode a mask and keep its rim, but erodes an array with two axes of length one
    (case and channel), which leaves nothing: the "rim" is the whole mask, so that every voxel of the overlap
    counts with the distance 0. A soft label counts wherever it is above 0.
    """
    in_fixed, in_warped = fixed.astype(bool), warped.astype(bool)
    if not (in_fixed.any() and in_warped.any()):
        return 0.0
    # Distances between the two masks need no voxel outside the box of both.
    box = find_objects((in_fixed | in_warped).astype(np.uint8))[0]
    in_fixed, in_warped = in_fixed[box], in_warped[box]
    to_fixed = distance_transform_edt(~in_fixed)[in_warped]
    to_warped = distance_transform_edt(~in_warped)[in_fixed]
    return float(np.percentile(np.concatenate([to_fixed, to_warped]), 95))


def mureg_code_unregistered(fixed: np.ndarray, moving: np.ndarray) -> MuregCase:
    """What the scorer divides by, from labels (label, k, j, i) on the grids of their own images.

    Centroids are compared by index, whatever the sizes of the two grids; for overlap and HD95 the moving
    labels are stretched to the shape of the fixed ones.
    """
    factors = np.divide(fixed.shape[1:], moving.shape[1:])
    stretched = np.stack(
        [zoom(m.astype(float), factors, order=1, grid_mode=True, mode="nearest") for m in moving]
    )
    errors = tuple(_code_error_vox(f, m) for f, m in zip(fixed, moving, strict=True))
    return replace(
        mureg_code_case(fixed, stretched),
        label_errors_vox=errors,
        tre_vox=_rms(errors),
        rts_vox=_rms(_best(errors, highest=False)),
    )


def mureg_code_cohort(cases: Sequence[MuregCase]) -> MuregCohort:
    """The scorer's figures: a label whose error is 0 in every case is taken for absent and left out first.

    The scorer finds the same channels in every case, so those that a case lacks count as empty on both sides.
    """
    channels = max(len(case.label_errors_vox) for case in cases)
    filled = [_with_channels(case, channels) for case in cases]
    errors = np.array([case.label_errors_vox for case in filled])
    errors = errors[:, (errors != 0).any(axis=0)]
    return _cohort(
        [
            replace(case, tre_vox=_rms(row), rts_vox=_rms(_best(row, highest=False)))
            for case, row in zip(filled, errors, strict=True)
        ]
    )


def mureg_site_case(fixed: np.ndarray, warped: np.ndarray) -> MuregCase:
    """The ingredients as the web page words them, from labels (label, k, j, i), gland first.

    DSC and HD95 of the gland above one half, the latter between surfaces. The error of a landmark is the L1
    length of its centroids' difference; TRE is the RMS over the landmarks, RTs over the three lowest. The
    page does not say what becomes of an empty label: empty in the fixed image, it is not evaluated (TRE and
    RTs are nan if that leaves none); lost by the warp, its soft centroid counts, and where that is missing
    too its error is infinite, which the score clips. The same holds for a gland lost by the warp.
    """
    in_fixed, in_warped = fixed[0] > 0.5, warped[0] > 0.5
    distances = pooled_surface_distances(in_fixed, in_warped, spacing=(1.0, 1.0, 1.0))
    errors = tuple(
        _site_error_vox(f, w) for f, w in zip(fixed[1:], warped[1:], strict=True) if (f > 0.5).any()
    )
    return MuregCase(
        dsc=_dice(in_fixed, in_warped),
        hd95_vox=float(np.percentile(distances, 95)) if distances.size else float("inf"),
        label_errors_vox=errors,
        tre_vox=_rms(errors),
        rts_vox=_rms(np.sort(errors)[:_SITE_TARGETS]),
    )


def mureg_site_cohort(cases: Sequence[MuregCase]) -> MuregCohort:
    """The figures of the web page: means over the cases, the robust ones over the best 68 %.

    A case without landmarks has no part in the landmark figures.
    """
    return _cohort(cases)


def mureg_site_normaliser(unregistered: Sequence[MuregCase]) -> MuregCohort:
    """What the web page divides by: unregistered HD95, and the largest unregistered error of one landmark.

    The page says so for TRE; RTRE and RTs, for which it says nothing, are divided by the same. nan where no
    case has a landmark.
    """
    errors = np.concatenate([case.label_errors_vox for case in unregistered])
    finite = errors[np.isfinite(errors)]
    largest_vox = float(finite.max()) if finite.size else float("nan")
    cohort = _cohort(unregistered)
    return replace(cohort, tre_vox=largest_vox, rtre_vox=largest_vox, rts_vox=largest_vox)


def mureg_score(cohort: MuregCohort, *, normaliser: MuregCohort) -> float:
    """The challenge's score, from 0 to 1.

    0.2 DSC + 0.1 RDSC + 0.3 (1 − TRE) + 0.1 (1 − RTRE) + 0.1 (1 − RTs) + 0.2 (1 − HD95). Lengths are
    divided by the normaliser's and clipped to [0, 1]. The scorer's normaliser is the `mureg_code_cohort` of
    the unregistered cases, the web page's is `mureg_site_normaliser`.
    """
    gains = {
        name: 1 - float(np.clip(getattr(cohort, name) / getattr(normaliser, name), 0, 1))
        for name in ("tre_vox", "rtre_vox", "rts_vox", "hd95_vox")
    }
    distances = 0.3 * gains["tre_vox"] + 0.1 * gains["rtre_vox"] + 0.1 * gains["rts_vox"]
    return 0.2 * cohort.dsc + 0.1 * cohort.rdsc + distances + 0.2 * gains["hd95_vox"]


def robust_mean(values: Sequence[float], *, highest: bool) -> float:
    """Mean of the best 68 % (rounded to a whole number): the highest values, or else the lowest.

    nan entries are not counted; nan without values.
    """
    return _mean(_best(_known(values), highest=highest))


def _best(values: Sequence[float] | np.ndarray, *, highest: bool) -> np.ndarray:
    ordered = np.sort(values)[::-1] if highest else np.sort(values)
    return ordered[: round(_ROBUST_SHARE * len(ordered))]


def _with_channels(case: MuregCase, channels: int) -> MuregCase:
    """The case with labels that are empty on both sides after its own: their errors and HD95 are 0."""
    errors = case.label_errors_vox
    return replace(
        case,
        label_errors_vox=(*errors, *[0.0] * (channels - len(errors))),
        hd95_vox=case.hd95_vox * (len(errors) / channels),
    )


def _cohort(cases: Sequence[MuregCase]) -> MuregCohort:
    overlaps = [case.dsc for case in cases]
    errors_vox = [case.tre_vox for case in cases]
    return MuregCohort(
        dsc=_mean(overlaps),
        rdsc=robust_mean(overlaps, highest=True),
        tre_vox=_mean(_known(errors_vox)),
        rtre_vox=robust_mean(errors_vox, highest=False),
        rts_vox=_mean(_known([case.rts_vox for case in cases])),
        hd95_vox=_mean([case.hd95_vox for case in cases]),
    )


def _known(values: Sequence[float]) -> np.ndarray:
    return np.array([value for value in values if not np.isnan(value)])


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _srm_large_enough(mask: np.ndarray, voxel_volume_mm3: float) -> bool:
    # A millionth of tolerance: 50 voxels of 0.512 mm³ count, whatever the rounding of the spacing.
    return bool(np.count_nonzero(mask) * voxel_volume_mm3 >= _SRM_SMALLEST_MM3 * (1 - 1e-6))


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    """2Σab / Σ(a+b), on booleans or soft labels; 0 where both are empty."""
    total = np.sum(a, dtype=float) + np.sum(b, dtype=float)
    return 2 * float(np.sum(a * b, dtype=float)) / float(total) if total else 0.0


def _code_error_vox(fixed: np.ndarray, warped: np.ndarray) -> float:
    return float(np.abs(_whole_centroid(fixed) - _whole_centroid(warped)).mean())


def _whole_centroid(label: np.ndarray) -> np.ndarray:
    index = np.argwhere(label > 0.5)
    return np.trunc(index.mean(axis=0)) if len(index) else np.zeros(3)


def _site_error_vox(fixed: np.ndarray, warped: np.ndarray) -> float:
    centroids = centroid_vox(fixed), centroid_vox(warped)
    if centroids[0] is None or centroids[1] is None:
        return float("inf")
    return float(np.abs(centroids[0] - centroids[1]).sum())


def _rms(values: Sequence[float] | np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else float("nan")
