"""The result folder: complete, consistent with itself, the same for the same input, never half written."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from zipfile import ZipFile

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from cases import MR_GRID, TRUS_GRID, CaseFiles, install_all, mr_image

from MRTRUSRegistrationLib.cli import app
from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask
from MRTRUSRegistrationLib.images import read_image
from MRTRUSRegistrationLib.landmarks import read_landmarks
from MRTRUSRegistrationLib.models import file_sha256
from MRTRUSRegistrationLib.mrml.scene_file import slicer_available
from MRTRUSRegistrationLib.outputs import FILES, check_output, staging_folder, write_text_atomically
from MRTRUSRegistrationLib.transforms import transform_points_mm

IMAGES = ("registered_mr", "mr_mask", "trus_mask", "registered_mr_mask")


@dataclass(frozen=True)
class Result:
    """A result folder as a reader finds it."""

    folder: Path

    def image(self, name: str) -> sitk.Image:
        return sitk.ReadImage(str(self.folder / f"{name}.nii.gz"))

    def transform(self, name: str = "mr_to_trus") -> sitk.Transform:
        return sitk.ReadTransform(str(self.folder / f"{name}.h5"))

    @property
    def json(self) -> dict:
        return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))


def _register(case: CaseFiles, output: Path, **changed: object) -> Result:
    assert run_app(app, [*case.arguments(output, **changed), "--quiet"]) == 0
    return Result(output)


@pytest.fixture(scope="module")
def deformed(case_files: CaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run with segmenters and a field of 2 mm to the left and back, 1 mm down."""
    folder = tmp_path_factory.mktemp("deformed")
    models = install_all(folder / "models", shift_kji=(-0.5, 1.0, 1.0))
    return _register(case_files, folder / "out", method="cmsa", models=models, mr_mask=None, trus_mask=None)


@pytest.fixture(scope="module")
def given_masks(case_files: CaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return _register(case_files, tmp_path_factory.mktemp("given") / "out")


def test_every_file_is_there_and_nothing_else(deformed: Result, given_masks: Result):
    expected = set(FILES) if slicer_available() else set(FILES) - {"scene.mrb"}
    assert {path.name for path in given_masks.folder.iterdir()} == expected
    probabilities = {"mr_probability.nii.gz", "trus_probability.nii.gz"}
    assert {path.name for path in deformed.folder.iterdir()} == expected | probabilities
    assert [path.name for path in deformed.folder.parent.glob(".*")] == []


def test_images_lie_on_the_grids_that_their_names_say(deformed: Result):
    for name in (*IMAGES, "trus_probability"):
        grid = MR_GRID if name == "mr_mask" else TRUS_GRID
        assert Grid.of(deformed.image(name)).same_as(grid), name
    assert Grid.of(deformed.image("mr_probability")).same_as(MR_GRID)


def test_masks_are_binary_and_probability_is_in_percent(deformed: Result):
    for name in IMAGES[1:]:
        image = deformed.image(name)
        assert image.GetPixelID() == sitk.sitkUInt8
        assert np.unique(sitk.GetArrayFromImage(image)).tolist() == [0, 1]
    probability = sitk.GetArrayFromImage(deformed.image("mr_probability"))
    mask = sitk.GetArrayFromImage(deformed.image("mr_mask")) > 0
    assert probability.max() <= 100
    assert probability[mask].min() >= 49


@pytest.mark.parametrize("fixture", ["deformed", "given_masks"])
def test_the_written_transform_reproduces_the_written_images(fixture: str, request, case_files: CaseFiles):
    result: Result = request.getfixturevalue(fixture)
    trus = sitk.ReadImage(str(case_files.trus))
    mr = sitk.ReadImage(str(case_files.mr))
    again = sitk.Resample(mr, trus, result.transform(), sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(result.image("registered_mr"))
    )
    mask = resample_mask(result.image("mr_mask"), Grid.of(trus), result.transform())
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(result.image("registered_mr_mask"))
    )


