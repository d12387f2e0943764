"""Dense truth of simulated pairs: on the network's grid, through augmentation, in loss and validation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from tiny_networks import Shift

from MRTRUSRegistrationLib.regions import region_grid, regions_of_interest
from MRTRUSRegistrationLib.rigid import align_rigid, gland_initial
from MRTRUSRegistrationLib.transforms import transform_points_mm
from MRTRUSTraining.data.augmentation import IntensityRange, SpatialRange, flip_displacement
from MRTRUSTraining.data.cases import LoadedCase, find_cases, load_case
from MRTRUSTraining.networks.warp import warp
from MRTRUSTraining.registration_loss import dense_error_mm, region_matching_loss
from MRTRUSTraining.registration_samples import RegistrationSample, aligned_by_masks, augment, prepare_samples
from MRTRUSTraining.registration_settings import RegionLoss, RegistrationSettings, draft_card
from MRTRUSTraining.registration_training import RegistrationTask
from MRTRUSTraining.simulation.cases import simulate, write_case
from MRTRUSTraining.simulation.sampling import sample_case

# A smaller grid than the bundled network's, for speed; it holds the gland.
SETTINGS = RegistrationSettings(grid_vox=(52, 40, 40))
NOTHING = SpatialRange(0, 0, 0, 0, 0)
# The square root in the error is kept away from zero by 0.001 voxel.
FLOOR_MM = 0.002


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated pair on disk, turned and deformed, at 2.4 mm for speed."""
    path = tmp_path_factory.mktemp("simulated")
    write_case(simulate(sample_case(7, preset="sample", spacing_mm=2.4)), path, 0)
    return path


@pytest.fixture(scope="module")
def case(folder: Path) -> LoadedCase:
    return load_case(find_cases(folder, "muregpro")[0])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def sample(folder: Path, cache: Path) -> RegistrationSample:
    return prepare_samples(find_cases(folder, "muregpro"), SETTINGS, cache)[0]


def dice(first: torch.Tensor, second: torch.Tensor) -> float:
    """Of two soft labels, cut at one half."""
    a, b = first > 0.5, second > 0.5
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def truth_of(sample: RegistrationSample) -> torch.Tensor:
    assert sample.truth_vox is not None
    return sample.truth_vox


# --- the truth on the network's grid ---------------------------------------------------------------------


def test_the_truth_carries_the_aligned_mr_gland_on_to_the_trus_gland(sample: RegistrationSample) -> None:
    moved = warp(sample.moving_labels, truth_of(sample))
    assert dice(moved, sample.fixed_labels) > 0.96
    assert dice(moved, sample.fixed_labels) > dice(sample.moving_labels, sample.fixed_labels) + 0.02
    assert sample.moving_labels.shape[1] == 1, "with a dense truth the labels are the gland alone"


@pytest.mark.slow
def test_the_error_is_zero_for_the_truth_and_a_known_distance_for_others(
    case: LoadedCase, sample: RegistrationSample
) -> None:
    truth = truth_of(sample)
    assert float(dense_error_mm(sample, truth)) < FLOOR_MM
    shifted = truth + torch.tensor([0.0, 3.0, -4.0]).view(1, 3, 1, 1, 1)
    assert float(dense_error_mm(sample, shifted)) == pytest.approx(5 * 1.5, abs=1e-3)
    # Doing nothing leaves the distance between the rigid and the true place in the MR, point by point.
    alignment = align_rigid(
        case.mr_gland, case.trus_gland, gland_initial(case.mr_gland, case.trus_gland)
    ).transform
    grid, _ = region_grid(case.trus_gland, draft_card(SETTINGS))
    index = np.argwhere(sample.fixed_labels[0, 0].numpy() > 0.5)[:, ::-1]
    points = index @ grid.index_to_point[:3, :3].T + grid.origin_mm
    assert case.truth is not None
    apart = transform_points_mm(case.truth, points) - transform_points_mm(alignment, points)
    known_mm = float(np.linalg.norm(apart, axis=1).mean())
    assert known_mm > 1.5
    assert float(dense_error_mm(sample, torch.zeros_like(truth))) == pytest.approx(known_mm, abs=0.01)


