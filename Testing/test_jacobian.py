"""The Jacobian determinant and displacement statistics against transforms whose values are known."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.jacobian import (
    displacement_statistics,
    forward_jacobian_std,
    jacobian_determinant,
    jacobian_statistics,
)

SIZE = (18, 14, 12)
SPACING_MM = (0.7, 1.1, 1.6)


def oblique_grid(
    size: tuple[int, int, int] = SIZE, spacing_mm: tuple[float, float, float] = SPACING_MM
) -> Grid:
    turn = sitk.Euler3DTransform((0, 0, 0), 0.4, -0.3, 0.7)
    return Grid(size, spacing_mm, (12.0, -30.0, 45.0), turn.GetMatrix())


def points_mm(grid: Grid) -> np.ndarray:
    """(k, j, i, 3) LPS positions of the voxel centres."""
    index_kji = np.moveaxis(np.indices(grid.size_vox[::-1]), 0, -1)
    return index_kji[..., ::-1] @ grid.index_to_point[:3, :3].T + np.array(grid.origin_mm)


def full(grid: Grid) -> sitk.Image:
    return grid.image(np.ones(grid.size_vox[::-1], np.uint8))


def field(grid: Grid, displacement_mm: np.ndarray) -> sitk.DisplacementFieldTransform:
    return sitk.DisplacementFieldTransform(grid.image(displacement_mm.astype(np.float64), vector=True))


def determinants(transform: sitk.Transform, grid: Grid) -> np.ndarray:
    return sitk.GetArrayFromImage(jacobian_determinant(transform, grid))


def test_determinant_lies_on_the_grid_asked_for() -> None:
    grid = oblique_grid()
    assert Grid.of(jacobian_determinant(sitk.TranslationTransform(3), grid)).same_as(grid)


def test_forward_determinants_vary_by_their_standard_deviation() -> None:
    """Along i voxels are stretched by 0.1 and 0.3 in turn; the determinant is 1.1 or 1.3."""
    grid = Grid((12, 12, 12), (1.0, 1.0, 1.0))
    steps = np.where(np.arange(11) % 2 == 0, 0.1, 0.3)
    displacement = np.zeros((12, 12, 12, 3))
    displacement[..., 0] = np.concatenate([[0.0], np.cumsum(steps)])
    inside = grid.blank()
    inside[2:8, 2:8, 2:8] = 1
    assert forward_jacobian_std(field(grid, displacement), inside) == pytest.approx(0.1)
    assert np.isnan(forward_jacobian_std(field(grid, displacement), grid.blank()))


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (sitk.TranslationTransform(3, (3.0, -2.0, 1.0)), 1.0),
        (sitk.Euler3DTransform((5.0, 4.0, 3.0), 0.5, 0.2, -0.9, (1.0, 2.0, 3.0)), 1.0),
        (sitk.ScaleTransform(3, (1.2, 0.8, 1.5)), 1.2 * 0.8 * 1.5),
        (sitk.AffineTransform((1.1, 0.3, 0.0, 0.0, 0.9, -0.2, 0.1, 0.0, 1.3), (9.0, 9.0, 9.0)), 1.281),
    ],
)
def test_linear_transforms_have_their_known_determinant(transform: sitk.Transform, expected: float) -> None:
    np.testing.assert_allclose(determinants(transform, oblique_grid()), expected, atol=1e-9)


def test_composite_multiplies_the_determinants() -> None:
    composite = sitk.CompositeTransform(3)
    composite.AddTransform(sitk.Euler3DTransform((0, 0, 0), 0.3, 0.0, 0.1, (4.0, 0.0, 0.0)))
    composite.AddTransform(sitk.ScaleTransform(3, (1.2, 1.1, 0.7)))
    np.testing.assert_allclose(determinants(composite, oblique_grid()), 1.2 * 1.1 * 0.7, atol=1e-9)


def test_quadratic_map_is_exact_in_the_interior() -> None:
    """x' = x + a·x·y, y' = y + b·x²: central differences are exact for a quadratic."""
    grid = oblique_grid()
    big = grid.padded(2)
    x, y, _ = np.moveaxis(points_mm(big) - grid.centre_mm, -1, 0)
    a, b = 0.02, 0.015
    transform = field(big, np.stack([a * x * y, b * x**2, np.zeros_like(x)], axis=-1))
    x, y, _ = np.moveaxis(points_mm(grid) - grid.centre_mm, -1, 0)
    expected = (1 + a * y) - (a * x) * (2 * b * x)
    assert np.ptp(expected) > 0.2
    np.testing.assert_allclose(determinants(transform, grid), expected, atol=1e-9)


def test_smooth_map_converges_with_the_square_of_the_spacing() -> None:
    """x' = x + 2 sin(x/5) cos(y/6), and so on round the axes: analytic Jacobian, second-order error."""

    def error(step_mm: float) -> float:
        grid = oblique_grid((12, 12, 12), (step_mm,) * 3)
        big = grid.padded(2)
        x, y, _ = np.moveaxis(points_mm(big), -1, 0)
        transform = field(big, np.stack([2 * np.sin(x / 5) * np.cos(y / 6), np.sin(y / 4), 0 * x], axis=-1))
        x, y, _ = np.moveaxis(points_mm(grid), -1, 0)
        expected = (1 + 0.4 * np.cos(x / 5) * np.cos(y / 6)) * (1 + np.cos(y / 4) / 4)
        return float(np.abs(determinants(transform, grid) - expected).max())

    coarse, fine = error(0.8), error(0.4)
    assert coarse < 0.01
    assert fine < 0.3 * coarse


