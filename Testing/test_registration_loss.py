"""The loss of a registration network: which structures, which domain, which regulariser, on known fields."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from MRTRUSTraining.data.augmentation import SpatialRange
from MRTRUSTraining.losses import (
    bending_energy,
    gradient_l2,
    multi_scale_dice_loss,
    whole_volume_mutual_information,
)
from MRTRUSTraining.networks.warp import warp
from MRTRUSTraining.registration_loss import choose_structures, region_matching_loss
from MRTRUSTraining.registration_samples import RegistrationSample
from MRTRUSTraining.registration_settings import RegionLoss, RegistrationSettings
from MRTRUSTraining.registration_training import RegistrationTask

SIZE = (16, 16, 16)
DICE_ALONE = RegionLoss(mi=0.0, gland=1.0, landmark=1.0, smoothness=0.0)


def box(start: int, stop: int, shift: int = 0) -> torch.Tensor:
    """(1, 1, K, J, I): a cube shifted along the last axis."""
    label = torch.zeros(1, 1, *SIZE)
    label[..., start:stop, start:stop, start + shift : stop + shift] = 1
    return label


def sample(shift: int = 2) -> RegistrationSample:
    """Gland and landmark lie `shift` voxels further along the last axis in the moving volume."""
    image = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    moving = torch.cat([box(3, 11, shift), box(6, 8, shift)], dim=1)
    fixed = torch.cat([box(3, 11), box(6, 8)], dim=1)
    return RegistrationSample("s", image.roll(shift, -1), image, moving, fixed, 1.5)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def field(shift: float) -> torch.Tensor:
    displacement = torch.zeros(1, 3, *SIZE)
    displacement[:, 2] = shift
    return displacement


def loss(weights: RegionLoss, shift: float, structures: list[int] | None = None) -> float:
    return float(region_matching_loss(sample(), field(shift), weights, structures=structures)[0])


def test_structures_are_chosen_as_named() -> None:
    draws = rng()
    assert choose_structures("all", 4, draws) == [0, 1, 2, 3]
    assert choose_structures("gland", 4, draws) == [0]
    drawn = Counter(choose_structures("one", 4, draws)[0] for _ in range(400))
    assert sorted(drawn) == [0, 1, 2, 3]
    assert min(drawn.values()) > 70


def test_the_dice_is_of_the_chosen_structures() -> None:
    # Boxes of eight and of two voxels' width, two apart: Dice 6/8 and 0.
    assert loss(DICE_ALONE, 0.0, [0]) == pytest.approx(1 - 6 / 8, abs=1e-4)
    assert loss(DICE_ALONE, 0.0, [1]) == pytest.approx(1.0, abs=1e-4)
    assert loss(DICE_ALONE, 0.0) == pytest.approx(1 - (6 / 8) / 2, abs=1e-4)
    assert loss(DICE_ALONE, 2.0) == pytest.approx(0.0, abs=1e-4)


def test_a_landmark_alone_has_the_weight_of_a_landmark() -> None:
    weights = replace(DICE_ALONE, gland=0.1, landmark=0.3)
    assert loss(weights, 2.0, [0]) == pytest.approx(0.9, abs=1e-4)
    assert loss(weights, 2.0, [1]) == pytest.approx(0.7, abs=1e-4)


@pytest.mark.parametrize("structures", [[0], [1], [0, 1]])
def test_the_per_label_dice_is_that_of_the_warped_labels(structures: list[int]) -> None:
    # Other weights of gland and landmark change nothing.
    weights = replace(DICE_ALONE, dice="per-label", dice_scales_mm=(0.0, 1.5, 6.0), gland=0.1, landmark=0.3)
    pair, moved = sample(), field(0.6)
    warped = warp(pair.moving_labels, moved)[:, structures]
    expected = multi_scale_dice_loss(warped, pair.fixed_labels[:, structures], scales_vox=(0.0, 1.0, 4.0))
    assert loss(weights, 0.6, structures) == pytest.approx(float(expected), abs=1e-6)
    assert abs(loss(weights, 0.6, structures) - loss(DICE_ALONE, 0.6, structures)) > 0.01


def test_the_per_label_dice_of_known_overlaps() -> None:
    # Boxes of eight and of two voxels' width, two apart: Dice 6/8 and 0, unsmoothed.
    weights = replace(DICE_ALONE, dice="per-label")
    assert loss(weights, 0.0, [0]) == pytest.approx(1 - 6 / 8, abs=1e-4)
    assert loss(weights, 0.0) == pytest.approx(1 - (6 / 8) / 2, abs=1e-4)
    assert loss(weights, 2.0) == pytest.approx(0.0, abs=1e-4)


def test_the_dice_of_classes_leaves_background_and_gland_as_training_goes_on() -> None:
    weights = replace(DICE_ALONE, dice="classes", gland=5.0, landmark=5.0)

    def at(progress: float, shift: float = 0.0) -> float:
        return float(region_matching_loss(sample(), field(shift), weights, progress=progress)[0])

    # Background, gland without its landmark, landmark, of 4096 voxels: glands of 512 share 384, the landmarks
    # of 8 nothing; each lies in the other's gland.
    background = (4096 - 512 - 512 + 384) / (4096 - 512)
    gland = (384 - 16) / (512 - 8)
    for progress, share in ((0.0, 1.0), (0.5, 0.5**0.9), (1.0, 0.0)):
        expected = (0.1 * share * ((1 - background) + (1 - gland)) + 0.3) / 6
        assert at(progress) == pytest.approx(expected, abs=1e-5)
        assert at(progress, shift=2.0) == pytest.approx(0.0, abs=1e-4)
    assert loss(weights, 0.0) == at(0.0)


def test_only_the_dice_of_classes_depends_on_progress() -> None:
    for dice in ("weighted", "per-label"):
        weights = replace(DICE_ALONE, dice=dice)  # type: ignore[arg-type]
        early, late = (region_matching_loss(sample(), field(0.6), weights, progress=p)[0] for p in (0.0, 0.9))
        assert torch.equal(early, late)


def test_the_glands_weight_may_decay_alone() -> None:
    weights = replace(DICE_ALONE, gland_decays=True)
    for progress in (0.0, 0.5, 1.0):
        found = region_matching_loss(sample(), field(0.0), weights, progress=progress)[0]
        constant = replace(DICE_ALONE, gland=DICE_ALONE.gland * (1 - progress) ** 0.9)
        assert float(found) == pytest.approx(loss(constant, 0.0))


def test_the_denominator_of_the_paper_counts_soft_voxels_whole() -> None:
    soft = replace(sample(), moving_labels=sample().moving_labels * 0.5)
    squared, linear = (
        float(region_matching_loss(soft, field(2.0), replace(DICE_ALONE, dice_squared=each))[0])
        for each in (True, False)
    )
    # A label of one half upon one of one: 2·½ / (¼ + 1) and 2·½ / (½ + 1).
    mean = (DICE_ALONE.gland + DICE_ALONE.landmark) / 2
    assert squared == pytest.approx(1 - mean * 0.8, abs=1e-4)
    assert linear == pytest.approx(1 - mean * 2 / 3, abs=1e-4)


def test_a_task_hands_its_progress_to_the_loss() -> None:
    weights = RegionLoss(mi=0.0, smoothness=0.0, dice="classes")
    still = SpatialRange(0, 0, 0, 0, 0)
    task = RegistrationTask(
        RegistrationSettings(
            loss=weights, alignment="initial", misalignment=still, shared=still, mask_error=still
        ),
        [[sample()]],
        [sample()],
    )
    for progress in (0.0, 0.75):
        task.progress = progress
        found, _ = task.loss(lambda moving, fixed: torch.zeros_like(moving).repeat(1, 3, 1, 1, 1), [rng()])
        expected = region_matching_loss(sample(), field(0.0), weights, progress=progress)[0]
        assert float(found) == pytest.approx(float(expected), abs=1e-5)
    assert float(found) < float(region_matching_loss(sample(), field(0.0), weights)[0]) - 0.003


def test_each_regulariser_has_its_own_weight() -> None:
    axis = torch.arange(SIZE[2], dtype=torch.float32)
    curved = field(0.0)
    curved[:, 2] = 0.05 * axis**2
    for name, measure in (("smoothness", gradient_l2), ("bending", bending_energy)):
        weights = replace(DICE_ALONE, **{name: 0.7})
        total, parts = region_matching_loss(sample(), curved, weights)
        without, _ = region_matching_loss(sample(), curved, DICE_ALONE)
        assert float(total - without) == pytest.approx(0.7 * float(measure(curved)), rel=1e-4)
        assert set(parts) == {"dice", "gradient" if name == "smoothness" else "bending"}
    # A shift costs neither.
    both = replace(DICE_ALONE, smoothness=1.0, bending=1.0)
    assert loss(both, 2.0) == pytest.approx(loss(DICE_ALONE, 2.0), abs=1e-6)


@pytest.mark.parametrize("domain", ["gland", "volume"])
def test_mutual_information_is_highest_where_the_images_agree(domain: str) -> None:
    weights = replace(DICE_ALONE, gland=0.0, landmark=0.0, mi=1.0, mi_domain=domain)  # type: ignore[arg-type]
    assert loss(weights, 2.0) < loss(weights, 0.0) - 0.3


def test_the_whole_volume_is_zero_outside_the_glands() -> None:
    pair = sample()
    weights = replace(DICE_ALONE, mi=1.0, mi_domain="volume")
    _, parts = region_matching_loss(pair, field(2.0), weights)
    glands = pair.fixed_labels[:, :1]
    expected = whole_volume_mutual_information(pair.fixed_image, pair.fixed_image, glands, glands)
    assert parts["mi"] == pytest.approx(float(expected), abs=1e-3)


# --- what validation says of a field ---------------------------------------------------------------------


class Field(torch.nn.Module):
    """The same displacement (voxels along K, J, I) everywhere."""

    def __init__(self, *amount: float) -> None:
        super().__init__()
        self.amount = torch.nn.Parameter(torch.tensor(amount).view(1, 3, 1, 1, 1))

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        return self.amount.expand(-1, -1, *fixed.shape[2:])


@pytest.fixture
def with_landmarks() -> RegistrationTask:
    """A pair that fits as it is: a gland with two landmarks, shown as it is and turned by nothing."""
    size = (24, 24, 24)
    labels = torch.zeros(1, 3, *size)
    labels[:, 0, 6:18, 6:18, 6:18] = 1
    labels[:, 1, 8:10, 8:10, 8:10] = 1
    labels[:, 2, 14:16, 14:16, 14:16] = 1
    sample = RegistrationSample("a", labels[:, :1] * 0.7, labels[:, :1] * 0.4, labels, labels.clone(), 1.5)
    nothing = SpatialRange(0.0, 0.0, 0.0, 0.0, 0.0)
    settings = RegistrationSettings(grid_vox=size, mask_error=nothing, alignment="initial")
    return RegistrationTask(settings, [[sample]], [sample])


def test_a_field_that_loses_the_landmarks_is_worse_than_one_that_misses_them(
    with_landmarks: RegistrationTask,
) -> None:
    exact, near, lost = (
        with_landmarks.validate(Field(shift, 0.0, 0.0))["score"] for shift in (0.0, 3.0, 100.0)
    )
    assert exact == pytest.approx(0.0, abs=1e-6)
    assert near == pytest.approx(-4.5, abs=1e-4)
    # As far off as the grid's diagonal is long.
    assert lost == pytest.approx(-1.5 * 24 * 3**0.5, rel=1e-6)


def test_a_field_that_is_not_finite_is_never_the_best(with_landmarks: RegistrationTask) -> None:
    figures = with_landmarks.validate(Field(float("nan"), 0.0, 0.0))
    assert np.isnan(figures["score"])
    assert not figures["score"] > -float("inf")
