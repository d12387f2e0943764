"""Tests of ratings and counts: Wilcoxon, Mann–Whitney, Spearman, McNemar, Wilson intervals.

All are two-sided. Wilcoxon's and Mann and Whitney's use the normal approximation with the correction for ties
and without one for continuity, as SPSS prints them (its "asymptotic significance"); Likert data always has
ties. Spearman's p is exact for few cases: its approximation would call any three in order significant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats

EXACT_CASES = 8
_ROUNDING = 1e-9


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test of second minus first; cases without a change are left out of it.

    `statistic` is the smaller of the two rank sums; `effect` is the matched-pairs rank-biserial
    correlation, −1 (all fell) to 1 (all rose).
    """

    statistic: float
    p: float
    effect: float
    risen: int
    equal: int
    fallen: int


@dataclass(frozen=True)
class RankSum:
    """Mann–Whitney U of the first group; `effect` is P(first > second) with ties counted half."""

    statistic: float
    p: float
    effect: float


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho with its p; both are nan where they do not exist."""

    rho: float
    p: float


@dataclass(frozen=True)
class Proportion:
    """`hits` of `cases`, as a share with its Wilson 95 % interval; nan without cases."""

    hits: int
    cases: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test: `gained` cases are right only the second time, `lost` only the first."""

    gained: int
    lost: int
    p: float
    cases: int


def signed_rank(first: Sequence[float], second: Sequence[float]) -> SignedRank:
    """Compare two ratings of the same cases; p is 1 where no case changed, nan without cases."""
    change = np.asarray(second, float) - np.asarray(first, float)
    counts = (int((change > 0).sum()), int((change == 0).sum()), int((change < 0).sum()))
    if not change.any():
        return SignedRank(0.0, 1.0 if change.size else math.nan, 0.0 if change.size else math.nan, *counts)
    result = stats.wilcoxon(change, zero_method="wilcox", correction=False, method="approx")
    moved = change[change != 0]
    ranks = stats.rankdata(np.abs(moved))
    effect = float((np.sign(moved) * ranks).sum() / ranks.sum())
    return SignedRank(float(result.statistic), float(result.pvalue), effect, *counts)


def rank_sum(first: Sequence[float], second: Sequence[float]) -> RankSum:
    """Compare the ratings of two groups of different cases; nan without cases in either.

    p is 1 where all ratings are the same.
    """
    if len(first) == 0 or len(second) == 0:
        return RankSum(math.nan, math.nan, math.nan)
    if len({*first, *second}) == 1:
        return RankSum(len(first) * len(second) / 2, 1.0, 0.5)
    result = stats.mannwhitneyu(first, second, method="asymptotic", use_continuity=False)
    effect = float(result.statistic) / (len(first) * len(second))
    return RankSum(float(result.statistic), float(result.pvalue), effect)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> Correlation:
    """Spearman's rank correlation; nan with fewer than three cases or a constant rating.

    Up to `EXACT_CASES` cases p is the share of all orders of the second rating whose |rho| is at least as
    large; above, it comes from the t distribution.
    """
    if len(first) < 3 or min(len({*first}), len({*second})) < 2:
        return Correlation(math.nan, math.nan)
    result = stats.spearmanr(first, second)
    exact = len(first) <= EXACT_CASES
    p = _permutation_p(first, second) if exact else float(result.pvalue)
    return Correlation(float(result.statistic), p)


def _permutation_p(first: Sequence[float], second: Sequence[float]) -> float:
    one, other = (stats.rankdata(values) - (len(first) + 1) / 2 for values in (first, second))
    orders = np.array(list(permutations(other)))
    return float(np.mean(np.abs(orders @ one) >= abs(other @ one) - _ROUNDING))


def proportion(hits: int, cases: int) -> Proportion:
    if cases == 0:
        return Proportion(hits, cases, math.nan, math.nan, math.nan)
    interval = stats.binomtest(hits, cases).proportion_ci(0.95, method="wilson")
    return Proportion(hits, cases, hits / cases, float(interval.low), float(interval.high))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Compare two right-or-wrong judgements of the same cases; p is 1 where none differ, nan without any."""
    one, other = np.asarray(first, bool), np.asarray(second, bool)
    gained, lost = int((other & ~one).sum()), int((one & ~other).sum())
    return McNemar(gained, lost, exact_mcnemar_p(gained, lost) if one.size else math.nan, int(one.size))


def exact_mcnemar_p(gained: int, lost: int) -> float:
    """The two-sided binomial p of the discordant pairs alone."""
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
