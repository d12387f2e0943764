"""The glands as segmenters draw them: made once, moved with their volume, and what a network is shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from row_case import registration_content
from shapes import array
from tiny_networks import Brightness, install

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, resample_mask
from MRTRUSRegistrationLib.models import Preprocessing, read_card
from MRTRUSTraining import segmented
from MRTRUSTraining.data.cases import find_cases, load_case
from MRTRUSTraining.data.fresh import loaded
from MRTRUSTraining.registration_samples import (
    augment,
    centroid_vox,
    prepare_sample,
    prepare_samples,
)
from MRTRUSTraining.registration_settings import RegistrationSettings
from MRTRUSTraining.registration_training import RegistrationTask
from MRTRUSTraining.row import row_from
from MRTRUSTraining.segmented import cached_glands, segmented_glands, segmenters_named
from MRTRUSTraining.simulation.cases import simulate, write_case
from MRTRUSTraining.simulation.sampling import sample_case

NAMES = {"MR": "bright-mr", "TRUS": "bright-trus"}


@pytest.fixture(scope="module")
def simulated():
    return loaded(simulate(sample_case(3, spacing_mm=3.0)))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Segmenters that take what is bright for gland."""
    folder = tmp_path / "models"
    for modality, name in NAMES.items():
        install(
            Brightness(),
            folder,
            modality=modality,
            grid_vox=(64, 64, 64),
            preprocessing=Preprocessing("LPS", (3.0, 3.0, 3.0)),
            name=name,
        )
    monkeypatch.setenv("MRTRUS_MODELS", str(folder))
    return folder


def settings(**changes: object) -> RegistrationSettings:
    method = row_from(registration_content(segmenters=NAMES, **changes), "test").method
    assert isinstance(method, RegistrationSettings)
    return method


def test_both_glands_are_drawn_on_their_images(models: Path, simulated) -> None:
    for mask, image in zip(segmented_glands(simulated, NAMES), (simulated.mr, simulated.trus), strict=True):
        assert mask.GetSize() == image.GetSize()
        inside = array(mask) > 0
        assert array(image)[inside].mean() > 1.5 * array(image)[~inside].mean()


def test_where_none_is_found_the_reference_stands(tmp_path: Path, models: Path, simulated) -> None:
    install(
        Dark(),
        models,
        modality="TRUS",
        grid_vox=(64, 64, 64),
        preprocessing=Preprocessing("LPS", (3.0, 3.0, 3.0)),
        name=NAMES["TRUS"],
    )
    mr, trus = segmented_glands(simulated, NAMES)
    np.testing.assert_array_equal(array(mr), array(simulated.mr_gland))
    np.testing.assert_array_equal(array(trus), array(simulated.trus_gland))


