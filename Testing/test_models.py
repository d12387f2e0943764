"""Model cards: round trip, the order in which models are found, what is refused, preprocessing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from cases import ShiftNetwork, ThresholdNetwork, card, install
from shapes import OBLIQUE, ellipsoid, turned

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, orientation_code
from MRTRUSRegistrationLib.models import (
    CARD_FORMAT,
    InstalledModel,
    Preprocessing,
    check_file,
    file_sha256,
    find_model,
    list_models,
    load_network,
    models_folders,
    prepare_image,
    read_card,
    rescale_intensity,
    usable_models,
)

TOLD = {"orientation": "LPS", "spacing_mm": [1.5, 1.5, 1.5]}


def _write_card(folder: Path, **changed: object) -> Path:
    folder.mkdir(exist_ok=True)
    content = json.loads(
        card(name="m", task="registration", modality="MR-TRUS", file="m.pt", sha256="0").to_json()
    )
    path = folder / "m.json"
    path.write_text(json.dumps({**content, **changed}), encoding="utf-8")
    return path


def test_a_card_survives_writing_and_reading(tmp_path: Path):
    written = replace(
        card(name="µ", task="segmentation", modality="MR", file="µ.pt", sha256="ab"),
        preprocessing=Preprocessing("PRS", (0.7, 0.8, 0.9), 0.5, (1.0, 99.0)),
        provenance={"seed": 3, "widths": [4, 8]},
    )
    path = tmp_path / "card.json"
    path.write_text(written.to_json(), encoding="utf-8")
    assert read_card(path) == written


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"format": CARD_FORMAT + 1}, str(CARD_FORMAT + 1)),
        ({"format": None}, "None"),
        ({"preprocessing": {"orientation": "LPS"}}, "spacing_mm"),
        ({"preprocessing": None}, "not a readable model card"),
        ({"colour": "red"}, "colour"),
        ({"settings": "hello"}, "settings"),
        ({"grid_vox": ["a", 1, 2]}, "grid_vox"),
        ({"grid_vox": [64, 48]}, "grid_vox"),
        ({"grid_vox": [64, 48, -8]}, "grid_vox"),
        ({"preprocessing": {**TOLD, "spacing_mm": [1.5, 0, 1.5]}}, "spacing_mm"),
        ({"preprocessing": {**TOLD, "orientation": "XYZ"}}, "preprocessing (orientation)"),
        ({"preprocessing": {**TOLD, "smoothing_mm": "much"}}, "preprocessing (smoothing_mm)"),
        ({"preprocessing": {**TOLD, "percentiles": 5}}, "preprocessing (percentiles)"),
        ({"preprocessing": {**TOLD, "percentiles": ["a", "b"]}}, "preprocessing (percentiles)"),
        ({"preprocessing": {**TOLD, "percentiles": [99.5, 0.5]}}, "preprocessing (percentiles)"),
        ({"preprocessing": {**TOLD, "percentiles": [0.5, 101]}}, "preprocessing (percentiles)"),
        ({"figures": 3}, "figures"),
        ({"settings": {"threshold": "abc"}}, "settings (threshold)"),
        ({"settings": {"threshold": None}}, "settings (threshold)"),
        ({"settings": {"context": [1]}}, "settings (context)"),
        ({"settings": {"alignment": ["rigid"]}}, "settings (alignment)"),
        ({"settings": {"volume_agreement": {"ratio": 1.0}}}, "settings (volume_agreement)"),
        ({"settings": {"structures": 3}}, "settings (structures)"),
        ({"settings": {"structures": {"MR": 1, "TRUS": 2}}}, "settings (structures)"),
        ({"task": "structures"}, "settings (structures)"),
        ({"task": "structures", "settings": {"structures": []}}, "settings (structures)"),
        ({"task": "structures", "settings": {"structures": ["zone", 2]}}, "settings (structures)"),
    ],
)
def test_an_unusable_card_is_refused_by_name(changed: dict, named: str, tmp_path: Path):
    path = _write_card(tmp_path, **changed)
    with pytest.raises(InputError, match=r"m\.json") as refused:
        read_card(path)
    assert named in str(refused.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "3", '{"name": "m"}'])
def test_a_file_that_is_no_card_is_refused(content: str, tmp_path: Path):
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"other\.json"):
        list_models(tmp_path)


def test_folders_are_searched_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folders = [tmp_path / name for name in ("given", "variable", "home/.local/share/mrtrus/models")]
    for number, folder in enumerate(folders):
        for name in ("shared", f"only-{number}"):
            install(folder, ThresholdNetwork(), name=name, task="segmentation", modality=f"M{number}")
    monkeypatch.setenv("MRTRUS_MODELS", str(folders[1]))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert models_folders(folders[0])[:3] == folders
    names = [model.card.name for model in list_models(folders[0])]
    assert names[:4] == ["only-0", "shared", "only-1", "only-2"]
    shared = next(model for model in list_models(folders[0]) if model.card.name == "shared")
    assert shared.card.modality == "M0"
    assert list_models()[1].card.modality == "M1"


def test_a_folder_of_the_variable_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else a slip of the pen would take the bundled models."""
    monkeypatch.setenv("MRTRUS_MODELS", str(tmp_path / "none"))
    with pytest.raises(InputError, match="none of MRTRUS_MODELS does not exist"):
        list_models()


