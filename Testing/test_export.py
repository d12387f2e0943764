"""Exported models: the card, both files, and what comes out of them."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from disks import fill, mounted_disk

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import InstalledModel, file_sha256, find_model, load_network, read_card
from MRTRUSTraining.cli import app
from MRTRUSTraining.evaluation.card_figures import add_figures
from MRTRUSTraining.evaluation.evaluate import MetricsRow, metrics_csv
from MRTRUSTraining.export import decision, export_registration, export_segmentation, load_best, read_run
from MRTRUSTraining.networks.cmsa import CMSANet, MirrorAveraged
from MRTRUSTraining.networks.vnet import GlandProbability, VNet, detail
from MRTRUSTraining.registration_settings import RegistrationSettings
from MRTRUSTraining.segmentation_training import SegmentationSettings, VolumeAgreement

DATA = ({"name": "analytic", "pairs": 3, "licence": "none"},)
SEGMENTATION = SegmentationSettings(
    "TRUS", options={"widths": (4, 8, 8, 8, 8)}, training_vox=(32, 48, 32), window_vox=(64, 48, 32)
)
REGISTRATION = RegistrationSettings(grid_vox=(48, 32, 32), options={"integration_steps": 5})
COMMAND = "mrtrus-train test"


def trained(folder: Path, network: torch.nn.Module, figures: dict[str, float]) -> torch.nn.Module:
    """Weights as the training loop leaves them in a run folder."""
    folder.mkdir()
    record = {"network": network.state_dict(), "step": 40, "figures": {"score": 1.0, **figures}}
    torch.save(record, folder / "best.pt")
    content = {"commands": [COMMAND, f"{COMMAND} --steps 9"], "training_data": DATA}
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return network.eval()


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, InstalledModel]:
    folder = tmp_path_factory.mktemp("segmenter")
    torch.manual_seed(0)
    network = trained(folder / "run", VNet(**SEGMENTATION.options), {"dsc": 0.87654})
    card_path = export_segmentation(folder / "run", SEGMENTATION, folder / "models")
    return GlandProbability(network, mirror=True).eval(), InstalledModel(read_card(card_path), card_path)


@pytest.fixture(scope="module")
def registrator(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, InstalledModel]:
    folder = tmp_path_factory.mktemp("registrator")
    torch.manual_seed(0)
    network = CMSANet(integration_steps=5)
    torch.nn.init.normal_(network.flow.weight, std=10.0)
    trained(folder / "run", network, {"tre_rms_mm": 5.4321, "dsc": 0.9})
    card_path = export_registration(folder / "run", REGISTRATION, folder / "models")
    return MirrorAveraged(network).eval(), InstalledModel(read_card(card_path), card_path)


def inputs(count: int, size: tuple[int, int, int]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.rand(1, 1, *size, generator=generator) for _ in range(count))


def run_program(model: InstalledModel, given: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(model.file_path.with_suffix(".pt2")).module()
    return program(*given).detach()


@pytest.mark.slow
def test_segmenter_survives_half_precision_and_another_size(
    segmenter: tuple[torch.nn.Module, InstalledModel],
) -> None:
    network, model = segmenter
    assert model.intact
    loaded = load_network(model, "cpu")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    for size in ((32, 48, 32), (16, 32, 48)):
        given = inputs(1, size)
        with torch.inference_mode():
            expected = network(*given)
            # Half precision keeps eleven bits of a weight: half a per cent of probability at most.
            torch.testing.assert_close(loaded(*given), expected, atol=5e-3, rtol=0)
        assert expected.std() > 1e-3


@pytest.mark.slow
def test_registrator_survives_half_precision(registrator: tuple[torch.nn.Module, InstalledModel]) -> None:
    network, model = registrator
    given = inputs(2, (32, 32, 48))
    with torch.inference_mode():
        expected = network(*given)
        found = load_network(model, "cpu")(*given)
    assert expected.abs().max() > 0.5
    # A thousandth of the displacement.
    assert (found - expected).abs().max() < 2e-3 * expected.abs().max()


@pytest.mark.slow
def test_both_files_are_the_network_with_rounded_weights(
    segmenter: tuple[torch.nn.Module, InstalledModel], registrator: tuple[torch.nn.Module, InstalledModel]
) -> None:
    """Only the rounding of the weights separates the two shipped files from the trained network."""
    rounded_vnet = GlandProbability(VNet(**SEGMENTATION.options), mirror=True).eval()
    rounded_cmsa = MirrorAveraged(CMSANet(integration_steps=5)).eval()
    given_to = (
        (rounded_vnet, segmenter, inputs(1, (32, 48, 32))),
        (rounded_cmsa, registrator, inputs(2, (32, 32, 48))),
    )
    for rounded, (original, model), given in given_to:
        rounded.load_state_dict({k: v.half().float() for k, v in original.state_dict().items()})
        with torch.inference_mode():
            expected = rounded(*given)
            torch.testing.assert_close(load_network(model, "cpu")(*given), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(run_program(model, given), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_half_precision_halves_the_file(registrator: tuple[torch.nn.Module, InstalledModel]) -> None:
    _, model = registrator
    # Two bytes a parameter, four in the exported program; the rest is the network's code.
    assert model.file_path.stat().st_size < 2 * 412_411 + 200_000
    assert model.file_path.with_suffix(".pt2").stat().st_size > 4 * 412_411


@pytest.mark.slow
def test_card_says_what_drives_the_segmenter(segmenter: tuple[torch.nn.Module, InstalledModel]) -> None:
    network, model = segmenter
    card = model.card
    assert (card.name, card.task, card.modality, card.file) == (
        "vnet-trus",
        "segmentation",
        "TRUS",
        "vnet-trus.pt",
    )
    assert card.preprocessing == SEGMENTATION.preprocessing
    assert card.grid_vox == (64, 48, 32)
    assert card.sha256 == file_sha256(model.file_path)
    assert card.architecture["parameters"] == sum(p.numel() for p in network.parameters())
    assert card.training_data == DATA
    assert card.figures[0]["dsc"] == 0.8765
    assert "score" not in card.figures[0]
    assert card.provenance["step"] == 40
    assert card.provenance["command"] == f"{COMMAND}; then {COMMAND} --steps 9"


@pytest.mark.slow
def test_card_says_what_drives_the_registrator(registrator: tuple[torch.nn.Module, InstalledModel]) -> None:
    _, model = registrator
    card = model.card
    assert (card.name, card.task, card.modality) == ("cmsa", "registration", "MR-TRUS")
    assert card.grid_vox == (48, 32, 32)
    assert card.settings == {"intensity_floor": 0.5}
    assert card.architecture == {
        "name": "CMSANet",
        "parameters": 412_411,
        "integration_steps": 5,
        "mirror_averaged": True,
    }
    assert card.figures[0]["tre_rms_mm"] == 5.4321
    found = find_model(task="registration", modality="MR-TRUS", name="cmsa", extra=model.card_path.parent)
    assert found.card == card


@pytest.mark.slow
def test_a_changed_file_is_refused(
    registrator: tuple[torch.nn.Module, InstalledModel], tmp_path: Path
) -> None:
    _, model = registrator
    content = bytearray(model.file_path.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "cmsa.pt").write_bytes(content)
    (tmp_path / "cmsa.json").write_text(model.card_path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match="checksum"):
        load_network(InstalledModel(model.card, tmp_path / "cmsa.json"), "cpu")


@pytest.mark.slow
def test_card_is_json_that_gives_itself_back(registrator: tuple[torch.nn.Module, InstalledModel]) -> None:
    _, model = registrator
    text = model.card_path.read_text(encoding="utf-8")
    assert model.card.to_json() == text
    assert json.loads(text)["grid_vox"] == [48, 32, 32]


def test_loading_the_selected_weights(tmp_path: Path) -> None:
    network = trained(tmp_path / "run", VNet((2, 2, 4, 4, 4)), {"dsc": 0.5})
    other = VNet((2, 2, 4, 4, 4))
    record = load_best(tmp_path / "run", other)
    assert record["step"] == 40
    assert not other.training
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), value.numpy())


@pytest.mark.parametrize("content", [b"", b"no weights", "half", "list"])
def test_weights_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes | str) -> None:
    trained(tmp_path / "run", VNet((2, 2, 4, 4, 4)), {})
    path = tmp_path / "run" / "best.pt"
    if content == "list":
        torch.save([1, 2], path)
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(InputError, match=r"best\.pt is not a readable file of weights"):
        load_best(tmp_path / "run", VNet((2, 2, 4, 4, 4)))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best\.pt"):
        load_best(tmp_path, VNet((2, 2, 4, 4, 4)))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    trained(tmp_path / "run", VNet((2, 2, 4, 4, 4)), {})
    with pytest.raises(InputError, match="another network"):
        load_best(tmp_path / "run", VNet((4, 4, 4, 4, 4)))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = VNet((2, 2, 4, 4, 4))
    next(iter(network.parameters())).data[0] = float("nan")
    trained(tmp_path / "run", network, {})
    with pytest.raises(InputError, match="not finite"):
        load_best(tmp_path / "run", VNet((2, 2, 4, 4, 4)))


@pytest.mark.slow
def test_an_export_to_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    trained(tmp_path / "run", VNet((2, 2, 4, 4, 4)), {})
    (tmp_path / "disk").mkdir()
    with mounted_disk(tmp_path / "disk", size_mb=4) as disk:
        fill(disk, leave_bytes=20_000)
        settings = SegmentationSettings("MR", options={"widths": (2, 2, 4, 4, 4)}, training_vox=(32, 32, 32))
        with pytest.raises(InputError, match="is full"):
            export_segmentation(tmp_path / "run", settings, disk / "models")
        assert not list((disk / "models").iterdir())


@pytest.mark.parametrize("content", ["", "[]", '{"commands": 3}'])
def test_a_run_without_its_record_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"run\.json"):
        read_run(tmp_path)


@pytest.mark.slow
def test_a_run_that_began_with_another_ones_weights_tells_of_both(tmp_path: Path) -> None:
    data = [{"name": name} for name in ("simulated", "real")]
    first = {"commands": ["one"], "training_data": data[:1], "start_from": None}
    second = {"commands": ["two"], "training_data": data, "start_from": str(tmp_path / "first")}
    for name, content in (("first", first), ("second", second)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_run(tmp_path / "second") == {"commands": ["one", "two"], "training_data": data}
    # The command still names a folder that is no longer there.
    (tmp_path / "first").rename(tmp_path / "moved")
    assert read_run(tmp_path / "second")["commands"] == ["two"]


def test_only_trus_has_a_volume_to_agree_on(segmenter: tuple[torch.nn.Module, InstalledModel]) -> None:
    assert segmenter[1].card.settings == {"threshold": 0.5}
    agreeing = replace(SEGMENTATION, volume_agreement=VolumeAgreement(1.1, 0.2, 0.9))
    assert decision(agreeing)["volume_agreement"] == {"ratio": 1.1, "ratio_log_sd": 0.2, "logit_sd": 0.9}


@pytest.mark.slow
def test_two_runs_are_mixed_by_the_detail_of_the_volume(tmp_path: Path) -> None:
    torch.manual_seed(1)
    small = replace(SEGMENTATION, options={"widths": (2, 2, 2, 2, 2)})
    runs = [tmp_path / name for name in ("a", "b")]
    blurred, sharp = (trained(run, VNet(**small.options), {"dsc": 0.5}) for run in runs)
    card_path = export_segmentation(runs[0], small, tmp_path / "models", sharp=runs[1])
    model = InstalledModel(read_card(card_path), card_path)
    loaded = load_network(model, "cpu")
    ramp = torch.linspace(0.1, 1, 32).reshape(1, 1, 1, 1, 32).expand(1, 1, 32, 32, 32).contiguous()
    for given, network in ((ramp, blurred), (inputs(1, (32, 32, 32))[0], sharp)):
        with torch.inference_mode():
            expected = GlandProbability(network, mirror=True)(given)
            torch.testing.assert_close(loaded(given), expected, atol=5e-3, rtol=0)
    assert model.card.architecture["networks"] == 2
    assert model.card.architecture["parameters"] == 2 * sum(p.numel() for p in sharp.parameters())
    assert model.card.training_data == DATA, "once, though both runs name it"
    assert model.card.provenance["step"] == [40, 40]


def test_detail_is_the_share_that_smoothing_takes() -> None:
    noise = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0)) + 0.1
    ramp = torch.linspace(0.1, 1, 24).reshape(1, 1, 1, 1, 24).expand(1, 1, 24, 24, 24)
    # Of independent uniform values smoothing over 27 leaves little: E|x − mean| / sd of a uniform is 0.87.
    assert float(detail(noise)) == pytest.approx(0.87, abs=0.06)
    assert float(detail(ramp)) < 0.2
    both = torch.cat([noise, ramp])
    torch.testing.assert_close(detail(both).flatten(), torch.stack([detail(noise), detail(ramp)]).flatten())
    torch.testing.assert_close(detail(3 * noise), detail(noise))
    assert float(detail(torch.zeros(1, 1, 4, 4, 4))) == 0


# --- figures of an evaluation


def table(path: Path, rows: list[str]) -> Path:
    names = (
        "case,method,masks,dsc,tre_rms_mm,dense_tre_mean_mm,segmentation_dsc_mr,segmentation_dsc_trus,"
        "segmenter_trus"
    )
    path.write_text("\n".join([names, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_figures_of_an_evaluation_come_to_the_cards(
    segmenter: tuple[torch.nn.Module, InstalledModel],
    registrator: tuple[torch.nn.Module, InstalledModel],
    tmp_path: Path,
) -> None:
    for _, model in (segmenter, registrator):
        (tmp_path / model.card_path.name).write_text(model.card.to_json(), encoding="utf-8")
    rows = [
        "a,rigid,predicted,.7,6,,.8,.9,vnet-trus",
        "a,cmsa,predicted,.8,5,,.8,.9,vnet-trus",
        "b,cmsa,predicted,.9,4,,.6,.7,vnet-trus",
        # Another model drew this one.
        "c,rigid,predicted,.9,4,,.6,.1,structures-trus",
    ]
    metrics = table(tmp_path / "metrics.csv", rows)
    for _ in range(2):
        assert len(add_figures(tmp_path, metrics, "two pairs")) == 2
    trus, cmsa = read_card(tmp_path / "vnet-trus.json"), read_card(tmp_path / "cmsa.json")
    assert len(trus.figures) == len(cmsa.figures) == 2
    assert (trus.figures[1]["dsc"], trus.figures[1]["cases"]) == (0.8, 2)
    assert (cmsa.figures[1]["dsc"], cmsa.figures[1]["tre_rms_mm"]) == (0.85, 4.5)
    assert "dense_tre_mean_mm" not in cmsa.figures[1]
    assert trus.sha256 == segmenter[1].card.sha256


def test_figures_go_to_the_network_that_ran(
    registrator: tuple[torch.nn.Module, InstalledModel], tmp_path: Path
) -> None:
    """On a sharp TRUS another network than the method's runs; the control with zeroed images counts not."""
    card = registrator[1].card
    for name in ("cmsa", "cmsa-sharp"):
        (tmp_path / f"{name}.json").write_text(replace(card, name=name).to_json(), encoding="utf-8")
    names = "case,method,masks,dsc,model"
    lines = [
        "a,cmsa,predicted,.8,cmsa-sharp",
        "b,cmsa,predicted,.6,cmsa",
        "a,cmsa+zeroed,predicted,.2,cmsa-sharp",
    ]
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("\n".join([names, *lines]) + "\n", encoding="utf-8")
    add_figures(tmp_path, metrics, "two pairs")
    assert read_card(tmp_path / "cmsa.json").figures[-1]["dsc"] == 0.6
    assert read_card(tmp_path / "cmsa-sharp.json").figures[-1]["dsc"] == 0.8