def test_agrees_with_itk_on_a_straight_grid() -> None:
    """ITK's own filter, which uses central differences too; away from the rim, where ITK is one-sided."""
    grid = Grid((16, 15, 14), (0.8, 1.0, 1.5))
    values = np.random.default_rng(2).normal(scale=0.2, size=(14, 15, 16, 3))
    image = grid.image(values, vector=True)
    itk = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(sitk.Image(image)))
    ours = determinants(sitk.DisplacementFieldTransform(sitk.Image(image)), grid)
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(ours[inner], itk[inner], atol=1e-4)


def test_statistics_of_a_stretch_along_x() -> None:
    """x' = exp-like stretch whose determinant is 1 + c·x: its log has a known standard deviation."""
    grid = oblique_grid((20, 20, 20), (1.0, 1.0, 1.0))
    big = grid.padded(2)
    c = 0.03

    def determinant(position_mm: np.ndarray) -> np.ndarray:
        return 1 + c * (position_mm - grid.centre_mm)[..., 0]

    x = (points_mm(big) - grid.centre_mm)[..., 0]
    transform = field(big, np.stack([c * x**2 / 2, 0 * x, 0 * x], axis=-1))
    expected = determinant(points_mm(grid))
    found = jacobian_statistics(transform, full(grid))
    assert found.log_std == pytest.approx(np.log(expected).std(), abs=1e-9)
    assert found.folds_percent == 0
    # Forward and backward differences see the determinant up to half a voxel further out.
    half_voxel = c / 2 * np.abs(grid.axes[0]).max()
    assert expected.min() - 3 * half_voxel < found.minimum <= expected.min()


def test_volume_change_is_the_ratio_of_the_volume_to_the_integral_of_the_determinant() -> None:
    grid = oblique_grid((24, 24, 24), (1.0, 1.0, 1.0))
    big = grid.padded(2)
    offset = points_mm(big) - grid.centre_mm
    transform = field(big, 0.02 * offset * np.abs(offset) / 5 + 0.1 * offset)
    radius_mm = np.linalg.norm(points_mm(grid) - grid.centre_mm, axis=-1)
    gland = grid.image((radius_mm < 9).astype(np.uint8))
    inside = radius_mm < 9
    integral = determinants(transform, grid)[inside].sum()
    found = jacobian_statistics(transform, gland).volume_change_percent
    assert found == pytest.approx(100 * (inside.sum() / integral - 1), abs=1e-9)
    assert found < -20


@pytest.mark.parametrize(("scale", "percent"), [(0.5, 700.0), (2.0, -87.5)])
def test_volume_change_is_that_of_the_gland_carried_from_mr_to_trus(scale: float, percent: float) -> None:
    """A TRUS → MR map that halves every length means that the MR gland grew eightfold."""
    gland = full(oblique_grid())
    change = jacobian_statistics(sitk.ScaleTransform(3, (scale,) * 3), gland).volume_change_percent
    assert change == pytest.approx(percent)


