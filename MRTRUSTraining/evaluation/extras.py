"""Measures that an evaluation takes on request, beside its own: those of other groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.compat_measures import (
    MuregCase,
    collapsed_label_map,
    dsc_srm_compat,
    tre_srm_compat,
)
from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask
from MRTRUSRegistrationLib.jacobian import forward_jacobian_std
from MRTRUSRegistrationLib.results import LandmarkRow, Registration

from ..data.cases import LoadedCase
from ..paper_b.measures import registration_figures, segmentation_figures
from .dense_parts import dense_parts
from .mureg import ChallengeFigures, challenge_figures, unregistered

MeasureSet = Literal["compat", "challenge", "paper-b", "dense"]
MEASURE_SETS: tuple[MeasureSet, ...] = ("compat", "challenge", "paper-b", "dense")


@dataclass(frozen=True)
class Extras:
    """The sets asked for, prepared for one case: what does not depend on a registration is done once.

    `compat`: the measures of the published code of paper A. `challenge`: those of µ-RegPro, in its direction.
    `paper-b`: three of a registration, and those of a segmentation that paper B has beside DSC. `dense`:
    which part of the error is global, where the true map is known.
    """

    case: LoadedCase
    sets: frozenset[MeasureSet]
    before: tuple[MuregCase, MuregCase] | None

    @classmethod
    def of(cls, case: LoadedCase, sets: Collection[MeasureSet]) -> Extras:
        return cls(case, frozenset(sets), unregistered(case) if "challenge" in sets else None)

    def challenge(self, result: Registration) -> ChallengeFigures | None:
        """The challenge's figures, where they were asked for."""
        return None if self.before is None else challenge_figures(self.case, result, self.before)

    def columns(
        self, result: Registration, landmarks: Sequence[LandmarkRow], challenge: ChallengeFigures | None
    ) -> dict[str, float]:
        """The figures of one registration by the names of their columns in metrics.csv."""
        found: dict[str, float] = {}
        if "compat" in self.sets:
            found |= _compat(self.case, result)
        if challenge is not None:
            found |= challenge.columns()
        if "paper-b" in self.sets:
            found |= _registration(self.case, result, landmarks) | _segmentation(self.case, result)
        if "dense" in self.sets:
            parts = asdict(dense_parts(self.case, result.transform))
            found |= {f"dense_{name}": value for name, value in parts.items()}
        return found


def _compat(case: LoadedCase, result: Registration) -> dict[str, float]:
    """Labels collapsed into one map and warped by the nearest neighbour, as that code does; and `jac_std`,
    which many papers give, within the reference gland (0 for what is rigid)."""
    fixed, moving = (
        collapsed_label_map([sitk.GetArrayViewFromImage(label) for label in labels])
        for labels in (case.trus_labels, case.mr_labels)
    )
    grid, field = Grid.of(case.trus), result.deformation
    warped = resample(Grid.of(case.mr).image(moving), grid, result.transform, nearest=True)
    array = sitk.GetArrayFromImage(warped)
    return {
        "tre_srm_compat": tre_srm_compat(fixed, array, voxel_volume_mm3=grid.voxel_volume_mm3),
        "dsc_srm_compat": dsc_srm_compat(fixed, array),
        "jac_std": 0.0 if field is None else forward_jacobian_std(field.transform, case.trus_gland),
    }


def _registration(
    case: LoadedCase, result: Registration, landmarks: Sequence[LandmarkRow]
) -> dict[str, float]:
    """Paper B's three; its points are the centroids of the landmarks, without those that the warp lost."""
    moved = resample_mask(case.mr_gland, Grid.of(case.trus), result.transform)
    pairs = [(row.warped_mm, row.fixed_mm) for row in landmarks if row.warped_mm is not None]
    points = np.array(pairs, float).reshape(-1, 2, 3)
    figures = registration_figures(moved, case.trus_gland, points[:, 0], points[:, 1])
    return {f"paper_b_{name}": value for name, value in asdict(figures).items()}


def _segmentation(case: LoadedCase, result: Registration) -> dict[str, float]:
    """Accuracy, precision, recall and HD95 of both masks; their DSC is always there."""
    found: dict[str, float] = {}
    for side, predicted, reference in (
        ("mr", result.mr_gland.mask, case.mr_gland),
        ("trus", result.trus_gland.mask, case.trus_gland),
    ):
        figures = asdict(segmentation_figures(predicted, reference))
        del figures["dsc"]
        found |= {f"segmentation_{name}_{side}": value for name, value in figures.items()}
    return found
