"""Cohen's kappa, plain or with quadratic weights, with the large-sample interval and test.

Source: Fleiss, Cohen and Everitt 1969 (Psychological Bulletin 72:323).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import norm

Weights = Literal["none", "quadratic"]
# Rounding leaves standard errors of about 1e-9, and kappas of about 1e-16, where the exact ones are zero.
_NO_ERROR = 1e-7
_NO_KAPPA = 1e-12


@dataclass(frozen=True)
class Kappa:
    """Kappa, its 95 % interval, z and two-sided p of no agreement beyond chance; `agreement` is observed.

    With quadratic weights `agreement` is the weighted share. Figures that do not exist are nan.
    """

    value: float
    se: float
    low: float
    high: float
    z: float
    p: float
    agreement: float
    cases: int


def cohen_kappa(
    first: Sequence[int],
    second: Sequence[int],
    *,
    categories: Sequence[int],
    weights: Weights = "none",
    level: float = 0.95,
) -> Kappa:
    """Agreement of two ratings of the same cases; `categories` lists every value in order.

    The weight of a disagreement grows with the square of the distance in the list. Kappa is nan without
    cases, and where chance alone would make both ratings agree (both constant and alike). There is no
    interval where its standard error is zero (kappa 1, or one rating constant), and no test in the latter.
    """
    places = {category: place for place, category in enumerate(categories)}
    joint = np.zeros((len(categories), len(categories)))
    for one, other in zip(first, second, strict=True):
        joint[places[one], places[other]] += 1
    cases = int(joint.sum())
    if cases == 0:
        return _unknown(math.nan, cases)
    return _from_table(joint / cases, _weights(len(categories), weights), cases, level)


def _unknown(agreement: float, cases: int) -> Kappa:
    nan = math.nan
    return Kappa(nan, nan, nan, nan, nan, nan, agreement, cases)


def _weights(count: int, kind: Weights) -> np.ndarray:
    """(count, count) weights of agreement: 1 on the diagonal."""
    if kind == "none":
        return np.eye(count)
    place = np.arange(count)
    return 1 - ((place[:, None] - place) / max(count - 1, 1)) ** 2


def _from_table(joint: np.ndarray, weights: np.ndarray, cases: int, level: float) -> Kappa:
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    observed, expected = float((weights * joint).sum()), float(rows @ weights @ columns)
    if math.isclose(expected, 1.0):
        return _unknown(observed, cases)
    value = (observed - expected) / (1 - expected)
    value = 0.0 if abs(value) < _NO_KAPPA else value
    mean_weights = (weights @ columns)[:, None] + (rows @ weights)[None, :]
    spread = (joint * (weights * (1 - expected) - mean_weights * (1 - observed)) ** 2).sum()
    centre = (observed * expected - 2 * expected + observed) ** 2
    se = _error(spread - centre, cases) / (1 - expected) ** 2
    chance = (np.outer(rows, columns) * (weights - mean_weights) ** 2).sum() - expected**2
    z = value / (_error(chance, cases) / (1 - expected))
    reach = float(norm.ppf(0.5 + level / 2)) * se
    low, high = (
        (math.nan, math.nan) if math.isnan(se) else (max(value - reach, -1.0), min(value + reach, 1.0))
    )
    return Kappa(value, se, low, high, z, float(2 * norm.sf(abs(z))), observed, cases)


def _error(variance: float, cases: int) -> float:
    """The standard error from a variance; nan where that is zero, from which nothing follows."""
    error = math.sqrt(max(variance, 0.0) / cases)
    return error if error > _NO_ERROR else math.nan
