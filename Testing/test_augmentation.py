"""Random spatial and intensity changes."""

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from MRTRUSTraining.data.augmentation import (
    IntensityRange,
    SpatialRange,
    affine_displacement,
    elastic_displacement,
    flip_displacement,
    flip_left_right,
    random_affine,
    random_displacement,
    random_fit,
    random_intensity,
)
from MRTRUSTraining.networks.warp import warp
from MRTRUSTraining.registration_samples import RegistrationSample, augment
from MRTRUSTraining.registration_settings import RegistrationSettings

SIZE = (16, 20, 24)
NOTHING = SpatialRange(0, 0, 0, 0, 0)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def ball_image(size: tuple[int, int, int] = SIZE, radius: float = 6.0) -> torch.Tensor:
    points = np.indices(size) - (np.array(size).reshape(3, 1, 1, 1) - 1) / 2
    inside = np.sum(points**2, axis=0) <= radius**2
    return torch.from_numpy(inside.astype(np.float32) * 0.6)[None, None]


# --- space ---------------------------------------------------------------------------------------------


def test_affine_displacement_turns_about_the_middle() -> None:
    matrix, translation = random_affine(generator(), SpatialRange())
    field = affine_displacement(matrix, translation, SIZE)[0].numpy()
    centre = (np.array(SIZE) - 1) / 2
    for index in [(0, 0, 0), (15, 3, 7), (8, 19, 23)]:
        expected = matrix @ (index - centre) + centre + translation - index
        np.testing.assert_allclose(field[(slice(None), *index)], expected, atol=1e-4)


def test_warping_with_it_is_scipys_affine_transform() -> None:
    volume = generator(1).normal(size=SIZE)
    matrix, translation = random_affine(generator(2), SpatialRange())
    centre = (np.array(SIZE) - 1) / 2
    expected = affine_transform(
        volume, matrix, offset=centre + translation - matrix @ centre, order=1, mode="grid-constant"
    )
    tensor = torch.from_numpy(volume.astype(np.float32))[None, None]
    found = warp(tensor, affine_displacement(matrix, translation, SIZE))[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("spread", "determinant", "orthogonal"),
    [
        (SpatialRange(rotation_deg=20, log_scale=0, shear=0, translation_vox=0, elastic_vox=0), 1.0, True),
        (NOTHING, 1.0, True),
    ],
)
def test_rotations_alone_are_rotations(spread: SpatialRange, determinant: float, orthogonal: bool) -> None:
    matrix, translation = random_affine(generator(3), spread)
    assert np.linalg.det(matrix) == pytest.approx(determinant)
    assert np.allclose(matrix @ matrix.T, np.eye(3)) == orthogonal
    np.testing.assert_array_equal(translation, 0)


def test_spreads_are_standard_deviations() -> None:
    rng, spread = generator(4), SpatialRange(rotation_deg=0, log_scale=0.1, shear=0, translation_vox=3.0)
    draws = [random_affine(rng, spread) for _ in range(1500)]
    scales = np.log([np.diag(matrix) for matrix, _ in draws])
    assert scales.std() == pytest.approx(0.1, rel=0.05)
    assert np.std([translation for _, translation in draws]) == pytest.approx(3.0, rel=0.05)


def test_elastic_field_is_smooth_and_hits_its_nodes() -> None:
    field = elastic_displacement(generator(5), 2.0, 5, (17, 17, 17))[0].numpy()
    expected = generator(5).normal(0, 2.0, (3, 5, 5, 5))
    np.testing.assert_allclose(field[:, ::4, ::4, ::4], expected, atol=1e-5)
    np.testing.assert_allclose(
        field[:, 2, 0, 0], (expected[:, 0, 0, 0] + expected[:, 1, 0, 0]) / 2, atol=1e-5
    )


def test_same_generator_same_displacement() -> None:
    same = [random_displacement(generator(6), SpatialRange(), SIZE) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], random_displacement(generator(7), SpatialRange(), SIZE))
    assert torch.count_nonzero(random_displacement(generator(6), NOTHING, SIZE)) == 0


def test_random_fit_pads_around_the_middle() -> None:
    volume = torch.from_numpy(generator(8).normal(size=(1, 2, *SIZE)))
    size = tuple(n + 5 for n in SIZE)
    fitted = random_fit(volume, size, generator(0))
    inner = tuple(slice(2, 2 + n) for n in SIZE)
    assert fitted.shape == (1, 2, *size)
    assert torch.equal(fitted[(..., *inner)], volume)
    assert fitted.abs().sum() == pytest.approx(float(volume.abs().sum())), "the rest is zero"


