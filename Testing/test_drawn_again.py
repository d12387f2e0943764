"""A segmenter whose card names a model for sharp images: which of the two draws the gland, and from what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from cases import mr_image, mr_mask, trus_image, trus_mask
from shapes import array
from tiny_networks import install

from MRTRUSRegistrationLib import Settings, register
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import InstalledModel, Preprocessing, detail, drawers, prepare_image
from MRTRUSRegistrationLib.results import GlandSegmentation
from MRTRUSRegistrationLib.segmentation import PUBLIC_AXES, segment_gland
from MRTRUSTraining.export import decision
from MRTRUSTraining.segmentation_training import SegmentationSettings
from MRTRUSTraining.segmented import cached_glands

PREPROCESSING = Preprocessing("LPS", (1.5, 1.5, 1.5))
STRUCTURES = ["zone", "seminal_vesicles"]


class Middle(torch.nn.Module):
    """Sees the gland in a ball of a radius in voxels about the middle of the window."""

    def __init__(self, radius: float, channels: int = 1) -> None:
        super().__init__()
        self.radius = radius
        self.channels = channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        axes = [torch.arange(float(n)) - (n - 1) / 2 for n in image.shape[2:]]
        k, j, i = torch.meshgrid(axes[0], axes[1], axes[2], indexing="ij")
        ball = ((k * k + j * j + i * i).sqrt() < self.radius).float()[None, None]
        # The gland's rest is its left half, the first structure its right one; the second lies all around.
        left = (i < 0).float()
        parts = [ball * left, ball * (1 - left), 1 - ball]
        return ball if self.channels == 1 else torch.cat(parts, dim=1)


def models(folder: Path, *, again: float, sharpness: float = 0.0, named: str = "finer") -> InstalledModel:
    """A segmenter that sees a ball of 10 voxels, and its model for sharp images, of a radius of `again`."""
    install(
        Middle(again, 3),
        folder,
        modality="TRUS",
        grid_vox=(32, 32, 32),
        preprocessing=PREPROCESSING,
        settings={"structures": STRUCTURES},
        name="finer",
        task="structures",
    )
    return install(
        Middle(10.0),
        folder,
        modality="TRUS",
        grid_vox=(128, 128, 128),
        preprocessing=PREPROCESSING,
        settings={"threshold": 0.5, "sharper": {"detail": sharpness, "model": named}},
        name="first",
    )


def radius_vox(mask: sitk.Image) -> float:
    """Of the ball with a mask's volume, in voxels of the models."""
    volume_mm3 = array(mask).sum() * np.prod(mask.GetSpacing())
    return float((volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3) / 1.5)


def test_a_sharp_image_is_drawn_again(tmp_path: Path) -> None:
    """The gland with the structure inside it, without the one beyond; probability and name go with it."""
    found = segment_gland(trus_image(), models(tmp_path, again=7.0))
    assert found.model == "finer"
    assert radius_vox(found.mask) == pytest.approx(7.0, rel=0.06)
    assert found.probability is not None
    assert array(found.probability).max() == pytest.approx(1.0, abs=1e-3)
    middle = np.argwhere(array(found.mask) > 0).mean(axis=0)
    first = segment_gland(trus_image(), models(tmp_path / "blurred", again=7.0, sharpness=1.0))
    np.testing.assert_allclose(middle, np.argwhere(array(first.mask) > 0).mean(axis=0), atol=1.0)


def test_a_blurred_image_is_not(tmp_path: Path) -> None:
    sharpness = detail(prepare_image(trus_image(), PREPROCESSING))
    found = segment_gland(trus_image(), models(tmp_path, again=7.0, sharpness=sharpness + 0.01))
    assert found.model == "first"
    assert radius_vox(found.mask) == pytest.approx(10.0, rel=0.06)
    assert (
        segment_gland(trus_image(), models(tmp_path, again=7.0, sharpness=sharpness - 0.01)).model == "finer"
    )


def test_a_gland_that_it_does_not_see_stays(tmp_path: Path) -> None:
    found = segment_gland(trus_image(), models(tmp_path, again=0.0))
    assert found.model == "first"
    assert radius_vox(found.mask) == pytest.approx(10.0, rel=0.06)


def border_warnings(found: GlandSegmentation) -> list[str]:
    return [each.message for each in found.warnings if each.code == "trus_gland_at_border"]


@pytest.mark.parametrize("known", [True, False])
def test_a_gland_that_does_not_fit_into_the_window_is_warned_of(tmp_path: Path, known: bool) -> None:
    """The window has 32 voxels a side, so a ball of 17 is cut where the image goes on."""
    found = segment_gland(trus_image(), models(tmp_path, again=17.0), orientation_known=known)
    assert found.model == "finer"
    assert radius_vox(found.mask) < 17.0
    [message] = border_warnings(found)
    assert "what the model finer sees of the TRUS volume" in message
    whole = segment_gland(trus_image(), models(tmp_path / "fits", again=15.0), orientation_known=known)
    assert whole.model == "finer"
    assert border_warnings(whole) == []


def test_axes_that_the_header_does_not_state(tmp_path: Path) -> None:
    """Both models see the image along the axes that were found."""
    found = segment_gland(trus_image(), models(tmp_path, again=7.0), orientation_known=False)
    assert found.axes in ("", PUBLIC_AXES)
    assert found.mask.GetDirection() == trus_image().GetDirection()
    assert radius_vox(found.mask) == pytest.approx(7.0, rel=0.06)


def test_a_model_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'absent' for TRUS is installed"):
        segment_gland(trus_image(), models(tmp_path, again=7.0, named="absent"))


def test_the_result_names_both_models(tmp_path: Path) -> None:
    # About as large as the gland in the MR, or they would not be of one patient.
    models(tmp_path, again=9.0)
    result = register(
        mr_image(),
        trus_image(),
        settings=Settings(method="centroid", models=tmp_path, device="cpu"),
        mr_gland=mr_mask(),
    )
    assert result.trus_gland.model == "finer"
    assert {"first", "finer"} <= set(result.provenance["models"])  # type: ignore[call-overload]


def test_training_draws_glands_as_the_pipeline_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache knows the second model too: another one draws anew."""
    from MRTRUSTraining import segmented

    first = models(tmp_path, again=7.0)
    assert [model.card.name for model in drawers(first)] == ["first", "finer"]
    drawn: list[int] = []
    monkeypatch.setattr(segmented, "segmenters_named", lambda named: {"MR": first, "TRUS": first})
    monkeypatch.setattr(
        segmented, "segmented_glands", lambda *_: drawn.append(1) or (trus_mask(), trus_mask())
    )

    class Loaded:
        mr = trus = trus_image()

    class Named:
        reading, files = ("case", "mrus", None, None), ()

    for again, times in ((7.0, 1), (7.0, 1), (6.0, 2)):
        models(tmp_path, again=again)
        mr, _ = cached_glands(Named, Loaded, {}, tmp_path / "cache")  # type: ignore[arg-type]
        np.testing.assert_array_equal(array(mr), array(trus_mask()))
        assert len(drawn) == times


@pytest.mark.slow
def test_a_row_puts_it_on_the_card() -> None:
    from MRTRUSTraining.row import find_row

    settings = find_row("vnet-mr").method
    assert isinstance(settings, SegmentationSettings)
    assert decision(settings) == {
        "threshold": 0.5,
        "sharper": {"detail": 0.055, "model": "structures-mr"},
    }
