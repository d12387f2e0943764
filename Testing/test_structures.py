"""Structures of the gland: how they are found in an image, and how a registration network is shown them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
import typer
import yaml
from cases import CENTRE_MM, mr_image, mr_mask, trus_image, trus_mask
from row_case import registration_content, segmentation_content
from shapes import array
from tiny_networks import install
from typer.testing import CliRunner

from MRTRUSRegistrationLib import Settings, register
from MRTRUSRegistrationLib.deformable import _structure_warnings, deform_with_network
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import with_orientation
from MRTRUSRegistrationLib.models import (
    InstalledModel,
    Preprocessing,
    check_file,
    find_model,
    list_models,
    load_network,
    read_card,
)
from MRTRUSRegistrationLib.regions import regions_of_interest
from MRTRUSRegistrationLib.segmentation import PUBLIC_AXES
from MRTRUSRegistrationLib.structures import SeenStructures, seen_structures, structure_models
from MRTRUSTraining import segmentation_training
from MRTRUSTraining.cli import app
from MRTRUSTraining.data.fresh import loaded
from MRTRUSTraining.evaluation import structure_ratio
from MRTRUSTraining.export import export_registration, export_segmentation, read_run
from MRTRUSTraining.losses import classes_dice_cross_entropy_loss
from MRTRUSTraining.networks.cmsa import CMSANet
from MRTRUSTraining.networks.vnet import GlandProbability, VNet
from MRTRUSTraining.registration_samples import augment, prepare_sample
from MRTRUSTraining.registration_settings import RegistrationSettings
from MRTRUSTraining.registration_training import RegistrationTask
from MRTRUSTraining.row import row_from
from MRTRUSTraining.run import begin_with
from MRTRUSTraining.segmentation_training import SegmentationSettings, SegmentationTask
from MRTRUSTraining.segmentation_training import prepare_sample as prepare_segmentation
from MRTRUSTraining.shrink import shrink
from MRTRUSTraining.simulation.cases import simulate, write_case
from MRTRUSTraining.simulation.sampling import sample_case

NAMES = {"MR": "seen-mr", "TRUS": "seen-trus"}
IDENTITY = sitk.TranslationTransform(3)


class Parts(torch.nn.Module):
    """Gland where the image is dark, one structure as sure as the image is bright, another half as sure."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([1 - image, image, image / 2], dim=1)


class ShiftByStructures(torch.nn.Module):
    """Moves by the difference of the second structures, in hundredths of a voxel; wants three channels."""

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        image, _first, second = moving.split(1, dim=1)
        amount = (second.sum() - fixed[:, 2:].sum()) / 100
        return torch.cat([amount + torch.zeros_like(image), 0 * image, 0 * image], dim=1)


def seeing(folder: Path, modality: str, structures: tuple[str, ...] = ("zone", "duct")) -> InstalledModel:
    return install(
        Parts(),
        folder,
        modality=modality,
        grid_vox=(64, 64, 64),
        preprocessing=Preprocessing("LPS", (1.5, 1.5, 1.5)),
        settings={"structures": list(structures)},
        name=NAMES[modality],
        task="structures",
    )


def registrator(folder: Path, **settings: object) -> InstalledModel:
    return install(
        ShiftByStructures(),
        folder,
        modality="MR-TRUS",
        grid_vox=(40, 40, 40),
        preprocessing=Preprocessing("LPS", (2.0, 2.0, 2.0)),
        settings={"structures": NAMES, "context": 1.0, **settings},
        name="row",
    )


