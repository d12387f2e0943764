"""The TRUS gland drawn to agree with the volume that the MR shows, on probabilities with known volumes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import TRUS_GRID, mr_image, mr_mask, trus_image, trus_mask
from shapes import array, cube_grid, points_mm
from tiny_networks import install

from MRTRUSRegistrationLib import Settings, register
from MRTRUSRegistrationLib.geometry import mask_volume_ml
from MRTRUSRegistrationLib.models import InstalledModel, ModelCard, Preprocessing
from MRTRUSRegistrationLib.results import GlandSegmentation
from MRTRUSRegistrationLib.segmentation import agree_on_volume, clean_mask

GRID = cube_grid(72, 1.0)
# Probability falls linearly from 1 in the middle to 0 at this radius.
REACH_MM = 34.0


def volume_ml(threshold: float) -> float:
    """Of the ball in which the ramp exceeds a threshold."""
    return 4 / 3 * math.pi * (REACH_MM * (1 - threshold)) ** 3 / 1000


def threshold_of(volume: float) -> float:
    return 1 - (volume * 1000 * 3 / 4 / math.pi) ** (1 / 3) / REACH_MM


def logit(p: float) -> float:
    return math.log(p / (1 - p))


@pytest.fixture(scope="module")
def ramp() -> GlandSegmentation:
    radius = np.linalg.norm(points_mm(GRID), axis=-1)
    probability = GRID.image(np.clip(1 - radius / REACH_MM, 0, 1).astype(np.float32))
    return GlandSegmentation(clean_mask(probability, threshold=0.5), probability, "tiny", "PRS")


def model(threshold: float = 0.5, **agreement: float) -> InstalledModel:
    settings = {"threshold": threshold} | ({"volume_agreement": agreement} if agreement else {})
    card = ModelCard(
        name="tiny",
        title="",
        task="segmentation",
        modality="TRUS",
        architecture={},
        preprocessing=Preprocessing("LPS", (1.0, 1.0, 1.0)),
        grid_vox=(64, 64, 64),
        settings=settings,
        training_data=(),
        figures=(),
        licence="",
        file="",
        sha256="",
    )
    return InstalledModel(card, Path("tiny.json"))


def test_the_other_volume_is_met_where_the_threshold_is_free(ramp: GlandSegmentation) -> None:
    free = model(ratio=1.0, ratio_log_sd=0.01, logit_sd=100.0)
    for target in (10.0, 20.0, 60.0):
        found = agree_on_volume(ramp, target, free)
        # Thresholds come in steps of one hundredth.
        step = volume_ml(threshold_of(target) - 0.01) - target
        assert mask_volume_ml(found.mask) == pytest.approx(target, abs=step)
        assert found.mask.GetPixelID() == ramp.mask.GetPixelID()
        assert (found.model, found.axes) == ("tiny", "PRS")


def test_the_ratio_of_the_card_scales_the_target(ramp: GlandSegmentation) -> None:
    found = agree_on_volume(ramp, 20.0, model(ratio=0.8, ratio_log_sd=0.01, logit_sd=100.0))
    assert mask_volume_ml(found.mask) == pytest.approx(16.0, abs=1.0)


def test_the_compromise_is_the_likeliest_threshold(ramp: GlandSegmentation) -> None:
    """Both the volume and the threshold are uncertain: the result minimises their squared deviations."""
    start, target, ratio_sd, logit_sd = 0.6, 40.0, 0.3, 0.4
    expected = min(
        np.linspace(0.1, 0.95, 5000).tolist(),
        key=lambda t: (
            (math.log(volume_ml(t) / target) / ratio_sd) ** 2 + ((logit(t) - logit(start)) / logit_sd) ** 2
        ),
    )
    assert threshold_of(target) < expected - 0.02
    assert expected < start - 0.02
    found = agree_on_volume(ramp, target, model(start, ratio=1.0, ratio_log_sd=ratio_sd, logit_sd=logit_sd))
    step = volume_ml(expected - 0.006) - volume_ml(expected)
    assert mask_volume_ml(found.mask) == pytest.approx(volume_ml(expected), abs=1.2 * step)


@pytest.mark.parametrize("absurd_ml", [0.001, 5000.0])
def test_an_absurd_volume_moves_the_threshold_no_further_than_its_freedom(
    ramp: GlandSegmentation, absurd_ml: float
) -> None:
    tight = model(ratio=1.0, ratio_log_sd=0.1, logit_sd=0.006)
    found = mask_volume_ml(agree_on_volume(ramp, absurd_ml, tight).mask)
    assert found == pytest.approx(volume_ml(0.5), rel=0.15)
    assert found != pytest.approx(volume_ml(0.5), rel=0.001), "but it does move"


def test_the_mask_is_never_empty(ramp: GlandSegmentation) -> None:
    """A network whose surest voxel has 0.7, and an MR mask of a single voxel."""
    assert ramp.probability is not None
    unsure = replace(ramp, probability=ramp.probability * 0.7)
    found = agree_on_volume(unsure, 0.001, model(ratio=1.0, ratio_log_sd=0.01, logit_sd=100.0))
    assert array(found.mask).any()


def test_a_card_without_the_setting_or_a_gland_without_probability_stays(ramp: GlandSegmentation) -> None:
    assert agree_on_volume(ramp, 60.0, model()) is ramp
    drawn = replace(ramp, probability=None)
    assert agree_on_volume(drawn, 60.0, model(ratio=1.0, ratio_log_sd=0.1, logit_sd=1.0)) is drawn


def test_what_another_model_drew_stays(ramp: GlandSegmentation) -> None:
    """The threshold and its freedom are of the card's own probabilities."""
    other = replace(ramp, model="finer")
    assert agree_on_volume(other, 60.0, model(ratio=1.0, ratio_log_sd=0.1, logit_sd=1.0)) is other


