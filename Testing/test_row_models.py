"""What a card says of a network's alignment and inputs, and how the pipeline follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from cases import CENTRE_MM, mr_image, mr_mask, trus_image, trus_mask
from shapes import array
from tiny_networks import Shift, install

from MRTRUSRegistrationLib import Settings, register
from MRTRUSRegistrationLib.deformable import deform_with_network
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import InstalledModel, Preprocessing
from MRTRUSRegistrationLib.pipeline import Method, method_named
from MRTRUSRegistrationLib.regions import regions_of_interest
from MRTRUSRegistrationLib.transforms import transform_points_mm
from MRTRUSTraining.export import MirrorAveragedWithGlands
from MRTRUSTraining.registration_samples import RegistrationSample, centroid_vox
from MRTRUSTraining.registration_settings import RegistrationSettings
from MRTRUSTraining.registration_training import RegistrationTask

GRID_VOX = (40, 40, 40)
SIZE = (16, 16, 16)


class ShiftByGlands(torch.nn.Module):
    """Moves by the difference of the glands' volumes, in thousandths of a voxel; images count for nothing."""

    def forward(
        self,
        moving: torch.Tensor,
        fixed: torch.Tensor,
        moving_gland: torch.Tensor,
        fixed_gland: torch.Tensor,
    ) -> torch.Tensor:
        amount = (moving_gland.sum() - fixed_gland.sum()) / 1000
        return torch.cat([amount + torch.zeros_like(fixed), 0 * fixed, 0 * fixed], dim=1)


def model(network: torch.nn.Module, folder: Path, **settings: object) -> InstalledModel:
    return install(
        network,
        folder,
        modality="MR-TRUS",
        grid_vox=GRID_VOX,
        preprocessing=Preprocessing("LPS", (2.0, 2.0, 2.0)),
        settings=settings,
        name="row",
    )


def shifted_start() -> sitk.Transform:
    return sitk.TranslationTransform(3, (4.0, -3.0, 2.0))


@pytest.mark.parametrize(("alignment", "stage"), [("initial", "initial"), ("centroid", "centroid")])
def test_the_card_decides_the_alignment(tmp_path: Path, alignment: str, stage: str) -> None:
    model(Shift((0.0, 0.0, 0.0)), tmp_path, alignment=alignment)
    assert method_named("row", tmp_path) == Method(stage, "network")  # type: ignore[arg-type]
    settings = Settings(method="row", models=tmp_path, device="cpu", initial=shifted_start())
    result = register(mr_image(), trus_image(), settings=settings, mr_gland=mr_mask(), trus_gland=trus_mask())
    assert result.rigid.method == alignment
    moved = transform_points_mm(result.transform, np.array([CENTRE_MM]))[0]
    gap = float(np.linalg.norm(moved - transform_points_mm(shifted_start(), np.array([CENTRE_MM]))[0]))
    assert (gap < 0.05) == (alignment == "initial")


def test_without_a_word_of_it_the_alignment_is_rigid(tmp_path: Path) -> None:
    model(Shift((0.0, 0.0, 0.0)), tmp_path)
    assert method_named("row", tmp_path) == Method("ants", "network")
    assert method_named("centroid") == Method("centroid")
    with pytest.raises(InputError, match="'nobody' is not known"):
        method_named("nobody", tmp_path)


