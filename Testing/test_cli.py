"""Bad input: one sentence that names what is wrong, exit code 2, no traceback, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from cases import (
    CaseFiles,
    OrientedNetwork,
    install,
    install_all,
    mr_image,
    mr_landmarks,
    mr_mask,
    trus_image,
    trus_mask,
)

from MRTRUSRegistrationLib.cli import add_plugins
from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import RegistrationError
from MRTRUSRegistrationLib.geometry import Grid

Spoil = Callable[[Path, CaseFiles], dict[str, object]]


def _saved(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path))
    return path


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _with(image: sitk.Image, change: Callable[[np.ndarray], np.ndarray]) -> sitk.Image:
    return Grid.of(image).image(change(sitk.GetArrayFromImage(image)))


def _spaced(spacing_mm: float) -> sitk.Image:
    image = mr_image()
    image.SetSpacing((spacing_mm,) * 3)
    return image


def _one_nan(array: np.ndarray) -> np.ndarray:
    array[3, 4, 5] = np.nan
    return array


def _moved(mask: sitk.Image, shift_mm: float) -> sitk.Image:
    mask.SetOrigin([value + shift_mm for value in mask.GetOrigin()])
    return mask


def _truncated(case: CaseFiles, path: Path) -> Path:
    content = case.mr.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _wide_mask(folder: Path) -> Path:
    """A mask with more than three times the gland's volume."""
    return _saved(sitk.BinaryDilate(mr_mask(), (7, 7, 4)), folder / "wide.nii.gz")


def _transform(path: Path, transform: sitk.Transform) -> Path:
    sitk.WriteTransform(transform, str(path))
    return path


def _affine() -> sitk.AffineTransform:
    transform = sitk.AffineTransform(3)
    transform.Scale(1.2)
    return transform


def _bent() -> sitk.Transform:
    return sitk.DisplacementFieldTransform(sitk.Image([4, 4, 4], sitk.sitkVectorFloat64, 3))


def _with_models(folder: Path, **card: object) -> dict[str, object]:
    """A run that needs the models of a folder, whose registration card is changed."""
    install_all(folder)
    path = folder / "cmsa.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **card}), encoding="utf-8")
    return {"models": folder, "method": "cmsa"}


def _without_file(folder: Path) -> dict[str, object]:
    changed = _with_models(folder)
    (folder / "cmsa.pt").unlink()
    return changed


