"""Area under the ROC curve with DeLong's variance, its interval, and the test of two areas on the same cases.

Sources: DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837) for the structural components; Sun and
Xu 2014 (IEEE Signal Processing Letters 21:1389) for computing them from midranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm, rankdata

IntervalKind = Literal["wald", "logit"]
# Rounding leaves variances of about 1e-17 where the exact one is zero, from which no interval follows.
_NO_VARIANCE = 1e-12


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve with its standard error and 95 % interval; nan where there is none."""

    value: float
    se: float
    low: float
    high: float
    positives: int
    negatives: int


@dataclass(frozen=True)
class AreaDifference:
    """Second area minus first, its standard error and 95 % interval, and the two-sided DeLong test."""

    value: float
    se: float
    low: float
    high: float
    z: float
    p: float
    cases: int


def delong_covariance(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas (k,) and their covariance (k, k) for scores (k, cases) and a boolean truth (cases,).

    Higher scores speak for the positive class; ties count one half. Everything is nan without cases in
    both classes, and the covariance is nan with fewer than two in either.
    """
    scores, positive = np.atleast_2d(np.asarray(scores, float)), np.asarray(positive, bool)
    ill, well = scores[:, positive], scores[:, ~positive]
    m, n = ill.shape[1], well.shape[1]
    k = len(scores)
    if m == 0 or n == 0:
        return np.full(k, np.nan), np.full((k, k), np.nan)
    together = rankdata(np.concatenate([ill, well], axis=1), axis=1)
    of_ill = (together[:, :m] - rankdata(ill, axis=1)) / n
    of_well = 1 - (together[:, m:] - rankdata(well, axis=1)) / m
    areas = of_ill.mean(axis=1)
    if m < 2 or n < 2:
        return areas, np.full((k, k), np.nan)
    covariance = np.atleast_2d(np.cov(of_ill)) / m + np.atleast_2d(np.cov(of_well)) / n
    return areas, covariance


def area_under_curve(
    scores: np.ndarray, positive: np.ndarray, *, interval: IntervalKind = "wald", level: float = 0.95
) -> Area:
    """The area for scores (cases,) and a boolean truth (cases,).

    `wald` is area ± z·SE, cut at 0 and 1; `logit` is symmetric on the logit scale and never leaves (0, 1).
    Without variance, as for areas of 0 and 1 and for scores that are all alike, there is no interval (nan).
    """
    areas, covariance = delong_covariance(scores, positive)
    value, variance = float(areas[0]), float(covariance[0, 0])
    se = math.nan if variance < _NO_VARIANCE else math.sqrt(variance)
    low, high = _interval(value, se, interval, level)
    return Area(value, se, low, high, int(np.sum(positive)), int(np.sum(~np.asarray(positive, bool))))


def _interval(value: float, se: float, kind: IntervalKind, level: float) -> tuple[float, float]:
    if math.isnan(se):
        return math.nan, math.nan
    reach = float(norm.ppf(0.5 + level / 2)) * se
    if kind == "wald":
        return max(value - reach, 0.0), min(value + reach, 1.0)
    middle, slope = math.log(value / (1 - value)), 1 / (value * (1 - value))
    ends = (middle - reach * slope, middle + reach * slope)
    return 1 / (1 + math.exp(-ends[0])), 1 / (1 + math.exp(-ends[1]))


def compare_areas(
    first: np.ndarray, second: np.ndarray, positive: np.ndarray, *, level: float = 0.95
) -> AreaDifference:
    """DeLong's paired test of two scores (cases,) of the same cases, with a boolean truth (cases,).

    Without any variance of the difference, as for scores that rank the cases alike, there is no interval;
    p is 1 where the areas are equal and nan where they are not.
    """
    areas, covariance = delong_covariance(np.stack([first, second]), positive)
    value = float(areas[1] - areas[0])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    cases = int(np.size(positive))
    nan = math.nan
    if math.isnan(variance):
        return AreaDifference(value, nan, nan, nan, nan, nan, cases)
    if variance < _NO_VARIANCE:
        z, p = (0.0, 1.0) if abs(value) < _NO_VARIANCE else (nan, nan)
        return AreaDifference(value, nan, nan, nan, z, p, cases)
    se = math.sqrt(variance)
    z, reach = value / se, float(norm.ppf(0.5 + level / 2)) * se
    return AreaDifference(value, se, value - reach, value + reach, z, float(2 * norm.sf(abs(z))), cases)
