"""Rigid alignment of gland masks: recovery of known transforms, determinism, limits and warnings."""

import json
import subprocess
import sys

import numpy as np
import pytest
import rigid_case
import SimpleITK as sitk  # noqa: N813
from shapes import array, cube_grid, ellipsoid, gland_like, overlap, turned

from MRTRUSRegistrationLib.ants_masks import mask_pair
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, mask_points_mm, resample_mask
from MRTRUSRegistrationLib.pipeline import Settings, register
from MRTRUSRegistrationLib.rigid import (
    RigidSettings,
    _limited,
    align_centroids,
    align_rigid,
    as_rigid,
    gland_initial,
    linear_parts,
    nearest_rigid,
    rotation_deg,
    scaled_rotation,
)
from MRTRUSRegistrationLib.transforms import transform_points_mm

DEGREE = np.pi / 180


# --- small parts ---------------------------------------------------------------------------------------


def test_initial_translation_matches_the_centroids() -> None:
    mr, trus = rigid_case.glands()
    initial = gland_initial(mr, trus)
    moved = initial.TransformPoint(mask_centroid_mm(trus).tolist())
    np.testing.assert_allclose(moved, mask_centroid_mm(mr), atol=1e-9)
    assert rotation_deg(initial) == 0


def test_parts_of_a_linear_transform() -> None:
    affine = sitk.AffineTransform((1.1, 0.3, 0, 0, 0.9, -0.2, 0.1, 0, 1.3), (9.0, 8.0, 7.0), (1.0, 2.0, 3.0))
    matrix, offset = linear_parts(affine)
    np.testing.assert_allclose(matrix, np.reshape(affine.GetMatrix(), (3, 3)), atol=1e-12)
    point = np.array([4.0, -5.0, 6.0])
    np.testing.assert_allclose(matrix @ point + offset, affine.TransformPoint(point.tolist()), atol=1e-9)


@pytest.mark.parametrize("angle_deg", [0.5, 12.0, 90.0, 170.0])
def test_rotation_angle(angle_deg: float) -> None:
    turn = sitk.VersorTransform((1 / 3, 2 / 3, 2 / 3), angle_deg * DEGREE)
    assert rotation_deg(turn) == pytest.approx(angle_deg, abs=1e-9)


def test_any_rigid_transform_becomes_the_same_map_about_a_centre() -> None:
    composite = sitk.CompositeTransform(
        [sitk.TranslationTransform(3, (5.0, 6.0, -7.0)), sitk.VersorTransform((0.6, 0, 0.8), 0.7)]
    )
    centre = np.array([10.0, -20.0, 30.0])
    euler = as_rigid(composite, centre)
    np.testing.assert_allclose(euler.GetCenter(), centre)
    points = np.random.default_rng(0).normal(0, 40, (20, 3))
    np.testing.assert_allclose(
        transform_points_mm(euler, points), transform_points_mm(composite, points), atol=1e-9
    )


def test_a_rotation_in_single_precision_is_rigid() -> None:
    matrix = np.array(turned(0.3, 0.5, -0.2), np.float32).astype(float)
    affine = sitk.AffineTransform(matrix.tolist(), (1.0, 2.0, 3.0))
    found = as_rigid(affine, np.zeros(3))
    np.testing.assert_allclose(found.GetMatrix(), matrix, atol=1e-6)


@pytest.mark.parametrize(
    "transform",
    [
        sitk.ScaleTransform(3, (1.01, 1.0, 1.0)),
        sitk.AffineTransform((1.0, 0.05, 0, 0, 1, 0, 0, 0, 1), (0.0, 0.0, 0.0)),
        sitk.AffineTransform((-1.0, 0, 0, 0, 1, 0, 0, 0, 1), (0.0, 0.0, 0.0)),
    ],
    ids=["scaling", "shear", "mirror"],
)
def test_what_is_not_rigid_is_refused(transform: sitk.Transform) -> None:
    with pytest.raises(InputError, match="not rigid"):
        as_rigid(transform, np.zeros(3))


def test_the_nearest_rigid_map_of_moved_points_is_their_motion() -> None:
    points = np.array([40.0, -20.0, 7.0]) + np.random.default_rng(0).normal(0, 15, (200, 3))
    motion = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.2, -0.15, 0.3, (4.0, -6.0, 2.0))
    moved = np.array([motion.TransformPoint(point) for point in points.tolist()])
    found = nearest_rigid(points, moved)
    assert [found.TransformPoint(p) for p in points[:5].tolist()] == [
        pytest.approx(p, abs=1e-5) for p in moved[:5].tolist()
    ]
    # What is not rigid, such as growth about the centre, is left out.
    grown = moved + 0.1 * (moved - moved.mean(axis=0))
    assert rotation_deg(nearest_rigid(points, grown)) == pytest.approx(rotation_deg(motion), abs=1e-4)


