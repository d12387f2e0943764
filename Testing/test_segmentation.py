"""Gland segmentation with networks whose output is known."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from shapes import array, cube_grid, ellipsoid, overlap, points_mm, turned
from tiny_networks import Brightness, BrightTowardsTheBack, install

from MRTRUSRegistrationLib.errors import Cancelled, RegistrationError
from MRTRUSRegistrationLib.geometry import Grid, orientation_direction, resample, with_orientation
from MRTRUSRegistrationLib.models import Preprocessing
from MRTRUSRegistrationLib.progress import CancelToken, Reporter
from MRTRUSRegistrationLib.segmentation import (
    PUBLIC_AXES,
    class_probabilities,
    clean_mask,
    mask_warnings,
    segment_gland,
)

PLAIN = Preprocessing("LPS", (1.5, 1.5, 1.5), percentiles=(0.0, 100.0))


class Seen(torch.nn.Module):
    """A voxel-wise network that remembers the windows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.sizes.append(tuple(image.shape[2:]))
        return 1 - image


def noise_image(size_kji: tuple[int, int, int]) -> sitk.Image:
    grid = Grid(size_kji[::-1], (1.5, 1.5, 1.5))
    return grid.image(np.random.default_rng(0).uniform(size=size_kji).astype(np.float32))


# --- windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(50, 61, 70), (33, 20, 90), (32, 48, 64)])
def test_sliding_a_voxelwise_network_is_applying_it_once(size: tuple[int, int, int]) -> None:
    image, network = noise_image(size), Seen()
    found = class_probabilities(image, network, (64, 48, 32))[0]
    np.testing.assert_allclose(array(found), 1 - array(image), atol=1e-6)
    assert Grid.of(found) == Grid.of(image)
    for window in network.sizes:
        assert all(n % 16 == 0 for n in window)
        assert all(n <= w for n, w in zip(window, (32, 48, 64), strict=True))


def test_windows_overlap_by_half_at_least() -> None:
    network = Seen()
    class_probabilities(noise_image((80, 48, 64)), network, (64, 48, 32))
    # Starts of windows of 32 in 80: 0, 16, 32, 48.
    assert network.sizes == [(32, 48, 64)] * 4