def test_lists_to_choose_from_leave_out_folders_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path / "good", ThresholdNetwork(), name="mine", task="segmentation", modality="MR")
    install(tmp_path / "bad", ThresholdNetwork(), name="other", task="segmentation", modality="MR")
    (tmp_path / "bad" / "wrong.json").write_text("{", encoding="utf-8")
    for extra, variable, first in (("good", "none", "mine"), ("bad", "good", "mine"), ("none", "bad", None)):
        monkeypatch.setenv("MRTRUS_MODELS", str(tmp_path / variable))
        names = [model.card.name for model in usable_models(tmp_path / extra)]
        assert {"cmsa", "vnet-mr", "vnet-trus"} <= set(names)
        assert "other" not in names
        assert first in (None, names[0])


def test_a_user_without_a_home_still_has_the_bundled_models(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("MRTRUS_MODELS", raising=False)
    assert [folder.name for folder in models_folders()] == ["Models"]


def test_find_takes_the_task_the_modality_and_the_name(tmp_path: Path):
    for name, modality in (("a", "MR"), ("b", "TRUS"), ("c", "MR")):
        install(tmp_path, ThresholdNetwork(), name=name, task="segmentation", modality=modality)
    assert find_model(task="segmentation", modality="MR", extra=tmp_path).card.name == "a"
    assert find_model(task="segmentation", modality="TRUS", extra=tmp_path).card.name == "b"
    assert find_model(task="segmentation", modality="MR", name="c", extra=tmp_path).card.name == "c"
    with pytest.raises(InputError, match="segmentation model named 'b' for MR"):
        find_model(task="segmentation", modality="MR", name="b", extra=tmp_path)


def test_a_missing_models_folder_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="nowhere"):
        list_models(tmp_path / "nowhere")


def test_a_changed_file_is_never_loaded(tmp_path: Path):
    model = install(tmp_path, ThresholdNetwork(), name="m", task="segmentation", modality="MR")
    assert model.intact
    check_file(model)
    content = bytearray(model.file_path.read_bytes())
    content[len(content) // 2] ^= 1
    model.file_path.write_bytes(bytes(content))
    for use in (check_file, lambda changed: load_network(changed, "cpu")):
        with pytest.raises(InputError, match=r"checksum of .*m\.pt"):
            use(model)
    model.file_path.unlink()
    with pytest.raises(InputError, match="missing"):
        load_network(model, "cpu")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path):
    path = tmp_path / "m.pt"
    path.write_bytes(b"abc")
    written = card(name="m", task="segmentation", modality="MR", file="m.pt", sha256=file_sha256(path))
    with pytest.raises(InputError, match="not a TorchScript model"):
        load_network(InstalledModel(written, tmp_path / "m.json"), "cpu")


def test_a_loaded_network_computes(tmp_path: Path):
    model = install(tmp_path, ShiftNetwork((1, 2, 3)), name="m", task="registration", modality="MR-TRUS")
    volume = torch.zeros(1, 1, 4, 5, 6)
    field = load_network(model, "cpu")(volume, volume)
    assert field.shape == (1, 3, 4, 5, 6)
    assert field[0, :, 1, 2, 3].tolist() == [1, 2, 3]


def test_intensities_run_between_the_percentiles():
    image = Grid((10, 10, 10), (1.0, 1.0, 1.0)).image(np.arange(1000, dtype=np.float32).reshape(10, 10, 10))
    values = sitk.GetArrayFromImage(rescale_intensity(image, (10, 90))).ravel()
    low, high = np.percentile(np.arange(1000), [10, 90])
    np.testing.assert_allclose(values, np.clip((np.arange(1000) - low) / (high - low), 0, 1), atol=1e-6)


def test_a_prepared_image_has_the_cards_axes_and_spacing_and_stays_in_place():
    direction = np.reshape(turned(0.1, 0.2, -0.1), (3, 3))[:, [1, 2, 0]]
    grid = Grid.centred(np.array((5.0, -9, 30)), (40, 30, 36), (1.2, 1.7, 1.3), tuple(direction.ravel()))
    assert orientation_code(grid.direction) == "PSL"
    centre_mm = (2.0, -6.0, 27.0)
    image = sitk.Cast(ellipsoid(grid, (9, 7, 8), centre_mm=centre_mm), sitk.sitkFloat32)
    prepared = prepare_image(image, Preprocessing("LPS", (1.0, 1.0, 1.0)))
    assert orientation_code(prepared.GetDirection()) == "LPS"
    assert prepared.GetSpacing() == (1.0, 1.0, 1.0)
    np.testing.assert_allclose(mask_centroid_mm(prepared > 0.5), centre_mm, atol=0.15)


def test_an_image_that_is_as_the_card_wants_it_is_only_scaled():
    image = sitk.Cast(ellipsoid(OBLIQUE, (6, 7, 8), centre_mm=(-5, 33, 0)), sitk.sitkFloat32) * 50 + 7
    code = orientation_code(OBLIQUE.direction)
    prepared = prepare_image(image, Preprocessing(code, OBLIQUE.spacing_mm, 0.0, (0.0, 100.0)))
    assert Grid.of(prepared) == OBLIQUE
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(prepared), (sitk.GetArrayFromImage(image) - 7) / 50, atol=1e-6
    )
