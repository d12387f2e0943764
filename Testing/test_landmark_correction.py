"""Rigid corrections from landmark pairs and by hand, on cases with a known answer."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from shapes import array, cube_grid, ellipsoid

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, mask_points_mm, resample_mask
from MRTRUSRegistrationLib.landmark_correction import (
    expected_error_ratio,
    landmark_residuals_mm,
    nudge,
    pair_warnings,
    rigid_from_landmarks,
)
from MRTRUSRegistrationLib.rigid import as_rigid, linear_parts
from MRTRUSRegistrationLib.transforms import transform_points_mm

TRUTH = sitk.Euler3DTransform((4.0, -9.0, 2.0), 0.5, -0.7, 1.9, (31.0, -16.0, 8.0))
TRUS_MM = np.random.default_rng(1).uniform(-20, 20, (5, 3)) + np.array([60.0, 10.0, -40.0])
AWAY_MM = np.random.default_rng(2).uniform(-60, 60, (20, 3))


@pytest.mark.parametrize("count", [3, 4, 5])
def test_exact_pairs_give_the_transform_back(count: int) -> None:
    """Three pairs lie in a plane, so that a reflection would fit them as well."""
    found = rigid_from_landmarks(transform_points_mm(TRUTH, TRUS_MM[:count]), TRUS_MM[:count])
    np.testing.assert_allclose(
        transform_points_mm(found, AWAY_MM), transform_points_mm(TRUTH, AWAY_MM), atol=1e-8
    )
    assert np.linalg.det(linear_parts(found)[0]) == pytest.approx(1, abs=1e-12)


def test_mirrored_pairs_give_a_rotation_and_large_residuals() -> None:
    """The best fit to a mirror image is a reflection; the best rigid one must stay one, and tell."""
    mirrored = TRUS_MM * (-1, 1, 1)
    found = rigid_from_landmarks(mirrored, TRUS_MM)
    assert np.linalg.det(linear_parts(found)[0]) == pytest.approx(1, abs=1e-12)
    assert landmark_residuals_mm(found, mirrored, TRUS_MM).max() > 3
    assert as_rigid(found, np.zeros(3)).TransformPoint((1, 2, 3)) == pytest.approx(
        found.TransformPoint((1, 2, 3)), abs=1e-8
    )


def test_noisy_pairs_fit_better_than_any_transform_near() -> None:
    rng = np.random.default_rng(4)
    mr = transform_points_mm(TRUTH, TRUS_MM) + rng.normal(0, 2.0, TRUS_MM.shape)
    best = rigid_from_landmarks(mr, TRUS_MM)
    least = np.sum(landmark_residuals_mm(best, mr, TRUS_MM) ** 2)
    assert least > 1
    for _ in range(30):
        near = nudge(
            best,
            centre_mm=TRUS_MM.mean(axis=0),
            translation_mm=rng.normal(0, 0.3, 3),
            rotation_deg=rng.normal(0, 1, 3),
        )
        assert np.sum(landmark_residuals_mm(near, mr, TRUS_MM) ** 2) > least


def test_agrees_with_itks_initialiser() -> None:
    mr = transform_points_mm(TRUTH, TRUS_MM) + np.random.default_rng(5).normal(0, 1.5, TRUS_MM.shape)
    by_itk = sitk.LandmarkBasedTransformInitializer(
        sitk.VersorRigid3DTransform(), TRUS_MM.ravel().tolist(), mr.ravel().tolist()
    )
    found = rigid_from_landmarks(mr, TRUS_MM)
    np.testing.assert_allclose(
        transform_points_mm(found, AWAY_MM), transform_points_mm(by_itk, AWAY_MM), atol=1e-6
    )


def test_residuals_are_distances_in_mr_space() -> None:
    shift = sitk.TranslationTransform(3, (3.0, 4.0, 0.0))
    mr = TRUS_MM + np.array([3.0, 4.0, 0.0])
    mr[1] += (0, 0, 7.0)
    np.testing.assert_allclose(landmark_residuals_mm(shift, mr, TRUS_MM), [0, 7, 0, 0, 0], atol=1e-12)


LINE = np.outer([0.0, 10.0, 25.0], (1, 2, 3))


@pytest.mark.parametrize(
    ("mr", "trus", "sentence"),
    [
        (TRUS_MM[:2], TRUS_MM[:2], "There are 2 landmark pairs: mark at least 3"),
        (TRUS_MM[:4], TRUS_MM[:3], "There are 4 landmarks on the MR and 3 on the TRUS"),
        (LINE, TRUS_MM[:3], "on the MR lie nearly on one line"),
        (TRUS_MM[:3], LINE, "on the TRUS lie nearly on one line"),
        (TRUS_MM[:3], np.ones((3, 3)), "on the TRUS lie nearly on one line"),
        (TRUS_MM[:3], np.full((3, 3), np.nan), "on the TRUS has no position"),
    ],
)
def test_pairs_that_determine_nothing_are_refused(mr: np.ndarray, trus: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        rigid_from_landmarks(mr, trus)
    assert str(caught.value).count(".") == 1


def test_a_nudge_moves_the_picture_of_the_mr_as_it_says() -> None:
    """A spot of the MR that is seen over a TRUS point is seen 4 mm to the left and 3 mm higher afterwards."""
    grid = cube_grid(60, 1.0)
    spot = ellipsoid(grid, (5, 6, 7), centre_mm=(6.0, -4.0, 3.0))
    start = sitk.Euler3DTransform((0, 0, 0), 0.1, 0.05, -0.2, (2.0, 1.0, -3.0))
    before, after = (
        mask_centroid_mm(resample_mask(spot, Grid.of(spot), transform))
        for transform in (start, nudge(start, centre_mm=(9, 9, 9), translation_mm=(4, 0, 3)))
    )
    np.testing.assert_allclose(after - before, (4, 0, 3), atol=0.1)


def test_a_nudge_turns_about_the_centre_right_handed() -> None:
    centre = np.array([10.0, -5.0, 7.0])
    turned = nudge(sitk.TranslationTransform(3), centre_mm=centre, rotation_deg=(0, 0, 90))
    # What was seen at centre + x is now seen at centre + y: a TRUS point there shows MR's centre + x.
    np.testing.assert_allclose(turned.TransformPoint(centre.tolist()), centre, atol=1e-9)
    np.testing.assert_allclose(
        turned.TransformPoint(np.add(centre, (0, 8, 0)).tolist()), np.add(centre, (8, 0, 0))
    )


def test_nudging_back_restores_the_transform() -> None:
    there = nudge(TRUTH, centre_mm=(1, 2, 3), translation_mm=(4, 5, -6))
    back = nudge(there, centre_mm=(1, 2, 3), translation_mm=(-4, -5, 6))
    np.testing.assert_allclose(
        transform_points_mm(back, AWAY_MM), transform_points_mm(TRUTH, AWAY_MM), atol=1e-9
    )
    assert not np.allclose(transform_points_mm(there, AWAY_MM), transform_points_mm(TRUTH, AWAY_MM), atol=3)


def test_a_transform_that_scales_cannot_be_nudged() -> None:
    with pytest.raises(InputError, match="not rigid"):
        nudge(sitk.ScaleTransform(3, (1.1, 1, 1)), centre_mm=(0, 0, 0))


def test_a_nudge_by_nothing_changes_nothing_in_the_picture() -> None:
    spot = ellipsoid(cube_grid(30, 1.0), (5, 6, 7))
    same = nudge(TRUTH.GetInverse(), centre_mm=(0, 0, 0))
    np.testing.assert_array_equal(
        array(resample_mask(spot, Grid.of(spot), same)),
        array(resample_mask(spot, Grid.of(spot), TRUTH.GetInverse())),
    )


BALL_MM = 20.0
BALL = ellipsoid(cube_grid(44, 1.0), (BALL_MM,) * 3)


def triangle(radius_mm: float) -> np.ndarray:
    """The corners of an equilateral triangle about the origin."""
    angles = np.radians([0, 120, 240])
    return radius_mm * np.stack([np.cos(angles), np.zeros(3), np.sin(angles)], axis=1)


@pytest.mark.parametrize("radius_mm", [5.0, 10.0, 18.0])
def test_the_error_of_a_triangle_in_a_ball_is_known(radius_mm: float) -> None:
    """The mean square distance of a ball from an axis is 2/5 of its radius squared, that of the corners ½
    (axes in their plane) and 1 times theirs."""
    known = np.sqrt((1 + 0.4 * 5 / 3 * (BALL_MM / radius_mm) ** 2) / 3)
    found = expected_error_ratio(triangle(radius_mm), mask_points_mm(BALL))
    assert found == pytest.approx(known, rel=0.01)


def test_the_expected_error_is_what_repeated_marking_gives() -> None:
    rng, gland, sigma_mm = np.random.default_rng(7), mask_points_mm(BALL)[::97], 0.5
    points = np.array([(0.0, 3.0, 14.0), (9.0, -4.0, -8.0), (-12.0, 2.0, 1.0), (2.0, 8.0, -3.0)])
    squares = []
    for _ in range(400):
        fitted = rigid_from_landmarks(points + rng.normal(0, sigma_mm, points.shape), points)
        squares.append(np.mean(np.sum((transform_points_mm(fitted, gland) - gland) ** 2, axis=1)))
    measured = np.sqrt(np.mean(squares)) / (np.sqrt(3) * sigma_mm)
    assert expected_error_ratio(points, gland) == pytest.approx(measured, rel=0.05)


def test_pairs_close_together_are_warned_of() -> None:
    (warning,) = pair_warnings(triangle(10.0) + 3.0, BALL)
    assert warning.code == "pairs_close_together"
    assert "far apart" in warning.message
    assert pair_warnings(triangle(14.0), BALL) == ()
    # The same close points, each marked four times, average their errors.
    assert pair_warnings(np.repeat(triangle(10.0), 4, axis=0), BALL) == ()


def test_pairs_of_the_sample_case() -> None:
    """Apex, base and a side are far enough apart, three structures near the middle are not."""
    from MRTRUSRegistrationLib.images import read_image
    from MRTRUSRegistrationLib.landmarks import read_landmarks
    from MRTRUSRegistrationLib.masks import read_mask

    folder = Path(__file__).parents[1] / "Resources" / "SampleCase"
    trus = read_image(folder / "trus.nii.gz", role="TRUS")
    gland = read_mask(folder / "trus_labels.nii.gz", trus)
    points = read_landmarks(folder / "trus_landmarks.mrk.json", trus)

    def warned(*names: str) -> bool:
        return bool(pair_warnings(points.points_mm[[points.names.index(name) for name in names]], gland))

    assert not warned("apex", "base", "calcifications")
    assert warned("urethra", "cysts", "calcifications")