def test_cases_that_failed_are_not_counted(
    registrator: tuple[torch.nn.Module, InstalledModel], tmp_path: Path
) -> None:
    (tmp_path / "cmsa.json").write_text(registrator[1].card.to_json(), encoding="utf-8")
    rows = [MetricsRow("a", "cmsa", "predicted", dsc=0.9, model="cmsa")]
    rows += [MetricsRow(name, "cmsa", "predicted", error="It broke.") for name in "bc"]
    (tmp_path / "metrics.csv").write_text(metrics_csv(rows), encoding="utf-8")
    add_figures(tmp_path, tmp_path / "metrics.csv", "three pairs")
    figure = read_card(tmp_path / "cmsa.json").figures[-1]
    assert (figure["split"], figure["cases"], figure["dsc"]) == ("three pairs", 1, 0.9)
    (tmp_path / "metrics.csv").write_text(metrics_csv(rows[1:]), encoding="utf-8")
    with pytest.raises(InputError, match="no figures of a model"):
        add_figures(tmp_path, tmp_path / "metrics.csv", "no pair")


def test_what_tells_structures_apart_gets_the_masks_that_it_drew(
    segmenter: tuple[torch.nn.Module, InstalledModel], tmp_path: Path
) -> None:
    settings = {**segmenter[1].card.settings, "structures": ["transition_zone"]}
    card = replace(segmenter[1].card, name="structures-trus", task="structures", settings=settings)
    (tmp_path / "structures-trus.json").write_text(card.to_json(), encoding="utf-8")
    rows = ["a,cmsa,predicted,.7,6,,.8,.9,structures-trus", "b,cmsa,predicted,.7,6,,.8,.1,vnet-trus"]
    assert add_figures(tmp_path, table(tmp_path / "metrics.csv", rows), "two pairs")
    figure = read_card(tmp_path / "structures-trus.json").figures[-1]
    assert (figure["dsc"], figure["cases"]) == (0.9, 1)
    assert "tre_rms_mm" not in figure


