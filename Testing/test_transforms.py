"""Displacement fields in voxels and millimetres, their composition and their inverse, against SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from shapes import OBLIQUE, array, bump_mm, cube_grid, points_mm, turned

from MRTRUSRegistrationLib.errors import RegistrationError
from MRTRUSRegistrationLib.geometry import Grid, resample
from MRTRUSRegistrationLib.transforms import (
    compose,
    displacement_mm,
    displacement_vox,
    displacements_mm,
    edge_fade,
    field_image,
    field_transform,
    inverse_points_mm,
    transform_points_mm,
)
from MRTRUSTraining.networks.warp import warp

RIGID = sitk.Euler3DTransform((4.0, -9.0, 2.0), 0.3, -0.2, 0.15, (11.0, -6.0, 8.0))
# Anisotropic and oblique, about the origin, large enough for a smooth bump that fades out inside.
WIDE = Grid.centred(np.zeros(3), (48, 40, 32), (1.25, 1.5, 2.0), turned(0.4, -0.3, 0.7))


def smooth_deformation(peak_mm: tuple[float, float, float] = (6.0, -4.0, 5.0)) -> sitk.Transform:
    return field_transform(bump_mm(WIDE, peak_mm, width_mm=9.0), WIDE)


def random_points_mm(count: int = 60, *, within_mm: float = 25.0) -> np.ndarray:
    return np.random.default_rng(3).uniform(-within_mm, within_mm, (count, 3))


def test_displacements_are_those_of_the_voxel_centres() -> None:
    grid = Grid((4, 6, 5), (1.25, 1.5, 2.0), (10.0, -20.0, 5.0), WIDE.direction)
    expected = transform_points_mm(RIGID, grid.points_mm().reshape(-1, 3)) - grid.points_mm().reshape(-1, 3)
    found = displacements_mm(RIGID, grid)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-9)


# --- voxels to millimetres -----------------------------------------------------------------------------


@pytest.mark.parametrize(("array_axis", "index_axis"), [(0, 2), (1, 1), (2, 0)])
def test_one_voxel_along_an_array_axis_is_one_step_of_the_index_axis(
    array_axis: int, index_axis: int
) -> None:
    field_vox = np.zeros((3, 13, 17, 21), np.float32)
    field_vox[array_axis] = 1.0
    expected = OBLIQUE.axes[:, index_axis] * OBLIQUE.spacing_mm[index_axis]
    found = displacement_mm(field_vox, OBLIQUE)
    assert found.shape == (13, 17, 21, 3)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-7)


def test_voxels_to_millimetres_and_back_is_the_identity() -> None:
    field_vox = np.random.default_rng(6).normal(size=(3, 13, 17, 21)).astype(np.float32)
    back = displacement_vox(displacement_mm(field_vox, OBLIQUE), OBLIQUE)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, field_vox, atol=1e-6)
    # One millimetre to the left, on axes that neither lie along the patient's nor are scaled alike.
    left = np.zeros((2, 2, 2, 3))
    left[..., 0] = 1.0
    expected = OBLIQUE.axes[0] / np.array(OBLIQUE.spacing_mm)
    np.testing.assert_allclose(displacement_vox(left, OBLIQUE)[:, 0, 0, 0], expected[::-1], atol=1e-6)


def test_itk_resamples_with_the_field_as_torch_warps_with_it() -> None:
    """A voxel field on an oblique, anisotropic grid: the same image from both, voxel by voxel."""
    rng = np.random.default_rng(5)
    volume = rng.normal(size=(13, 17, 21)).astype(np.float32)
    field_vox = rng.uniform(-1.5, 1.5, (3, 13, 17, 21)).astype(np.float32)
    # Samples stay strictly inside, because outside ITK and torch differ by design.
    index = np.indices(volume.shape)
    limits = (np.array(volume.shape) - 1.001).reshape(3, 1, 1, 1)
    field_vox = (np.clip(index + field_vox, 0.001, limits) - index).astype(np.float32)
    by_torch = warp(torch.from_numpy(volume)[None, None], torch.from_numpy(field_vox)[None])[0, 0].numpy()
    transform = field_transform(displacement_mm(field_vox, OBLIQUE), OBLIQUE)
    by_itk = array(resample(OBLIQUE.image(volume), OBLIQUE, transform))
    np.testing.assert_allclose(by_itk, by_torch, atol=2e-4)


# --- the field's border --------------------------------------------------------------------------------


def test_edge_fade_is_smoothstep_from_the_faces() -> None:
    weights = edge_fade((21, 30, 31), 5)
    along = weights[:, 15, 15]
    expected = [0, 0.104, 0.352, 0.648, 0.896, 1.0]  # 3t² − 2t³ at t = 0, .2, .4, .6, .8, 1
    np.testing.assert_allclose(along[:6], expected, atol=1e-12)
    np.testing.assert_allclose(along, along[::-1])
    assert np.all(weights[5:-5, 5:-5, 5:-5] == 1)
    for axis in range(3):
        assert not np.take(weights, [0, -1], axis=axis).any()
    assert weights[1, 1, 1] == pytest.approx(0.104**3)


def test_field_transform_ends_with_a_rim_of_zeros() -> None:
    field_mm = np.full((13, 17, 21, 3), 2.5)
    transform = field_transform(field_mm, OBLIQUE)
    stored = field_image(transform)
    assert Grid.of(stored).same_as(OBLIQUE.padded(2))
    values = array(stored)
    np.testing.assert_array_equal(values[2:-2, 2:-2, 2:-2], field_mm)
    for axis in range(3):
        assert not np.take(values, [0, 1, -2, -1], axis=axis).any()


def test_points_outside_the_field_do_not_move() -> None:
    transform = field_transform(np.full((13, 17, 21, 3), 2.5), OBLIQUE)
    inside, outside = OBLIQUE.centre_mm, OBLIQUE.centre_mm + np.array([60.0, 0, 0])
    moved = transform_points_mm(transform, np.stack([inside, outside]))
    np.testing.assert_allclose(moved, [inside + 2.5, outside], atol=1e-9)


# --- composition ---------------------------------------------------------------------------------------


def test_the_deformation_comes_before_the_rigid_transform() -> None:
    deformation = field_transform(np.broadcast_to([1.0, 2.0, 3.0], (13, 17, 21, 3)), OBLIQUE)
    point = OBLIQUE.centre_mm
    expected = RIGID.TransformPoint(np.add(point, (1, 2, 3)).tolist())
    np.testing.assert_allclose(
        compose(RIGID, deformation).TransformPoint(point.tolist()), expected, atol=1e-9
    )
    other_order = np.add(RIGID.TransformPoint(point.tolist()), (1, 2, 3))
    assert np.linalg.norm(other_order - expected) > 0.5, "the two orders must differ for this test to tell"


def test_without_a_deformation_only_the_rigid_part_acts() -> None:
    points = random_points_mm()
    expected = [RIGID.TransformPoint(point) for point in points.tolist()]
    np.testing.assert_allclose(transform_points_mm(compose(RIGID, None), points), expected, atol=1e-12)


def test_no_points_give_no_points() -> None:
    nothing = np.empty((0, 3))
    assert transform_points_mm(RIGID, nothing).shape == (0, 3)
    assert inverse_points_mm(RIGID, smooth_deformation(), nothing).shape == (0, 3)


# --- the way back --------------------------------------------------------------------------------------


def test_inverse_of_a_rigid_transform_is_exact() -> None:
    points = random_points_mm()
    there = transform_points_mm(RIGID, points)
    np.testing.assert_allclose(inverse_points_mm(RIGID, None, there), points, atol=1e-9)


def test_points_go_there_and_back_and_back_and_there() -> None:
    deformation, points = smooth_deformation(), random_points_mm()
    total = compose(RIGID, deformation)
    back = inverse_points_mm(RIGID, deformation, transform_points_mm(total, points))
    np.testing.assert_allclose(back, points, atol=1e-3)
    mr_points = transform_points_mm(RIGID, points)
    there = transform_points_mm(total, inverse_points_mm(RIGID, deformation, mr_points))
    np.testing.assert_allclose(there, mr_points, atol=1e-3)
    assert np.linalg.norm(back - mr_points, axis=1).max() > 5, "the map must move the points"


def test_inverse_agrees_with_itk_inverting_the_field() -> None:
    """Compared at ITK's own voxel centres, where its inverse field needs no interpolation."""
    deformation = smooth_deformation()
    inverse_field = sitk.InvertDisplacementField(
        field_image(deformation),
        maximumNumberOfIterations=200,
        maxErrorToleranceThreshold=1e-5,
        meanErrorToleranceThreshold=1e-6,
    )
    grid = Grid.of(inverse_field)
    picked = np.random.default_rng(0).integers([14, 14, 10], [38, 30, 26], (40, 3))
    points = picked @ grid.index_to_point[:3, :3].T + np.array(grid.origin_mm)
    by_itk = points + np.array([inverse_field[index] for index in picked.tolist()])
    found = inverse_points_mm(sitk.TranslationTransform(3), deformation, points)
    np.testing.assert_allclose(found, by_itk, atol=0.01)
    assert np.linalg.norm(found - points, axis=1).max() > 3


