"""What a reader of the results should know before believing them."""

from __future__ import annotations

from collections.abc import Sequence

from .accuracy import judged
from .rank_tests import proportion
from .study import Rating, Reference, Study, listed
from .table import Table, tests_in

# Below this DeLong's and kappa's large-sample intervals are too narrow, and a difference that matters to a
# patient (0.1 in area) is missed more often than found.
FEW_CASES = 30


def cautions(study: Study, tables: Sequence[Table]) -> list[str]:
    """One sentence for each reason to be careful, the weightiest first."""
    found = [_few_cases(study), _one_reader(study), _no_reference(study), _unread(study), _gaps(study)]
    found += [_unpaired(study), _extreme_areas(study), _many_tests(tables)]
    return [text for text in found if text]


def _few_cases(study: Study) -> str:
    known = [study.reference(case).positive for case in study.cases]
    positive, negative = known.count(True), known.count(False)
    if min(positive, negative) >= FEW_CASES or positive + negative == 0:
        return ""
    fewer = min(positive, negative)
    half = proportion(fewer // 2, fewer)
    points = 50 * (half.high - half.low)
    width = f" (a share of one half has an interval of ±{points:.0f} points)" if fewer else ""
    return (
        f"Few cases: {positive} positive and {negative} negative{width}. The intervals are approximate, and "
        "a p-value above .05 does not show that nothing changed."
    )


def _one_reader(study: Study) -> str:
    if len(study.readers) > 1:
        return "The readers are few and are not a sample: the results hold for these readers, not for others."
    return "There is one reader: nothing is known about others, nor about agreement between readers."


def _no_reference(study: Study) -> str:
    missing = [case for case in study.cases if study.reference(case).positive is None]
    if not missing:
        return ""
    if len(missing) == len(study.cases):
        return "No case has a reference PI-RADS: there is no ROC curve and no comparison with the reference."
    return (
        f"{len(missing)} of {len(study.cases)} cases have no reference PI-RADS and are left out where it is "
        f"needed ({listed(missing)})."
    )


def _unread(study: Study) -> str:
    known = [case for case, reference in study.references.items() if reference != Reference()]
    unread = sorted({*known}.difference(study.cases))
    return f"References of cases that nobody read are left out: {listed(unread)}." if unread else ""


def _gaps(study: Study) -> str:
    empty = sum(reading.empty for reading in study.readings)
    if not empty:
        return ""
    return f"{empty} of {len(study.readings)} readings are empty and are left out."


def _unpaired(study: Study) -> str:
    ratings: tuple[Rating, ...] = ("t2_score", "confidence", "laterality")
    lost = 0
    for rating in ratings:
        for one, other in study.reader_pairs(rating):
            lost = max(lost, len({*study.values(rating, one)} ^ {*study.values(rating, other)}))
    if not lost:
        return ""
    return (
        f"A reader rated up to {lost} case(s) under one condition only; comparisons use the cases of both, "
        "so that their means and areas may differ from those of the single conditions."
    )


def _extreme_areas(study: Study) -> str:
    for sitting in study.sittings("t2_score"):
        scores, truth = judged(study, sitting)
        if truth.any() and not truth.all():
            ill, well = scores[0][truth], scores[0][~truth]
            if ill.min() > well.max() or ill.max() < well.min():
                return f"The scores of {sitting} part the classes entirely: the area has no interval."
    return ""


def _many_tests(tables: Sequence[Table]) -> str:
    count = tests_in(tables)
    if count < 2:
        return ""
    return (
        f"This page holds {count} p-values without correction for their number: where nothing differs, about "
        f"{0.05 * count:.1f} of them would still fall below .05."
    )
