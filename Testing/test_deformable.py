"""Deformation fields from networks and from ANTs: direction, size, folds, borders."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scene_fixtures import cubic_displaced
from scipy.ndimage import binary_dilation, binary_erosion
from shapes import array, bump_mm, cube_grid, ellipsoid, overlap, points_mm, turned
from tiny_networks import Shift, Turn, Undefined, Wave, install

from MRTRUSRegistrationLib.deformable import (
    SynSettings,
    deform_with_network,
    deform_with_syn,
    extended,
    finish_field,
)
from MRTRUSRegistrationLib.errors import RegistrationError
from MRTRUSRegistrationLib.geometry import (
    Grid,
    mask_centroid_mm,
    mask_points_mm,
    orientation_code,
    reordered_direction,
    resample,
    resample_mask,
)
from MRTRUSRegistrationLib.jacobian import jacobian_determinant
from MRTRUSRegistrationLib.models import InstalledModel, Preprocessing
from MRTRUSRegistrationLib.regions import region_grid, regions_of_interest
from MRTRUSRegistrationLib.results import Deformation
from MRTRUSRegistrationLib.transforms import compose, displacement_mm, field_image, transform_points_mm

RADII_MM = (17.0, 14.0, 15.0)
CENTRE_MM = (8.0, -11.0, 5.0)
OBLIQUE_LPS = turned(0.25, -0.2, 0.3)
IDENTITY = sitk.TranslationTransform(3)
GRID_VOX = (48, 40, 44)
SHIFT_VOX = (0.5, -1.0, 1.5)  # along the array axes: to the head, to the front, to the left


def model(network: torch.nn.Module, folder: Path, **changes: object) -> InstalledModel:
    options = {"grid_vox": GRID_VOX, "settings": {"intensity_floor": 0.5}} | changes
    preprocessing = Preprocessing("LPS", (1.5, 1.5, 1.5))
    return install(network, folder, modality="MR-TRUS", preprocessing=preprocessing, **options)  # type: ignore[arg-type]


def trus_case(code: str) -> tuple[sitk.Image, sitk.Image]:
    """TRUS on an oblique grid whose axes come in the given order, and its gland."""
    direction = reordered_direction(OBLIQUE_LPS, "LPS", code)
    grid = Grid.centred(np.array(CENTRE_MM), (60, 56, 52), (0.9, 1.0, 1.1), direction)
    assert orientation_code(grid.direction) == code
    image = grid.image((200 + np.linalg.norm(points_mm(grid), axis=-1)).astype(np.float32))
    return image, ellipsoid(grid, RADII_MM, centre_mm=CENTRE_MM)


def deform(
    code: str, installed: InstalledModel, rigid: sitk.Transform = IDENTITY, axes: str = ""
) -> Deformation:
    trus, gland = trus_case(code)
    return deform_with_network(trus, trus, gland, gland, rigid, installed, axes=axes)


def expected_shift_mm() -> np.ndarray:
    """What SHIFT_VOX means in LPS mm: the card's grid has the TRUS axes in the order L, P, S."""
    to_left, to_back, to_head = np.reshape(OBLIQUE_LPS, (3, 3)).T
    return 1.5 * (0.5 * to_head - 1.0 * to_back + 1.5 * to_left)


# --- a network's field ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["LPS", "PRS", "SAL", "RIP", "ASR"])
def test_a_constant_field_moves_the_gland_by_the_right_millimetres(tmp_path: Path, code: str) -> None:
    found = deform(code, model(Shift(SHIFT_VOX), tmp_path))
    assert found.warnings == ()
    assert (found.method, found.model) == ("tiny", "tiny")
    points = mask_points_mm(trus_case(code)[1])[::97]
    moved = transform_points_mm(found.transform, points)
    # Everywhere in the gland, up to its surface.
    np.testing.assert_allclose(moved - points, np.broadcast_to(expected_shift_mm(), points.shape), atol=0.05)


