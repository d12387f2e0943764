"""Summary statistics of a cohort whose pairs are grouped by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation over pairs, and the 95 % patient-bootstrap interval of the mean.

    nan where it cannot be known: the standard deviation of one pair, the interval of one patient.
    """

    mean: float
    sd: float
    low: float
    high: float
    pairs: int

    def shown(self, digits: int) -> str:
        """Mean ± standard deviation [interval], with – for what is not known."""
        sd = "–" if np.isnan(self.sd) else f"{self.sd:.{digits}f}"
        return f"{self.mean:.{digits}f} ± {sd} [{self._interval(f'.{digits}f')}]"

    def shown_difference(self, digits: int) -> str:
        """Mean [interval] with their signs."""
        return f"{self.mean:+.{digits}f} [{self._interval(f'+.{digits}f')}]"

    def _interval(self, form: str) -> str:
        return "–" if np.isnan(self.low) else f"{self.low:{form}}, {self.high:{form}}"


def summarise(values: Sequence[float], patients: Sequence[str], *, seed: int = 0) -> Summary:
    """Summary of one figure per pair; pairs without the figure (nan) are left out.

    The interval resamples patients with replacement, each with all its pairs, and takes the percentiles of
    the mean over pairs: pairs of one patient are not independent. One patient says nothing of the others, so
    that it has no interval.
    """
    array = np.asarray(values, float)
    known = np.isfinite(array)
    if not known.any():
        return Summary(np.nan, np.nan, np.nan, np.nan, 0)
    array, groups = array[known], np.asarray(patients)[known]
    low, high = _interval_of_mean(array, groups, seed)
    sd = float(array.std(ddof=1)) if array.size > 1 else np.nan
    return Summary(float(array.mean()), sd, low, high, int(array.size))


def _interval_of_mean(values: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    sums, counts = _patient_totals(values, groups)
    if len(sums) < 2:
        return np.nan, np.nan
    draws = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _patient_totals(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of values of each patient."""
    _, patient = np.unique(groups, return_inverse=True)
    return np.bincount(patient, weights=values), np.bincount(patient).astype(float)
