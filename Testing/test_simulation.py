"""The simulator: truth, physics and distributions, at a coarse spacing for speed."""

import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import SimpleITK as sitk  # noqa: N813
import torch
from disks import fill, mounted_disk

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import (
    Grid,
    mask_centroid_mm,
    mask_points_mm,
    orientation_code,
    resample_mask,
)
from MRTRUSTraining.cli import app
from MRTRUSTraining.simulation import anatomy_sampling, command, pictures, placement, trus
from MRTRUSTraining.simulation.anatomy import LABELS, Anatomy, ellipsoid_distance
from MRTRUSTraining.simulation.anatomy_sampling import sample_gland, sample_lesions
from MRTRUSTraining.simulation.cases import mr_grid_of, simulate, write_case
from MRTRUSTraining.simulation.deformation import FieldGrid, dent_velocity, displacement_field
from MRTRUSTraining.simulation.draw import Draw
from MRTRUSTraining.simulation.limits import LIMITS
from MRTRUSTraining.simulation.mr import render_mr, signal
from MRTRUSTraining.simulation.parameters import CaseParameters, Ellipsoid, validate
from MRTRUSTraining.simulation.placement import deformation_of
from MRTRUSTraining.simulation.presets import PRESETS
from MRTRUSTraining.simulation.sampling import sample_case

COARSE_MM = 1.6
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parameters():
    """A case whose gland lies wholly inside both volumes, with a lesion, a cyst and calcifications."""
    return sample_case(7, preset="sample", spacing_mm=COARSE_MM)


@pytest.fixture(scope="module")
def case(parameters):
    return simulate(parameters)


def array(image):
    return sitk.GetArrayFromImage(image)


def dice(first, second):
    first, second = array(first) > 0, array(second) > 0
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


# ---- sampling apart from applying


@pytest.mark.slow
def test_json_regenerates_the_case_to_the_bit(parameters, case):
    again = simulate(CaseParameters.from_json(parameters.to_json()))
    assert again.parameters == parameters
    assert np.array_equal(array(again.mr), array(case.mr))
    assert np.array_equal(array(again.trus), array(case.trus))
    for name in LABELS:
        assert np.array_equal(array(again.trus_labels[name]), array(case.trus_labels[name]))
    point = np.add(parameters.trus.centre_mm, (3.0, -4.0, 5.0)).tolist()
    assert again.transform.TransformPoint(point) == case.transform.TransformPoint(point)


def test_a_seed_gives_one_case_and_another_seed_another(parameters):
    assert sample_case(7, preset="sample", spacing_mm=COARSE_MM) == parameters
    assert sample_gland(Draw(8), PRESETS["sample"]) != parameters.gland


def test_gland_volumes_follow_the_published_lognormal():
    volumes = np.array([sample_gland(Draw(seed), PRESETS["clinical"]).volume_ml for seed in range(3000)])
    assert volumes.min() >= 15
    assert volumes.max() <= 150
    law = scipy.stats.lognorm(s=0.54, scale=math.exp(3.93))
    kept = volumes[(volumes > 15) & (volumes < 150)]
    assert abs(np.median(volumes) - 50.9) < 2
    low, high = law.cdf([15, 150])
    assert abs(len(kept) / len(volumes) - (high - low)) < 0.01
    inside = scipy.stats.kstest(kept, lambda v: (law.cdf(v) - low) / (high - low))
    assert inside.pvalue > 0.01


def test_the_transition_zone_grows_with_the_gland_and_the_peripheral_zone_hardly():
    glands = [sample_gland(Draw(seed), PRESETS["clinical"]) for seed in range(1000)]
    volume = np.array([gland.volume_ml for gland in glands])
    zone = np.array([gland.transition_zone_ml for gland in glands])
    usual = (volume > 30) & (volume < 90)
    growth = np.polyfit(volume[usual], zone[usual], 1)[0]
    assert growth > 0.85
    assert 15 < (volume - zone)[usual].mean() < 25


def test_lesions_are_drawn_by_zone_size_and_echo(parameters):
    zones = anatomy_sampling.Zones(replace(parameters, lesions=()))
    draw = Draw(5)
    drawn = [sample_lesions(draw, PRESETS["clinical"], zones, parameters.gland) for _ in range(500)]
    lesions = [each for case in drawn for each in case]
    count = len(lesions)
    assert abs(sum(each.zone == "peripheral" for each in lesions) / count - 0.7) < 0.06
    assert abs(sum(each.echo_db < -2 for each in lesions) / count - 0.55) < 0.06
    assert abs(sum(each.echo_db > 1.5 for each in lesions) / count - 0.10) < 0.04
    assert all(60 <= each.t2_ms <= 125 for each in lesions)
    centres = torch.tensor([each.centre_mm for each in lesions])
    assert float(zones.anatomy.gland.distance(centres).max()) < 0


# ---- anatomy


def test_distance_to_a_sphere_is_exact():
    points = torch.tensor([[5.0, 1.0, 1.0], [1.0, 1.0, 12.0], [1.0, 2.0, 1.0]])
    distance = ellipsoid_distance(points, (1.0, 1.0, 1.0), (6.0, 6.0, 6.0))
    assert distance.tolist() == pytest.approx([-2.0, 5.0, -5.0], abs=1e-4)