def test_a_sample_without_truth_has_no_dense_error(sample: RegistrationSample) -> None:
    with pytest.raises(ValueError, match="true map"):
        dense_error_mm(replace(sample, truth_vox=None), truth_of(sample))


# --- through augmentation --------------------------------------------------------------------------------


def solved(sample: RegistrationSample) -> torch.Tensor:
    """The field d with d + change(x + d) = truth, by fixed-point iteration."""
    truth = truth_of(sample)
    assert sample.change_vox is not None
    field = torch.zeros_like(truth)
    for _ in range(25):
        field = truth - warp(sample.change_vox, field)
    return field


@pytest.mark.slow
def test_after_augmentation_the_field_without_error_still_joins_the_glands(
    sample: RegistrationSample,
) -> None:
    """Independent of the error's own formula: the labels, warped along with the images, must meet."""
    flips = set()
    for seed in range(4):
        # More than simulated pairs are given, so that the relation changes visibly.
        settings = replace(SETTINGS, simulated_misalignment=SETTINGS.misalignment)
        changed = augment(sample, np.random.default_rng(seed), settings)
        field = solved(changed)
        assert float(dense_error_mm(changed, field)) < 0.01
        moved = warp(changed.moving_labels, field)
        assert dice(moved, changed.fixed_labels) > 0.95
        assert dice(moved, changed.fixed_labels) > dice(changed.moving_labels, changed.fixed_labels) + 0.02
        # The relation of the unchanged pair is no longer right.
        assert float(dense_error_mm(changed, truth_of(sample))) > 1.5
        flips.add(_was_flipped(sample, changed))
    assert flips == {True, False}, "the seeds cover both"


def test_a_turn_of_the_fixed_volume_alone_is_part_of_the_truth(sample: RegistrationSample) -> None:
    """It fades as training goes on, and a pair without truth is not turned."""
    settings = replace(
        SETTINGS, shared=NOTHING, simulated_misalignment=NOTHING, simulated_turn_deg=(20.0, 0.0)
    )
    changed = augment(sample, np.random.default_rng(5), settings)
    # But for the interpolation, and for the mirror.
    assert dice(changed.fixed_labels, sample.fixed_labels) < 0.98
    assert max(dice(changed.moving_labels, m) for m in _mirrored(sample.moving_labels)) > 0.999
    field = solved(changed)
    assert float(dense_error_mm(changed, field)) < 0.01
    assert dice(warp(changed.moving_labels, field), changed.fixed_labels) > 0.95
    late = augment(sample, np.random.default_rng(5), settings, progress=1.0)
    assert max(dice(late.fixed_labels, m) for m in _mirrored(sample.fixed_labels)) > 0.999
    real = augment(
        replace(sample, truth_vox=None), np.random.default_rng(5), replace(settings, misalignment=NOTHING)
    )
    assert max(dice(real.fixed_labels, m) for m in _mirrored(sample.fixed_labels)) > 0.999