def test_the_rigid_transform_is_the_part_of_the_whole_that_it_is(deformed: Result, given_masks: Result):
    points = TRUS_GRID.centre_mm + np.random.default_rng(0).uniform(-6, 6, (20, 3))
    rigid = transform_points_mm(given_masks.transform("rigid"), points)
    np.testing.assert_allclose(transform_points_mm(given_masks.transform(), points), rigid, atol=1e-9)
    shift_mm = TRUS_GRID.axes @ np.array((2.0, 2.0, -1.0))
    whole = transform_points_mm(deformed.transform(), points)
    np.testing.assert_allclose(
        whole, transform_points_mm(deformed.transform("rigid"), points + shift_mm), atol=1e-4
    )


def test_landmarks_agree_with_the_written_transform_both_ways(deformed: Result, case_files: CaseFiles):
    rows = deformed.json["landmarks"]
    mr = read_landmarks(case_files.mr_landmarks, read_image(case_files.mr, role="MR"))
    warped = np.array([row["warped_mm"] for row in rows])
    np.testing.assert_allclose(transform_points_mm(deformed.transform(), warped), mr.points_mm, atol=0.01)
    gaps = np.linalg.norm(warped - np.array([row["fixed_mm"] for row in rows]), axis=1)
    np.testing.assert_allclose([row["error_mm"] for row in rows], gaps, atol=1e-6)
    final = deformed.json["measures"]["final"]
    assert final["tre_rms_mm"] == pytest.approx(np.sqrt(np.mean(gaps**2)), abs=1e-5)


def test_result_json_says_what_was_done(deformed: Result, case_files: CaseFiles):
    content = deformed.json
    assert content["format"] == 1
    assert "Research use only" in content["notice"]
    assert content["inputs"] == {
        "mr": str(case_files.mr),
        "trus": str(case_files.trus),
        "mr_landmarks": str(case_files.mr_landmarks),
        "trus_landmarks": str(case_files.trus_landmarks),
    }
    assert set(content["measures"]) == {"initial", "rigid", "final"}
    assert {"dsc", "hd95_mm", "msd_mm", "tre_rms_mm", "landmarks"} <= set(content["measures"]["initial"])
    assert {"jacobian_min", "folds_percent", "displacement_p95_mm"} <= set(content["measures"]["final"])
    assert list(content["timings_s"]) == [
        "segment MR",
        "segment TRUS",
        "align",
        "deform",
        "resample",
        "measure",
    ]
    assert set(content["provenance"]["models"]) == {"gland-MR", "gland-TRUS", "cmsa"}
    model = Path(deformed.folder.parent / "models" / "cmsa.pt")
    assert content["provenance"]["models"]["cmsa"] == file_sha256(model)
    assert content["provenance"]["settings"]["seed"] == 0
    assert [row["name"] for row in content["landmarks"]] == ["left", "right", "apex"]


def test_a_figure_that_is_none_is_null_in_json(case_files: CaseFiles, tmp_path: Path):
    """Landmark labels that never reach the TRUS have no distance; nan is no JSON."""
    label = sitk.Image(MR_GRID.size_vox, sitk.sitkUInt8)
    label.CopyInformation(mr_image())
    label[1:4, 1:4, 1:4] = 1
    other = sitk.Image(TRUS_GRID.size_vox, sitk.sitkUInt8)
    other.CopyInformation(sitk.ReadImage(str(case_files.trus)))
    other[18:22, 18:22, 14:17] = 1
    sitk.WriteImage(label, str(tmp_path / "mr_label.nii.gz"))
    sitk.WriteImage(other, str(tmp_path / "trus_label.nii.gz"))
    shift = sitk.TranslationTransform(3, (400.0, 0, 0))
    sitk.WriteTransform(shift, str(tmp_path / "far.tfm"))
    result = _register(
        case_files,
        tmp_path / "out",
        mr_landmarks=tmp_path / "mr_label.nii.gz",
        trus_landmarks=tmp_path / "trus_label.nii.gz",
        method="initial",
        initial=tmp_path / "far.tfm",
    )
    text = (result.folder / "result.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    (row,) = result.json["landmarks"]
    assert row["lost"] is True
    assert (row["initial_error_mm"], row["error_mm"]) == (None, None)
    assert "landmark_lost" in {warning["code"] for warning in result.json["warnings"]}


def test_the_report_stands_alone(deformed: Result):
    html = (deformed.folder / "report.html").read_text(encoding="utf-8")
    assert "Research use only" in html
    assert 'src="http' not in html
    assert 'href="http' not in html


@pytest.mark.skipif(not slicer_available(), reason="needs slicer-core")
def test_the_scene_is_a_whole_archive(deformed: Result):
    with ZipFile(deformed.folder / "scene.mrb") as archive:
        assert archive.testzip() is None
        assert any(name.endswith(".mrml") for name in archive.namelist())


def _hashes(result: Result) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in result.folder.glob("*.nii.gz")
    }