def test_random_fit_crops_every_place_in_turn() -> None:
    line = torch.arange(10.0).reshape(1, 1, 10, 1, 1)
    rng = generator(3)
    starts = {int(random_fit(line, (4, 1, 1), rng)[0, 0, 0, 0, 0]) for _ in range(200)}
    assert starts == set(range(7))
    crop = random_fit(line, (4, 1, 1), rng).flatten()
    assert torch.equal(torch.diff(crop), torch.ones(3)), "neighbours stay neighbours"


def test_flip_mirrors_left_and_right_only() -> None:
    volume = torch.arange(24.0).reshape(1, 1, 2, 3, 4)
    assert flip_left_right(volume)[0, 0, 1, 2].tolist() == [23, 22, 21, 20]
    assert torch.equal(flip_left_right(flip_left_right(volume)), volume)


def test_mirroring_a_warped_volume_is_warping_the_mirrored_one() -> None:
    volume = torch.from_numpy(generator(11).normal(size=(1, 2, *SIZE)).astype(np.float32))
    field = random_displacement(generator(12), SpatialRange(), SIZE)
    mirrored = warp(flip_left_right(volume), flip_displacement(field))
    torch.testing.assert_close(mirrored, flip_left_right(warp(volume, field)), atol=1e-3, rtol=0)
    assert (mirrored - warp(flip_left_right(volume), field.flip(-1))).abs().max() > 0.5
    assert torch.equal(flip_displacement(flip_displacement(field)), field)


# --- intensity -----------------------------------------------------------------------------------------

ALWAYS = IntensityRange(probability=1.0)


@pytest.mark.parametrize("seed", range(6))
def test_intensities_stay_in_range_and_zero_stays_zero(seed: int) -> None:
    image = ball_image()
    changed = random_intensity(image, generator(seed), ALWAYS)
    assert changed.shape == image.shape
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.count_nonzero(changed[image == 0]) == 0
    assert not torch.allclose(changed, image, atol=0.01)


def test_no_spread_changes_nothing() -> None:
    image = ball_image()
    same = random_intensity(image, generator(), IntensityRange(probability=0.0, log_gamma=0.0))
    torch.testing.assert_close(same, image)


def test_gamma_is_a_power() -> None:
    image = ball_image()
    found = random_intensity(image, generator(9), IntensityRange(probability=0.0, log_gamma=0.3))
    rng = generator(9)
    rng.random(), rng.random()
    expected = 0.6 ** np.exp(rng.normal(0, 0.3))
    np.testing.assert_allclose(found[image > 0].numpy(), expected, rtol=1e-5)


# --- a pair --------------------------------------------------------------------------------------------


def sample(size: tuple[int, int, int]) -> RegistrationSample:
    """Both volumes are the same ball, with the same landmark off the middle."""
    gland = (ball_image(size, 10) > 0).float()
    landmark = torch.zeros_like(gland)
    landmark[..., size[0] // 2 - 5, size[1] // 2 + 3, size[2] // 2 + 4] = 1
    labels = torch.cat([gland, landmark], dim=1)
    return RegistrationSample("a", gland * 0.7, gland * 0.4, labels, labels.clone(), 1.5)


def test_a_pair_is_changed_together_apart_from_the_misalignment() -> None:
    size = (32, 32, 48)
    settings = RegistrationSettings(
        grid_vox=size[::-1], misalignment=NOTHING, intensity=IntensityRange(probability=0.0, log_gamma=0.0)
    )
    changed = augment(sample(size), generator(10), settings)
    torch.testing.assert_close(changed.moving_labels, changed.fixed_labels)
    assert (changed.fixed_labels - sample(size).fixed_labels).abs().max() > 0.5
    torch.testing.assert_close(changed.moving_image, changed.moving_labels[:, :1] * 0.7)


def test_only_the_moving_volume_is_misaligned() -> None:
    size = (32, 32, 48)
    shift = SpatialRange(0, 0, 0, translation_vox=3.0, elastic_vox=0)
    still = IntensityRange(probability=0.0, log_gamma=0.0)
    settings = RegistrationSettings(grid_vox=size[::-1], shared=NOTHING, misalignment=shift, intensity=still)
    rng = generator(12)
    changed = augment(sample(size), rng, settings)
    again = generator(12)
    random_affine(again, NOTHING)
    _, translation = random_affine(again, shift)
    flipped = again.random() < 0.5

    def centroid(labels: torch.Tensor) -> np.ndarray:
        gland = (labels.flip(-1) if flipped else labels)[0, 0].numpy()
        return np.average(np.indices(size).reshape(3, -1), axis=1, weights=gland.ravel())

    np.testing.assert_allclose(centroid(changed.fixed_labels), (np.array(size) - 1) / 2, atol=1e-4)
    moved = centroid(changed.moving_labels) - (np.array(size) - 1) / 2
    # The moving image is sampled at x + t, so what it shows moves by −t.
    np.testing.assert_allclose(moved, -translation, atol=1e-3)