class Dark(torch.nn.Module):
    """Sees no gland anywhere."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 0 * image


def test_one_for_each_modality_is_asked_for(models: Path) -> None:
    assert segmenters_named({}) == {}
    with pytest.raises(InputError, match="one model for MR and one for TRUS"):
        segmenters_named({"MR": NAMES["MR"]})
    with pytest.raises(InputError, match="nothing-such"):
        segmenters_named({**NAMES, "TRUS": "nothing-such"})


@pytest.mark.slow
def test_they_are_drawn_once_for_all_rows(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_case(simulate(sample_case(3, spacing_mm=3.0)), tmp_path / "data", 0)
    (case,) = find_cases(tmp_path / "data", "muregpro")
    first = cached_glands(case, load_case(case), NAMES, tmp_path / "cache")
    (whole,) = prepare_samples([case], settings(), tmp_path / "cache")

    def never(*_arguments: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(segmented, "segment_gland", never)
    again = cached_glands(case, load_case(case), NAMES, tmp_path / "cache")
    for mask, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(array(mask), array(other))
        assert mask.GetOrigin() == other.GetOrigin()
    # Another grid is prepared anew, with the same masks.
    (other_grid,) = prepare_samples([case], settings(grid_vox=[16, 16, 16]), tmp_path / "cache")
    assert other_grid.fixed_drawn is not None
    assert other_grid.fixed_drawn.shape == (1, 1, 16, 16, 16)
    (from_cache,) = prepare_samples([case], settings(), tmp_path / "cache")
    torch.testing.assert_close(from_cache.moving_drawn, whole.moving_drawn)


@pytest.mark.slow
def test_they_are_drawn_anew_where_the_card_says_otherwise(tmp_path: Path, models: Path) -> None:
    """The weights are the same, the threshold is another."""
    write_case(simulate(sample_case(3, spacing_mm=3.0)), tmp_path / "data", 0)
    (case,) = find_cases(tmp_path / "data", "muregpro")
    first, _ = cached_glands(case, load_case(case), NAMES, tmp_path / "cache")
    card_path = models / f"{NAMES['MR']}.json"
    card = read_card(card_path)
    card_path.write_text(replace(card, settings={"threshold": 0.8}).to_json(), encoding="utf-8")
    again, _ = cached_glands(case, load_case(case), NAMES, tmp_path / "cache")
    assert 0 < array(again).sum() < array(first).sum()


def test_they_move_with_their_volume(models: Path, simulated) -> None:
    """Drawn exactly as the reference, they stay the reference through every random change."""
    drawn = simulated.mr_gland, simulated.trus_gland
    sample = prepare_sample(simulated, settings(), drawn)
    changed = augment(sample, np.random.default_rng(5), settings())
    assert changed.moving_drawn is not None
    torch.testing.assert_close(changed.moving_drawn, changed.moving_labels[:, :1])
    torch.testing.assert_close(changed.fixed_drawn, changed.fixed_labels[:, :1])
    assert float((changed.moving_drawn - sample.moving_labels[:, :1]).abs().max()) > 0.5


@pytest.mark.slow
def test_ants_turns_a_pair_by_them_as_in_use(models: Path, simulated) -> None:
    """The MR gland drawn 9 mm off: it comes upon the TRUS gland as drawn, the true one 9 mm off."""
    aside = sitk.TranslationTransform(3, (0.0, 9.0, 0.0))
    drawn = resample_mask(simulated.mr_gland, Grid.of(simulated.mr), aside), simulated.trus_gland
    sample = prepare_sample(simulated, settings(alignment="rigid"), drawn)
    assert sample.moving_drawn is not None
    middle = centroid_vox(sample.fixed_labels[0, 0]) * sample.voxel_mm
    off = [
        float((centroid_vox(each[0, 0]) * sample.voxel_mm - middle).norm())
        for each in (sample.moving_drawn, sample.moving_labels)
    ]
    assert off[0] < 1.5
    assert off[1] == pytest.approx(9.0, abs=1.5)


@pytest.mark.parametrize(("share", "drawn"), [(1.0, True), (0.0, False)])
def test_the_network_is_shown_them_and_judged_by_the_reference(
    models: Path, simulated, share: float, drawn: bool
) -> None:
    method = settings(
        segmented_share=share,
        alignment="initial",
        inputs="images+masks",
        mask_error={"rotation_deg": 0.0, "log_scale": 0.0, "translation_vox": 0.0, "elastic_vox": 0.0},
    )
    sample = prepare_sample(simulated, method)
    assert sample.fixed_drawn is not None
    task = RegistrationTask(method, [[sample]], [sample])
    judged, shown = task._as_segmented(sample, np.random.default_rng(0), drawn_share=share)
    expected = sample.fixed_drawn if drawn else sample.fixed_labels[:, :1]
    torch.testing.assert_close(shown[3], expected)
    torch.testing.assert_close(judged.fixed_labels, sample.fixed_labels)
    # Validation shows nothing else, whatever the share.
    _, validated = task._as_segmented(sample, np.random.default_rng(0))
    torch.testing.assert_close(validated[3], sample.fixed_drawn)