def _repeatable(result: Result) -> dict:
    """What of result.json must be the same in every run."""
    content = result.json
    content["provenance"].pop("date")
    return {name: value for name, value in content.items() if name not in ("case", "timings_s")}


def _parameters(transform: sitk.Transform) -> list[tuple[float, ...]]:
    parts = sitk.CompositeTransform(transform)
    return [
        (*parts.GetNthTransform(n).GetFixedParameters(), *parts.GetNthTransform(n).GetParameters())
        for n in range(parts.GetNumberOfTransforms())
    ]


@pytest.mark.slow
def test_the_same_input_and_seed_give_the_same_bits(case_files: CaseFiles, tmp_path: Path):
    """HDF5 stamps its files with the time, so that transforms are compared by their numbers."""
    names = ("a", "other b")
    first, second = (_register(case_files, tmp_path / name, method="syn", seed=7) for name in names)
    assert _hashes(first) == _hashes(second)
    assert len(_hashes(first)) == 4
    for name in ("mr_to_trus", "rigid"):
        assert _parameters(first.transform(name)) == _parameters(second.transform(name))
    assert _repeatable(first) == _repeatable(second)


@pytest.mark.slow
def test_overwrite_replaces_the_whole_result(case_files: CaseFiles, tmp_path: Path):
    result = _register(case_files, tmp_path / "out")
    (result.folder / "trus.nii.gz").write_bytes(b"of an earlier run")
    (result.folder / ".DS_Store").write_bytes(b"of a file manager")
    (result.folder / "result.json").write_text("{}", encoding="utf-8")
    assert run_app(app, case_files.arguments(result.folder)) == 2
    assert result.json == {}
    _register(case_files, result.folder, overwrite=True)
    assert result.json["method"] == "centroid"
    assert not (result.folder / "trus.nii.gz").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
def test_paths_may_be_relative_and_hold_any_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    name = "Größe µ [1] [bold] 前列腺 'q'"
    case = CaseFiles.write(tmp_path / name / "in put")
    monkeypatch.chdir(tmp_path)
    relative = CaseFiles(Path(name) / "in put")
    assert run_app(app, relative.arguments(f"./{name}/../{name}/new/out*?")) == 0
    shown = capsys.readouterr().out
    result = Result(tmp_path / name / "new" / "out*?")
    assert result.json["case"] == "out*?"
    assert result.json["inputs"]["mr"] == str(relative.mr)
    assert Grid.of(result.image("registered_mr")).same_as(TRUS_GRID)
    assert f"{name}/new/out*?" in shown
    assert case.mr.exists()


def test_a_linked_folder_stays_a_link(case_files: CaseFiles, tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk", target_is_directory=True)
    _register(case_files, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "result.json").is_file()


def test_an_orientation_code_adds_the_trus_as_it_was_used(case_files: CaseFiles, tmp_path: Path):
    """Reversed labels of axes turn the image about its middle; masks and landmarks turn along."""
    result = _register(case_files, tmp_path / "out", trus_orientation="RAS")
    trus = result.image("trus")
    assert Grid.of(result.image("registered_mr")).same_as(Grid.of(trus))
    np.testing.assert_allclose(Grid.of(trus).centre_mm, TRUS_GRID.centre_mm, atol=1e-3)
    np.testing.assert_allclose(Grid.of(trus).axes, np.diag((-1, -1, 1)), atol=1e-6)
    again = resample(sitk.ReadImage(str(case_files.mr)), Grid.of(trus), result.transform())
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(again), sitk.GetArrayFromImage(result.image("registered_mr")), atol=1e-2
    )