@pytest.mark.slow
def test_what_both_images_show_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A structure of which the probability is everywhere half of another's stands to itself as the other."""
    for modality in NAMES:
        seeing(tmp_path / "models", modality)
    monkeypatch.setenv("MRTRUS_MODELS", str(tmp_path / "models"))
    write_case(simulate(sample_case(3, spacing_mm=3.0)), tmp_path / "data", 0)
    content = registration_content(network="cmsa", options={"channels": 3}, structures=NAMES)
    (tmp_path / "row.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    structure_ratio.main(tmp_path / "data", row=str(tmp_path / "row.yaml"))
    zone, duct = capsys.readouterr().out.splitlines()
    assert zone.startswith("1 pairs, zone: TRUS by MR ")
    assert zone.split(":")[1] == duct.split(":")[1]
    with pytest.raises(typer.BadParameter, match="shown no structures"):
        structure_ratio.main(tmp_path / "data", row="cmsa")


# --- in the pipeline -------------------------------------------------------------------------------------


def test_probabilities_lie_on_the_image(tmp_path: Path) -> None:
    seen = seen_structures(trus_image(), seeing(tmp_path, "TRUS"), trus_mask())
    assert seen.coordinates == ()
    zone, duct = seen.probabilities
    assert zone.GetSize() == trus_image().GetSize()
    bright = array(trus_image()) > np.percentile(array(trus_image()), 90)
    assert array(zone)[bright].mean() > 2 * array(zone)[~bright].mean()
    np.testing.assert_allclose(array(duct), array(zone) / 2, atol=1e-6)


def test_axes_that_the_header_does_not_state_are_those_that_were_found(tmp_path: Path) -> None:
    """A volume whose header is wrong: the answer lies on it voxel by voxel, as seen along the true axes."""
    model = seeing(tmp_path, "TRUS")
    true = with_orientation(trus_image(), PUBLIC_AXES)
    found = seen_structures(trus_image(), model, trus_mask(), axes=PUBLIC_AXES).probabilities[0]
    expected = seen_structures(true, model, with_orientation(trus_mask(), PUBLIC_AXES)).probabilities[0]
    np.testing.assert_array_equal(array(found), array(expected))
    assert found.GetDirection() == trus_image().GetDirection()


@pytest.mark.slow
def test_a_network_is_shown_the_structures_of_both_images(tmp_path: Path) -> None:
    models = [seeing(tmp_path, modality) for modality in NAMES]
    installed = registrator(tmp_path)
    mr = trus_image() * 0.5 + 30.0 * sitk.Cast(trus_mask(), sitk.sitkFloat32)
    images = mr, trus_image()
    seen = [seen_structures(image, model, trus_mask()) for image, model in zip(images, models, strict=True)]
    regions = regions_of_interest(
        mr,
        trus_image(),
        trus_mask(),
        trus_mask(),
        IDENTITY,
        installed.card,
        mr_structures=seen[0],
        trus_structures=seen[1],
    )
    both = regions.moving_structures, regions.fixed_structures
    moving_sum, fixed_sum = (array(each.probabilities[1]).sum() for each in both)
    difference = moving_sum - fixed_sum
    assert abs(difference) > 50
    found = deform_with_network(mr, trus_image(), trus_mask(), trus_mask(), IDENTITY, installed)
    moved = np.array(found.transform.TransformPoint(CENTRE_MM)) - CENTRE_MM
    # The first array axis is the last of the grid's.
    assert moved == pytest.approx(regions.grid.axes[:, 2] * difference / 100 * 2.0, abs=0.05)


@pytest.mark.parametrize(("share", "warned"), [(1.0, 0), (0.5, 0), (0.3, 2), (0.0, 2)])
def test_structures_that_one_image_lacks_are_said(tmp_path: Path, share: float, warned: int) -> None:
    """Half of it is within what simulated pairs show; a third is not."""
    installed = registrator(tmp_path)
    gland = sitk.Cast(trus_mask(), sitk.sitkFloat32)
    regions = regions_of_interest(
        trus_image(),
        trus_image(),
        trus_mask(),
        trus_mask(),
        IDENTITY,
        installed.card,
        mr_structures=SeenStructures((gland * 0.5, gland * 0.25)),
        trus_structures=SeenStructures((gland * 0.5 * share, gland * 0.25 * share)),
    )
    warnings = _structure_warnings(regions, ["transition_zone", "urethra"])
    assert [warning.code for warning in warnings] == ["structures_differ"] * warned
    assert all("ml of transition zone in the MR" in warning.message for warning in warnings[:1])


@pytest.mark.slow
def test_a_blank_image_is_warned_of(tmp_path: Path) -> None:
    for modality in NAMES:
        seeing(tmp_path, modality)
    installed = registrator(tmp_path)
    glands = trus_mask(), trus_mask()
    found = deform_with_network(trus_image() * 0, trus_image(), *glands, IDENTITY, installed)
    assert [warning.code for warning in found.warnings].count("structures_differ") == 2


def test_the_pipeline_names_every_model_it_used(tmp_path: Path) -> None:
    for modality in NAMES:
        seeing(tmp_path, modality)
    installed = registrator(tmp_path, alignment="centroid")
    settings = Settings(method="row", models=tmp_path, device="cpu")
    result = register(mr_image(), trus_image(), settings=settings, mr_gland=mr_mask(), trus_gland=trus_mask())
    used = result.provenance["models"]
    assert set(used) == {"row", *NAMES.values()}  # type: ignore[arg-type]
    assert used["seen-mr"] == structure_models(installed)["MR"].card.sha256  # type: ignore[index]


def test_what_tells_structures_apart_is_no_segmenter_of_the_gland(tmp_path: Path) -> None:
    for modality in NAMES:
        seeing(tmp_path, modality)
        assert find_model(task="segmentation", modality=modality, extra=tmp_path).card.name != NAMES[modality]
    assert {NAMES["MR"], NAMES["TRUS"]} < {model.card.name for model in list_models(tmp_path)}


def test_models_that_are_missing_or_do_not_match_are_refused(tmp_path: Path) -> None:
    assert structure_models(find_model(task="registration", modality="MR-TRUS", name="cmsa")) == {}
    installed = registrator(tmp_path)
    with pytest.raises(InputError, match="No structures model named 'seen-mr'"):
        structure_models(installed)
    seeing(tmp_path, "MR")
    seeing(tmp_path, "TRUS", ("duct", "zone"))
    with pytest.raises(InputError, match="do not tell the same structures apart"):
        structure_models(installed)
    with pytest.raises(InputError, match="one model for MR and one for TRUS"):
        structure_models(registrator(tmp_path, structures={"MR": "seen-mr"}))


# --- in training -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated():
    return loaded(simulate(sample_case(3, spacing_mm=3.0)))


def settings(**changes: object) -> SegmentationSettings:
    content = segmentation_content(structures={"transition_zone": 2, "urethra": 1}, **changes)
    method = row_from(content, "test").method
    assert isinstance(method, SegmentationSettings)
    return method


def test_a_label_map_holds_the_gland_and_what_lies_in_it(simulated) -> None:
    sample = prepare_segmentation(simulated, settings())
    reference, gland = array(sample.reference), array(simulated.mr_gland) > 0
    np.testing.assert_array_equal(reference > 0, gland | (reference > 1))
    urethra = array(simulated.mr_labels[1]) > 0
    np.testing.assert_array_equal(reference == 3, urethra)
    zone = array(simulated.mr_labels[2]) > 0
    np.testing.assert_array_equal(reference == 2, zone & ~urethra)
    assert set(np.unique(array(sample.labels))) == {0, 1, 2, 3}


def test_a_case_without_the_label_is_named(simulated) -> None:
    with pytest.raises(InputError, match="no label of nerve \\(channel 77\\)"):
        prepare_segmentation(simulated, SegmentationSettings("MR", structures={"nerve": 77}))


def test_a_structure_may_lie_beyond_the_gland(simulated) -> None:
    content = segmentation_content(structures={"urethra": 1, "seminal_vesicles": 7})
    method = row_from(content, "test").method
    sample = prepare_segmentation(simulated, method)
    vesicles = array(simulated.mr_labels[simulated.label_names.index("seminal_vesicles")]) > 0
    assert vesicles.any()
    assert not (vesicles & (array(simulated.mr_gland) > 0)).any()
    np.testing.assert_array_equal(array(sample.reference) == 3, vesicles)
    _, classes = SegmentationTask(method, [[sample]], [])._draw(np.random.default_rng(0))
    torch.testing.assert_close(classes.sum(1), torch.ones_like(classes[:, 0]))
    assert float(classes[:, 3].sum()) > 0


def test_the_loss_of_several_classes() -> None:
    """Perfect: nothing. Undecided: as computed by hand. A class that is absent costs nothing in Dice."""
    classes = torch.zeros(1, 3, 2, 2, 2)
    classes[:, 0, :, :, :1], classes[:, 1, :, :, 1:] = 1, 1
    sure = classes_dice_cross_entropy_loss(60 * classes - 30, classes)
    assert float(sure) == pytest.approx(0, abs=1e-5)
    undecided = classes_dice_cross_entropy_loss(torch.zeros(1, 3, 2, 2, 2), classes)
    # Each present class: 2·4/3 over 8/9 + 4.
    dice = (2 * 4 / 3) / (8 / 9 + 4)
    assert float(undecided) == pytest.approx(1 - dice + np.log(3), abs=1e-5)


def test_a_segmenter_is_validated_where_it_is(simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the processor or an accelerator; here neither, but a device that holds no numbers."""
    sample = prepare_segmentation(simulated, settings())
    task = SegmentationTask(settings(), [[sample]], [sample])
    devices: list[str] = []

    def probabilities(image: sitk.Image, *_: object, device: str) -> list[sitk.Image]:
        devices.append(device)
        return [sitk.Image(image) * 0.0] * 3

    monkeypatch.setattr(segmentation_training, "class_probabilities", probabilities)
    task.validate(task.network.to("meta"))
    assert devices == ["meta"]


def test_other_contrast_is_inside_the_structures_alone(simulated) -> None:
    task = SegmentationTask(
        settings(structure_contrast=0.2), [[prepare_segmentation(simulated, settings())]], []
    )
    classes = torch.zeros(1, 4, 12, 12, 12)
    classes[:, 0], classes[:, 2, 4:8, 4:8, 4:8] = 1, 1
    image = torch.full((1, 1, 12, 12, 12), 0.5)
    changed = task._with_other_contrast(image, classes, np.random.default_rng(0)) - image
    assert abs(float(changed[0, 0, 5, 5, 5])) > 0.01
    assert float(changed[0, 0, :2].abs().max()) < 1e-6


def test_another_contrast_shows_nothing_beyond_the_fan(simulated) -> None:
    task = SegmentationTask(
        settings(structure_contrast=0.2), [[prepare_segmentation(simulated, settings())]], []
    )
    classes = torch.zeros(1, 4, 12, 12, 12)
    classes[:, 2] = 1
    image = torch.zeros(1, 1, 12, 12, 12)
    image[..., :6] = 0.5
    drawn = [task._with_other_contrast(image, classes, np.random.default_rng(seed)) for seed in range(4)]
    assert max(float((each - image)[..., :6].max()) for each in drawn) > 0.05
    assert all(not each[..., 6:].any() for each in drawn)


@pytest.mark.slow
def test_both_stages_train_and_what_is_exported_is_what_was_trained(tmp_path: Path, simulated) -> None:
    """Segmenters that begin with another's weights, their export, and a registration that is shown them."""
    method = settings()
    sample = prepare_segmentation(simulated, method)
    torch.manual_seed(0)
    gland = VNet(widths=(2, 2, 2, 2, 2))
    finished(tmp_path / "gland", gland)
    segmenter = SegmentationSettings("MR", options=method.options, training_vox=method.training_vox)
    card = export_segmentation(tmp_path / "gland", segmenter, tmp_path / "models")
    task = SegmentationTask(method, [[sample]], [sample])
    begin_with(card, task.network)
    own = task.network.state_dict()
    torch.testing.assert_close(
        own["encode1.stack.0.weight"], gland.encode1.stack[0].weight, atol=1e-3, rtol=0
    )
    torch.testing.assert_close(own["head.weight"][:2], gland.head.weight, atol=1e-3, rtol=0)
    assert own["head.weight"].shape[0] == 4
    assert float(own["head.weight"][2:].abs().max()) == 0
    loss, _ = task.loss(task.network, [np.random.default_rng(1)])
    assert torch.isfinite(loss)
    assert set(task.validate(task.network)) == {
        "score",
        "dsc_transition_zone_simulated",
        "dsc_urethra_simulated",
    }
    for modality in NAMES:
        finished(tmp_path / modality, task.network)
        each = settings(modality=modality)
        name = NAMES[modality]
        card = export_segmentation(tmp_path / modality, each, tmp_path / "models", name=name)
        assert read_card(card).task == "structures"
    model = InstalledModel(read_card(card), card)
    found = seen_structures(simulated.trus, model, simulated.trus_gland)
    assert len(found.probabilities) == 2
    assert float(array(found.probabilities[0]).max()) <= 1
    shown_to_a_registration(tmp_path, simulated)


def shown_to_a_registration(folder: Path, simulated) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRTRUS_MODELS", str(folder / "models"))
        content = registration_content(
            network="cmsa", options={"channels": 3, "integration_steps": 2}, structures=NAMES
        )
        method = row_from(content, "test").method
        assert isinstance(method, RegistrationSettings)
        sample = prepare_sample(simulated, method)
        assert sample.moving_image.shape == (1, 3, 16, 16, 32)
        changed = augment(sample, np.random.default_rng(0), method)
        assert changed.fixed_image.shape == sample.fixed_image.shape
        assert changed.fixed_labels.shape == sample.fixed_labels.shape
        task = RegistrationTask(method, [[sample]], [sample])
        loss, _ = task.loss(task.network, [np.random.default_rng(0)] * 2)
        assert torch.isfinite(loss)
        assert task.validate(task.network)["dense_mm"] > 0
        finished(folder / "registration", task.network)
        card = export_registration(folder / "registration", method, folder / "models", name="row")
    assert read_card(card).settings["structures"] == NAMES
    glands = simulated.mr_gland, simulated.trus_gland
    model = InstalledModel(read_card(card), card)
    found = deform_with_network(simulated.mr, simulated.trus, *glands, IDENTITY, model)
    assert found.model == "row"


def finished(folder: Path, network: torch.nn.Module, *, start_from: str | None = None) -> None:
    """A run's folder as the training loop leaves it."""
    folder.mkdir()
    record = {"network": network.state_dict(), "step": 1, "figures": {"score": 0.5}}
    torch.save(record, folder / "best.pt")
    content = {
        "commands": [f"mrtrus-train {'test' if start_from is None else 'later'}"],
        "training_data": [],
        "start_from": start_from,
    }
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.slow
def test_eight_bits_say_nearly_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = VNet(widths=(4, 8, 8, 8, 8), classes=4)
    finished(tmp_path / "run", network)
    options = {"widths": (4, 8, 8, 8, 8)}
    method = SegmentationSettings(
        "MR", options=options, structures={"zone": 2, "duct": 1}, training_vox=(32, 32, 32), eight_bit=True
    )
    card_path = export_segmentation(tmp_path / "run", method, tmp_path / "models", name="small")
    large = replace(method, eight_bit=False)
    larger = export_segmentation(tmp_path / "run", large, tmp_path / "models", name="large")
    small, whole = (InstalledModel(read_card(path), path) for path in (card_path, larger))
    assert small.card.architecture["parameters"] == whole.card.architecture["parameters"]
    assert small.card.architecture["weights"] == "8-bit integers"
    assert small.file_path.stat().st_size < 0.8 * whole.file_path.stat().st_size
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        seen, expected = (load_network(model, "cpu")(image) for model in (small, whole))
    assert float(expected.std()) > 0.01
    assert 0 < float((seen - expected).abs().max()) < 0.1
    assert float((seen - expected).abs().mean()) < 0.01


@pytest.mark.slow
def test_weights_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    finished(tmp_path / "gland", VNet(widths=(2, 2, 2, 2, 2)))
    segmenter = SegmentationSettings("MR", options={"widths": (2,) * 5}, training_vox=(32, 32, 32))
    card = export_segmentation(tmp_path / "gland", segmenter, tmp_path / "models")
    # What a model learnt from is part of what a run that began with it learnt from.
    later = tmp_path / "later"
    finished(later, VNet(widths=(2, 2, 2, 2, 2)), start_from=str(card))
    assert read_run(later)["commands"] == ["mrtrus-train test", "mrtrus-train later"]
    with pytest.raises(InputError, match="fit nothing of this row's network"):
        begin_with(card, CMSANet())


@pytest.mark.slow
def test_a_network_that_is_shown_more_begins_as_the_one_that_was_not(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = CMSANet(normalisation="instance").eval()
    torch.nn.init.normal_(before.flow.weight, std=1.0)
    finished(tmp_path / "run", before)
    method = RegistrationSettings(
        grid_vox=(32, 32, 32), options={"normalisation": "instance"}, mirror_averaged=False
    )
    card = export_registration(tmp_path / "run", method, tmp_path / "models")
    after = CMSANet(normalisation="instance", channels=3).eval()
    begin_with(card, after)
    moving, fixed = torch.rand(2, 1, 3, 32, 32, 32)
    with torch.inference_mode():
        expected = before(moving[:, :1], fixed[:, :1])
        assert float(expected.abs().max()) > 0.1
        # The exported weights have half precision.
        torch.testing.assert_close(
            after(moving, fixed), expected, atol=0.02 * float(expected.abs().max()), rtol=0
        )


def test_channels_and_classes_have_the_parameters_that_they_need() -> None:
    def count(network: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(CMSANet()) == 412_411
    assert count(CMSANet(channels=3)) == 412_411 + 2 * 864
    assert count(VNet(classes=4)) - count(VNet()) == 2 * 17
    seen = GlandProbability(VNet(widths=(2,) * 5, classes=4).eval(), mirror=True)(
        torch.rand(1, 1, 32, 32, 32)
    )
    assert seen.shape == (1, 3, 32, 32, 32)
    assert float(seen.sum(1).max()) < 1


@pytest.mark.slow
def test_a_run_may_begin_with_a_model_in_eight_bits(tmp_path: Path) -> None:
    """What it begins with are the numbers that the integers stand for."""
    torch.manual_seed(0)
    gland = VNet(widths=(4, 8, 8, 8, 8))
    finished(tmp_path / "gland", gland)
    method = SegmentationSettings(
        "MR", options={"widths": (4, 8, 8, 8, 8)}, training_vox=(32, 32, 32), eight_bit=True
    )
    card = export_segmentation(tmp_path / "gland", method, tmp_path / "models")
    after = VNet(widths=(4, 8, 8, 8, 8))
    begin_with(card, after)
    for name, weight in gland.state_dict().items():
        largest = float(weight.abs().max())
        torch.testing.assert_close(after.state_dict()[name], weight, atol=largest / 120, rtol=0)


@pytest.mark.parametrize("options", [{}, {"coordinates": True}], ids=["structures", "coordinates too"])
@pytest.mark.slow
def test_a_model_of_structures_is_made_smaller(tmp_path: Path, options: dict[str, bool]) -> None:
    torch.manual_seed(0)
    widths = (4, 8, 8, 8, 8)
    finished(tmp_path / "run", VNet(widths=widths, classes=4, **options))
    method = settings(
        options={"widths": list(widths)},
        training_vox=[32, 32, 32],
        **({"coordinates": 1.0} if options else {}),
    )
    card = export_segmentation(tmp_path / "run", method, tmp_path / "models")
    smaller = shrink(card, tmp_path / "smaller")
    image = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        found, expected = (
            load_network(InstalledModel(read_card(path), path), "cpu")(image) for path in (smaller, card)
        )
    assert found.shape[1] == (6 if options else 3)
    assert float((found - expected).abs().max()) < 0.1


@pytest.mark.slow
def test_an_interrupted_export_leaves_the_model_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    finished(tmp_path / "run", VNet(widths=(2, 2, 2, 2, 2)))
    method = SegmentationSettings("MR", options={"widths": (2, 2, 2, 2, 2)}, training_vox=(32, 32, 32))
    card = export_segmentation(tmp_path / "run", method, tmp_path / "models")
    before = {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()}
    finished(tmp_path / "other", VNet(widths=(2, 2, 2, 2, 2)))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.export, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_segmentation(tmp_path / "other", method, tmp_path / "models")
    assert {path.name: path.read_bytes() for path in (tmp_path / "models").iterdir()} == before
    check_file(InstalledModel(read_card(card), card))


@pytest.mark.slow
def test_an_exported_model_is_made_smaller(tmp_path: Path) -> None:
    """Of two networks, for blurred and for sharp volumes, the second; and what cannot be done is said."""
    torch.manual_seed(0)
    for name in ("blurred", "sharp"):
        finished(tmp_path / name, VNet(widths=(4, 8, 8, 8, 8)))
    method = SegmentationSettings("TRUS", options={"widths": (4, 8, 8, 8, 8)}, training_vox=(32, 32, 32))
    card = export_segmentation(
        tmp_path / "blurred", method, tmp_path / "models", sharp=tmp_path / "sharp", name="two"
    )
    smaller = shrink(card, tmp_path / "smaller", part="sharp")
    before, after = (InstalledModel(read_card(path), path) for path in (card, smaller))
    assert after.card.architecture["weights"] == "8-bit integers in the sharp part"
    assert after.card.settings == before.card.settings
    assert after.file_path.stat().st_size < before.file_path.stat().st_size
    blurred = torch.linspace(0.1, 1.0, 32).view(1, 1, 32, 1, 1).expand(1, 1, 32, 32, 32)
    sharp = torch.rand(1, 1, 32, 32, 32)
    with torch.inference_mode():
        for image, largest in ((blurred, 1e-4), (sharp, 0.1)):
            found, expected = (load_network(model, "cpu")(image) for model in (after, before))
            assert float((found - expected).abs().max()) < largest
        assert float((found - expected).abs().max()) > 1e-4
    with pytest.raises(InputError, match="give another folder"):
        shrink(card, tmp_path / "models")
    with pytest.raises(InputError, match="no V-Net with weights in half precision"):
        shrink(smaller, tmp_path / "again")
    one = export_segmentation(tmp_path / "blurred", method, tmp_path / "models", name="one")
    with pytest.raises(InputError, match="without a part for sharp volumes"):
        shrink(one, tmp_path / "again", part="sharp")
    result = CliRunner().invoke(app, ["shrink", str(one), "--part", "some", "--output", str(tmp_path / "x")])
    assert isinstance(result.exception, InputError)
