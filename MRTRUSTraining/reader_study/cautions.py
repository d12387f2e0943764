"""What a reader of the results should know before believing them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .rank_tests import proportion
from .study import Rating, Reference, Sitting, Study, listed
from .table import Table, tests_in

# Below this DeLong's and kappa's large-sample intervals are too narrow, and a difference that matters to a
# patient (0.1 in area) is missed more often than found.
FEW_CASES = 30
# Below this the normal approximation of the signed-rank test strays from the exact p.
FEW_CHANGES = 20
# With more, the least exact p is below .001 and rules nothing out.
_TELLING_CHANGES = 10


def cautions(study: Study, tables: Sequence[Table]) -> list[str]:
    """One sentence for each reason to be careful, the weightiest first."""
    found = [_few_cases(study), _one_reader(study), _no_reference(study), _unread(study), _gaps(study)]
    found += [_unpaired(study), _areas_without_interval(tables), _kappas_without_interval(tables)]
    found += [_few_changes(tables), _many_tests(tables)]
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
    within = max(_unshared(study, rating, study.reader_pairs(rating)) for rating in ratings)
    between = max(_unshared(study, rating, study.condition_pairs(rating)) for rating in ratings)
    found = [f"a reader rated up to {within} case(s) under one condition only"] if within else []
    found += [f"up to {between} case(s) were rated by one of two readers only"] if between else []
    if not found:
        return ""
    return (
        f"Not all figures are of the same cases: {', and '.join(found)}. Comparisons use the cases of both, "
        "so that their means and areas may differ from those of the single readers and conditions."
    )


def _unshared(study: Study, rating: Rating, pairs: Sequence[tuple[Sitting, Sitting]]) -> int:
    """The most cases that only one of a pair rated."""
    values = [(study.values(rating, one), study.values(rating, other)) for one, other in pairs]
    return max((len({*one} ^ {*other}) for one, other in values), default=0)


def _areas_without_interval(tables: Sequence[Table]) -> str:
    rows = [row for row in _rows(tables, "auc") if min(row["positives"], row["negatives"]) > 1]
    names = [f"{row['reader']}, {row['condition']}" for row in rows if math.isnan(row["low"])]
    if not names:
        return ""
    return (
        "There is no interval of the area, and no band around the curve, where the scores part the classes "
        f"entirely or are all alike: {'; '.join(names)}."
    )


def _kappas_without_interval(tables: Sequence[Table]) -> str:
    rows = [row for row in _rows(tables, "kappa") if row["cases"] and math.isnan(row["low"])]
    if not rows:
        return ""
    names = [f"{row['first_reader']}, {row['first_condition']} and {row['second']}" for row in rows]
    return (
        "There is no interval of kappa where two ratings agree (or disagree) entirely, or one of them is the "
        f"same for all cases: {'; '.join(dict.fromkeys(names))}."
    )


def _few_changes(tables: Sequence[Table]) -> str:
    rows = [(row, row["risen"] + row["fallen"]) for row in _rows(tables, "confidence_change")]
    few = [(row, count) for row, count in rows if 0 < count < FEW_CHANGES]
    if not few:
        return ""
    least = [
        f"{2.0 ** (1 - count):.3g} for {row['first_reader']}, {row['first_condition']} → "
        f"{row['second_condition']} ({count} changed)"
        for row, count in few
        if count <= _TELLING_CHANGES
    ]
    return (
        f"{len(few)} signed-rank test(s) have fewer than {FEW_CHANGES} changed cases. Their p is the normal "
        "approximation, as SPSS prints it, which is rough there"
        + (f"; an exact test could not give less than {'; '.join(least)}." if least else ".")
    )


def _rows(tables: Sequence[Table], name: str) -> list[Mapping[str, Any]]:
    return [row for table in tables if table.name == name for row in table.rows]


def _many_tests(tables: Sequence[Table]) -> str:
    count = tests_in(tables)
    if count < 2:
        return ""
    return (
        f"This page holds {count} p-values without correction for their number: where nothing differs, about "
        f"{0.05 * count:.1f} of them would still fall below .05."
    )