def test_volumes_of_gland_and_transition_zone_are_those_drawn(parameters):
    anatomy = Anatomy(parameters, CPU)
    axis = torch.arange(-45.0, 45.0, 1.2)
    points = torch.cartesian_prod(axis, axis, axis)
    gland = anatomy.gland.distance(points)
    zone = anatomy.gland.transition_distance(points, gland)
    voxel_ml = 1.2**3 / 1000
    assert int((gland < 0).sum()) * voxel_ml == pytest.approx(parameters.gland.volume_ml, rel=0.02)
    drawn = parameters.gland.transition_zone_ml
    assert int((zone < 0).sum()) * voxel_ml == pytest.approx(drawn, rel=0.03)


def test_labels_nest_and_zones_fill_the_gland(case):
    gland = array(case.mr_labels["gland"]) > 0
    zones = {name: array(case.mr_labels[name]) > 0 for name in ("transition_zone", "peripheral_zone")}
    assert not (zones["transition_zone"] & zones["peripheral_zone"]).any()
    for name in ("urethra", "lesions", "cysts", "calcifications", "apex", "base", *zones):
        mask = array(case.mr_labels[name]) > 0
        assert mask.any(), name
        assert not (mask & ~gland).any(), name
    assert not (gland & (array(case.mr_labels["seminal_vesicles"]) > 0)).any()
    filled = np.count_nonzero(zones["transition_zone"] | zones["peripheral_zone"])
    assert 0.9 < filled / np.count_nonzero(gland) <= 1


def test_apex_lies_below_base_and_urethra_between(case):
    heights = [mask_centroid_mm(case.mr_labels[name])[2] for name in ("apex", "urethra", "base")]
    assert heights[0] < heights[1] - 8 < heights[2] - 16


# ---- deformation and truth


def test_the_dent_is_free_of_divergence_and_presses_at_the_probe(parameters):
    dent = replace(parameters.deformation, dent_mm=6.0, dent_slope=0.0)
    axis = torch.linspace(-30, 30, 61, dtype=torch.float64)
    z, y, x = torch.meshgrid(axis[:3], axis, axis, indexing="ij")
    velocity = dent_velocity(torch.stack([x, y, z], dim=-1), dent)
    divergence = (
        torch.gradient(velocity[..., 0], spacing=1.0, dim=2)[0]
        + torch.gradient(velocity[..., 1], spacing=1.0, dim=1)[0]
    )
    assert float(divergence[:, 1:-1, 1:-1].abs().max()) < 0.004
    at_probe = torch.tensor([[0.0, dent.dent_position_mm, 0.0]])
    assert dent_velocity(at_probe, dent)[0].tolist() == pytest.approx([0.0, 6.0, 0.0], abs=1e-5)


def test_the_field_keeps_folds_volume_and_motion_within_bounds(parameters):
    deformed = deformation_of(parameters, CPU)
    points = deformed.grid.points_mm(CPU)
    anatomy = Anatomy(parameters, CPU)
    inside = anatomy.gland.distance(deformed(points.reshape(-1, 3))) < 0
    inside = inside.reshape(points.shape[:3])
    assert float(deformed.jacobian()[inside].min()) > 0
    volume_ml = int(inside.sum()) * deformed.grid.spacing_mm**3 / 1000
    assert volume_ml == pytest.approx(parameters.gland.volume_ml, rel=0.05)
    motion = deformed.field[inside].norm(dim=1)
    assert 1 < float(motion.max()) <= placement.MAXIMUM_MOTION_MM


@pytest.mark.slow
def test_an_excessive_deformation_is_weakened_until_the_bounds_hold(parameters):
    wild = replace(parameters.deformation, residual_mm=(6.0, 6.0, 9.0), field_spacing_mm=4.0)
    assert not placement.within_bounds(*_case_and_map(replace(parameters, deformation=wild)))
    tamed = placement.bounded(replace(parameters, deformation=wild))
    assert tamed.deformation.strength < 1
    assert placement.within_bounds(*_case_and_map(tamed))


def _case_and_map(parameters):
    return parameters, deformation_of(parameters, CPU)


def test_the_field_ends_with_a_rim_of_zeros(parameters):
    grid = FieldGrid.around((0, 0, 0), (40, 40, 40), 4.0)
    field = displacement_field(grid, parameters.deformation, CPU)
    rim = torch.ones(field.shape[:3], dtype=torch.bool)
    rim[1:-1, 1:-1, 1:-1] = False
    assert float(field[rim].abs().max()) < 1e-4
    assert float(field.abs().max()) > 0.5


def test_the_written_transform_is_the_map_that_rendered_the_image(parameters, case):
    deformed = deformation_of(parameters, CPU)
    generator = np.random.default_rng(1)
    local = generator.uniform(-20, 20, (50, 3))
    expected = deformed(torch.tensor(local, dtype=torch.float32)).numpy() + parameters.mr.centre_mm
    world = local + np.array(parameters.trus.centre_mm)
    found = np.array([case.transform.TransformPoint(point) for point in world.tolist()])
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(found - world).max() > 5