def _no_torchscript(folder: Path) -> dict[str, object]:
    changed = _with_models(folder, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    _text(folder / "cmsa.pt", "abc")
    return changed


def _sparse_files(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        (path / name).write_text("mine", encoding="utf-8")
    return path


def _csv(path: Path, header: str, *rows: str) -> Path:
    return _text(path, "\n".join([header, *rows]) + "\n")


_LPS = "name,x_lps,y_lps,z_lps"

# kind: (what is changed in a run that would work, what the sentence has to name)
BAD_INPUT: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "missing MR": (lambda d, c: {"mr": d / "none.nii.gz"}, ("none.nii.gz",)),
    "missing TRUS": (lambda d, c: {"trus": d / "none.nrrd"}, ("none.nrrd",)),
    "folder without DICOM": (lambda d, c: {"mr": _folder(d / "scans")}, ("scans", "DICOM")),
    "text as NIfTI": (lambda d, c: {"mr": _text(d / "t.nii.gz", "not an image")}, ("t.nii.gz",)),
    "truncated": (lambda d, c: {"mr": _truncated(c, d / "half.nii.gz")}, ("half.nii.gz",)),
    "empty file": (lambda d, c: {"mr": _text(d / "e.nii.gz", "")}, ("e.nii.gz", "empty")),
    "unknown format": (lambda d, c: {"mr": _text(d / "mr.xyz", "abc")}, ("mr.xyz", "NIfTI")),
    "2-D": (lambda d, c: {"mr": _saved(mr_image()[:, :, 5], d / "flat.nrrd")}, ("flat.nrrd", "2-D")),
    "4-D": (
        lambda d, c: {"mr": _saved(sitk.JoinSeries([mr_image()] * 2), d / "time.nii.gz")},
        ("time.nii.gz", "several"),
    ),
    "colour": (
        lambda d, c: {"trus": _saved(sitk.Compose([trus_image()] * 3), d / "rgb.nrrd")},
        ("rgb.nrrd", "colour"),
    ),
    "constant": (
        lambda d, c: {"mr": _saved(_with(mr_image(), np.zeros_like), d / "zero.nii.gz")},
        ("zero.nii.gz", "empty"),
    ),
    "NaN": (
        lambda d, c: {"mr": _saved(_with(mr_image(), _one_nan), d / "nan.nrrd")},
        ("nan.nrrd", "NaN"),
    ),
    "tiny spacing": (lambda d, c: {"mr": _saved(_spaced(0.01), d / "m.nrrd")}, ("m.nrrd", "0.01")),
    "huge spacing": (lambda d, c: {"mr": _saved(_spaced(40), d / "m.nrrd")}, ("m.nrrd", "40")),
    "tiny extent": (lambda d, c: {"mr": _saved(_spaced(0.3), d / "m.nrrd")}, ("m.nrrd", "mm")),
    "few voxels": (
        lambda d, c: {"mr": _saved(mr_image()[:, :, 9:13], d / "thin.nrrd")},
        ("thin.nrrd", "44 × 40 × 4"),
    ),
    "same image": (lambda d, c: {"trus": c.mr, "trus_mask": c.mr_mask}, ("mr.nii.gz", "same")),
    "empty mask": (
        lambda d, c: {"mr_mask": _saved(mr_mask() * 0, d / "no.nii.gz")},
        ("no.nii.gz", "empty"),
    ),
    "mask off its image": (
        lambda d, c: {"mr_mask": _saved(_moved(mr_mask(), 300), d / "off.nii.gz")},
        ("off.nii.gz", "mr.nii.gz"),
    ),
    "full mask": (
        lambda d, c: {"trus_mask": _saved(trus_mask() * 0 + 1, d / "all.nrrd")},
        ("all.nrrd", "fills"),
    ),
    "another patient's mask": (
        lambda d, c: {"mr_mask": _wide_mask(d)},
        ("wide.nii.gz", "trus-gland.nrrd", "same patient"),
    ),
    "missing mask": (lambda d, c: {"mr_mask": d / "none.nii.gz"}, ("none.nii.gz",)),
    "landmark without partner": (
        lambda d, c: {"trus_landmarks": _csv(d / "one.csv", _LPS, "left,-22,14,41", "other,-31,12,44")},
        ("one.csv", "other", "partner"),
    ),
    "landmarks of one image": (lambda d, c: {"trus_landmarks": None}, ("--trus-landmarks",)),
    "CSV without frame": (
        lambda d, c: {"trus_landmarks": _csv(d / "p.csv", "name,x,y,z", "left,-22,14,41")},
        ("p.csv", "LPS"),
    ),
    "landmark far away": (
        lambda d, c: {"trus_landmarks": _csv(d / "p.csv", _LPS, "left,900,14,41")},
        ("p.csv", "left"),
    ),
    "landmarks no markups": (lambda d, c: {"mr_landmarks": _text(d / "p.mrk.json", "{}")}, ("p.mrk.json",)),
    "unknown frame": (lambda d, c: {"landmark_frame": "XYZ"}, ("XYZ",)),
    "unknown method": (lambda d, c: {"method": "magic"}, ("magic", "syn", "centroid")),
    "no models folder": (lambda d, c: {"method": "cmsa", "models": d / "none"}, ("none",)),
    "card of a newer format": (lambda d, c: _with_models(d / "m", format=99), ("cmsa.json", "99")),
    "card without a field": (lambda d, c: _with_models(d / "m", sha="x"), ("cmsa.json",)),
    "card that is no JSON": (
        lambda d, c: {"method": "cmsa", "models": _text(_folder(d / "m") / "a.json", "{").parent},
        ("a.json",),
    ),
    "card without its file": (lambda d, c: _without_file(d / "m"), ("cmsa.json", "cmsa.pt")),
    "wrong checksum": (lambda d, c: _with_models(d / "m", sha256="0" * 64), ("cmsa.pt", "checksum")),
    "not TorchScript": (lambda d, c: _no_torchscript(d / "m"), ("cmsa.pt", "TorchScript")),
    "unknown device": (lambda d, c: {"device": "tpu"}, ("tpu", "cpu")),
    "negative seed": (lambda d, c: {"seed": -1}, ("-1",)),
    "huge seed": (lambda d, c: {"seed": 2**31 - 1}, ("2147483647",)),
    "seed no number": (lambda d, c: {"seed": "many"}, ("--seed", "integer")),
    "unknown metric": (lambda d, c: {"rigid_metric": "ncc"}, ("ncc", "mattes")),
    "rotation limit": (lambda d, c: {"max_rotation": "nan"}, ("nan",)),
    "orientation code": (lambda d, c: {"trus_orientation": "LPX"}, ("LPX", "--trus-orientation")),
    "double orientation": (lambda d, c: {"mr_orientation": "LRS"}, ("LRS", "--mr-orientation")),
    "no initial transform": (lambda d, c: {"initial": "wrold"}, ("wrold", "gland", "world")),
    "initial scales": (lambda d, c: {"initial": _transform(d / "a.tfm", _affine())}, ("a.tfm", "rigid")),
    "initial bends": (lambda d, c: {"initial": _transform(d / "b.h5", _bent())}, ("b.h5", "linear")),
    "initial no transform": (lambda d, c: {"initial": _text(d / "c.tfm", "abc")}, ("c.tfm", "transform")),
    "headers not shared": (
        lambda d, c: (
            {"initial": _transform(d / "d.tfm", sitk.TranslationTransform(3, (300, 0, 0)))}
            | {"method": "rigid"}
        ),
        ("mm apart", "--initial gland"),
    ),
    "output a file": (lambda d, c: {"output": _text(d / "f", "x")}, ("f is a file",)),
    "output on no disk": (lambda d, c: {"output": "/sys/out"}, ("/sys/out",)),
    "output below a file": (lambda d, c: {"output": _text(d / "f", "x") / "out"}, ("out",)),
    "output not empty": (
        lambda d, c: {"output": _sparse_files(d / "o", "result.json")},
        ("not empty", "--overwrite"),
    ),
    "foreign files": (
        lambda d, c: {"output": _sparse_files(d / "o", "result.json", "thesis.docx"), "overwrite": True},
        ("thesis.docx",),
    ),
    "files without a result": (
        lambda d, c: {"output": _sparse_files(d / "o", "trus_mask.nii.gz"), "overwrite": True},
        ("trus_mask.nii.gz",),
    ),
    "input in the output": (lambda d, c: {"output": c.folder, "overwrite": True}, ("mr.nii.gz", "output")),
    "output a mount point": (lambda d, c: {"output": "/proc", "overwrite": True}, ("/proc",)),
    "name too long": (lambda d, c: {"output": d / ("o" * 250)}, ("cannot be made",)),
    "no targets": (lambda d, c: {"targets": d / "none.csv"}, ("none.csv",)),
    "a table as targets": (lambda d, c: {"targets": _text(d / "t.csv", "name,space\n")}, ("t.csv", "MR")),
    "lesions without voxels": (
        lambda d, c: {"lesions": _saved(mr_mask() * 0, d / "l.nii.gz")},
        ("l.nii.gz", "no targets"),
    ),
    "one repeat": (lambda d, c: {"confidence": "1"}, ("1 perturbations",)),
    "unknown option": (lambda d, c: {"blur": 3}, ("--blur",)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_INPUT)
def test_bad_input_is_refused_in_one_sentence(kind: str, tmp_path: Path, case_files: CaseFiles, run_cli):
    spoil, named = BAD_INPUT[kind]
    changed = spoil(tmp_path, case_files)
    before = sorted(tmp_path.rglob("*"))
    code, _, error = run_cli(case_files.arguments(**{"output": tmp_path / "out", **changed}))
    message = _only_sentence(error)
    assert code == 2, message
    for part in named:
        assert part in message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_register_carries_targets_and_judges(tmp_path: Path, case_files: CaseFiles, run_cli):
    """What is printed is what result.json holds."""
    options = {"targets": case_files.mr_landmarks, "confidence": 2, "method": "cmsa"}
    options["models"] = install_all(tmp_path / "models")
    code, printed, error = run_cli(case_files.arguments(tmp_path / "out", **options))
    assert code == 0, error
    written = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert written["confidence"]["perturbations"] == 2
    assert written["indicator"]["headline"] in printed
    for finding in written["indicator"]["findings"]:
        assert (f"- {finding['text']}" in printed) == (finding["level"] != "good")
    assert [target["name"] for target in written["targets"]] == list(mr_landmarks().names)
    for target in written["targets"]:
        assert target["capsule_distance_mm"] > 0
        depth = f"{target['capsule_distance_mm']:.1f} mm inside the capsule"
        assert f"Target {target['name']}: {target['third']}, {target['side']}, {depth}" in printed


def test_no_model_for_a_modality_is_said(
    tmp_path: Path, case_files: CaseFiles, run_cli, monkeypatch: pytest.MonkeyPatch
):
    """The bundled models hidden: nothing is left to segment the MR with."""
    monkeypatch.setattr("MRTRUSRegistrationLib.models.models_folders", lambda extra=None: [tmp_path])
    code, _, error = run_cli(case_files.arguments(output=tmp_path / "out", mr_mask=None))
    message = _only_sentence(error)
    assert code == 2
    assert "segmentation" in message
    assert "MR" in message
    assert not (tmp_path / "out").exists()


def _only_sentence(error: str) -> str:
    """The sentence of an error; lines about stages that had begun may stand before it."""
    *stages, message = error.splitlines()
    assert all(line.endswith(" ...") for line in stages), error
    assert message.startswith("Error: ")
    assert message.endswith(".")
    assert "Traceback" not in error
    return message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused(tmp_path: Path, case_files: CaseFiles, run_cli):
    code, _, error = run_cli(case_files.arguments(tmp_path / "out", device="cuda"))
    assert code == 2
    assert "CUDA" in _only_sentence(error)


def test_an_almost_full_disk_is_refused_before_computing(tmp_path, case_files, run_cli, small_disk):
    code, _, error = run_cli(case_files.arguments(small_disk / "out"))
    assert code == 2
    assert "200 MB" in _only_sentence(error)
    assert "align" not in error


@pytest.mark.parametrize("missing", [["mr"], ["mr", "trus"]])
def test_missing_arguments_point_to_the_help(missing: list[str], run_cli):
    code, _, error = run_cli(["register", *missing])
    assert code == 2
    assert "register --help" in _only_sentence(error)


def test_without_a_command_the_help_is_all(run_cli):
    code, output, error = run_cli([])
    assert (code, error) == (2, "")
    assert "register" in output


def test_unknown_command_is_refused(run_cli):
    code, _, error = run_cli(["regster"])
    assert code == 2
    assert "regster" in _only_sentence(error)


@pytest.fixture(scope="module")
def _plugins() -> None:
    add_plugins()


EVALUATE: dict[str, tuple[Callable[[Path], dict[str, object]], tuple[str, ...]]] = {
    "missing data": (lambda d: {"data": d / "none"}, ("none",)),
    "unknown layout": (lambda d: {"layout": "bids"}, ("bids", "mrus")),
    "wrong layout": (lambda d: {"layout": "muregpro"}, ("mr_images", "muregpro")),
    "unknown masks": (lambda d: {"masks": "none"}, ("none", "reference")),
    "no methods": (lambda d: {"methods": " ,"}, ("methods",)),
    "no cases": (lambda d: {"cases": _text(d / "c.json", "[]")}, ("c.json",)),
    "missing cases": (lambda d: {"cases": d / "c.json"}, ("c.json",)),
    "cases no JSON": (lambda d: {"cases": _text(d / "c.json", "case1")}, ("c.json",)),
    "case of no files": (lambda d: {"cases": _text(d / "c.json", '["case1"]')}, ("case1",)),
    "cases a folder": (lambda d: {"cases": d}, (".",)),
    "a case twice": (lambda d: {"cases": _text(d / "c.json", '["a", "b", "a"]')}, ("c.json", "case a twice")),
    "unknown method": (lambda d: {"methods": "centroid,centriod"}, ("centriod",)),
    "unknown control": (lambda d: {"methods": "cmsa+foo"}, ("cmsa+foo",)),
    "control of no network": (lambda d: {"methods": "rigid,centroid+zeroed"}, ("centroid+zeroed",)),
    "unknown device": (lambda d: {"device": "gpu"}, ("gpu",)),
    "negative seed": (lambda d: {"seed": -4}, ("-4",)),
    "missing models": (lambda d: {"models": d / "none"}, ("none",)),
    "empty data": (lambda d: {}, ("No cases",)),
    "output a file": (
        lambda d: {"output": _text(d / "f", "x"), "cases": _text(d / "c.json", '["case1"]')},
        (),
    ),
}


@pytest.mark.usefixtures("_plugins")
@pytest.mark.parametrize("kind", EVALUATE)
def test_evaluate_refuses_in_one_sentence(kind: str, tmp_path: Path, run_cli):
    (tmp_path / "data" / "moving_images").mkdir(parents=True)
    spoil, named = EVALUATE[kind]
    options = {"data": tmp_path / "data", "layout": "mrus", "methods": "centroid", "output": tmp_path / "out"}
    options |= spoil(tmp_path)
    code, _, error = run_cli(["evaluate", *(p for k, v in options.items() for p in (f"--{k}", str(v)))])
    message = _only_sentence(error)
    assert code == 2, message
    for part in named:
        assert part in message


def test_models_lists_cards_and_says_what_is_damaged(tmp_path: Path, run_cli):
    install(tmp_path, OrientedNetwork(), name="a [b]", task="segmentation", modality="MR")
    (tmp_path / "a [b].pt").write_bytes(b"changed")
    code, output, _ = run_cli(["models", "--models", tmp_path])
    assert code == 0
    assert "a [b] (segmentation, MR)" in output
    assert "DAMAGED" in output
    code, output, _ = run_cli(["models", "--models", tmp_path, "--json"])
    assert [card["intact"] for card in json.loads(output) if card["name"] == "a [b]"] == [False]


def test_doctor_fails_without_the_models_it_needs(tmp_path: Path, run_cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MRTRUS_MODELS", str(install_all(tmp_path / "m")))
    assert run_cli(["doctor"])[0] == 0
    (tmp_path / "m" / "cmsa.pt").write_bytes(b"changed")
    code, output, error = run_cli(["doctor"])
    assert code == 3
    assert "bad  model cmsa" in output
    assert "bad" in _only_sentence(error)


def _app_that_raises(error: BaseException):
    import typer

    broken = typer.Typer()

    @broken.command()
    def fail() -> None:
        raise error

    return broken


@pytest.mark.parametrize(
    ("error", "code", "named"),
    [
        (RegistrationError("It failed\nin two lines."), 3, "It failed in two lines."),
        (KeyboardInterrupt(), 130, "Interrupted."),
        (
            PermissionError(13, "Permission denied", "mr.nii.gz"),
            2,
            "mr.nii.gz cannot be used (Permission denied)",
        ),
        (ValueError("a defect"), 3, "ValueError: a defect"),
        (MemoryError(), 3, "MemoryError"),
    ],
)
def test_whatever_happens_ends_in_one_line(error: BaseException, code: int, named: str, capsys):
    assert run_app(_app_that_raises(error), []) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert named in lines[0]


def test_a_defect_shows_where_it_is_when_asked(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("MRTRUS_TRACEBACK", "1")
    run_app(_app_that_raises(ValueError("a defect")), [])
    assert "Traceback" in capsys.readouterr().err


def _process(*arguments: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "MRTRUSRegistrationLib", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["truncated", "unknown option"])
def test_the_real_command_refuses_alike(kind: str, tmp_path: Path, case_files: CaseFiles):
    spoil, named = BAD_INPUT[kind]
    done = _process(*case_files.arguments(**{"output": tmp_path / "out", **spoil(tmp_path, case_files)}))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert named[0] in _only_sentence(done.stderr)


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    """A prefix that takes from root what no permission stops."""
    if os.name == "nt":
        pytest.skip("the permissions are those of POSIX")
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root without setpriv is stopped by no permission")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@pytest.mark.slow
def test_an_output_that_may_not_be_written_is_refused(tmp_path: Path, case_files: CaseFiles, unprivileged):
    locked = _folder(tmp_path / "locked")
    locked.chmod(0o555)
    done = _process(*case_files.arguments(locked / "out"), before=unprivileged)
    locked.chmod(0o755)
    assert done.returncode == 2
    assert "Permission denied" in _only_sentence(done.stderr)


@pytest.mark.slow
def test_an_input_that_may_not_be_read_is_refused(tmp_path: Path, case_files: CaseFiles, unprivileged):
    secret = _folder(tmp_path / "secret")
    _saved(mr_image(), secret / "mr.nii.gz")
    secret.chmod(0o000)
    done = _process(*case_files.arguments(tmp_path / "out", mr=secret / "mr.nii.gz"), before=unprivileged)
    secret.chmod(0o755)
    assert done.returncode == 2
    assert "mr.nii.gz" in _only_sentence(done.stderr)
