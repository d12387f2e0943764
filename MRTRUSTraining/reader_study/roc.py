"""The empirical ROC curve of an ordinal score, and a bootstrap band around it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_STEPS = 101


@dataclass(frozen=True)
class RocCurve:
    """Corner points from (0, 0) to (1, 1), and a pointwise 95 % band of sensitivity on `band_fpr`.

    `thresholds` are the scores from which on a case counts as positive; the first is infinite.
    """

    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray
    band_fpr: np.ndarray
    band_low: np.ndarray
    band_high: np.ndarray


def roc_curve(scores: np.ndarray, positive: np.ndarray, *, seed: int = 0) -> RocCurve:
    """The curve for scores (cases,) and a boolean truth (cases,), which must hold both classes.

    The band resamples positive and negative cases apart from each other (stratified bootstrap) and takes
    the percentiles of the sensitivity at each false positive rate.
    """
    scores, positive = np.asarray(scores, float), np.asarray(positive, bool)
    values = np.unique(scores)[::-1]
    ill = np.array([np.sum(scores[positive] == value) for value in values])
    well = np.array([np.sum(scores[~positive] == value) for value in values])
    fpr, tpr = _cumulative(well[None])[0], _cumulative(ill[None])[0]
    grid, low, high = _band(ill, well, seed)
    return RocCurve(fpr, tpr, np.concatenate([[np.inf], values]), grid, low, high)


def _cumulative(counts: np.ndarray) -> np.ndarray:
    """(draws, values + 1) shares of a class at or above each value, from counts (draws, values)."""
    shares = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
    return np.concatenate([np.zeros((len(counts), 1)), shares], axis=1)


def _band(ill: np.ndarray, well: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Resampling the cases of a class is drawing how often each score occurs in it.
    rng = np.random.default_rng(seed)
    tpr = _cumulative(rng.multinomial(ill.sum(), ill / ill.sum(), size=RESAMPLES))
    fpr = _cumulative(rng.multinomial(well.sum(), well / well.sum(), size=RESAMPLES))
    grid = np.linspace(0, 1, _STEPS)
    # Where the curve rises vertically, interpolation takes its upper end.
    heights = np.array([np.interp(grid, x, y) for x, y in zip(fpr, tpr, strict=True)])
    low, high = np.percentile(heights, [2.5, 97.5], axis=0)
    return grid, low, high
