"""DeLong's areas, intervals and test against counting every pair, and against other libraries."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from MRTRUSTraining.reader_study.delong import area_under_curve, compare_areas, delong_covariance
from MRTRUSTraining.reader_study.roc import roc_curve


def study(seed: int, cases: int = 31) -> tuple[np.ndarray, np.ndarray]:
    """Correlated five-point scores (2, cases) with many ties, and a truth (cases,) of both classes."""
    rng = np.random.default_rng(seed)
    positive = rng.permutation(cases) < cases // 2
    latent = rng.normal(size=cases) + positive
    scores = latent + rng.normal(scale=0.8, size=(2, cases))
    return np.clip(np.round(scores + 3), 1, 5), positive


def by_pairs(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and covariance from the definition: every positive case against every negative one."""
    ill, well = scores[:, positive], scores[:, ~positive]
    wins = (ill[:, :, None] > well[:, None, :]) + 0.5 * (ill[:, :, None] == well[:, None, :])
    areas = wins.mean(axis=(1, 2))
    of_ill, of_well = wins.mean(axis=2) - areas[:, None], wins.mean(axis=1) - areas[:, None]
    m, n = ill.shape[1], well.shape[1]
    return areas, of_ill @ of_ill.T / (m - 1) / m + of_well @ of_well.T / (n - 1) / n


@pytest.mark.parametrize("seed", range(5))
def test_equals_counting_every_pair(seed: int) -> None:
    scores, positive = study(seed)
    areas, covariance = delong_covariance(scores, positive)
    expected_areas, expected_covariance = by_pairs(scores, positive)
    np.testing.assert_allclose(areas, expected_areas, atol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_paired_test_equals_the_one_from_counted_pairs(seed: int) -> None:
    scores, positive = study(seed)
    areas, covariance = by_pairs(scores, positive)
    contrast = np.array([-1.0, 1.0])
    se = math.sqrt(contrast @ covariance @ contrast)
    result = compare_areas(scores[0], scores[1], positive)
    assert result.value == pytest.approx(contrast @ areas, abs=1e-9)
    assert result.se == pytest.approx(se, abs=1e-9)
    assert result.p == pytest.approx(2 * norm.sf(abs(contrast @ areas) / se), abs=1e-9)
    assert result.high - result.low == pytest.approx(2 * 1.959963985 * se, abs=1e-6)
    assert result.cases == 31


def test_area_equals_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for seed in range(5):
        scores, positive = study(seed, cases=60)
        expected = metrics.roc_auc_score(positive, scores[0])
        assert area_under_curve(scores[0], positive).value == pytest.approx(expected, abs=1e-12)


def test_variance_of_the_example_worked_by_hand() -> None:
    """Positives 2, 4, 5 and negatives 1, 2: wins are 1.5, 2, 2 of 2, and 3, 2.5 of 3."""
    area = area_under_curve(np.array([2, 4, 5, 1, 2]), np.array([1, 1, 1, 0, 0], bool))
    assert area.value == pytest.approx(5.5 / 6)
    of_positives, of_negatives = np.var([0.75, 1, 1], ddof=1) / 3, np.var([1, 2.5 / 3], ddof=1) / 2
    assert area.se == pytest.approx(math.sqrt(of_positives + of_negatives))
    assert (area.positives, area.negatives) == (3, 2)


def test_logit_interval_stays_inside_where_the_wald_interval_is_cut() -> None:
    scores, positive = np.array([1, 2, 2, 1, 3, 4, 5, 5, 2, 5]), np.arange(10) >= 4
    wald = area_under_curve(scores, positive)
    logit = area_under_curve(scores, positive, interval="logit")
    assert wald.high == 1.0
    assert wald.value < logit.high < 1.0
    # Symmetric on the logit scale.
    low, middle, high = (math.log(x / (1 - x)) for x in (logit.low, logit.value, logit.high))
    assert high - middle == pytest.approx(middle - low)


def test_an_interval_at_95_percent_covers_about_95_percent() -> None:
    rng = np.random.default_rng(3)
    truth = norm.cdf(1 / math.sqrt(2))
    positive = np.arange(120) < 60
    draws = [area_under_curve(rng.normal(size=120) + positive, positive) for _ in range(400)]
    covered = np.mean([area.low <= truth <= area.high for area in draws])
    assert 0.92 < covered < 0.98


def test_reversing_scores_mirrors_and_monotone_changes_do_nothing() -> None:
    scores, positive = study(1)
    area = area_under_curve(scores[0], positive)
    assert area_under_curve(-scores[0], positive).value == pytest.approx(1 - area.value)
    assert area_under_curve(np.exp(scores[0]), positive) == area
    assert area_under_curve(scores[0], ~positive).se == pytest.approx(area.se)


def test_no_variance() -> None:
    positive = np.array([0, 0, 0, 1, 1, 1], bool)
    perfect, reversed_ = np.arange(6.0), -np.arange(6.0)
    for scores, value in ((perfect, 1.0), (reversed_, 0.0), (np.full(6, 3.0), 0.5)):
        for kind in ("wald", "logit"):
            area = area_under_curve(scores, positive, interval=kind)
            assert area.value == value
            assert np.isnan([area.se, area.low, area.high]).all()
    alike = compare_areas(perfect, 2 * perfect, positive)
    assert (alike.value, alike.z, alike.p) == (0.0, 0.0, 1.0)
    assert np.isnan([alike.se, alike.low, alike.high]).all()
    assert math.isnan(compare_areas(perfect, reversed_, positive).p)


def test_too_few_cases_give_no_figures() -> None:
    one_class = area_under_curve(np.arange(4), np.ones(4, bool))
    assert math.isnan(one_class.value)
    assert math.isnan(one_class.se)
    single = area_under_curve(np.array([1, 2, 3]), np.array([0, 0, 1], bool))
    assert single.value == 1.0
    assert math.isnan(single.low)
    assert math.isnan(compare_areas(np.arange(3), np.arange(3), np.array([0, 0, 1], bool)).p)


def test_roc_curve_equals_scikit_learn_and_holds_the_area() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, positive = study(2)
    curve = roc_curve(scores[0], positive)
    fpr, tpr, thresholds = metrics.roc_curve(positive, scores[0], drop_intermediate=False)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(area_under_curve(scores[0], positive).value)


def test_band_surrounds_the_curve_narrows_with_cases_and_repeats() -> None:
    scores, positive = study(4)
    small = roc_curve(scores[0], positive)
    large = roc_curve(np.tile(scores[0], 16), np.tile(positive, 16))
    middle = np.interp(0.5, small.fpr, small.tpr)
    assert small.band_low[50] < middle < small.band_high[50]
    narrowing = (small.band_high - small.band_low)[50] / (large.band_high - large.band_low)[50]
    assert 2.5 < narrowing < 6  # four, by the square root of sixteen
    np.testing.assert_array_equal(roc_curve(scores[0], positive).band_low, small.band_low)
    assert not np.array_equal(roc_curve(scores[0], positive, seed=1).band_low, small.band_low)


def test_band_of_a_perfect_reader_is_at_the_top() -> None:
    curve = roc_curve(np.array([1, 2, 4, 5]), np.array([0, 0, 1, 1], bool))
    np.testing.assert_array_equal(curve.band_low, 1.0)
    constant = roc_curve(np.full(4, 3.0), np.array([0, 0, 1, 1], bool))
    np.testing.assert_allclose(constant.band_low, constant.band_fpr)
    np.testing.assert_allclose(constant.band_high, constant.band_fpr)
