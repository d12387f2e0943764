"""Runs of rows: the record, going on, refusals, every kind of input, the commands."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_case import write_dataset
from disks import fill, mounted_disk
from row_case import NAMES, registration_content, segmentation_content, tiny_data, write_row

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError, RegistrationError
from MRTRUSTraining.cli import app
from MRTRUSTraining.data.cases import find_part
from MRTRUSTraining.export import read_run
from MRTRUSTraining.registration_samples import centroid_vox, prepare_samples
from MRTRUSTraining.registration_settings import RegistrationSettings
from MRTRUSTraining.row import Row, find_row, row_from
from MRTRUSTraining.run import Run, carry_out, check_weights, reopen, write_record
from MRTRUSTraining.sources import Sources, part_cases
from MRTRUSTraining.watching import read_seconds


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def tiny(**method: Any) -> Row:
    return row_from(registration_content(**method), "row")


def longer(row: Row, steps: int) -> Row:
    assert row.schedule is not None
    return replace(row, schedule=replace(row.schedule, steps=steps))


def run(row: Row, data: Path, folder: Path, cache: Path | None = None, steps: int | None = None) -> Path:
    row = row if steps is None else longer(row, steps)
    return carry_out(Run(row, Sources(data), folder, cache), watchers=())


def checkpoint(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = checkpoint(first), checkpoint(second)
    assert a["step"] == b["step"]
    for part in ("network", "average"):
        for name, value in a[part].items():
            assert torch.equal(value, b[part][name]), name


@pytest.mark.slow
def test_a_run_says_what_it_is(data: Path, cache: Path, tmp_path: Path) -> None:
    row = tiny()
    best = run(row, data, tmp_path / "run", cache)
    assert best == tmp_path / "run" / "best.pt"
    content = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert row_from(content["row"], "run.json") == row
    assert content["training_data"][0]["pairs"] == 2
    assert content["training_data"][0]["patients"] == 1
    assert torch.load(best, weights_only=True)["row"] == row.identity
    again = reopen(tmp_path / "run")
    assert (again.row, again.sources.data, again.cache) == (row, data.resolve(), cache.resolve())
    assert [path.name for path in (tmp_path / "run").iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.slow
def test_the_seed_decides_the_run(data: Path, cache: Path, tmp_path: Path) -> None:
    run(tiny(), data, tmp_path / "a", cache, steps=2)
    torch.rand(7)
    run(tiny(), data, tmp_path / "b", cache, steps=2)
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    run(replace(tiny(), seed=6), data, tmp_path / "c", cache, steps=2)
    first = checkpoint(tmp_path / "a")["network"]
    assert any(not torch.equal(v, checkpoint(tmp_path / "c")["network"][k]) for k, v in first.items())


INPUTS: list[dict[str, Any]] = [
    {
        "network": "cmsa",
        "alignment": "initial",
        "loss": {"mi": 0.4, "mi_domain": "volume", "dice": "classes"},
    },
    {
        "network": "localnet",
        "options": {"width": 4, "depth": 2},
        "inputs": "images",
        "loss": {
            "mi": 0.0,
            "bending": 0.5,
            "structures": "one",
            "dice": "per-label",
            "dice_scales_mm": [0.0, 4.0],
        },
    },
    {
        "network": "segmentation-based",
        "inputs": "images+masks",
        "gland_scaling": 0.5,
        "loss": {"mi": 0.0, "structures": "gland"},
    },
    {"network": "rern", "options": {"widths": [2, 2, 4, 4, 4]}, "inputs": "images"},
]


@pytest.mark.slow
@pytest.mark.parametrize("method", INPUTS, ids=[each["network"] for each in INPUTS])
def test_every_network_trains_with_its_inputs(
    data: Path, cache: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    row = tiny(**{"options": {}, **method})
    run(row, data, tmp_path / "run", cache, steps=1)
    before = row.method
    assert checkpoint(tmp_path / "run")["step"] == 1
    figures = torch.load(tmp_path / "run" / "best.pt", weights_only=True)["figures"]
    assert np.isfinite(list(figures.values())).all()
    assert figures["tre_rms_mm"] == -figures["score"]
    assert row.method is before


@pytest.mark.slow
def test_the_alignment_of_a_row_is_that_of_its_samples(data: Path) -> None:
    """The tiny TRUS lies 2 mm beside the MR; centroids know of it, the data set's own start does not."""
    fine = {"preprocessing": {"orientation": "LPS", "spacing_mm": [2.0] * 3}, "grid_vox": [32, 32, 32]}
    apart_mm = {}
    for alignment in ("initial", "centroid", "rigid"):
        settings = tiny(alignment=alignment, **fine).method
        assert isinstance(settings, RegistrationSettings)
        (sample,) = prepare_samples(find_part(data, "mrus", "val")[:1], settings)
        glands = sample.moving_labels[0, 0], sample.fixed_labels[0, 0]
        apart_mm[alignment] = 2.0 * float((centroid_vox(glands[0]) - centroid_vox(glands[1])).norm())
    assert apart_mm["initial"] == pytest.approx(2.0, abs=0.1)
    assert max(apart_mm["centroid"], apart_mm["rigid"]) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dice", "dice+cross-entropy"])