def test_a_small_image_is_one_window_padded_with_zeros_all_round() -> None:
    class Total(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            shape.append(tuple(image.shape[2:]))
            inner = image[0, 0, 3:13, 6:26, 4:12]
            assert torch.count_nonzero(image) == torch.count_nonzero(inner) == inner.numel()
            return image

    shape: list[tuple[int, ...]] = []
    image = noise_image((10, 20, 8))
    found = class_probabilities(image, Total(), (112, 112, 96))[0]
    assert shape == [(16, 32, 16)]
    np.testing.assert_allclose(array(found), array(image), atol=1e-6)


def test_windows_are_blended_towards_their_middles() -> None:
    """A network that answers with the window's number: the blend runs from the first to the last."""

    class Number(torch.nn.Module):
        count = 0

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            Number.count += 1
            return torch.full_like(image, float(Number.count - 1))

    found = array(class_probabilities(noise_image((16, 16, 48)), Number(), (32, 16, 16))[0])[8, 8]
    assert Number.count == 2
    # Only the first window covers 0…15, only the second 32…47; the middle is both alike.
    np.testing.assert_allclose(found[:16], 0, atol=1e-6)
    np.testing.assert_allclose(found[32:], 1, atol=1e-6)
    assert np.all(np.diff(found[15:33]) > 0)
    assert found[23] + found[24] == pytest.approx(1, abs=1e-5)


def test_a_run_can_be_cancelled_between_windows() -> None:
    token, network = CancelToken(), Seen()
    token.cancel()
    with pytest.raises(Cancelled):
        class_probabilities(noise_image((80, 48, 64)), network, (64, 48, 32), reporter=Reporter(None, token))
    assert network.sizes == []


# --- mask ----------------------------------------------------------------------------------------------


def test_largest_component_without_holes() -> None:
    grid = cube_grid(40, 1.0)
    gland = array(ellipsoid(grid, (12, 10, 9))).astype(np.float32)
    hollow = gland - array(ellipsoid(grid, (4, 3, 3))) * 0.8
    stray = array(ellipsoid(grid, (3, 3, 3), centre_mm=(16, 0, 0)))
    mask = clean_mask(grid.image(np.maximum(hollow, stray * 0.99).astype(np.float32)), threshold=0.5)
    assert mask.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(array(mask), gland)


def test_threshold_is_strict() -> None:
    grid = cube_grid(8, 1.0)
    half = grid.image(np.full((8, 8, 8), 0.5, np.float32))
    assert not array(clean_mask(half, threshold=0.5)).any()
    assert array(clean_mask(half, threshold=0.49)).all()


def test_mask_at_the_border_or_of_odd_volume_is_warned_about() -> None:
    grid = cube_grid(60, 1.0)
    assert mask_warnings(ellipsoid(grid, (20, 16, 14)), "MR") == ()
    codes = [w.code for w in mask_warnings(ellipsoid(grid, (20, 16, 14), centre_mm=(15, 0, 0)), "TRUS")]
    assert codes == ["trus_gland_at_border"]
    small = mask_warnings(ellipsoid(grid, (10, 10, 10)), "MR")
    assert [w.code for w in small] == ["mr_gland_volume"]
    assert "4 ml" in small[0].message


# --- the whole stage -----------------------------------------------------------------------------------


def gland_image(grid: Grid) -> sitk.Image:
    """Bright smooth gland in a dark volume."""
    distance = np.linalg.norm((points_mm(grid) - grid.centre_mm) / np.array([22, 17, 19]), axis=-1)
    return grid.image((900 / (1 + np.exp(12 * (distance - 1)))).astype(np.float32))


@pytest.mark.parametrize(
    "grid",
    [
        Grid.centred(np.array([12.0, -40, 7]), (90, 80, 40), (0.7, 0.8, 1.9), turned(0.4, -0.3, 0.7)),
        Grid.centred(np.zeros(3), (64, 40, 60), (1.0, 1.6, 1.1), orientation_direction("SRA")),
    ],
    ids=["oblique", "other axes"],
)
def test_mask_and_probability_lie_on_the_images_own_grid(tmp_path: Path, grid: Grid) -> None:
    model = install(Brightness(), tmp_path, modality="MR", grid_vox=(64, 64, 64), preprocessing=PLAIN)
    image = gland_image(grid)
    found = segment_gland(image, model)
    assert found.probability is not None
    assert Grid.of(found.mask) == Grid.of(found.probability) == grid
    assert (found.model, found.axes) == ("tiny", "")
    inner = ellipsoid(grid, (22, 17, 19), centre_mm=tuple(grid.centre_mm))
    assert overlap(found.mask, inner) > 0.97
    # Intensity is the probability: resampling to 1.5 mm and back costs little on a smooth image.
    np.testing.assert_allclose(array(found.probability), array(image) / array(image).max(), atol=0.08)


def test_an_image_without_gland_is_an_error(tmp_path: Path) -> None:
    class Nothing(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * 0.0

    model = install(Nothing(), tmp_path, modality="TRUS", grid_vox=(64, 64, 64), preprocessing=PLAIN)
    with pytest.raises(RegistrationError, match="No gland was found in the TRUS image"):
        segment_gland(gland_image(cube_grid(48, 1.5)), model)


def test_threshold_of_the_card_is_used(tmp_path: Path) -> None:
    image = gland_image(cube_grid(48, 1.5))
    volumes = []
    for threshold in (0.3, 0.8):
        model = install(
            Brightness(),
            tmp_path / str(threshold),
            modality="MR",
            grid_vox=(64, 64, 64),
            preprocessing=PLAIN,
            settings={"threshold": threshold},
        )
        volumes.append(array(segment_gland(image, model).mask).sum())
    assert volumes[0] > 1.1 * volumes[1]


def bright_to_the_back(axes: str) -> tuple[sitk.Image, sitk.Image]:
    """An image that gets brighter to the patient's back, with index axes as said, and its bright part.

    The voxels are the same anatomy however the axes lie.
    """
    grid = cube_grid(48, 1.5)
    image = gland_image(grid)
    ramp = 0.6 + 0.4 * (points_mm(grid)[..., 1] / 36)
    anatomy = grid.image((array(image) * ramp).astype(np.float32))
    target = Grid.centred(np.zeros(3), (48, 48, 48), (1.5, 1.5, 1.5), orientation_direction(axes))
    return resample(anatomy, target), resample(ellipsoid(grid, (22, 17, 19)), target, nearest=True)


def test_an_unknown_orientation_is_found_by_the_surer_result(tmp_path: Path) -> None:
    model = install(
        BrightTowardsTheBack(), tmp_path, modality="TRUS", grid_vox=(48, 48, 48), preprocessing=PLAIN
    )
    true_axes, gland = bright_to_the_back(PUBLIC_AXES)
    # The file says LPS, although the axes are those of public data.
    unlabelled = with_orientation(true_axes, "LPS")
    found = segment_gland(unlabelled, model, orientation_known=False)
    assert found.axes == PUBLIC_AXES
    assert Grid.of(found.mask) == Grid.of(unlabelled)
    assert overlap(with_orientation(found.mask, PUBLIC_AXES), gland) > 0.8
    # A header that is right is kept, and one that is trusted is not questioned.
    assert segment_gland(bright_to_the_back("LPS")[0], model, orientation_known=False).axes == ""
    assert segment_gland(unlabelled, model).axes == ""