def test_labels_warped_by_the_transform_meet_the_other_side(case):
    grid = Grid.of(case.trus)
    for name, least in (("gland", 0.98), ("transition_zone", 0.96), ("peripheral_zone", 0.94)):
        warped = resample_mask(case.mr_labels[name], grid, case.transform)
        assert dice(warped, case.trus_labels[name]) > least, name


def test_the_lesion_moves_with_the_transform(case):
    points = mask_points_mm(case.trus_labels["lesions"])
    moved = np.array([case.transform.TransformPoint(point) for point in points.tolist()])
    error = moved.mean(axis=0) - mask_centroid_mm(case.mr_labels["lesions"])
    assert np.linalg.norm(error) < 0.35


# ---- geometry of the files


def test_headers_tell_the_truth(parameters, case):
    assert orientation_code(case.trus.GetDirection()) == "PRS"
    assert orientation_code(case.mr.GetDirection()) == "PRS"
    assert np.abs(np.array(case.trus.GetDirection())).max() == 1
    turn = np.abs(np.reshape(case.mr.GetDirection(), (3, 3))).max(axis=0)
    assert (turn < 0.99999).any()
    assert (turn > math.cos(math.radians(15))).all()
    # The bladder neck is superior and the rectal side posterior in the images themselves.
    gland = mask_centroid_mm(case.mr_labels["gland"])
    assert mask_centroid_mm(case.mr_labels["base"])[2] > gland[2]
    assert mask_centroid_mm(case.mr_labels["seminal_vesicles"])[1] > gland[1]


def test_full_resolution_sizes():
    fine = sample_case(3)
    assert fine.trus.size_vox == (81, 118, 88)
    assert mr_grid_of(fine).size_vox == (120, 128, 128)
    assert mr_grid_of(fine).spacing_mm == (0.8, 0.8, 0.8)


def test_an_interrupted_case_is_none(case, tmp_path, monkeypatch):
    """Whichever file it is interrupted before: what lists as a case is whole."""
    move = Path.replace
    for moved in range(6):
        folder, left = tmp_path / str(moved), iter(range(moved))

        def interrupted(path, target, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return move(path, target)

        monkeypatch.setattr(Path, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_case(case, folder, 0)
        assert not list(folder.glob("mr_images/*"))
        assert not list(folder.glob(".writing-*"))


def test_the_challenge_layout_round_trip(case, tmp_path):
    write_case(case, tmp_path, 4)
    assert {path.name for path in tmp_path.iterdir()} == {
        "mr_images",
        "mr_labels",
        "us_images",
        "us_labels",
        "transforms",
        "parameters",
    }
    trus_image = sitk.ReadImage(str(tmp_path / "us_images" / "case000004.nii.gz"))
    assert np.array_equal(array(trus_image), array(case.trus))
    assert Grid.of(trus_image).same_as(Grid.of(case.trus))
    mr_image = sitk.ReadImage(str(tmp_path / "mr_images" / "case000004.nii.gz"))
    assert Grid.of(mr_image).same_as(Grid.of(case.mr))
    labels = sitk.ReadImage(str(tmp_path / "us_labels" / "case000004.nii.gz"))
    assert labels.GetSize() == (*case.trus.GetSize(), len(LABELS))
    assert labels.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(array(labels)[0], array(case.trus_labels["gland"]))
    assert np.array_equal(array(labels)[4], array(case.trus_labels["lesions"]))
    transform = sitk.ReadTransform(str(tmp_path / "transforms" / "case000004.h5"))
    point = np.add(case.parameters.trus.centre_mm, (5.0, 6.0, -7.0)).tolist()
    assert transform.TransformPoint(point) == pytest.approx(case.transform.TransformPoint(point), abs=1e-6)
    text = (tmp_path / "parameters" / "case000004.json").read_text(encoding="utf-8")
    assert CaseParameters.from_json(text) == case.parameters
    assert json.loads(text)["labels"] == list(LABELS)


# ---- MR


def test_relative_signals_match_the_sources():
    echo_ms = 100.0
    for t2_ms, expected in ((149, 0.51), (125, 0.45), (97, 0.36)):
        assert signal(t2_ms, 1.0, echo_ms) == pytest.approx(expected, abs=0.005)


@pytest.mark.slow
def test_rendered_zones_keep_their_signal_ratio(parameters):
    tissues = dict(parameters.mr.tissues)
    tissues["peripheral"], tissues["transition"] = (149.0, 1.0, 0.0, 0.0), (97.0, 1.0, 0.0, 0.0)
    clean = replace(parameters.mr, tissues=tissues, echo_time_ms=100.0, bias_log_sd=0.0, snr=1e5, gamma=1.0)
    plain = replace(parameters, mr=clean, nodules=(), lesions=(), cysts=(), calcifications=())
    case = simulate(plain)
    means = []
    for name in ("peripheral_zone", "transition_zone"):
        core = sitk.BinaryErode(case.mr_labels[name], [2, 2, 2])
        means.append(np.median(array(case.mr)[array(core) > 0]))
    assert means[0] / means[1] == pytest.approx(math.exp(-100 / 149) / math.exp(-100 / 97), rel=0.04)


def test_noise_in_the_mr_follows_the_signal_to_noise_ratio(parameters):
    axis = COARSE_MM * torch.arange(-16.0, 16.0)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], dim=-1)
    anatomy = Anatomy(parameters, CPU)
    quiet, noisy = (
        render_mr(anatomy, points, replace(parameters.mr, snr=snr), COARSE_MM) for snr in (1e5, 10.0)
    )
    inside = (quiet > 40) & (quiet < 200)
    assert 4 < (noisy - quiet)[inside].std() < 25