def test_a_segmenter_trains_and_its_samples_come_from_the_cache(
    data: Path, tmp_path: Path, loss: str
) -> None:
    row = row_from(segmentation_content(loss=loss), "row")
    for name in ("a", "b"):
        run(row, data, tmp_path / name, tmp_path / "cache", steps=2)
        entries = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
        assert len(entries) == 4
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == entries


# --- going on, and refusing to ---------------------------------------------------------------------------


@pytest.mark.slow
def test_another_row_is_refused_and_nothing_is_lost(data: Path, cache: Path, tmp_path: Path) -> None:
    run(tiny(), data, tmp_path, cache, steps=2)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = replace(tiny(), name="other")
    with pytest.raises(InputError, match="a run of the row tiny"):
        run(other, data, tmp_path, cache)
    with pytest.raises(InputError, match=r"differs in method\.loss\.mi, seed"):
        run(replace(tiny(loss={"mi": 0.5}), seed=7), data, tmp_path, cache)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_checkpoint_of_another_row_is_refused_without_the_record(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    run(tiny(), data, tmp_path, cache, steps=2)
    (tmp_path / "run.json").unlink()
    with pytest.raises(InputError, match=r"checkpoint of the row tiny [0-9a-f]+, not of other"):
        run(replace(tiny(), name="other"), data, tmp_path, cache)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_what_is_refused_leaves_the_record_as_it_was(data: Path, cache: Path, tmp_path: Path) -> None:
    run(tiny(), data, tmp_path, cache, steps=3)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="has 3 steps already, more than 2"):
        carry_out(Run(longer(tiny(), 2), Sources(data), tmp_path, cache))
    assert contents(tmp_path) == before
    torch.save({**checkpoint(tmp_path), "row": "other 0123456789ab"}, tmp_path / "checkpoint.pt")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="checkpoint of the row other 0123456789ab"):
        carry_out(Run(longer(tiny(), 4), Sources(data), tmp_path, cache))
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_run_goes_on_whose_fingerprint_an_earlier_version_made(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    run(tiny(), data, tmp_path, cache, steps=2)
    torch.save({**checkpoint(tmp_path), "row": "tiny 0123456789ab"}, tmp_path / "checkpoint.pt")
    run(tiny(), data, tmp_path, cache, steps=4)
    assert checkpoint(tmp_path)["step"] == 4
    assert checkpoint(tmp_path)["row"] == tiny().identity


@pytest.mark.slow
def test_weights_to_begin_with_are_wanted_at_the_beginning_alone(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    missing = Run(longer(tiny(), 2), Sources(data), second, cache, first)
    with pytest.raises(InputError, match=r"holds no best\.pt"):
        carry_out(missing, watchers=())
    assert not (second / "run.json").exists()
    run(tiny(), data, first, cache, steps=1)
    carry_out(missing, watchers=())
    shutil.rmtree(first)
    carry_out(replace(missing, row=longer(tiny(), 3)), watchers=())
    assert checkpoint(second)["step"] == 3


@pytest.mark.slow
def test_weights_of_another_row_are_not_exported(data: Path, cache: Path, tmp_path: Path) -> None:
    for name in ("tiny", "other"):
        run(replace(tiny(), name=name), data, tmp_path / name, cache, steps=1)
    shutil.copy(tmp_path / "other" / "best.pt", tmp_path / "tiny" / "best.pt")
    with pytest.raises(InputError, match="a run of the row other, not of tiny"):
        check_weights(tmp_path / "tiny", tiny())


@pytest.mark.parametrize("content", [{"row": {}}, {"row": {"name": "tiny"}}, {"row": 5}])
def test_a_damaged_record_is_one_sentence(tmp_path: Path, content: dict[str, Any]) -> None:
    record = {"commands": [], "sources": {"data": None, "layout": "mrus"}, **content}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    for ask in (lambda: reopen(tmp_path), lambda: check_weights(tmp_path, tiny())):
        with pytest.raises(InputError, match=r"run\.json"):
            ask()


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_keeps_the_last_checkpoint(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    with mounted_disk(tmp_path, size_mb=8) as disk:
        run(tiny(), data, disk / "run", cache, steps=1)
        before = contents(disk / "run")
        filler = fill(disk, leave_bytes=40_000)
        with pytest.raises(InputError, match="is full"):
            run(tiny(), data, disk / "run", cache, steps=3)
        filler.unlink()
        after = contents(disk / "run")
        kept = ("checkpoint.pt", "best.pt")
        assert [after[disk / "run" / name] for name in kept] == [before[disk / "run" / name] for name in kept]
        assert not list((disk / "run").glob("*.tmp"))


@pytest.mark.slow
def test_a_run_cannot_begin_with_itself(data: Path, cache: Path, tmp_path: Path) -> None:
    run(tiny(), data, tmp_path, cache, steps=1)
    with pytest.raises(InputError, match="its own weights"):
        carry_out(Run(tiny(), Sources(data), tmp_path, cache, tmp_path / "." / ""), watchers=())
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "run.json").write_text(json.dumps(record | {"start_from": str(tmp_path)}), encoding="utf-8")
    assert read_run(tmp_path)["commands"] == record["commands"]


@pytest.mark.slow
def test_weights_of_a_record_without_newer_settings_are_exported(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    """A run that was made before a setting was known had its default."""
    run(tiny(), data, tmp_path, cache, steps=1)
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    for name in ("structures", "coordinates", "segmenters", "extend_mm"):
        del record["row"]["method"][name]
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    check_weights(tmp_path, tiny())
    with pytest.raises(InputError, match=r"other settings of tiny \(context\)"):
        check_weights(tmp_path, tiny(context=1.0))


@pytest.mark.slow
def test_what_is_left_out_of_real_pairs_is_said_beside_simulated_ones_of_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tiny_data(tmp_path / "data")
    write_dataset(data, "mrus", NAMES, empty_mr=(1,))
    write_dataset(tmp_path / "simulated", "muregpro", NAMES)
    sources = Sources(data, simulated=tmp_path / "simulated")
    carry_out(Run(longer(tiny(), 1), sources, tmp_path / "run"), watchers=())
    assert "4 landmarks of 4 cases are in one modality only" in capsys.readouterr().out


def test_a_row_that_is_not_trained_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rigid is not trained"):
        run(find_row("rigid"), data, tmp_path)


def test_a_split_without_a_validation_part_is_refused(data: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["a"], "val": []}), encoding="utf-8")
    with pytest.raises(InputError, match="no cases in 'val'"):
        carry_out(Run(tiny(), Sources(data, split=split), tmp_path / "run"), watchers=())
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(data: Path, cache: Path, tmp_path: Path) -> None:
    run(tiny(), data, tmp_path, cache, steps=2)
    content = checkpoint(tmp_path)
    weights = next(iter(content["network"]))
    content["network"][weights][:] = float("nan")
    torch.save(content, tmp_path / "checkpoint.pt")
    kept = (tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "best.pt").read_bytes()
    with pytest.raises(RegistrationError, match="not finite at step 2; start again in another folder"):
        run(tiny(), data, tmp_path, cache, steps=4)
    assert ((tmp_path / "checkpoint.pt").read_bytes(), (tmp_path / "best.pt").read_bytes()) == kept


@pytest.mark.slow
def test_weights_are_exported_for_what_they_were_trained_for(data: Path, cache: Path, tmp_path: Path) -> None:
    run(tiny(), data, tmp_path, cache, steps=1)
    # What follows the network, and what only training uses, may be said anew.
    check_weights(tmp_path, tiny(loss={"mi": 0.5}, mirror_averaged=False))
    with pytest.raises(InputError, match=r"other settings of tiny \(alignment, context\)"):
        check_weights(tmp_path, tiny(alignment="rigid", context=1.0))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(data: Path, cache: Path, tmp_path: Path) -> None:
    content = registration_content()
    content["schedule"] |= {"steps": 30, "validations": 15}
    path = write_row(tmp_path / "tiny.yaml", content)
    command = [sys.executable, "-m", "MRTRUSTraining.cli"]
    given = ["--data", str(data), "--cache", str(cache)]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, "run", str(path), *given, "--output", str(killed)])
    deadline = time.monotonic() + 120
    while not (killed / "tiny" / "checkpoint.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint(killed / "tiny")["step"] < 30
    assert run_app(app, ["resume", str(killed / "tiny")]) == 0
    assert run_app(app, ["run", str(path), *given, "--output", str(whole)]) == 0
    assert_same_weights(killed / "tiny", whole / "tiny")


# --- the commands ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_run_and_resume_by_command(
    data: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_row(tmp_path / "tiny.yaml", registration_content())
    given = ["--data", str(data), "--output", str(tmp_path), "--cache", str(cache), "--steps", "2"]
    assert run_app(app, ["run", str(path), *given]) == 0
    said = capsys.readouterr().out
    assert "validation" in said
    assert str(tmp_path / "tiny" / "best.pt") in said
    assert run_app(app, ["resume", str(tmp_path / "tiny"), "--steps", "4"]) == 0
    assert checkpoint(tmp_path / "tiny")["step"] == 4
    assert reopen(tmp_path / "tiny").row.schedule.steps == 4  # type: ignore[union-attr]
    assert (read_seconds(tmp_path / "tiny" / "time.json") or 0) > 0


@pytest.mark.slow
def test_landmarks_that_are_left_out_are_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the pairs come from the cache."""
    data = tiny_data(tmp_path / "data")
    write_dataset(data, "mrus", NAMES, empty_mr=(1,))
    path = write_row(tmp_path / "tiny.yaml", registration_content())
    given = ["--data", str(data), "--cache", str(tmp_path / "cache"), "--steps", "2"]
    for folder in ("first", "second"):
        assert run_app(app, ["run", str(path), *given, "--output", str(tmp_path / folder)]) == 0
        said = capsys.readouterr().out
        assert said.count("left out") == said.count("4 landmarks of 4 cases are in one modality only") == 1


@pytest.mark.slow
def test_how_fresh_cases_are_drawn_is_kept(data: Path, cache: Path, tmp_path: Path) -> None:
    content = registration_content(first_share=1.0)
    path = write_row(tmp_path / "tiny.yaml", content)
    given = ["--data", str(data), "--output", str(tmp_path), "--cache", str(cache), "--steps", "1"]
    fresh = ["--fresh", "1", "--fresh-workers", "0", "--fresh-preset", "shifted", "--fresh-spacing-mm", "4"]
    drawn = [*fresh, "--fresh-random-contrast", "0.5"]
    assert run_app(app, ["run", str(path), *given, *drawn]) == 0
    kept = reopen(tmp_path / "tiny").sources.fresh
    assert kept is not None
    assert (kept.preset, kept.spacing_mm, kept.random_contrast) == ("shifted", 4.0, 0.5)
    described = json.loads((tmp_path / "tiny" / "run.json").read_text(encoding="utf-8"))["training_data"][-1]
    assert "preset shifted, 4 mm, random contrast 0.5" in described["name"]


@pytest.mark.slow
def test_without_the_usual_split_the_first_eighth_validates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A split that somebody named, in the row or on the command line, has to be there."""
    data = tmp_path / "data"
    write_dataset(data, "mrus", NAMES)
    content = registration_content()
    content["data"]["split"] = "splits.json"
    path = write_row(tmp_path / "tiny.yaml", content)
    given = ["--data", str(data), "--output", str(tmp_path / "runs"), "--steps", "2"]
    assert run_app(app, ["run", str(path), *given]) == 0
    training, validation = reopen(tmp_path / "runs" / "tiny").sources.parts()
    assert [case.name for case in training[0]] == ["b", "c", "d"]
    assert [case.name for case in validation] == ["a"]
    assert [case.name for case in part_cases(data, "mrus", "val")] == ["a"]
    assert run_app(app, ["run", str(path), *given, "--split", str(data / "splits.json")]) == 2
    assert "does not exist" in capsys.readouterr().err
    content["data"]["split"] = "folds.json"
    write_row(path, content | {"name": "other"})
    assert run_app(app, ["run", str(path), *given]) == 2
    assert "folds.json does not exist" in capsys.readouterr().err


BAD: list[tuple[list[str], str]] = [
    (["run"], "Name either one row or a table"),
    (["run", "ours-2", "--table", "1"], "Name either one row or a table"),
    (["run", "ours-3"], "no row 'ours-3'"),
    (["run", "--table", "7"], "no table '7'"),
    (["run", "ours-2"], "Give --data, --simulated or --fresh"),
    (["run", "ours-2", "--fresh-preset", "shifted"], "give --fresh too: how many"),
    (["run", "ours-2", "--fresh", "2"], "fresh cases alone have no validation part"),
    (["run", "ours-2", "--fresh", "2", "--fresh-preset", "clinicl"], "no simulation preset 'clinicl'"),
    (["run", "ours-2", "--steps", "0"], "must be positive"),
    (["run", "ours-2", "--seed", "-1"], "seed -1 is not between 0 and 2147483646"),
    (["run", "ours-2", "--seed", "99999999999999999999"], "is not between 0 and 2147483646"),
    (["run", "ours-2", "--layout", "dicom"], "layout 'dicom' is not known"),
    (["run", "ours-2", "--learning-rate", "nan"], "must be positive"),
    (["run", "rigid"], "rigid is not trained"),
    (["registration", "cmsa", "--scales-mm", "abc"], "--scales-mm cannot be 'abc'"),
    (["registration", "cmsa", "--scales-mm=-3"], "dice_scales_mm cannot be -3"),
    (["registration", "cmsa", "--mi", "nan"], "loss.mi cannot be"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda each: " ".join(each)[:40])
def test_bad_commands_get_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run_app(app, [*arguments, "--output", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("Error: ")
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_the_data(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    """Neither a cache nor a folder of the run is made."""
    write_record(Run(find_row("cmsa"), Sources(data), tmp_path / "begun"))
    given = ["--data", str(data), "--output", str(tmp_path / "runs"), "--device", device]
    commands = (["run", "cmsa", *given], ["segmentation", "mr", *given], ["registration", "cmsa", *given])
    for arguments in (*commands, ["resume", str(tmp_path / "begun"), "--device", device]):
        assert run_app(app, arguments) == 2
        said = capsys.readouterr().err.strip()
        assert f"device '{device}' cannot be used" in said
        assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]
    assert [path.name for path in (tmp_path / "begun").iterdir()] == ["run.json"]


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app, ["resume", str(tmp_path)]) == 2
    assert "holds no run of a row" in capsys.readouterr().err


def test_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app, ["rows"]) == 0
    listed = capsys.readouterr().out
    for name in ("ours-2", "initial", "vnet-trus"):
        assert name in listed
