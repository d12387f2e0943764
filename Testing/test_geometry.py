"""Grids, frames and resampling."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from shapes import OBLIQUE, array, cube_grid, ellipsoid, overlap, points_mm, turned

from MRTRUSRegistrationLib.geometry import (
    Grid,
    mask_centroid_mm,
    mask_points_mm,
    mask_volume_ml,
    orientation_code,
    orientation_direction,
    reordered_direction,
    resample,
    resample_mask,
    with_orientation,
)

CODES = [
    "".join(letters)
    for order in itertools.permutations(("LR", "PA", "SI"))
    for letters in itertools.product(*order)
]


def test_there_are_forty_eight_orientations() -> None:
    assert len(set(CODES)) == 48


# --- Grid ----------------------------------------------------------------------------------------------


def test_index_to_point_is_that_of_itk() -> None:
    image = OBLIQUE.blank()
    for index in [(0, 0, 0), (20, 0, 0), (3, 16, 5), (20, 16, 12)]:
        expected = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose((OBLIQUE.index_to_point @ [*index, 1])[:3], expected, atol=1e-9)


def test_grid_of_an_image_is_the_grid_it_was_made_on() -> None:
    assert Grid.of(OBLIQUE.blank()) == OBLIQUE
    values = np.arange(21 * 17 * 13, dtype=np.float32).reshape(13, 17, 21)
    image = OBLIQUE.image(values)
    assert Grid.of(image) == OBLIQUE
    assert image.GetPixel(4, 5, 6) == values[6, 5, 4]


def test_vector_image_keeps_components_last() -> None:
    field = np.random.default_rng(0).normal(size=(13, 17, 21, 3))
    assert OBLIQUE.image(field, vector=True).GetPixel(2, 3, 4) == tuple(field[4, 3, 2])


def test_centre_is_the_mean_of_all_voxel_centres() -> None:
    np.testing.assert_allclose(OBLIQUE.centre_mm, points_mm(OBLIQUE).mean((0, 1, 2)), atol=1e-9)


def test_centred_grid_has_its_middle_where_asked() -> None:
    centre = np.array([3.0, -8.0, 41.0])
    grid = Grid.centred(centre, (8, 5, 6), (0.5, 1.5, 2.0), turned(1.0, 0.2, -0.4))
    np.testing.assert_allclose(grid.centre_mm, centre, atol=1e-9)
    image = grid.blank()
    np.testing.assert_allclose(
        image.TransformContinuousIndexToPhysicalPoint((3.5, 2, 2.5)), centre, atol=1e-9
    )


def test_padding_keeps_every_voxel_where_it_was() -> None:
    padded = OBLIQUE.padded(3)
    assert padded.size_vox == (27, 23, 19)
    np.testing.assert_allclose(points_mm(padded)[3:-3, 3:-3, 3:-3], points_mm(OBLIQUE), atol=1e-9)


def test_padding_is_undone_by_a_negative_margin() -> None:
    assert OBLIQUE.padded(4).padded(-4).same_as(OBLIQUE, tolerance_mm=1e-9)


def test_new_spacing_keeps_middle_and_axes_and_covers_the_region() -> None:
    grid = OBLIQUE.with_spacing((1.0, 1.0, 1.0))
    # 21 × 0.8 = 16.8, 17 × 1.1 = 18.7, 13 × 1.7 = 22.1 mm
    assert grid.size_vox == (17, 19, 23)
    assert grid.direction == OBLIQUE.direction
    np.testing.assert_allclose(grid.centre_mm, OBLIQUE.centre_mm, atol=1e-9)


def test_new_spacing_that_divides_the_extent_adds_no_voxel() -> None:
    assert Grid((30, 30, 20), (0.5, 0.5, 1.5)).with_spacing((1.5, 1.5, 1.5)).size_vox == (10, 10, 20)


def test_one_voxel_remains_at_least() -> None:
    assert Grid((4, 4, 4), (0.1, 1.0, 1.0)).with_spacing((5.0, 5.0, 5.0)).size_vox == (1, 1, 1)


def test_voxel_volume() -> None:
    assert OBLIQUE.voxel_volume_mm3 == pytest.approx(0.8 * 1.1 * 1.7)


def test_same_grid_is_judged_at_the_corners() -> None:
    origin = tuple(v + 5e-4 for v in OBLIQUE.origin_mm)
    assert OBLIQUE.same_as(Grid(OBLIQUE.size_vox, OBLIQUE.spacing_mm, origin, OBLIQUE.direction))
    # A spacing that differs by a ten-thousandth shifts the last of 21 voxels by 2 µm.
    stretched = Grid(OBLIQUE.size_vox, (0.8001, 1.1, 1.7), OBLIQUE.origin_mm, OBLIQUE.direction)
    assert not OBLIQUE.same_as(stretched)
    assert OBLIQUE.same_as(stretched, tolerance_mm=0.01)
    assert not OBLIQUE.same_as(OBLIQUE.padded(1), tolerance_mm=1e6)


# --- orientation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_orientation_code_and_direction_are_each_others_inverse(code: str) -> None:
    direction = orientation_direction(code)
    assert orientation_code(direction) == code
    # ITK's own name for the same axes.
    assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction) == code


def test_identity_is_lps() -> None:
    assert orientation_direction("lps") == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_orientation_of_an_oblique_grid_is_that_of_its_nearest_axes() -> None:
    assert orientation_code(turned(0.3, 0.2, -0.3)) == "LPS"
    assert orientation_code(turned(0, 0, np.pi / 2 + 0.2)) == "PRS"


@pytest.mark.parametrize("code", ["", "LP", "LPX", "LRS", "LPSI", "LLS"])
def test_what_is_no_orientation_code_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="not an orientation code"):
        orientation_direction(code)


@pytest.mark.parametrize("code", ["PRS", "ASL", "RAI"])
def test_with_orientation_keeps_voxels_and_middle(code: str) -> None:
    image = OBLIQUE.image(np.random.default_rng(1).normal(size=(13, 17, 21)))
    turned_image = with_orientation(image, code)
    np.testing.assert_array_equal(array(turned_image), array(image))
    assert turned_image.GetSpacing() == image.GetSpacing()
    assert orientation_code(turned_image.GetDirection()) == code
    np.testing.assert_allclose(Grid.of(turned_image).centre_mm, OBLIQUE.centre_mm, atol=1e-9)
    assert Grid.of(image) == OBLIQUE, "the given image must not change"


@pytest.mark.parametrize("start", ["LPS", "PRS", "RSA", "IAL"])
@pytest.mark.parametrize("wanted", ["LPS", "RAS", "SPL"])
def test_reordered_direction_of_true_axes_has_the_wanted_code(start: str, wanted: str) -> None:
    assert reordered_direction(orientation_direction(start), start, wanted) == orientation_direction(wanted)


def test_reordered_direction_permutes_and_flips_oblique_columns() -> None:
    columns = OBLIQUE.axes.T
    direction = reordered_direction(OBLIQUE.direction, "LPS", "SRP")
    np.testing.assert_allclose(np.reshape(direction, (3, 3)).T, [columns[2], -columns[0], columns[1]])


def test_reordered_direction_believes_the_stated_axes_not_the_header() -> None:
    # The header says LPS, but the first index axis is known to run to the back and the second to the right.
    direction = reordered_direction(orientation_direction("LPS"), "PRS", "LPS")
    np.testing.assert_array_equal(np.reshape(direction, (3, 3)).T, [[0, -1, 0], [1, 0, 0], [0, 0, 1]])


# --- resampling and masks ------------------------------------------------------------------------------


def test_resampling_follows_fixed_to_moving() -> None:
    grid = cube_grid(11, 1.0)
    ramp = grid.image(points_mm(grid)[..., 0].astype(np.float32))
    moved = array(resample(ramp, grid, sitk.TranslationTransform(3, (2.0, 0.0, 0.0)), outside=-9.0))
    # The value at x is the moving image's at x + 2.
    np.testing.assert_allclose(moved[:, :, :9], array(ramp)[:, :, 2:], atol=1e-5)
    assert np.all(moved[:, :, 9:] == -9.0)


def test_nearest_neighbour_makes_no_new_values() -> None:
    labels = OBLIQUE.image(np.random.default_rng(0).choice([0, 3, 7], (13, 17, 21)).astype(np.uint8))
    fine = resample(labels, OBLIQUE.with_spacing((0.5, 0.5, 0.5)), nearest=True)
    assert set(np.unique(array(fine))) == {0, 3, 7}


def test_mask_on_its_own_grid_stays_as_it_is() -> None:
    mask = ellipsoid(cube_grid(32, 1.0), (11, 9, 7))
    np.testing.assert_array_equal(array(resample_mask(mask, Grid.of(mask))), array(mask))


def test_mask_resampled_to_a_finer_oblique_grid_keeps_its_volume_and_shape() -> None:
    coarse, fine = cube_grid(30, 2.0), cube_grid(110, 0.5, turned(0.4, -0.3, 0.7))
    mask = resample_mask(ellipsoid(coarse, (20, 16, 14)), fine)
    assert mask.GetPixelID() == sitk.sitkUInt8
    expected_ml = 4 / 3 * np.pi * 20 * 16 * 14 / 1000
    assert mask_volume_ml(mask) == pytest.approx(expected_ml, rel=0.02)
    exact = ellipsoid(fine, (20, 16, 14))
    assert overlap(mask, exact) > 0.97
    # Nearest neighbour has the half-voxel steps that the soft rule avoids.
    steps = resample(ellipsoid(coarse, (20, 16, 14)), fine, nearest=True)
    assert overlap(mask, exact) > overlap(steps, exact)


def test_centroid_and_points_of_a_mask_on_an_oblique_grid() -> None:
    mask = OBLIQUE.blank()
    corners = [(2, 3, 4), (5, 3, 4), (2, 9, 4), (2, 3, 10)]
    for index in corners:
        mask[index] = 1
    expected = np.array([mask.TransformIndexToPhysicalPoint(index) for index in corners])
    np.testing.assert_allclose(mask_centroid_mm(mask), expected.mean(0), atol=1e-9)
    found = mask_points_mm(mask)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-9)


def test_centroid_of_an_ellipsoid_off_the_middle() -> None:
    mask = ellipsoid(cube_grid(64, 0.8, turned(0.2, 0.5, -0.4)), (9, 7, 6), centre_mm=(3.3, -4.7, 5.1))
    np.testing.assert_allclose(mask_centroid_mm(mask), [3.3, -4.7, 5.1], atol=0.05)
    assert mask_volume_ml(mask) == pytest.approx(4 / 3 * np.pi * 9 * 7 * 6 / 1000, rel=0.01)


def test_points_of_a_grid_are_those_of_its_image() -> None:
    grid = Grid((3, 4, 5), (0.7, 1.1, 1.3), (5.0, -2.0, 9.0), turned(0.3, -0.2, 0.1))
    points = grid.points_mm()
    assert points.shape == (5, 4, 3, 3)
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        expected = grid.blank().TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(points[index[::-1]], expected, atol=1e-9)