def test_scaling_a_rotation_keeps_its_axis_and_the_image_of_the_centre() -> None:
    rigid = sitk.Euler3DTransform((7.0, -3.0, 5.0), 0.2, 0.1, -0.3, (4.0, 5.0, 6.0))
    third = scaled_rotation(rigid, 1 / 3)
    assert rotation_deg(third) == pytest.approx(rotation_deg(rigid) / 3, abs=1e-6)
    cube = np.linalg.matrix_power(linear_parts(third)[0], 3)
    np.testing.assert_allclose(cube, linear_parts(rigid)[0], atol=1e-9)
    centre = rigid.GetCenter()
    np.testing.assert_allclose(third.TransformPoint(centre), rigid.TransformPoint(centre), atol=1e-9)


# --- the grid that ANTs sees ---------------------------------------------------------------------------


def test_mask_pair_holds_both_glands_in_trus_space() -> None:
    mr, trus = rigid_case.glands()
    pair = mask_pair(mr, trus, rigid_case.TRUTH, spacing_mm=1.5)
    assert Grid.of(pair.moving) == Grid.of(pair.fixed) == pair.grid
    assert overlap(pair.moving > 0.5, pair.fixed > 0.5) > 0.97
    for image, mask in ((pair.moving, mr), (pair.fixed, trus)):
        volume = array(image).sum() * 1.5**3
        assert volume == pytest.approx(len(mask_points_mm(mask)) * np.prod(mask.GetSpacing()), rel=0.01)
        for axis in range(3):
            assert not np.take(array(image), [0, -1], axis=axis).any()


# --- ANTs ----------------------------------------------------------------------------------------------


def worst_error_mm(found: sitk.Transform, truth: sitk.Transform, gland: sitk.Image) -> float:
    points = mask_points_mm(gland)[::50]
    gaps = transform_points_mm(found, points) - transform_points_mm(truth, points)
    return float(np.linalg.norm(gaps, axis=1).max())


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["meansquares", "mattes"])
def test_a_known_transform_is_recovered(metric: str) -> None:
    mr, trus = rigid_case.glands()
    initial = gland_initial(mr, trus)
    found = align_rigid(mr, trus, initial, settings=RigidSettings(metric=metric))  # type: ignore[arg-type]
    assert found.method == f"ants-{metric}"
    assert found.warnings == ()
    assert rotation_deg(rigid_case.TRUTH) == pytest.approx(6.4, abs=0.1)
    assert found.rotation_deg == pytest.approx(rotation_deg(rigid_case.TRUTH), abs=1.0)
    np.testing.assert_allclose(found.transform.GetCenter(), mask_centroid_mm(trus), atol=1e-9)
    before, after = (worst_error_mm(t, rigid_case.TRUTH, trus) for t in (initial, found.transform))
    assert before > 2
    assert after < 0.5


@pytest.mark.slow
def test_a_rotation_beyond_the_limit_is_cut_back_and_said() -> None:
    trus = ellipsoid(cube_grid(48, 1.5), (26, 15, 15))
    turn = sitk.Euler3DTransform((0, 0, 0), 0, 0, 25 * DEGREE)
    mr = resample_mask(trus, Grid.of(trus), turn.GetInverse())
    found = align_rigid(mr, trus, gland_initial(mr, trus))
    assert [w.code for w in found.warnings] == ["rotation_limited"]
    assert found.rotation_deg == pytest.approx(10, abs=1e-3)
    # About the right axis, and the centroids still coincide.
    axis = linear_parts(found.transform)[0] @ [0, 0, 1]
    assert axis[2] > 0.998
    moved = found.transform.TransformPoint(mask_centroid_mm(trus).tolist())
    np.testing.assert_allclose(moved, mask_centroid_mm(mr), atol=0.3)
    free = align_rigid(mr, trus, gland_initial(mr, trus), settings=RigidSettings(max_rotation_deg=180))
    assert free.rotation_deg == pytest.approx(25, abs=1)