def _write_and_fail(folder: Path, size_bytes: int, error: Exception) -> None:
    with staging_folder(folder) as staging:
        (staging / "result.json").write_bytes(b"0" * size_bytes)
        raise error


def test_an_error_while_writing_leaves_nothing(tmp_path: Path):
    with pytest.raises(ValueError, match="defect"):
        _write_and_fail(tmp_path / "out", 2, ValueError("defect"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "named"), [(28, "full"), (122, "full"), (5, "Input/output error")])
def test_what_the_system_says_while_writing_is_one_sentence(number: int, named: str, tmp_path: Path):
    with pytest.raises(InputError, match=named):
        _write_and_fail(tmp_path / "out", 2, OSError(number, os.strerror(number)))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_from_a_defect_by_the_space_left(small_disk: Path):
    with pytest.raises(InputError, match="full"):
        _write_and_fail(small_disk / "out", 3_500_000, RuntimeError("the library's own words"))
    assert list(small_disk.iterdir()) == []


def _old_result(folder: Path) -> Path:
    folder.mkdir()
    (folder / "result.json").write_text("old", encoding="utf-8")
    return folder


def _free_pid() -> int:
    """The number of a process that ended."""
    child = os.spawnv(os.P_NOWAIT, "/bin/true", ["true"]) if os.name != "nt" else 999_999
    if os.name != "nt":
        os.waitpid(child, 0)
    return child


def test_a_result_that_a_killed_run_had_moved_is_put_back_before_anything_else(tmp_path: Path):
    _old_result(tmp_path / f".out.old-{_free_pid()}")
    (tmp_path / f".out.partial-{_free_pid()}").mkdir()
    with pytest.raises(InputError, match="not empty"):
        check_output(tmp_path / "out", overwrite=False)
    assert (tmp_path / "out" / "result.json").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_our_own_process_number_are_removed(tmp_path: Path):
    """In a container every run has the same number."""
    (tmp_path / f".out.partial-{os.getpid()}").mkdir()
    with staging_folder(tmp_path / "out") as staging:
        (staging / "result.json").write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_other_runs_are_writing_stays(tmp_path: Path):
    others = [f".out.partial-{os.getppid()}", f".out2.partial-{_free_pid()}", ".out.partial-notes"]
    for name in others:
        (tmp_path / name).mkdir()
    with staging_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "out"])


def test_the_old_result_goes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path):
    folder = _old_result(tmp_path / "out")
    with pytest.raises(InputError, match="cannot be written"), staging_folder(folder) as staging:
        staging.rmdir()
    assert (folder / "result.json").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    write_text_atomically("one", path)
    write_text_atomically("two\nünd\n", path)
    assert path.read_bytes() == "two\nünd\n".encode()
    with pytest.raises(FileNotFoundError) as error:
        write_text_atomically("x", tmp_path / "absent" / "metrics.csv")
    assert error.value.filename == str(tmp_path / "absent" / "metrics.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text_atomically("x", tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "metrics.csv"]


def test_two_writers_of_one_text_do_not_meet(tmp_path: Path):
    path, texts = tmp_path / "batch.csv", ["a" * 200_000, "b" * 100_000]
    together = Barrier(2)

    def write(text: str) -> None:
        for _ in range(100):
            together.wait(20)
            write_text_atomically(text, path)
            assert path.read_text(encoding="utf-8") in texts

    with ThreadPoolExecutor(2) as writers:
        assert list(writers.map(write, texts, timeout=60)) == [None, None]
    assert [entry.name for entry in tmp_path.iterdir()] == ["batch.csv"]