def test_the_registered_image_moves_against_the_field(tmp_path: Path) -> None:
    """A spot at p + u in MR appears at p in TRUS, also behind a rigid transform."""
    rigid = sitk.Euler3DTransform(CENTRE_MM, 0.05, 0.1, -0.08, (20.0, -5.0, 9.0))
    found = deform("PRS", model(Shift(SHIFT_VOX), tmp_path), rigid)
    spot_in_trus = np.add(CENTRE_MM, (3.0, -2.0, 1.0))
    spot_in_mr = rigid.TransformPoint((spot_in_trus + expected_shift_mm()).tolist())
    mr_grid = Grid.centred(np.array(spot_in_mr), (40, 40, 40), (1.0, 1.0, 1.0), turned(0, 0, 0))
    mr_spot = ellipsoid(mr_grid, (6, 6, 6), centre_mm=spot_in_mr)
    trus_grid = Grid.of(trus_case("PRS")[0])
    registered = resample_mask(mr_spot, trus_grid, compose(rigid, found.transform))
    np.testing.assert_allclose(mask_centroid_mm(registered), spot_in_trus, atol=0.05)


@pytest.mark.slow
def test_the_rigid_part_of_a_field_may_become_the_alignment(tmp_path: Path) -> None:
    """Together they are the map that they were before, and what was rigid has left the field."""
    trus, gland = trus_case("PRS")
    rigid = sitk.Euler3DTransform(CENTRE_MM, 0.05, 0.1, -0.08, (20.0, -5.0, 9.0))
    turn = Turn((0.12, -0.1, 0.15))
    network = model(turn, tmp_path)
    whole = deform_with_network(trus, trus, gland, gland, rigid, network)
    split = deform_with_network(trus, trus, gland, gland, rigid, network, split_rigid=True)
    assert whole.alignment is None
    assert split.alignment is not None
    points = mask_points_mm(gland)[::97]
    maps = compose(rigid, whole.transform), compose(split.alignment.transform, split.transform)
    before, after = (transform_points_mm(each, points) for each in maps)
    np.testing.assert_allclose(after, before, atol=0.1)
    assert (whole.start, split.start, split.alignment.method) == (None, rigid, "network")
    assert split.alignment.rotation_deg == pytest.approx(turn.angle_deg, abs=0.2)
    left = transform_points_mm(split.transform, points) - points
    assert np.linalg.norm(transform_points_mm(whole.transform, points) - points, axis=1).max() > 3
    assert np.linalg.norm(left, axis=1).max() < 0.1


def test_a_turn_beyond_what_is_known_is_said(tmp_path: Path) -> None:
    trus, gland = trus_case("PRS")
    network = model(Turn((0.0, 0.0, 0.4)), tmp_path)
    found = deform_with_network(trus, trus, gland, gland, IDENTITY, network, split_rigid=True)
    assert found.alignment is not None
    assert [warning.code for warning in found.alignment.warnings] == ["rotation_large"]
    assert "turns the gland by 23°" in found.alignment.warnings[0].message


@pytest.mark.slow
def test_a_field_that_folds_beyond_the_gland_is_extended_from_it(tmp_path: Path) -> None:
    """Within the gland it stays; beyond, folds and the smoothing that they cost are gone."""
    _, gland = trus_case("LPS")
    regions, _ = region_grid(gland, model(Shift(SHIFT_VOX), tmp_path).card)
    inside = array(resample(sitk.Cast(gland, sitk.sitkFloat32), regions)) > 0.5
    smooth = np.broadcast_to(np.array([2.0, -1.0, 0.5]), (*inside.shape, 3))
    noise = np.random.default_rng(0).normal(0, 3, smooth.shape)
    field_mm = np.where(binary_dilation(inside, iterations=3)[..., None], smooth, noise)
    assert [warning.code for warning in finish_field(field_mm, regions)[1]] == ["field_smoothed"]
    found = extended(field_mm, inside, regions, 9.0)
    transform, warnings = finish_field(found, regions)
    assert warnings == ()
    deep = binary_erosion(inside, iterations=4)
    np.testing.assert_allclose(found[deep], smooth[deep], atol=1e-6)
    near = binary_dilation(inside, iterations=4) & ~inside
    np.testing.assert_allclose(found[near].mean(axis=0), [2.0, -1.0, 0.5], atol=0.3)
    points = mask_points_mm(gland)[::97]
    assert (
        np.linalg.norm(transform_points_mm(transform, points) - points - smooth[0, 0, 0], axis=1).mean() < 0.3
    )