def test_a_figure_that_some_pairs_lack_has_its_own_number_of_cases(
    registrator: tuple[torch.nn.Module, InstalledModel], tmp_path: Path
) -> None:
    (tmp_path / "cmsa.json").write_text(registrator[1].card.to_json(), encoding="utf-8")
    rows = [f"{case},cmsa,predicted,.7,{error},,.8,.9," for case, error in (("a", "4"), ("b", ""), ("c", ""))]
    add_figures(tmp_path, table(tmp_path / "metrics.csv", rows), "three pairs")
    figure = read_card(tmp_path / "cmsa.json").figures[-1]
    assert (figure["cases"], figure["tre_rms_mm"], figure["tre_rms_mm_cases"]) == (3, 4.0, 1)
    assert "dsc_cases" not in figure


def test_figures_without_a_card_for_them_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = table(tmp_path / "metrics.csv", ["a,cmsa,predicted,.7,6,,.8,.9,vnet-trus"])
    (tmp_path / "empty").mkdir()
    for folder, message in (("nowhere", "does not exist"), ("empty", "no figures of a model")):
        given = [str(tmp_path / folder), "--metrics", str(metrics), "--split", "one pair"]
        assert run_app(app, ["export", "figures", *given]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert len(said.strip().splitlines()) == 1


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        add_figures(tmp_path, tmp_path / "metrics.csv", "x")
    for content in (b"a,b\n1,2\n", b"\xff\xfe\x00\x81"):
        (tmp_path / "metrics.csv").write_bytes(content)
        with pytest.raises(InputError, match="not a table"):
            add_figures(tmp_path, tmp_path / "metrics.csv", "x")