def test_share_of_folds_of_a_reflected_slab() -> None:
    """x' runs backwards over 4 of the 19 steps: 5 of 20 columns have such a step on one side."""
    grid = Grid((20, 6, 6), (1.0, 1.0, 1.0))
    position = np.arange(24, dtype=float)
    step = np.ones(23)
    step[8:12] = -0.5  # the differences from padded columns 8 … 11 to 9 … 12, columns 6 … 10 of the grid
    mapped = np.concatenate([[0.0], np.cumsum(step)])
    values = np.zeros((10, 10, 24, 3))
    values[..., 0] = mapped - position
    found = jacobian_statistics(field(grid.padded(2), values), full(grid))
    assert found.folds_percent == pytest.approx(100 * 5 / 20)
    assert found.minimum == pytest.approx(-0.5)
    # Central differences are 0.25 at columns 6 and 10, and negative between, where there is no logarithm.
    assert found.log_std == pytest.approx(np.std([0.0] * 15 + [np.log(0.25)] * 2))


def test_folds_that_central_differences_do_not_see() -> None:
    """A displacement that alternates from voxel to voxel: central differences give 1 everywhere."""
    grid = Grid((16, 6, 6), (1.0, 1.0, 1.0))
    values = np.zeros((10, 10, 20, 3))
    values[..., 0] = 0.6 * (-1.0) ** np.arange(20)
    transform = field(grid.padded(2), values)
    np.testing.assert_allclose(determinants(transform, grid), 1.0, atol=1e-12)
    found = jacobian_statistics(transform, full(grid))
    assert found.folds_percent == 100
    assert found.minimum == pytest.approx(1 - 1.2)
    values[..., 0] *= 0.8
    assert jacobian_statistics(field(grid.padded(2), values), full(grid)).folds_percent == 0


def test_statistics_look_at_the_gland_alone() -> None:
    grid = Grid((30, 10, 10), (1.0, 1.0, 1.0))
    values = np.zeros((10, 10, 30, 3))
    values[:, :, 22, 0] = -3.0  # folds at columns 21 to 23, displaces 3 mm at column 22
    transform = field(grid, values)
    left, right = np.zeros((2, 10, 10, 30), np.uint8)
    left[2:8, 2:8, 3:20] = 1
    right[2:8, 2:8, 20:25] = 1
    assert jacobian_statistics(transform, grid.image(left)).folds_percent == 0
    assert displacement_statistics(transform, grid.image(left)).max_mm == 0
    assert jacobian_statistics(transform, grid.image(right)).folds_percent == pytest.approx(40)
    assert displacement_statistics(transform, grid.image(right)).max_mm == 3


def test_displacement_statistics_of_known_lengths() -> None:
    """Lengths 0, 0.5, … 9.5 mm along an oblique i axis, all in one direction that is no axis."""
    grid = oblique_grid((20, 5, 4), (1.0, 1.0, 1.0))
    length_mm = np.arange(20) / 2
    values = np.broadcast_to(length_mm[:, None] * np.array([2.0, -1.0, 2.0]) / 3, (4, 5, 20, 3))
    found = displacement_statistics(field(grid, values), full(grid))
    assert found.mean_mm == pytest.approx(4.75)
    assert found.p95_mm == pytest.approx(np.percentile(np.repeat(length_mm, 20), 95))
    assert found.max_mm == pytest.approx(9.5)


def test_translation_displaces_by_its_length() -> None:
    found = displacement_statistics(sitk.TranslationTransform(3, (3.0, 4.0, 12.0)), full(oblique_grid()))
    assert (found.mean_mm, found.p95_mm, found.max_mm) == pytest.approx((13.0, 13.0, 13.0))


def test_empty_gland_has_no_statistics() -> None:
    empty = oblique_grid().blank()
    jacobian = jacobian_statistics(sitk.TranslationTransform(3), empty)
    displacement = displacement_statistics(sitk.TranslationTransform(3), empty)
    assert np.isnan([*vars(jacobian).values(), *vars(displacement).values()]).all()


def test_map_that_mirrors_everything_is_all_folds_without_a_volume_change() -> None:
    found = jacobian_statistics(sitk.ScaleTransform(3, (-1.0, 1.0, 1.0)), full(oblique_grid()))
    assert found.folds_percent == 100
    assert found.minimum == pytest.approx(-1)
    assert np.isnan([found.log_std, found.volume_change_percent]).all()