def test_stated_axes_overrule_the_header(tmp_path: Path) -> None:
    """The header says LPS, the axes are P, R, S: the network's left is then against the second index axis."""
    found = deform("LPS", model(Shift((0.0, 0.0, 2.0)), tmp_path), axes="PRS")
    centre = np.array(CENTRE_MM)
    moved = transform_points_mm(found.transform, centre[None])[0] - centre
    np.testing.assert_allclose(moved, -3.0 * np.reshape(OBLIQUE_LPS, (3, 3))[:, 1], atol=1e-5)


def test_the_field_ends_in_zeros_and_covers_the_cards_grid(tmp_path: Path) -> None:
    trus, gland = trus_case("SAL")
    installed = model(Shift(SHIFT_VOX), tmp_path)
    grid, clipped = region_grid(gland, installed.card)
    assert not clipped
    assert grid.size_vox == GRID_VOX
    np.testing.assert_allclose(grid.centre_mm, CENTRE_MM, atol=0.5)
    found = deform_with_network(trus, trus, gland, gland, IDENTITY, installed)
    stored = field_image(found.transform)
    assert Grid.of(stored).spacing_mm == (1.0, 1.0, 1.0)
    assert Grid.of(stored).same_as(grid.with_spacing((1.0, 1.0, 1.0)).padded(2))
    for axis in range(3):
        assert not np.take(array(stored), [0, 1, -2, -1], axis=axis).any()


def test_a_margin_shows_what_lies_about_the_gland(tmp_path: Path) -> None:
    trus, gland = trus_case("LPS")
    card = model(Shift(SHIFT_VOX), tmp_path).card
    wide = replace(card, settings={**card.settings, "margin_mm": 6.0})
    plain, shown = (regions_of_interest(trus, trus, gland, gland, IDENTITY, each) for each in (card, wide))
    assert array(shown.fixed_gland).sum() == array(plain.fixed_gland).sum(), "the gland itself does not grow"
    radii = [float(np.ptp(np.argwhere(array(each.fixed) > 0)[:, 2])) * 1.5 / 2 for each in (plain, shown)]
    assert radii[1] - radii[0] == pytest.approx(6.0, abs=1.6)


def test_a_box_about_the_volume_does_not_follow_the_gland(tmp_path: Path) -> None:
    trus, gland = trus_case("LPS")
    installed = model(Shift(SHIFT_VOX), tmp_path)
    free = replace(
        installed, card=replace(installed.card, settings={**installed.card.settings, "box": "volume"})
    )
    moved = Grid.of(gland).image(np.roll(array(gland), 3, axis=2))
    assert region_grid(gland, installed.card)[0] != region_grid(moved, installed.card)[0]
    grid, clipped = region_grid(gland, free.card)
    assert region_grid(moved, free.card)[0] == grid
    np.testing.assert_allclose(grid.centre_mm, Grid.of(trus).centre_mm)
    assert not clipped


def test_the_regions_are_zero_outside_and_keep_a_floor_inside(tmp_path: Path) -> None:
    trus, gland = trus_case("RIP")
    card = model(Shift(SHIFT_VOX), tmp_path).card
    mr_gland = ellipsoid(Grid.of(gland), (12, 12, 12), centre_mm=CENTRE_MM)
    regions = regions_of_interest(trus, trus, mr_gland, gland, IDENTITY, card)
    for image, radii in ((regions.moving, (12, 12, 12)), (regions.fixed, RADII_MM)):
        assert Grid.of(image) == regions.grid
        core = array(ellipsoid(regions.grid, tuple(r - 2 for r in radii), centre_mm=CENTRE_MM)) > 0
        beyond = array(ellipsoid(regions.grid, tuple(r + 2 for r in radii), centre_mm=CENTRE_MM)) == 0
        values = array(image)
        assert not values[beyond].any()
        assert values[core].min() >= 0.5
        assert values.max() <= 1


def test_a_model_with_context_sees_beyond_the_gland_and_still_tells_it_apart(tmp_path: Path) -> None:
    trus, gland = trus_case("RIP")
    shown = {"intensity_floor": 0.5, "context": 1.0}
    card = model(Shift(SHIFT_VOX), tmp_path, settings=shown).card
    regions = regions_of_interest(trus, trus, gland, gland, IDENTITY, card)
    values, inside = array(regions.fixed), array(regions.fixed_gland)
    assert values[inside == 1].min() >= 0.5
    beyond = values[inside == 0]
    assert beyond.max() <= 0.5
    assert beyond.std() > 0.05, "the image is seen there"
    half = model(Shift(SHIFT_VOX), tmp_path, settings={**shown, "context": 0.5}).card
    dimmed = array(regions_of_interest(trus, trus, gland, gland, IDENTITY, half).fixed)
    np.testing.assert_allclose(dimmed[inside == 0], 0.5 * beyond, atol=1e-6)
    np.testing.assert_allclose(dimmed[inside == 1], values[inside == 1], atol=1e-6)


