"""The simulator's random fields are as smooth as they are asked to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from shapes import array

from MRTRUSTraining.simulation.cases import simulate
from MRTRUSTraining.simulation.noise import smooth_noise, smooth_trend
from MRTRUSTraining.simulation.sampling import sample_case

CPU = torch.device("cpu")
pytestmark = pytest.mark.slow


def correlation(make: Callable[[int], torch.Tensor], lag: int, seeds: int) -> float:
    """Mean product of values that lie `lag` voxels apart along an axis, over fields of unit variance."""
    products = []
    for seed in range(seeds):
        field = make(seed)
        for axis, size in enumerate(field.shape):
            near, far = field.narrow(axis, 0, size - lag), field.narrow(axis, lag, size - lag)
            products.append(float((near * far).mean()))
    return float(np.mean(products))


@pytest.mark.parametrize("lag", [3, 6, 9])
@pytest.mark.parametrize(("sigma", "size"), [(4.0, 40), (6.0, 56)])
def test_a_trend_is_correlated_as_blurred_noise_is(sigma: float, size: int, lag: int) -> None:
    """White noise after a Gaussian of deviation sigma is correlated by exp(−lag²/4σ²)."""
    found = correlation(lambda seed: smooth_trend((size,) * 3, sigma, seed, CPU), lag, seeds=6)
    assert found == pytest.approx(np.exp(-(lag**2) / (4 * sigma**2)), abs=0.08)


def test_a_trend_smoother_than_the_volume_is_nearly_a_slope() -> None:
    places = np.stack(np.meshgrid(*[np.arange(30.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    design = np.column_stack([places, np.ones(len(places))])
    left = []
    for sigma in (100.0, 5.0):
        values = smooth_trend((30, 30, 30), sigma, 3, CPU).numpy().ravel()
        assert values.std() == pytest.approx(1.0, abs=1e-3)
        solution, *_ = np.linalg.lstsq(design, values, rcond=None)
        left.append(float(np.var(values - design @ solution)))
    assert left[0] < 0.05
    assert left[1] > 0.3


@pytest.mark.parametrize("lag", [5, 10])
def test_a_periodic_field_of_the_largest_residual_is_as_smooth_as_told(lag: int) -> None:
    """40 mm on nodes of 2 mm: a deviation of 10 voxels in some 54; the mean over the volume is taken off."""
    found = correlation(lambda seed: smooth_noise((54, 54, 54), 10.0, seed, CPU, circular=True), lag, seeds=8)
    of_the_mean = (10 * 2 * np.sqrt(np.pi) / 54) ** 3
    expected = (np.exp(-(lag**2) / 400) - of_the_mean) / (1 - of_the_mean)
    # With the deviation of 7 voxels that an eighth of the volume allows it were 0.58 at a lag of 10.
    assert found == pytest.approx(expected, abs=0.05)


def test_the_scale_of_the_bias_field_shows_in_the_mr() -> None:
    parameters = sample_case(7, spacing_mm=3.0)
    images = [
        array(simulate(replace(parameters, mr=replace(parameters.mr, bias_scale_mm=scale))).mr).astype(float)
        for scale in (60.0, 110.0)
    ]
    assert np.abs(images[0] - images[1]).max() > 3


def test_a_volume_of_one_voxel_along_an_axis_has_a_trend_along_the_others() -> None:
    field = smooth_trend((24, 1, 30), 8.0, 3, torch.device("cpu"))
    assert field.shape == (24, 1, 30)
    assert bool(torch.isfinite(field).all())
    assert float(field.std()) == pytest.approx(1.0, abs=0.01)