@pytest.mark.parametrize(
    ("radii_mm", "expected"), [((18.0, 18.0, 17.5), ["rotation_unsupported"]), ((28.0, 15.0, 15.0), [])]
)
def test_a_rotation_that_the_shape_does_not_support_is_said(radii_mm: tuple, expected: list[str]) -> None:
    trus = ellipsoid(cube_grid(48, 1.5), radii_mm)
    turn = sitk.Euler3DTransform((0, 0, 0), 0, 0, 8 * DEGREE)
    mr = resample_mask(trus, Grid.of(trus), turn.GetInverse())
    pair = mask_pair(mr, trus, sitk.TranslationTransform(3), spacing_mm=1.5)
    kept, warnings = _limited(as_rigid(turn, np.zeros(3)), pair, RigidSettings())
    assert [w.code for w in warnings] == expected
    assert rotation_deg(kept) == pytest.approx(8, abs=1e-6), "it is said, not undone"


def test_centroid_method_keeps_the_initial_rotation() -> None:
    mr, trus = rigid_case.glands()
    turn = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.2, 0.3, (50.0, 60.0, 70.0))
    found = align_centroids(mr, trus, turn)
    np.testing.assert_allclose(linear_parts(found.transform)[0], linear_parts(turn)[0], atol=1e-9)
    moved = found.transform.TransformPoint(mask_centroid_mm(trus).tolist())
    np.testing.assert_allclose(moved, mask_centroid_mm(mr), atol=1e-9)
    assert (found.method, found.rotation_deg) == ("centroid", 0.0)


@pytest.mark.slow
def test_the_rotation_that_is_told_is_that_beyond_the_start() -> None:
    """A start that turns the MR by 23° and the truth beyond it, which is 6.4°."""
    mr, trus = rigid_case.glands()
    # The same MR, given in a frame that is turned about its gland.
    turn = sitk.Euler3DTransform(mask_centroid_mm(mr).tolist(), 0.0, 0.4, 0.0)
    turned = sitk.Image(mr)
    turned.SetOrigin(turn.TransformPoint(mr.GetOrigin()))
    turned.SetDirection((linear_parts(turn)[0] @ Grid.of(mr).axes).ravel().tolist())
    start = sitk.CompositeTransform([turn, gland_initial(mr, trus)])
    found = align_rigid(turned, trus, start)
    assert found.rotation_deg == pytest.approx(rotation_deg(rigid_case.TRUTH), abs=1.0)
    assert rotation_deg(found.transform) > 20


# --- determinism ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_agree_to_the_bit_within_and_across_processes() -> None:
    first = rigid_case.alignments()
    assert rigid_case.alignments() == first
    other = subprocess.run(
        [sys.executable, rigid_case.__file__], check=True, capture_output=True, text=True
    ).stdout
    assert json.loads(other[other.index("{") :]) == first
    assert first["mattes 0"] != first["mattes 5"], "the seed must matter for this test to tell"


# --- the start that a user chooses ---------------------------------------------------------------------


def images() -> tuple[sitk.Image, sitk.Image, sitk.Image, sitk.Image]:
    mr_gland, trus_gland = rigid_case.glands()
    return (*(sitk.Cast(g, sitk.sitkFloat32) for g in (mr_gland, trus_gland)), mr_gland, trus_gland)


def test_initial_world_trusts_the_headers() -> None:
    mr, trus, mr_gland, trus_gland = images()
    options = {"mr_gland": mr_gland, "trus_gland": trus_gland}
    world = register(mr, trus, settings=Settings(method="initial", initial="world"), **options)
    np.testing.assert_allclose(world.transform.TransformPoint((1.0, 2.0, 3.0)), (1, 2, 3), atol=1e-9)
    given = register(mr, trus, settings=Settings(method="initial", initial=rigid_case.TRUTH), **options)
    assert worst_error_mm(given.transform, rigid_case.TRUTH, trus_gland) < 1e-6
    assert given.measures.values["dsc"] > 0.97


def test_an_affine_start_is_refused() -> None:
    mr, trus, mr_gland, trus_gland = images()
    affine = sitk.AffineTransform(3)
    affine.Scale(1.1)
    with pytest.raises(InputError, match="not rigid"):
        register(
            mr,
            trus,
            settings=Settings(method="centroid", initial=affine),
            mr_gland=mr_gland,
            trus_gland=trus_gland,
        )


def test_the_blob_has_no_symmetry() -> None:
    """Without this the recovery of a rotation would be a matter of luck."""
    gland = gland_like(cube_grid(48, 1.4))
    for turn in [(np.pi, 0, 0), (0, np.pi, 0), (0, 0, np.pi)]:
        turned_gland = resample_mask(gland, Grid.of(gland), sitk.Euler3DTransform((0, 0, 0), *turn))
        assert overlap(gland, turned_gland) < 0.93
