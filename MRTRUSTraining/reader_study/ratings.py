"""Tables of the ratings themselves: agreement, distributions, and the tests of confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .accuracy import CASES, CONDITION, FIRST, READER, SECOND, P, pair_names
from .kappa import Kappa, Weights, cohen_kappa
from .rank_tests import rank_sum, signed_rank
from .study import CONFIDENCES, POSITIVE_FROM, SCORES, Sitting, Study
from .table import Column, Table

Numeric = Literal["t2_score", "confidence"]
NAMES: dict[Numeric, str] = {"t2_score": "T2 score", "confidence": "Confidence"}
SCALES: dict[Numeric, tuple[int, ...]] = {"t2_score": SCORES, "confidence": CONFIDENCES}


def common(one: Mapping[str, int], other: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """The ratings of the cases that both have, in the same order."""
    cases = [case for case in one if case in other]
    return [one[case] for case in cases], [other[case] for case in cases]


def kappa_table(study: Study) -> Table:
    """Agreement with the reference, within a reader and between readers."""
    rows = [_against_reference(study, sitting) for sitting in study.sittings("t2_score")]
    ratings: tuple[Numeric, ...] = ("t2_score", "confidence")
    for one, other in [*study.reader_pairs("t2_score"), *study.condition_pairs("t2_score")]:
        rows.append(_two_level(study, one, other))
    for rating in ratings:
        rows += [_all_levels(study, rating, one, other) for one, other in study.condition_pairs(rating)]
    return Table(
        "kappa",
        "Cohen's kappa",
        (
            FIRST,
            Column("Second", "{second}"),
            Column("Rating", "{rating}"),
            Column("Kappa", "{kappa:.3f}"),
            Column("95 % CI", "{low:.3f} to {high:.3f}"),
            P,
            Column("Agreement, %", "{agreement:percent}"),
            CASES,
        ),
        tuple(rows),
        f"Two levels: a score below {POSITIVE_FROM} is 0, {POSITIVE_FROM} or 5 is 1. All levels: quadratic "
        "weights, and the agreement is weighted. Interval and test (of kappa = 0) are for large samples.",
    )


def _against_reference(study: Study, sitting: Sitting) -> dict[str, Any]:
    scores = study.numbers("t2_score", sitting)
    truth = {case: study.reference(case).positive for case in scores}
    known = {case: int(value) for case, value in truth.items() if value is not None}
    result = cohen_kappa(*common(_levels(scores), known), categories=(0, 1))
    return _kappa_row(sitting, "reference", "T2 score, two levels", result)


def _two_level(study: Study, one: Sitting, other: Sitting) -> dict[str, Any]:
    first, second = (_levels(study.numbers("t2_score", sitting)) for sitting in (one, other))
    result = cohen_kappa(*common(first, second), categories=(0, 1))
    return _kappa_row(one, str(other), "T2 score, two levels", result)


def _all_levels(study: Study, rating: Numeric, one: Sitting, other: Sitting) -> dict[str, Any]:
    weights: Weights = "quadratic"
    values = common(study.numbers(rating, one), study.numbers(rating, other))
    result = cohen_kappa(*values, categories=SCALES[rating], weights=weights)
    return _kappa_row(one, str(other), f"{NAMES[rating]}, all levels", result)


def _levels(scores: Mapping[str, int]) -> dict[str, int]:
    return {case: int(score >= POSITIVE_FROM) for case, score in scores.items()}


def _kappa_row(one: Sitting, second: str, rating: str, result: Kappa) -> dict[str, Any]:
    figures = {"kappa": result.value, **{k: v for k, v in vars(result).items() if k != "value"}}
    return {
        "first_reader": one.reader,
        "first_condition": one.condition,
        "second": second,
        "rating": rating,
        **figures,
    }


def distribution_table(study: Study, rating: Numeric) -> Table:
    """How often each rating was given, with mean, spread, median and quartiles."""
    rows: list[dict[str, Any]] = []
    for sitting in study.sittings(rating):
        rows.append({**vars(sitting), **_described(list(study.numbers(rating, sitting).values()), rating)})
    if rating == "t2_score":
        known = [study.reference(case).reference_pirads for case in study.cases]
        values = [value for value in known if value is not None]
        if values:
            rows.append({"reader": "reference", "condition": "PI-RADS", **_described(values, rating)})
    levels = tuple(Column(str(level), f"{{rated_{level}:d}}") for level in SCALES[rating])
    return Table(
        f"{rating}_distribution",
        f"{NAMES[rating]}: how often each level was given",
        (
            READER,
            CONDITION,
            *levels,
            CASES,
            Column("Mean ± SD", "{mean:.3f} ± {sd:.3f}"),
            Column("Median (quartiles)", "{median:g} ({quartile_1:g} to {quartile_3:g})"),
        ),
        tuple(rows),
    )


def _described(values: Sequence[int], rating: Numeric) -> dict[str, Any]:
    array = np.asarray(values, float)
    low, middle, high = np.percentile(array, [25, 50, 75])
    return {
        **{f"rated_{level}": int((array == level).sum()) for level in SCALES[rating]},
        "cases": array.size,
        "mean": float(array.mean()),
        "sd": float(array.std(ddof=1)) if array.size > 1 else float("nan"),
        "median": float(middle),
        "quartile_1": float(low),
        "quartile_3": float(high),
    }


def confidence_change_table(study: Study) -> Table:
    """Wilcoxon signed-rank test of each reader's confidence between two conditions."""
    rows = []
    for one, other in study.reader_pairs("confidence"):
        first, second = common(study.numbers("confidence", one), study.numbers("confidence", other))
        result = signed_rank(first, second)
        means = [float(np.mean(values)) if values else float("nan") for values in (first, second)]
        rows.append(
            {
                **pair_names(one, other),
                "first_mean": means[0],
                "second_mean": means[1],
                "cases": len(first),
                **vars(result),
            }
        )
    return Table(
        "confidence_change",
        "Change of confidence",
        (
            FIRST,
            SECOND,
            Column("Mean", "{first_mean:.3f} → {second_mean:.3f}"),
            Column("Rose / same / fell", "{risen:d} / {equal:d} / {fallen:d}"),
            Column("W", "{statistic:g}"),
            P,
            Column("Effect", "{effect:+.2f}"),
            CASES,
        ),
        tuple(rows),
        "Wilcoxon signed-rank test on the cases of both, unchanged cases left out. The effect is the rank-"
        "biserial correlation: −1 all fell, +1 all rose.",
    )


