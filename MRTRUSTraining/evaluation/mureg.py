"""The µ-RegPro challenge's measures of a registration, in its direction: TRUS moves, MR is fixed.

Every figure exists twice: `mureg_site_*` as the challenge's web page defines it, `mureg_code_*` as its
published scorer computes it (`MRTRUSRegistrationLib.compat_measures` describes both). Lengths are voxels of
the MR grid, so figures of grids with another spacing than the challenge's 0.8 mm cannot be compared with its
board.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.compat_measures import (
    MuregCase,
    mureg_code_case,
    mureg_code_cohort,
    mureg_code_unregistered,
    mureg_score,
    mureg_site_case,
    mureg_site_cohort,
    mureg_site_normaliser,
)
from MRTRUSRegistrationLib.geometry import Grid, resample
from MRTRUSRegistrationLib.jacobian import jacobian_statistics
from MRTRUSRegistrationLib.results import Registration
from MRTRUSRegistrationLib.transforms import field_image

from ..data.cases import LoadedCase

# The scorer takes means over six channels, however many of them a case has.
_CHANNELS = 6
_INVERSE_ITERATIONS = 200


@dataclass(frozen=True)
class ChallengeFigures:
    """One case after and before a registration; `std_log_jacobian` is of the MR → TRUS deformation."""

    site: MuregCase
    code: MuregCase
    site_unregistered: MuregCase
    code_unregistered: MuregCase
    std_log_jacobian: float

    def columns(self) -> dict[str, float]:
        """The figures that one case has, by their names in metrics.csv."""
        named = {"mureg_site_stdjd": self.std_log_jacobian}
        for variant, case in (("site", self.site), ("code", self.code)):
            for name in ("dsc", "tre_vox", "rts_vox", "hd95_vox"):
                named[f"mureg_{variant}_{name}"] = getattr(case, name)
        return named


@dataclass(frozen=True)
class ChallengeRow:
    """The figures of a method over a cohort, in one variant; the columns of challenge.csv."""

    method: str
    variant: str
    cases: int
    failed: int
    dsc: float
    rdsc: float
    tre_vox: float
    rtre_vox: float
    rts_vox: float
    hd95_vox: float
    stdjd: float
    seconds: float
    score: float


def mr_to_trus(result: Registration) -> sitk.Transform:
    """The inverse of a registration: MR points to TRUS points, to resample TRUS on to the MR's grid."""
    inverse = sitk.CompositeTransform(3)
    if result.deformation is not None:
        inverse.AddTransform(inverse_deformation(result.deformation.transform))
    inverse.AddTransform(result.rigid.transform.GetInverse())
    return inverse


def inverse_deformation(transform: sitk.DisplacementFieldTransform) -> sitk.DisplacementFieldTransform:
    """The inverse of x ↦ x + u(x), on the grid of u, whose rim of zeros keeps the grid in itself."""
    field = sitk.InvertDisplacementField(
        field_image(transform),
        maximumNumberOfIterations=_INVERSE_ITERATIONS,
        maxErrorToleranceThreshold=0.01,
        meanErrorToleranceThreshold=0.0001,
        enforceBoundaryCondition=True,
    )
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def unregistered(case: LoadedCase) -> tuple[MuregCase, MuregCase]:
    """A case before registration (site, code): middles of the volumes matched, and the scorer's own way."""
    fixed = _stack(case, case.mr_labels)
    started = _stack(case, _warped(case, case.initial.GetInverse()))
    return mureg_site_case(fixed, started), mureg_code_unregistered(fixed, _stack(case, case.trus_labels))


def challenge_figures(
    case: LoadedCase, result: Registration, before: tuple[MuregCase, MuregCase]
) -> ChallengeFigures:
    """The challenge's figures of one registration; `before` is what `unregistered` gives for the case.

    A landmark that is missing in one modality counts as missing in both, as everywhere in this package; the
    scorer takes it to lie at index 0 in that modality.
    """
    fixed = _stack(case, case.mr_labels)
    warped = _stack(case, _warped(case, mr_to_trus(result)))
    return ChallengeFigures(
        mureg_site_case(fixed, warped),
        mureg_code_case(fixed, warped),
        *before,
        _std_log_jacobian(case, result),
    )


def challenge_rows(
    method: str, cases: Sequence[ChallengeFigures], *, failed: int, seconds: float
) -> list[ChallengeRow]:
    """Both variants of a method's figures over the cases that worked.

    A failing case scores 0 on the web page: the score is that of the others, times their share.
    """
    site = mureg_site_cohort([case.site for case in cases])
    site_scale = mureg_site_normaliser([case.site_unregistered for case in cases])
    code = mureg_code_cohort([case.code for case in cases])
    code_scale = mureg_code_cohort([case.code_unregistered for case in cases])
    share = len(cases) / (len(cases) + failed)
    stdjd = float(np.mean([case.std_log_jacobian for case in cases]))
    return [
        ChallengeRow(
            method=method,
            variant=variant,
            cases=len(cases),
            failed=failed,
            **vars(cohort),
            stdjd=stdjd if variant == "site" else float("nan"),
            seconds=seconds if variant == "site" else float("nan"),
            score=share * mureg_score(cohort, normaliser=scale),
        )
        for variant, cohort, scale in (("site", site, site_scale), ("code", code, code_scale))
    ]


def challenge_csv(rows: Iterable[ChallengeRow]) -> str:
    """The rows as CSV text; figures with four digits, nan as an empty field."""
    buffer = io.StringIO()
    names = [field.name for field in fields(ChallengeRow)]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        values = [getattr(row, name) for name in names]
        writer.writerow(["" if v != v else f"{v:.4f}" if isinstance(v, float) else v for v in values])
    return buffer.getvalue()


def _warped(case: LoadedCase, transform: sitk.Transform) -> list[sitk.Image]:
    """The TRUS labels on the MR's grid, linear and not thresholded."""
    grid = Grid.of(case.mr)
    return [resample(sitk.Cast(label, sitk.sitkFloat32), grid, transform) for label in case.trus_labels]


def _stack(case: LoadedCase, labels: Sequence[sitk.Image]) -> np.ndarray:
    """(label, k, j, i) float32, every label in the channel that its file had it in, others empty."""
    channels = [_channel(name, order) for order, name in enumerate(case.label_names)]
    shape = labels[0].GetSize()[::-1]
    stack = np.zeros((max(_CHANNELS, *(c + 1 for c in channels)), *shape), np.float32)
    for channel, label in zip(channels, labels, strict=True):
        stack[channel] = sitk.GetArrayViewFromImage(label)
    return stack


def _channel(name: str, order: int) -> int:
    number = name.removeprefix("landmark ")
    return int(number) if number.isdigit() else order


def _std_log_jacobian(case: LoadedCase, result: Registration) -> float:
    """Standard deviation of the log Jacobian over the whole MR; 0 for a rigid registration."""
    if result.deformation is None:
        return 0.0
    everywhere = Grid.of(case.mr).blank() + 1
    return jacobian_statistics(mr_to_trus(result), everywhere).log_std