def test_the_moving_region_is_seen_through_the_rigid_transform(tmp_path: Path) -> None:
    trus, gland = trus_case("LPS")
    rigid = sitk.Euler3DTransform(CENTRE_MM, 0.3, -0.2, 0.4, (30.0, 20.0, -10.0))
    mr_grid = Grid.centred(np.array(rigid.TransformPoint(CENTRE_MM)), (64,) * 3, (1.0,) * 3, turned(0, 0, 0))
    mr, mr_gland = (resample(image, mr_grid, rigid.GetInverse()) for image in (trus, gland))
    regions = regions_of_interest(mr, trus, mr_gland, gland, rigid, model(Shift(SHIFT_VOX), tmp_path).card)
    assert overlap(regions.moving > 0.25, regions.fixed > 0.25) > 0.93


@pytest.mark.slow
def test_a_folding_field_is_smoothed_and_said(tmp_path: Path) -> None:
    height_vox = 3.0
    found = deform("LPS", model(Wave(height_vox), tmp_path))
    assert [w.code for w in found.warnings] == ["field_smoothed"]
    grid = Grid.of(field_image(found.transform))
    assert array(jacobian_determinant(found.transform, grid)).min() > 0
    assert found.own_folds_percent > 10
    assert deform("LPS", model(Shift(SHIFT_VOX), tmp_path)).own_folds_percent == 0
    field_vox = np.zeros((3, *GRID_VOX[::-1]))
    field_vox[2] = height_vox * np.sin(np.arange(GRID_VOX[0]) * 2 * np.pi / 8)
    region = Grid(GRID_VOX, (1.5, 1.5, 1.5))
    plain = sitk.DisplacementFieldTransform(region.image(displacement_mm(field_vox, region), vector=True))
    assert array(jacobian_determinant(plain, region)).min() < 0, "the network's own field must fold"


def test_a_field_without_folds_is_left_as_it_is() -> None:
    grid = cube_grid(40, 1.5)
    field_mm = bump_mm(grid, (5.0, -3.0, 2.0), width_mm=8.0)
    transform, warnings = finish_field(field_mm, grid)
    assert warnings == ()
    inside = [12 + 7 * n for n in range(6)]
    for k, j, i in ((k, j, i) for k in inside[:4] for j in inside[:4] for i in inside[:4]):
        point = grid.index_to_point @ np.array([i, j, k, 1.0])
        moved = np.array(transform.TransformPoint(point[:3].tolist())) - point[:3]
        # Storing smooths by 1 mm: a bump 8 mm wide loses a few percent of its height.
        np.testing.assert_allclose(moved, field_mm[k, j, i], atol=0.2)


@pytest.mark.slow
def test_a_field_is_smoothed_only_where_it_folds() -> None:
    grid = cube_grid(64, 1.5)
    bump, fold = bump_mm(grid, (5.0, -3.0, 2.0), width_mm=8.0), np.zeros((64, 64, 64, 3))
    fold[44:56, 44:56, 44:56] = np.random.default_rng(0).normal(0, 2, (12, 12, 12, 3))
    shifted = np.roll(bump, (-12, -12, -12), axis=(0, 1, 2))
    transform, warnings = finish_field(shifted + fold, grid)
    assert [w.code for w in warnings] == ["field_smoothed"]
    assert array(jacobian_determinant(transform, grid)).min() > 0
    alone, none = finish_field(shifted, grid)
    assert none == ()
    far = points_mm(grid)[12:28:4, 12:28:4, 12:28:4].reshape(-1, 3)
    found, expected = (transform_points_mm(each, far) for each in (transform, alone))
    assert np.linalg.norm(expected - far, axis=1).max() > 3
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_stored_fields_agree_between_linear_and_cubic_interpolation() -> None:
    """ITK reads a field linearly, Slicer cubically: a point may differ by 0.01 mm."""
    grid = cube_grid(40, 1.5)
    transform, _ = finish_field(bump_mm(grid, (5.0, -3.0, 2.0), width_mm=15.0), grid)
    points = np.random.default_rng(0).uniform(-15, 15, (300, 3)) + grid.centre_mm
    linear = transform_points_mm(transform, points)
    gap_mm = np.linalg.norm(cubic_displaced(transform, points) - linear, axis=1)
    assert gap_mm.max() < 0.01
    assert np.linalg.norm(linear - points, axis=1).max() > 2