# ---- TRUS


def _beams_and_settings(parameters):
    settings = replace(parameters.trus, lateral_fwhm_mm=(0.8, 2.4), axial_fwhm_mm=0.8)
    return trus.Beams.of(settings, 0.8), settings


def test_uniform_tissue_gives_fully_developed_speckle(parameters):
    beams, settings = _beams_and_settings(parameters)
    envelope = trus.speckle(torch.zeros(beams.count), beams, settings)
    envelope = envelope[6:-6, 6:-6, 6:-6]
    depths = envelope.shape[2]
    for part in (envelope[..., : depths // 4], envelope[..., 3 * depths // 4 :], envelope):
        assert float(part.mean() / part.std()) == pytest.approx(1.91, abs=0.05)
        assert float(part.square().mean()) == pytest.approx(1.0, abs=0.06)
    decibels = 20 * torch.log10(envelope.clamp_min(1e-6))
    assert float(decibels.std()) == pytest.approx(5.57, abs=0.2)


def test_speckle_widens_with_depth(parameters):
    beams, settings = _beams_and_settings(parameters)
    envelope = trus.speckle(torch.zeros(beams.count), beams, settings)
    near, far = envelope[..., :20].double(), envelope[..., -20:].double()

    def neighbour_correlation(part):
        return np.corrcoef(part[:-2].ravel(), part[2:].ravel())[0, 1]

    assert neighbour_correlation(far) > neighbour_correlation(near) + 0.2


def test_everything_outside_the_fan_is_zero_and_the_probe_is_behind(parameters, case):
    settings = parameters.trus
    grid = Grid.of(case.trus)
    k, j, i = np.indices(array(case.trus).shape)
    index = np.stack([i, j, k, np.ones_like(i)], axis=-1)
    world = (index @ grid.index_to_point.T)[..., :3] - np.array(settings.centre_mm)
    across, deep = world[..., 0] - settings.probe_axis_mm[0], settings.probe_axis_mm[1] - world[..., 1]
    radius, angle = np.hypot(across, deep), np.degrees(np.arctan2(across, deep))
    outside = (np.abs(angle) > settings.half_angle_deg + 0.01) | (radius < settings.probe_radius_mm - 0.01)
    image = array(case.trus)
    assert outside.mean() > 0.1
    assert (image[outside] == 0).all()
    assert image[~outside & (radius < 50)].mean() > 20
    gland = mask_centroid_mm(case.trus_labels["gland"]) - np.array(settings.centre_mm)
    assert settings.probe_axis_mm[1] > gland[1] + settings.probe_radius_mm


def test_the_capsule_shines_where_the_beam_meets_it_squarely(parameters):
    beams, settings = _beams_and_settings(parameters)
    radius = beams.axis(2, CPU) - 30.0
    square = radius.expand(beams.count).contiguous()
    slanted = (radius * 0.5).expand(beams.count).contiguous()
    bright = trus.capsule_echo(square, beams, settings).amax(dim=2).mean()
    dim = trus.capsule_echo(slanted, beams, settings).amax(dim=2).mean()
    assert float(dim / bright) == pytest.approx(0.5**4, abs=0.01)


def _behind(case, name):
    """Mean grey of the 10 mm behind a structure, as the beams run."""
    settings = case.parameters.trus
    grid = Grid.of(case.trus)
    local = mask_points_mm(case.trus_labels[name]) - np.array(settings.centre_mm)
    away = local[:, :2] - np.array(settings.probe_axis_mm)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    centre = local.mean(axis=0)
    inverse = np.linalg.inv(grid.index_to_point)
    values = []
    for step in np.arange(6.0, 14.0, 0.5):
        point = centre + np.append(away.mean(axis=0) * step, 0) + np.array(settings.centre_mm)
        i, j, k = np.rint((inverse @ np.append(point, 1))[:3]).astype(int)
        values.append(array(case.trus)[k - 1 : k + 2, j, i].mean())
    return np.mean(values)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sign"), [("calcification", -1), ("cyst", 1)])
def test_calcifications_shadow_and_fluid_enhances(parameters, kind, sign):
    piece = Ellipsoid((0.0, 8.0, 0.0), (4.0, 4.0, 4.0), "transition", 100.0, 0.0)
    loss = {"calcification": 14.0, "cyst": 0.1}[kind]
    images = []
    for each in (0.56, loss):
        tissues = {**parameters.trus.tissues, f"{kind}0": (0.0, each, 0.0)}
        settings = replace(parameters.trus, tissues=tissues, shadow_sectors_deg=(), gain_db=-14.0)
        mr = replace(parameters.mr, tissues={**parameters.mr.tissues, f"{kind}0": (100.0, 1.0, 0.0, 0.0)})
        bare = replace(parameters, trus=settings, mr=mr, lesions=(), cysts=(), calcifications=())
        images.append(_behind(simulate(replace(bare, **{f"{kind}s": (piece,)})), f"{kind}s"))
    assert sign * (images[1] - images[0]) > 12


@pytest.mark.slow
def test_a_calcification_shines_in_front_of_its_shadow(parameters):
    """Its front is brighter than the tissue that it replaces, most of it darker."""
    piece = Ellipsoid((0.0, 8.0, 0.0), (2.5, 2.5, 2.5), "transition", 20.0, 15.0)
    settings = replace(parameters.trus, shadow_sectors_deg=())
    bare = replace(parameters, trus=settings, lesions=(), cysts=(), calcifications=())
    case, without = simulate(replace(bare, calcifications=(piece,))), simulate(bare)
    inside = array(case.trus_labels["calcifications"]) > 0
    with_piece, usual = (array(each.trus)[inside].astype(float) for each in (case, without))
    assert np.percentile(with_piece, 90) > np.percentile(usual, 90) + 15
    assert with_piece.mean() < usual.mean()


def test_presets_shift_settings_beyond_those_trained_on():
    clinical, shifted = (PRESETS[name] for name in ("clinical", "shifted"))
    assert clinical.axial_fwhm_mm[1] < shifted.axial_fwhm_mm[0]
    assert clinical.dynamic_range_db[0] > shifted.dynamic_range_db[1]
    assert clinical.zone_t2_ratio[1] < shifted.zone_t2_ratio[0]
    drawn = sample_case(2, preset="shifted", spacing_mm=3.0)
    low, high = shifted.dynamic_range_db
    assert low <= drawn.trus.dynamic_range_db <= high
    peripheral, transition = (drawn.mr.tissues[zone][0] for zone in ("peripheral", "transition"))
    assert shifted.zone_t2_ratio[0] <= peripheral / transition <= shifted.zone_t2_ratio[1]


@pytest.mark.slow
def test_a_seed_is_the_same_patient_at_either_field_strength() -> None:
    low, high = (
        [sample_case(seed, preset=f"clinical-{field}t", spacing_mm=4.0) for seed in range(12)]
        for field in ("1.5", "3")
    )
    for number, (before, after) in enumerate(zip(low, high, strict=True)):
        assert (before.mr.field_t, after.mr.field_t) == (1.5, 3.0)
        assert replace(before, mr=after.mr, preset=after.preset) == after
        # T2 is shorter at 3 T; the usual preset is one of both.
        t2 = [case.mr.tissues["transition"][0] for case in (before, after)]
        assert t2[0] == pytest.approx(1.04 * t2[1])
        either = replace(sample_case(number, spacing_mm=4.0), preset="")
        assert either in [replace(case, preset="") for case in (before, after)]
    assert np.mean([case.mr.snr for case in high]) > 1.3 * np.mean([case.mr.snr for case in low])


@pytest.mark.parametrize(("share", "expected"), [(0.0, {False}), (1.0, {True}), (0.5, {False, True})])
@pytest.mark.slow
def test_the_share_of_random_contrasts_is_as_asked(share, expected):
    count = 4 if len(expected) > 1 else 1
    drawn = [sample_case(3 + n, spacing_mm=4.0, random_contrast=share) for n in range(count)]
    assert {case.mr.random_contrast for case in drawn} == expected
    assert {case.trus.random_contrast for case in drawn} == expected
    assert all(bool(case.mr.random_signals) == case.mr.random_contrast for case in drawn)
    # The geometry does not depend on it.
    assert drawn[0].gland == sample_case(3, spacing_mm=4.0).gland


@pytest.mark.slow
def test_random_contrast_changes_one_side_and_no_truth(parameters, case):
    signals = dict.fromkeys(parameters.mr.tissues, 0.5)
    flat = simulate(
        replace(parameters, mr=replace(parameters.mr, random_contrast=True, random_signals=signals))
    )
    assert np.array_equal(array(flat.trus), array(case.trus))
    assert np.array_equal(array(flat.mr_labels["gland"]), array(case.mr_labels["gland"]))
    assert array(flat.mr)[array(flat.mr) > 0].std() < 0.7 * array(case.mr)[array(case.mr) > 0].std()


# ---- pictures


def test_the_pictures_blur_is_a_gaussian_of_the_stated_width():
    image = sitk.Image((61, 61, 61), sitk.sitkFloat32)
    image[30, 30, 30] = 1000.0
    soft = pictures.blurred(image, sigma_mm=3.0, spacing_mm=1.0)
    profile = array(soft).sum(axis=(0, 1))
    place = np.arange(len(profile)) - 30
    assert math.sqrt((profile * place**2).sum() / profile.sum()) == pytest.approx(3.0, abs=0.15)


def test_the_letters_on_pages_are_the_patients_sides(case):
    axial, sagittal, coronal = pictures.side_letters(case.mr)
    assert axial[2:] == ("A", "P")
    assert sagittal == ("A", "P", "S", "I")
    assert coronal == (*axial[:2], "S", "I")
    # A point to the patient's left of another lies nearer to the edge that says L.
    left = np.argmax([case.mr.GetDirection()[0:3][axis] != 0 for axis in range(3)])
    step = [0, 0, 0]
    step[left] = 1
    towards = (
        case.mr.TransformIndexToPhysicalPoint(step)[0] - case.mr.TransformIndexToPhysicalPoint((0, 0, 0))[0]
    )
    assert axial[1] == ("L" if towards > 0 else "R")


@pytest.mark.slow
def test_pages_are_drawn_and_a_folder_without_pairs_is_refused(case, tmp_path):
    pictures.draw_case(case, tmp_path / "pages" / "case.png")
    page = array(sitk.ReadImage(str(tmp_path / "pages" / "case.png")))
    assert page.shape[:2] == (800, 1200)
    assert page.std() > 30
    with pytest.raises(InputError, match="holds no pairs"):
        pictures.draw_comparison([case], tmp_path, tmp_path / "page.png")


# ---- bad input


def _changed(parameters, part, **changes):
    return replace(parameters, **{part: replace(getattr(parameters, part), **changes)})


@pytest.mark.parametrize(
    ("part", "changes", "word"),
    [
        ("gland", {"volume_ml": -3.0}, "gland.volume_ml of -3"),
        ("gland", {"transition_zone_ml": 500.0}, "transition zone"),
        ("mr", {"snr": 0.0}, "mr.snr of 0"),
        ("mr", {"slice_thickness_mm": -1.0}, "mr.slice_thickness_mm of -1"),
        ("mr", {"offset_mm": (0.0, 500.0, 0.0)}, "outside the MR volume"),
        ("mr", {"size_vox": (0, 10, 10)}, "voxel"),
        ("trus", {"dynamic_range_db": 0.0}, "trus.dynamic_range_db of 0"),
        ("trus", {"half_angle_deg": 120.0}, "trus.half_angle_deg of 120"),
        ("trus", {"probe_radius_mm": 30.0, "depth_mm": 25.0}, "probe"),
        ("trus", {"grid_centre_mm": (80.0, 0.0, 0.0)}, "outside the TRUS volume"),
        ("trus", {"shadow_sectors_deg": ((10.0, 0.0, 6.0),)}, "shadow sector"),
        ("deformation", {"field_spacing_mm": 0.0}, "deformation.field_spacing_mm of 0"),
    ],
)
def test_impossible_settings_are_refused(parameters, part, changes, word):
    with pytest.raises(InputError, match=word):
        simulate(_changed(parameters, part, **changes))


def test_a_lesion_larger_than_its_zone_is_refused(parameters):
    huge = Ellipsoid((0.0, 0.0, 0.0), (30.0, 30.0, 30.0), "peripheral", 97.0, -5.0)
    with pytest.raises(InputError, match="larger than its peripheral zone"):
        validate(replace(parameters, lesions=(huge,)))
    flat = dataclasses.replace(huge, radii_mm=(3.0, 0.0, 3.0))
    with pytest.raises(InputError, match=r"lesions\.radii_mm of 0"):
        validate(replace(parameters, lesions=(flat,)))


def test_every_number_of_a_part_has_limits(parameters):
    """A parameter that is added later must say what it can be."""
    exempt = {"transition_zone_ml", "tissues", "random_signals", "random_contrast", "size_vox"}
    exempt |= {"rectum_content", "zone", "centre_mm", "shadow_sectors_deg"}
    for name, known in LIMITS.items():
        part = getattr(parameters, name)
        keys = {field.name for field in dataclasses.fields(part[0] if isinstance(part, tuple) else part)}
        assert keys - exempt <= known.keys() <= keys, name


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_all_that_is_sampled_is_possible(preset):
    for seed in range(20):
        drawn = sample_case(seed, preset=preset, spacing_mm=4.0)
        assert CaseParameters.from_json(drawn.to_json()) == drawn
        placement.check_geometry(drawn)


def test_the_shipped_case_is_possible():
    text = Path(__file__).parents[1].joinpath("Resources/SampleCase/parameters.json").read_text("utf-8")
    placement.check_geometry(CaseParameters.from_json(text))


@pytest.fixture
def train_cli(capfd):
    """Run `mrtrus-train` in this process: exit code and standard error."""

    def run(*arguments):
        capfd.readouterr()
        code = run_app(app, [str(argument) for argument in arguments])
        return code, capfd.readouterr().err

    return run


def _one_sentence(message):
    return message.count("\n") == 1 and message.startswith("Error: ") and "Traceback" not in message


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--cases", 0, "ask for one or more"),
        ("--cases", -2, "ask for one or more"),
        ("--jobs", 0, "ask for one or more"),
        ("--seed", -1, "The seed -1 cannot be used: a simulation needs a seed of 0 or more."),
        (
            "--spacing-mm",
            0,
            "The spacing of 0 mm cannot be used: a simulation needs a voxel spacing of 0.2 to 4",
        ),
        ("--preset", "wild", "choose one of clinical"),
        ("--random-contrast", 1.5, "outside 0 to 1"),
        ("--random-contrast", -0.1, "outside 0 to 1"),
        ("--device", "cuda:99", "choose cpu or cuda"),
    ],
)
def test_the_command_refuses_what_cannot_be_with_one_sentence(train_cli, tmp_path, option, value, word):
    code, message = train_cli("simulate", "--cases", 1, "--output", tmp_path / "out", option, value)
    assert code == 2
    assert word in message
    assert _one_sentence(message)
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_a_folder_with_content(train_cli, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    code, message = train_cli("simulate", "--cases", 1, "--output", tmp_path)
    assert (code, _one_sentence(message)) == (2, True)
    assert "is not empty" in message
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_command_refuses_a_file_as_its_folder(train_cli, tmp_path):
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    code, message = train_cli("simulate", "--cases", 1, "--output", tmp_path / "out")
    assert (code, _one_sentence(message)) == (2, True)
    assert "out is a file" in message


@pytest.mark.slow
def test_processes_side_by_side_make_the_same_cases(train_cli, tmp_path):
    for jobs in (1, 2):
        options = ("--cases", 2, "--seed", 4, "--spacing-mm", 3, "--jobs", jobs)
        code, message = train_cli("simulate", *options, "--output", tmp_path / str(jobs))
        assert code == 0, message
    names = [each.relative_to(tmp_path / "1") for each in sorted((tmp_path / "1").glob("*/*"))]
    assert len(names) == 2 * 6
    for name in names:
        if name.suffix != ".h5":  # HDF5 keeps the time of writing
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_what_is_left_of_cases_that_are_not_done_is_removed(tmp_path):
    for name in (".writing-x/mr_images/case000002.nii.gz", "us_images/case000002.nii.gz", "notes/case.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("half", encoding="utf-8")
    whole = tmp_path / "mr_images" / "case000001.nii.gz"
    whole.parent.mkdir()
    whole.write_text("whole", encoding="utf-8")
    command._Request(0, "clinical", 3.0, None, "cpu", tmp_path, False, None).remove({2})
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["mr_images/case000001.nii.gz", "notes/case.txt"]
    assert not (tmp_path / "us_images").exists()


@pytest.mark.slow
def test_a_case_is_made_again_from_its_parameters_alone(train_cli, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    options = ("--cases", 1, "--seed", 9, "--spacing-mm", 3, "--random-contrast", 0.5)
    assert train_cli("simulate", *options, "--output", first)[0] == 0
    path = first / "parameters" / "case000000.json"
    assert train_cli("simulate", "--from", path, "--output", again)[0] == 0
    for kind in ("mr_images", "us_images", "mr_labels", "us_labels"):
        name = f"{kind}/case000000.nii.gz"
        assert (first / name).read_bytes() == (again / name).read_bytes(), kind
    assert (again / "parameters" / "case000000.json").read_bytes() == path.read_bytes()
    maps = [sitk.ReadTransform(str(each / "transforms" / "case000000.h5")) for each in (first, again)]
    point = np.add(CaseParameters.from_json(path.read_text()).trus.centre_mm, (4.0, -9.0, 2.0)).tolist()
    assert maps[0].TransformPoint(point) == maps[1].TransformPoint(point)


def test_cases_are_asked_for_in_one_way(train_cli, tmp_path):
    for both in ((), ("--cases", 1, "--from", tmp_path / "case.json")):
        code, message = train_cli("simulate", *both, "--output", tmp_path / "out")
        assert (code, _one_sentence(message)) == (2, True)
        assert "either how many cases" in message


@pytest.mark.parametrize("beside", [("--seed", 7), ("--preset", "shifted"), ("--spacing-mm", 2)])
def test_what_the_file_of_a_case_says_is_not_said_again(train_cli, tmp_path, beside):
    code, message = train_cli(
        "simulate", "--from", tmp_path / "case.json", *beside, "--output", tmp_path / "out"
    )
    assert (code, _one_sentence(message)) == (2, True)
    assert f"leave {beside[0]} out" in message


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_no_half_case(train_cli, tmp_path):
    with mounted_disk(tmp_path, size_mb=3) as disk:
        filler = fill(disk, leave_bytes=60_000)
        options = ("--cases", 2, "--spacing-mm", 3, "--output", disk / "out")
        code, message = train_cli("simulate", *options)
        filler.unlink()
        assert (code, _one_sentence(message)) == (2, True)
        assert "is full" in message
        assert not [path for path in (disk / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("keys", "value", "word"),
    [
        (("spacing_mm",), 0.05, "spacing of 0.05 mm lies outside 0.2 to 4"),
        (("gland", "volume_ml"), -40.0, "gland.volume_ml of -40"),
        (("gland", "volume_ml"), float("nan"), "finite"),
        (("gland", "volume_ml"), "large", "gland.volume_ml cannot be 'large'"),
        (("gland", "volume_ml"), None, "gland lacks 'volume_ml'"),
        (("gland", "colour"), "red", "gland has the unknown 'colour'"),
        (("seed",), float("inf"), "seed cannot be inf"),
        (("lesions",), {}, "lesions is no list"),
        (("lesions",), ["round"], "lesions is no JSON object"),
        (("mr", "centre_mm"), [1.0, 2.0], "mr.centre_mm is no list of 3"),
        (("gland", "half_depth"), 0.0, "gland.half_depth of 0"),
        (("gland", "half_height"), 30.0, "gland.half_height of 30"),
        (("gland", "irregularity"), 5.0, "gland.irregularity of 5"),
        (("surroundings", "bladder_radii_mm"), [30.0, -20.0, 9.0], "surroundings.bladder_radii_mm of -20"),
        (("surroundings", "rectum_radius_mm"), -12.0, "surroundings.rectum_radius_mm of -12"),
        (("lesions", 0, "radii_mm"), [40.0, 40.0, 40.0], "larger than its"),
        (("lesions", 0, "radii_mm"), [4.0, -4.0, 4.0], "lesions.radii_mm of -4"),
        (("lesions", 0, "centre_mm"), [200.0, 0.0, 0.0], "lies outside the gland"),
        (("lesions", 0, "zone"), "bladder", "zone cannot be 'bladder'"),
        (("mr", "size_vox"), [0, 40, 40], "one voxel"),
        (("mr", "size_vox"), [9000, 9000, 9000], "too large"),
        (("mr", "tissues", "fat"), [0.0, 1.0, 0.0, 0.0], "T2"),
        (("mr", "tissues", "fat"), [90.0, -1.0, 0.0, 0.0], "MR tissue"),
        (("mr", "tissues"), {}, "no properties"),
        (("mr", "gamma"), -2.0, "mr.gamma of -2"),
        (("mr", "coverage_mm"), -80.0, "mr.coverage_mm of -80"),
        (("mr", "in_plane_mm"), -0.6, "mr.in_plane_mm of -0.6"),
        (("trus", "frequency_mhz"), -9.0, "trus.frequency_mhz of -9"),
        (("trus", "axial_fwhm_mm"), -0.4, "trus.axial_fwhm_mm of -0.4"),
        (("trus", "lateral_fwhm_mm"), [0.6, -1.0], "trus.lateral_fwhm_mm of -1"),
        (("trus", "tissues", "fat"), [4.0, -0.6, 2.0], "TRUS tissue"),
        (("trus", "tissues", "urine"), None, "urine"),
        (("surroundings", "rectum_content"), "stone", "'stone'"),
        (("deformation", "field_spacing_mm"), 0.001, "deformation.field_spacing_mm of 0.001"),
        (("deformation", "field_spacing_mm"), 500.0, "deformation.field_spacing_mm of 500"),
        (("deformation", "residual_scales_mm"), [0.0, 20.0, 40.0], "deformation.residual_scales_mm of 0"),
        (("deformation", "strength"), 50.0, "deformation.strength of 50"),
        (("deformation", "residual_mm"), [0.0, 30.0, 0.0], "deformation folds"),
        (("deformation", "field_centre_mm"), [0.0, 0.0, 300.0], "does not reach it"),
        (("format_version",), 99, "format 99"),
        (("gland",), {}, "parameter file"),
    ],
)
def test_an_edited_parameter_file_that_cannot_be_is_refused(
    train_cli, parameters, tmp_path, keys, value, word
):
    content = json.loads(parameters.to_json())
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    code, message = train_cli("simulate", "--from", path, "--output", tmp_path / "out")
    assert code == 2
    assert word in message
    assert "edited.json" in message
    assert _one_sentence(message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", [None, b"{", b"[]", b'{"a": 1}', b'{"gland": "a"}', b"3", b"\xff\xfe\x00"]
)
def test_a_parameter_file_that_is_none_is_refused(train_cli, tmp_path, content):
    path = tmp_path / "case.json"
    if content is not None:
        path.write_bytes(content)
    code, message = train_cli("simulate", "--from", path, "--output", tmp_path / "out")
    assert (code, _one_sentence(message)) == (2, True)
    assert "case.json" in message
    if content is not None:
        assert "not a parameter file of the simulator" in message
    for internal in ("expected", "attribute", "argument", "codec"):
        assert internal not in message.replace("Expecting", "")


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"seed": 1, "colour": "red"}'])
def test_a_broken_parameter_file_is_refused(text):
    with pytest.raises(InputError, match="parameter file"):
        CaseParameters.from_json(text)


def test_requests_that_cannot_be_met_are_refused(tmp_path):
    with pytest.raises(InputError, match="ask for one or more"):
        command.check_request(cases=0, output=tmp_path)
    with pytest.raises(InputError, match="preset"):
        sample_case(1, preset="wild")
    with pytest.raises(InputError, match="seed"):
        sample_case(-1)
    with pytest.raises(InputError, match="device"):
        command.check_request(cases=1, output=tmp_path, device="cuda:99")
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="not empty"):
        command.check_request(cases=1, output=tmp_path)


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit():
    """With more threads sums are shared, and rounded, otherwise; the caller's setting is left as it was."""
    before = torch.get_num_threads()
    images = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            placement._deformed.cache_clear()
            case = simulate(sample_case(7, preset="sample", spacing_mm=1.6))
            images.append([sitk.GetArrayFromImage(image) for image in (case.mr, case.trus)])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*images, strict=True):
        np.testing.assert_array_equal(one, other)