def _mirrored(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As they are, and mirrored: augmentation does either."""
    return labels, labels.flip(-1)


def test_a_pair_without_truth_is_misaligned_by_its_own_range(sample: RegistrationSample) -> None:
    still = replace(SETTINGS, shared=NOTHING, misalignment=NOTHING)
    real, simulated = (
        augment(each, np.random.default_rng(3), still) for each in (replace(sample, truth_vox=None), sample)
    )
    assert real.change_vox is not None
    assert float(real.change_vox.abs().max()) < 1e-5
    assert simulated.change_vox is not None
    assert float(simulated.change_vox.abs().max()) > 0.1


def _was_flipped(sample: RegistrationSample, changed: RegistrationSample) -> bool:
    same = dice(sample.fixed_labels, changed.fixed_labels)
    return dice(sample.fixed_labels.flip(-1), changed.fixed_labels) > same


def test_a_pair_that_is_only_mirrored_keeps_the_error_of_its_mirrored_field(
    sample: RegistrationSample,
) -> None:
    nothing = SpatialRange(0, 0, 0, 0, 0)
    still = IntensityRange(probability=0.0, log_gamma=0.0)
    settings = replace(SETTINGS, shared=nothing, simulated_misalignment=nothing, intensity=still)
    mirrored = next(
        changed
        for changed in (augment(sample, np.random.default_rng(seed), settings) for seed in range(20))
        if not torch.equal(changed.fixed_labels, sample.fixed_labels)
    )
    torch.testing.assert_close(mirrored.fixed_labels, sample.fixed_labels.flip(-1), atol=1e-4, rtol=0)
    field = truth_of(sample) + torch.tensor([0.0, 0.0, 0.5]).view(1, 3, 1, 1, 1)
    expected = float(dense_error_mm(sample, field))
    assert float(dense_error_mm(mirrored, flip_displacement(field))) == pytest.approx(expected, abs=1e-3)
    assert float(dense_error_mm(mirrored, field.flip(-1))) > expected + 0.5, "the sign matters"


# --- in the loss and in validation -----------------------------------------------------------------------


def test_the_loss_adds_the_weighted_error(sample: RegistrationSample) -> None:
    field = torch.zeros_like(truth_of(sample))
    weights = RegionLoss(mi=0.0, dense=0.0)
    without, parts = region_matching_loss(sample, field, weights)
    with_error, more = region_matching_loss(sample, field, replace(weights, dense=0.25))
    error = float(dense_error_mm(sample, field))
    assert float(with_error - without) == pytest.approx(0.25 * error, rel=1e-4)
    assert "dense_mm" not in parts
    assert more["dense_mm"] == pytest.approx(error)


def test_the_error_has_a_gradient_that_leads_to_the_truth(sample: RegistrationSample) -> None:
    changed = augment(sample, np.random.default_rng(1), SETTINGS)
    field = torch.zeros_like(truth_of(changed), requires_grad=True)
    error = dense_error_mm(changed, field)
    error.backward()
    assert field.grad is not None
    step = -field.grad / field.grad.abs().max()
    assert float(dense_error_mm(changed, step)) < error.item() - 0.5


def test_validation_is_decided_by_the_true_error_where_it_is_known(sample: RegistrationSample) -> None:
    exact = replace(SETTINGS, mask_error=NOTHING, validation_draws=1)
    glands = sample.moving_labels[:, :1], sample.fixed_labels[:, :1]
    shown, _ = aligned_by_masks(replace(sample, change_vox=torch.zeros_like(truth_of(sample))), *glands)
    error = float(dense_error_mm(shown, torch.zeros_like(truth_of(sample))))
    figures = RegistrationTask(exact, [[sample]], [sample]).validate(Shift((0.0, 0.0, 0.0)))
    assert figures["dense_mm"] == pytest.approx(error, abs=1e-3)
    assert figures["score"] == pytest.approx(-error, abs=1e-3)
    assert "tre_rms_mm" not in figures
    # With a pair whose landmarks are known beside it, both kinds of error count alike.
    gland = sample.fixed_labels
    off = gland.roll(2, dims=-1)
    real = replace(
        sample,
        truth_vox=None,
        moving_labels=torch.cat([gland, off], dim=1),
        fixed_labels=torch.cat([gland, gland], dim=1),
    )
    mixed = RegistrationTask(exact, [[sample]], [sample, real]).validate(Shift((0.0, 0.0, 0.0)))
    assert mixed["tre_rms_mm"] == pytest.approx(3.0, abs=0.05)
    assert mixed["score"] == pytest.approx(-(error + 3.0) / 2, abs=0.05)


def test_a_wrong_mask_moves_the_image_as_the_rigid_alignment_would(sample: RegistrationSample) -> None:
    """The moving mask sits 2 voxels too far to the left: aligning it takes the image along."""
    start, _ = aligned_by_masks(
        replace(sample, change_vox=torch.zeros_like(truth_of(sample))),
        sample.moving_labels[:, :1],
        sample.fixed_labels[:, :1],
    )
    wrong = start.moving_labels[:, :1].roll(2, dims=-1)
    moved, mask = aligned_by_masks(start, wrong, start.fixed_labels[:, :1])
    torch.testing.assert_close(moved.moving_image[..., :-2], start.moving_image[..., 2:], atol=1e-2, rtol=0)
    assert dice(mask, start.moving_labels) > 0.99
    # The truth knows of the shift: the field that was right before is now 2 voxels short.
    field = solved(start)
    assert float(dense_error_mm(start, field)) < 0.02
    assert float(dense_error_mm(moved, field)) == pytest.approx(2 * sample.voxel_mm, abs=0.05)


def test_validation_is_the_same_every_time_and_suffers_from_wrong_masks(sample: RegistrationSample) -> None:
    task = RegistrationTask(SETTINGS, [[sample]], [sample])
    still = Shift((0.0, 0.0, 0.0))
    assert task.validate(still) == task.validate(still)
    exact = RegistrationTask(replace(SETTINGS, mask_error=NOTHING), [[sample]], [sample]).validate(still)
    assert task.validate(still)["dsc"] < exact["dsc"] - 0.005


# --- prepared samples on disk ----------------------------------------------------------------------------


def test_prepared_samples_come_back_from_the_cache(
    folder: Path, cache: Path, sample: RegistrationSample
) -> None:
    (entry,) = cache.iterdir()
    before = entry.stat().st_mtime_ns
    (found,) = prepare_samples(find_cases(folder, "muregpro"), SETTINGS, cache)
    assert (entry.stat().st_mtime_ns, list(cache.iterdir())) == (before, [entry])
    assert torch.equal(truth_of(found), truth_of(sample))
    assert torch.equal(found.moving_image, sample.moving_image)
    assert (found.name, found.voxel_mm, found.change_vox) == (sample.name, 1.5, None)


@pytest.mark.slow
def test_pairs_in_another_box_are_not_taken_from_the_cache(
    folder: Path, case: LoadedCase, tmp_path: Path
) -> None:
    about_volume = replace(SETTINGS, box="volume")
    grids = [region_grid(case.trus_gland, draft_card(each))[0] for each in (SETTINGS, about_volume)]
    assert grids[0] != grids[1]
    plain, other = (
        prepare_samples(find_cases(folder, "muregpro"), each, tmp_path)[0]
        for each in (SETTINGS, about_volume)
    )
    assert not torch.equal(plain.fixed_image, other.fixed_image)


def test_training_shows_the_same_margin_as_the_pipeline(case: LoadedCase, sample: RegistrationSample) -> None:
    settings = replace(SETTINGS, margin_mm=6.0, mask_error=NOTHING, alignment="initial", intensity_floor=0.0)
    task = RegistrationTask(settings, [[sample]], [sample])
    _, shown = task._as_segmented(sample, np.random.default_rng(0))
    card = draft_card(settings)
    piped = regions_of_interest(case.mr, case.trus, case.mr_gland, case.trus_gland, case.initial, card).fixed
    np.testing.assert_allclose(shown[1][0, 0].numpy(), sitk.GetArrayFromImage(piped), atol=0.02)
    narrow = replace(settings, margin_mm=0.0)
    _, plain = RegistrationTask(narrow, [[sample]], [sample])._as_segmented(sample, np.random.default_rng(0))
    assert (shown[1] > 0).sum() > 1.3 * (plain[1] > 0).sum()


@pytest.mark.slow
def test_a_changed_truth_is_not_taken_from_the_cache(
    folder: Path, cache: Path, sample: RegistrationSample
) -> None:
    cases = find_cases(folder, "muregpro")
    path = cases[0].truth_path
    assert path == folder / "transforms" / "case000000.h5"
    original = path.read_bytes()
    truth = sitk.CompositeTransform(sitk.ReadTransform(str(path)))
    # ITK's files hold one level of composition only.
    parts = [truth.GetNthTransform(n) for n in range(truth.GetNumberOfTransforms())]
    shift = sitk.TranslationTransform(3, (0.0, 0.0, 3.0))
    sitk.WriteTransform(sitk.CompositeTransform([shift, *parts]), str(path))
    (other,) = prepare_samples(cases, SETTINGS, cache)
    path.write_bytes(original)
    apart_vox = (truth_of(other) - truth_of(sample)).norm(dim=1)
    assert float(apart_vox.mean()) == pytest.approx(3.0 / 1.5, abs=0.01)