@pytest.mark.slow
def test_an_affine_field_does_not_fold_where_it_fades() -> None:
    """Scaling by 1.25 moves the border by 8 mm: the fade needs the gland's whole margin, not five voxels."""
    grid = cube_grid(44, 1.5)
    field_mm = 0.25 * points_mm(grid)
    assert [w.code for w in finish_field(field_mm, grid)[1]] == ["field_smoothed"]
    assert finish_field(field_mm, grid, fade_vox=11)[1] == ()


def test_a_field_that_cannot_be_made_smooth_is_an_error() -> None:
    grid = cube_grid(24, 1.5)
    with pytest.raises(RegistrationError, match="could not be made smooth"):
        finish_field(np.random.default_rng(0).normal(0, 1e5, (24, 24, 24, 3)), grid)


def test_undefined_values_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match="tiny gave a field with undefined values"):
        deform("LPS", model(Undefined(), tmp_path))


def test_a_gland_larger_than_the_grid_is_said(tmp_path: Path) -> None:
    found = deform("LPS", model(Shift((0.0, 0.0, 0.2)), tmp_path, grid_vox=(16, 40, 44)))
    assert [w.code for w in found.warnings] == ["gland_larger_than_model"]


# --- SyN -----------------------------------------------------------------------------------------------


def syn_case() -> tuple[sitk.Image, sitk.Image]:
    """MR gland and TRUS gland of different shape about one centre."""
    return (
        ellipsoid(cube_grid(40, 1.5), (19, 13, 17)),
        ellipsoid(cube_grid(44, 1.4, OBLIQUE_LPS), (15, 17, 15), centre_mm=(1.0, -1.0, 0.5)),
    )


@pytest.fixture(scope="module")
def syn() -> Deformation:
    return deform_with_syn(*syn_case(), IDENTITY)


@pytest.mark.slow
def test_syn_makes_two_ellipsoids_overlap(syn: Deformation) -> None:
    mr, trus = syn_case()
    before = overlap(resample_mask(mr, Grid.of(trus), IDENTITY), trus)
    after = overlap(resample_mask(mr, Grid.of(trus), compose(IDENTITY, syn.transform)), trus)
    assert before < 0.87
    assert after > 0.97
    assert (syn.method, syn.model, syn.warnings) == ("syn", None, ())


@pytest.mark.slow
def test_syn_folds_nowhere_and_ends_in_zeros(syn: Deformation) -> None:
    stored = field_image(syn.transform)
    assert array(jacobian_determinant(syn.transform, Grid.of(stored))).min() >= 0.05
    for axis in range(3):
        assert not np.take(array(stored), [0, 1, 2, -3, -2, -1], axis=axis).any()


COARSE = SynSettings(spacing_mm=3.0, syn_iterations=(20, 10))


@pytest.mark.slow
def test_syn_repeats_itself_to_the_bit() -> None:
    first, again = (deform_with_syn(*syn_case(), IDENTITY, settings=COARSE) for _ in range(2))
    np.testing.assert_array_equal(array(field_image(again.transform)), array(field_image(first.transform)))


@pytest.mark.slow
def test_syn_works_in_trus_space_after_the_rigid_transform() -> None:
    """MR somewhere else, with the rigid transform that says where: the same field up to interpolation."""
    mr, trus = syn_case()
    here = deform_with_syn(mr, trus, IDENTITY, settings=COARSE)
    rigid = sitk.TranslationTransform(3, (40.0, -30.0, 15.0))
    moved = sitk.Image(mr)
    moved.SetOrigin(rigid.TransformPoint(mr.GetOrigin()))
    elsewhere = deform_with_syn(moved, trus, rigid, settings=COARSE)
    np.testing.assert_allclose(
        array(field_image(elsewhere.transform)), array(field_image(here.transform)), atol=0.05
    )
