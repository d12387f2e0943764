"""Kappa, rank tests and shares against independent implementations, to six digits and better."""

import math
from itertools import permutations, product

import numpy as np
import pytest
from scipy.stats import norm, pearsonr, rankdata, spearmanr
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from MRTRUSTraining.reader_study.kappa import Weights, cohen_kappa
from MRTRUSTraining.reader_study.pathology import gleason_correlation_table
from MRTRUSTraining.reader_study.rank_tests import (
    mcnemar,
    proportion,
    rank_correlation,
    rank_sum,
    signed_rank,
)
from MRTRUSTraining.reader_study.study import GRADE_GROUPS, Reading, Reference, Sitting, Study


def ratings(seed: int, levels: int, cases: int = 31) -> tuple[list[int], list[int]]:
    """Two related ratings 1 to `levels` with many ties."""
    rng = np.random.default_rng(seed)
    shared = rng.uniform(1, levels, cases)
    noisy = np.clip(np.round(shared + rng.normal(0.3, 1.2, (2, cases))), 1, levels).astype(int)
    return noisy[0].tolist(), noisy[1].tolist()


@pytest.mark.parametrize(("weights", "their_name"), [("none", None), ("quadratic", "quadratic")])
@pytest.mark.parametrize("levels", [2, 5, 7])
def test_kappa_equals_scikit_learn_and_statsmodels(
    levels: int, weights: Weights, their_name: str | None
) -> None:
    first, second = ratings(levels, levels)
    categories = range(1, levels + 1)
    ours = cohen_kappa(first, second, categories=categories, weights=weights)
    labels = list(categories)
    theirs = cohen_kappa_score(first, second, labels=labels, weights=their_name)
    assert ours.value == pytest.approx(theirs, abs=1e-9)
    table = [
        [sum(pair == (a, b) for pair in zip(first, second, strict=True)) for b in labels] for a in labels
    ]
    reference = cohens_kappa(np.array(table), wt=their_name)
    assert ours.value == pytest.approx(reference.kappa, abs=1e-9)
    assert ours.se == pytest.approx(reference.std_kappa, abs=1e-9)
    assert ours.low == pytest.approx(max(reference.kappa_low, -1), abs=1e-6)
    assert ours.high == pytest.approx(min(reference.kappa_upp, 1), abs=1e-6)
    assert ours.z == pytest.approx(reference.z_value, abs=1e-9)
    assert ours.p == pytest.approx(reference.pvalue_two_sided, abs=1e-9)


def test_kappa_of_a_table_worked_by_hand() -> None:
    """20 both yes, 5 and 10 split, 15 both no: .7 observed, .5 by chance."""
    first, second = [1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    result = cohen_kappa(first, second, categories=(0, 1))
    assert (result.agreement, result.value, result.cases) == (0.7, pytest.approx(0.4), 50)


def test_kappa_at_its_ends() -> None:
    same = cohen_kappa([0, 1, 0, 1], [0, 1, 0, 1], categories=(0, 1))
    assert (same.value, same.p) == (1.0, pytest.approx(math.erfc(2 / math.sqrt(2))))
    assert np.isnan([same.se, same.low, same.high]).all()
    assert cohen_kappa([0, 1, 0, 1], [1, 0, 1, 0], categories=(0, 1)).value == -1.0
    constant = cohen_kappa([1, 1], [1, 1], categories=(0, 1))
    assert math.isnan(constant.value)
    assert constant.agreement == 1.0
    assert math.isnan(cohen_kappa([], [], categories=(0, 1)).agreement)


@pytest.mark.parametrize("weights", ["none", "quadratic"])
def test_kappa_of_a_constant_rating_is_zero_without_interval_or_test(weights: Weights) -> None:
    for cases in range(2, 60):
        other = np.random.default_rng(cases).integers(1, 6, cases).tolist()
        for constant in range(1, 6):
            if {*other} != {constant}:
                result = cohen_kappa([constant] * cases, other, categories=range(1, 6), weights=weights)
                assert result.value == 0.0
                assert np.isnan([result.se, result.low, result.high, result.z, result.p]).all()


def signed_rank_by_definition(first: list[int], second: list[int]) -> tuple[float, float]:
    """Smaller rank sum and p, with the variance summed over the ranks themselves."""
    change = [b - a for a, b in zip(first, second, strict=True) if a != b]
    size = sorted(abs(d) for d in change)
    rank = {value: np.mean([i + 1 for i, s in enumerate(size) if s == value]) for value in set(size)}
    up = sum(rank[d] for d in change if d > 0)
    down = sum(rank[-d] for d in change if d < 0)
    # Each rank has a sign by the toss of a coin.
    sd = math.sqrt(sum(rank[abs(d)] ** 2 for d in change) / 4)
    return min(up, down), math.erfc(abs(up - down) / 2 / sd / math.sqrt(2))


@pytest.mark.parametrize("seed", range(4))
def test_signed_rank_equals_its_definition(seed: int) -> None:
    first, second = ratings(seed, 7)
    statistic, p = signed_rank_by_definition(first, second)
    result = signed_rank(first, second)
    assert result.statistic == pytest.approx(statistic)
    assert result.p == pytest.approx(p, abs=1e-9)
    assert result.risen + result.equal + result.fallen == len(first)
    mirrored = signed_rank(second, first)
    assert (mirrored.p, mirrored.effect) == (pytest.approx(p), pytest.approx(-result.effect))


def test_signed_rank_at_its_ends() -> None:
    all_up = signed_rank([1, 2, 3], [2, 4, 6])
    assert (all_up.effect, all_up.statistic, all_up.risen) == (1.0, 0.0, 3)
    assert signed_rank([3, 3], [3, 3]).p == 1.0
    assert math.isnan(signed_rank([], []).p)


def rank_sum_by_definition(first: list[int], second: list[int]) -> tuple[float, float]:
    """U by comparing every pair; p from the variance of a sum drawn without replacement."""
    wins = sum((a > b) + 0.5 * (a == b) for a, b in product(first, second))
    ranks = rankdata([*first, *second])
    m, n = len(first), len(second)
    sd = math.sqrt(m * n / (m + n) * np.var(ranks, ddof=1))
    return wins, float(2 * norm.sf(abs(wins - m * n / 2) / sd))


@pytest.mark.parametrize("seed", range(4))
def test_rank_sum_equals_its_definition(seed: int) -> None:
    first, second = ratings(seed, 5)[0][:13], ratings(seed + 10, 5)[1]
    statistic, p = rank_sum_by_definition(first, second)
    result = rank_sum(first, second)
    assert result.statistic == statistic
    assert result.p == pytest.approx(p, abs=1e-9)
    assert result.effect == pytest.approx(statistic / 13 / 31)


def test_rank_sum_at_its_ends() -> None:
    assert rank_sum([4, 5], [1, 2]).effect == 1.0
    assert (rank_sum([3, 3], [3]).p, rank_sum([3, 3], [3]).effect) == (1.0, 0.5)
    assert math.isnan(rank_sum([], [1]).p)


@pytest.mark.parametrize(("hits", "cases"), [(8, 13), (9, 11), (0, 7), (7, 7), (1, 2)])
def test_wilson_interval_solves_its_equation(hits: int, cases: int) -> None:
    """Its ends are the shares from which the observed one is 1.96 standard errors away."""
    result = proportion(hits, cases)
    assert result.value == hits / cases
    for end in (result.low, result.high):
        distance = (hits / cases - end) ** 2
        assert distance == pytest.approx(1.959963984540054**2 * end * (1 - end) / cases, abs=1e-9)
    assert result.low <= result.value <= result.high


def test_share_of_no_cases() -> None:
    assert math.isnan(proportion(0, 0).value)


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (6, 0), (5, 2), (2, 5), (7, 3), (4, 4)])
def test_mcnemar_equals_counting_coin_tosses(gained: int, lost: int) -> None:
    tosses = gained + lost
    tail = sum(math.comb(tosses, k) for k in range(min(gained, lost) + 1))
    first = [False] * gained + [True] * lost + [True] * 3 + [False] * 2
    second = [True] * gained + [False] * lost + [True] * 3 + [False] * 2
    result = mcnemar(first, second)
    assert (result.gained, result.lost, result.cases) == (gained, lost, tosses + 5)
    assert result.p == pytest.approx(min(1.0, 2 * tail / 2**tosses), abs=1e-12)