def test_inverse_holds_where_plain_fixed_point_iteration_diverges() -> None:
    """Where the map stretches more than twofold the undamped iteration does not contract."""
    grid = cube_grid(61, 1.0)
    along = points_mm(grid)[..., :1]
    # d/dx (x + 6 tanh(x/3)) is 3 in the middle; no fold anywhere.
    field_mm = np.concatenate([6 * np.tanh(along / 3), np.zeros_like(along), np.zeros_like(along)], axis=-1)
    deformation = field_transform(field_mm * edge_fade((61, 61, 61), 10)[..., None], grid)
    points = np.array([[x, 2.3, -1.7] for x in (-15.0, -3.2, -0.4, 0.3, 2.2, 12.5)])
    there = transform_points_mm(deformation, points)
    np.testing.assert_allclose(
        inverse_points_mm(sitk.TranslationTransform(3), deformation, there), points, atol=1e-3
    )


def test_a_field_torn_to_pieces_raises() -> None:
    """Noise of many voxels folds everywhere; the iteration finds no counterpart and must say so."""
    grid = cube_grid(24, 1.0)
    field_mm = np.random.default_rng(0).normal(0, 60.0, (24, 24, 24, 3))
    with pytest.raises(RegistrationError, match="cannot be inverted at a landmark"):
        inverse_points_mm(
            sitk.TranslationTransform(3), field_transform(field_mm, grid), random_points_mm(20, within_mm=8)
        )


def test_inverse_holds_in_a_swirl() -> None:
    """A turn of 120° in the middle: one to one, but no damping makes the fixed-point iteration contract."""
    grid = cube_grid(61, 1.0)
    points = points_mm(grid)
    angle = np.deg2rad(120) * np.exp(-0.5 * np.sum(points**2, axis=-1) / 8.0**2)
    x, y, _ = np.moveaxis(points, -1, 0)
    cos, sin = np.cos(angle), np.sin(angle)
    swirl = np.stack([cos * x - sin * y - x, sin * x + cos * y - y, np.zeros_like(x)], axis=-1)
    deformation = field_transform(swirl * edge_fade((61, 61, 61), 10)[..., None], grid)
    within = random_points_mm(within_mm=12)
    there = transform_points_mm(deformation, within)
    back = inverse_points_mm(sitk.TranslationTransform(3), deformation, there)
    np.testing.assert_allclose(back, within, atol=1e-3)
    assert np.linalg.norm(there - within, axis=1).max() > 8