def test_warnings_are_those_of_the_new_mask(ramp: GlandSegmentation) -> None:
    small = agree_on_volume(ramp, 2.0, model(ratio=1.0, ratio_log_sd=0.01, logit_sd=100.0))
    assert [warning.code for warning in small.warnings] == ["trus_gland_volume"]
    again = agree_on_volume(small, 30.0, model(ratio=1.0, ratio_log_sd=0.01, logit_sd=100.0))
    assert again.warnings == ()


def test_stray_pieces_do_not_count(ramp: GlandSegmentation) -> None:
    """A sure blob apart from the gland is neither kept nor counted in the volume."""
    assert ramp.probability is not None
    far = np.linalg.norm(points_mm(GRID) - np.array([28.0, 28.0, 28.0]), axis=-1) < 6
    probability = np.where(far, 0.99, array(ramp.probability)).astype(np.float32)
    strayed = replace(ramp, probability=GRID.image(probability))
    found = agree_on_volume(strayed, 20.0, model(ratio=1.0, ratio_log_sd=0.01, logit_sd=100.0))
    assert mask_volume_ml(found.mask) == pytest.approx(20.0, abs=1.2)
    assert not array(found.mask)[far].any()


# --- in the pipeline -------------------------------------------------------------------------------------


class Ramp(torch.nn.Module):
    """Probability by distance from the middle of the window, whatever the image shows."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        size = image.shape[2:]
        squares = torch.zeros_like(image)
        for axis in range(3):
            place = torch.arange(size[axis], dtype=torch.float32) - (size[axis] - 1) / 2
            shape = [1, 1, 1, 1, 1]
            shape[axis + 2] = size[axis]
            squares = squares + place.reshape(shape) ** 2
        return (1 - squares.sqrt() / 20.0).clamp(0, 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for modality in ("MR", "TRUS"):
        agreement = {"ratio": 1.0, "ratio_log_sd": 0.01, "logit_sd": 100.0}
        install(
            Ramp(),
            folder,
            modality=modality,
            grid_vox=(48, 48, 48),
            preprocessing=Preprocessing("LPS", (1.5, 1.5, 1.5)),
            settings={"volume_agreement": agreement},
            name=f"ramp-{modality}",
        )
    return folder


def test_the_pipeline_draws_the_trus_gland_to_the_mr_glands_volume(models: Path) -> None:
    settings = Settings(method="centroid", models=models)
    known_ml = mask_volume_ml(mr_mask())
    alone_ml = 4 / 3 * math.pi * 15**3 / 1000  # the ramp at one half
    assert abs(known_ml - alone_ml) > 2
    found = register(mr_image(), trus_image(), settings=settings, mr_gland=mr_mask())
    assert mask_volume_ml(found.trus_gland.mask) == pytest.approx(known_ml, rel=0.06)
    assert array(found.mr_gland.mask).sum() == array(mr_mask()).sum(), "the MR gland is left alone"


def test_a_given_trus_mask_is_left_alone(models: Path) -> None:
    settings = Settings(method="centroid", models=models)
    found = register(mr_image(), trus_image(), settings=settings, trus_gland=trus_mask())
    np.testing.assert_array_equal(array(found.trus_gland.mask), array(trus_mask()))
    # Also one that an earlier run segmented, probability and all.
    earlier = GlandSegmentation(trus_mask(), TRUS_GRID.image(array(trus_mask()).astype(np.float32) * 0.6))
    again = register(mr_image(), trus_image(), settings=settings, trus_gland=earlier)
    assert again.trus_gland is earlier