@pytest.mark.parametrize(("settings", "message"), [({"alignment": "affine"}, "alignment 'affine'")])
def test_an_alignment_of_a_later_version_is_refused(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    model(Shift((0.0, 0.0, 0.0)), tmp_path, **settings)
    with pytest.raises(InputError, match=message):
        method_named("row", tmp_path)


def test_a_network_that_wants_the_glands_gets_both(tmp_path: Path) -> None:
    identity = sitk.TranslationTransform(3)
    installed = model(ShiftByGlands(), tmp_path, inputs="images+masks", intensity_floor=0.0, context=1.0)
    small = sitk.BinaryErode(trus_mask(), (3, 3, 3))
    glands = (trus_mask(), small)
    regions = regions_of_interest(trus_image(), trus_image(), *glands, identity, installed.card)
    # Images as they are: what surrounds the gland is there.
    assert float(array(regions.moving)[array(regions.moving_gland) == 0].max()) > 0.1
    difference_vox = float(array(regions.moving_gland).sum() - array(regions.fixed_gland).sum())
    found = deform_with_network(trus_image(), trus_image(), *glands, identity, installed)
    at_centre = found.transform.TransformPoint(CENTRE_MM)
    # The first array axis is the last of the grid's.
    expected_mm = difference_vox / 1000 * 2.0
    assert expected_mm > 0.5
    expected = regions.grid.axes[:, 2] * expected_mm
    assert np.array(at_centre) - CENTRE_MM == pytest.approx(expected, abs=0.05)


def test_inputs_of_a_later_version_are_refused(tmp_path: Path) -> None:
    installed = model(Shift((0.0, 0.0, 0.0)), tmp_path, inputs="four volumes")
    with pytest.raises(InputError, match="inputs 'four volumes'"):
        deform_with_network(
            trus_image(), trus_image(), trus_mask(), trus_mask(), sitk.TranslationTransform(3), installed
        )


def test_the_mirrored_network_with_glands_is_that_of_the_mirrored_pair() -> None:
    torch.manual_seed(0)

    class Mixing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv3d(4, 3, 3, padding=1)

        def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
            return self.convolution(torch.cat([a, b, c, d], dim=1))

    network = MirrorAveragedWithGlands(Mixing()).eval()
    given = [torch.rand(1, 1, 6, 6, 6) for _ in range(4)]
    with torch.inference_mode():
        field, mirrored = network(*given), network(*(volume.flip(4) for volume in given))
    sign = torch.tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1, 1)
    torch.testing.assert_close(mirrored, field.flip(4) * sign)


# --- what training shows the network ---------------------------------------------------------------------


def sample() -> RegistrationSample:
    axes = torch.meshgrid(*(torch.arange(n) - 7.5 for n in SIZE), indexing="ij")
    gland = (torch.stack(axes).square().sum(0).sqrt() < 5).float()[None, None]
    image = torch.full((1, 1, *SIZE), 0.5)
    return RegistrationSample("s", image, image.clone(), gland.roll(2, -1), gland, 1.5)


def shown(**settings: object) -> tuple[RegistrationSample, tuple[torch.Tensor, ...]]:
    from MRTRUSTraining.data.augmentation import SpatialRange

    exact = {"mask_error": SpatialRange(0, 0, 0, 0, 0), "options": {}}
    task = RegistrationTask(RegistrationSettings(**(exact | settings)), [[sample()]], [sample()])  # type: ignore[arg-type]
    return task._as_segmented(sample(), np.random.default_rng(0), scaling=0.5)


def test_only_an_alignment_by_masks_follows_the_masks() -> None:
    for alignment, gap_vox in (("initial", 2.0), ("centroid", 0.0), ("rigid", 0.0)):
        pair, _ = shown(alignment=alignment)
        apart = centroid_vox(pair.moving_labels[0, 0]) - centroid_vox(pair.fixed_labels[0, 0])
        assert apart.tolist() == pytest.approx([0, 0, gap_vox], abs=1e-3)


def test_what_the_network_sees_of_a_pair() -> None:
    _, regions = shown(intensity_floor=0.0, context=0.0)
    assert len(regions) == 2
    assert set(regions[1].round(decimals=4).unique().tolist()) == {0.0, 0.5}
    _, images = shown(inputs="images", intensity_floor=0.5)
    assert set(images[1].round(decimals=4).unique().tolist()) == {0.5}
    _, all_four = shown(inputs="images+masks", network="segmentation-based")
    assert len(all_four) == 4
    highest = [float(each.max()) for each in all_four[2:]]
    assert all(0.5 <= value <= 1.0 for value in highest)
    assert highest[0] != highest[1], "each is scaled by itself"


def test_the_centroid_is_the_mean_of_the_voxels_weighted() -> None:
    label = torch.zeros(4, 5, 6)
    label[1, 2, 3], label[3, 4, 5] = 1.0, 3.0
    assert centroid_vox(label).tolist() == pytest.approx([2.5, 3.5, 4.5])