def test_mcnemar_without_a_difference_and_without_cases() -> None:
    assert mcnemar([True, False], [True, False]).p == 1.0
    assert math.isnan(mcnemar([], []).p)


def test_correlation_with_gleason_is_that_of_the_ranks() -> None:
    rng = np.random.default_rng(5)
    grades = rng.choice(["benign", *GRADE_GROUPS], 25)
    scores = rng.integers(1, 6, 25)
    sitting = Sitting("one", "original")
    study = Study(
        tuple(Reading(str(n), sitting, int(score)) for n, score in enumerate(scores)),
        {str(n): Reference(gleason=str(grade)) for n, grade in enumerate(grades)},
    )
    groups = [GRADE_GROUPS.get(str(grade), 0) for grade in grades]
    expected = pearsonr(rankdata(scores), rankdata(groups))
    (row,) = gleason_correlation_table(study).rows
    assert row["source"] == "one, original, T2 score"
    assert row["rho"] == pytest.approx(expected.statistic, abs=1e-9)
    assert row["p"] == pytest.approx(expected.pvalue, abs=1e-9)


def spearman_by_counting(first: list[int], second: list[int]) -> float:
    """The share of all orders of the second rating that correlate as strongly, from whole numbers."""

    def twice_rank(values: tuple[int, ...]) -> list[int]:
        return [sum(v < x for v in values) + sum(v <= x for v in values) + 1 for x in values]

    def strength(order: tuple[int, ...]) -> int:
        pairs = zip(twice_rank(tuple(first)), twice_rank(order), strict=True)
        return abs(len(first) * sum(a * b for a, b in pairs) - (len(first) * (len(first) + 1)) ** 2)

    orders = list(permutations(second))
    return sum(strength(order) >= strength(tuple(second)) for order in orders) / len(orders)


@pytest.mark.parametrize("cases", [3, 4, 5, 6])
def test_correlation_of_few_cases_has_its_exact_p(cases: int) -> None:
    ordered = list(range(cases))
    assert rank_correlation(ordered, ordered).p == pytest.approx(2 / math.factorial(cases))
    for seed in range(4):
        first, second = ratings(seed, 5, cases)
        result = rank_correlation(first, second)
        if min(len({*first}), len({*second})) > 1:
            assert result.rho == pytest.approx(pearsonr(rankdata(first), rankdata(second)).statistic)
            assert result.p == pytest.approx(spearman_by_counting(first, second), abs=1e-12)
        else:
            assert math.isnan(result.p)


def test_correlation_changes_to_the_approximation_above_eight_cases() -> None:
    first, second = ratings(1, 7, 9)
    assert rank_correlation(first, second).p == pytest.approx(spearmanr(first, second).pvalue)
    assert rank_correlation(first[:8], second[:8]).p != pytest.approx(spearmanr(first[:8], second[:8]).pvalue)