def unpaired_table(study: Study) -> Table:
    """Mann–Whitney U of ratings in positive against those in negative cases."""
    ratings: tuple[Numeric, ...] = ("t2_score", "confidence")
    rows = [_unpaired_row(study, rating, sitting) for rating in ratings for sitting in study.sittings(rating)]
    return Table(
        "positive_against_negative",
        "Positive against negative cases",
        (
            READER,
            CONDITION,
            Column("Rating", "{rating}"),
            Column("Mean, positive", "{positive_mean:.3f}"),
            Column("Mean, negative", "{negative_mean:.3f}"),
            Column("U", "{statistic:g}"),
            P,
            Column("P(positive > negative)", "{effect:.3f}"),
            CASES,
        ),
        tuple(rows),
        "Mann–Whitney U: these are different patients. The last share counts ties half; for the T2 score it "
        "is the AUC.",
    )


def _unpaired_row(study: Study, rating: Numeric, sitting: Sitting) -> dict[str, Any]:
    numbers = study.numbers(rating, sitting)
    groups = [
        [value for case, value in numbers.items() if study.reference(case).positive is positive]
        for positive in (True, False)
    ]
    means = [float(np.mean(group)) if group else float("nan") for group in groups]
    return {
        **vars(sitting),
        "rating": NAMES[rating],
        "positive_mean": means[0],
        "negative_mean": means[1],
        "cases": len(groups[0]) + len(groups[1]),
        **vars(rank_sum(*groups)),
    }
