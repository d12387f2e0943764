"""Jobs and what a worker says: there and back as JSON, refused by name, imported without anything heavy."""

from __future__ import annotations

import html
import json
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from cases import MR_GRID, TRUTH, CaseFiles, install_all, mr_landmarks, trus_landmarks, trus_mask
from shapes import ellipsoid

from MRTRUSRegistrationLib.errors import Cancelled, InputError, failure_of
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm
from MRTRUSRegistrationLib.job import Event, Job, run_job
from MRTRUSRegistrationLib.job_run import settings_of
from MRTRUSRegistrationLib.landmarks import write_landmarks
from MRTRUSRegistrationLib.outputs import check_output
from MRTRUSRegistrationLib.pipeline import Settings
from MRTRUSRegistrationLib.progress import CancelToken, Progress
from MRTRUSRegistrationLib.results import Landmarks
from MRTRUSRegistrationLib.rigid import as_rigid
from MRTRUSRegistrationLib.target_files import read_targets_csv, write_segments

_JOB = Job(Path("mr.nrrd"), Path("us.nrrd"), Path("out"))


def _full_job() -> Job:
    values = {"Path": Path("a/é.nrrd"), "str": "ü", "int": 3, "float": 2.5, "bool": True}
    return Job(**{field.name: values[str(field.type).split(" | ")[0]] for field in fields(Job)})


@pytest.mark.parametrize("job", [_JOB, _full_job()])
def test_a_job_survives_json(job: Job):
    again = Job.from_json(job.to_json())
    assert again == job
    assert {name: type(value) for name, value in asdict(again).items()} == {
        name: type(value) for name, value in asdict(job).items()
    }


def _changed(**changes: object) -> str:
    content = json.loads(_JOB.to_json()) | changes
    return json.dumps({name: value for name, value in content.items() if value != "left out"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not valid JSON"),
        ("[1]", "JSON object"),
        (_changed(format=99), "format 99"),
        (_changed(format="left out"), "format None"),
        (_changed(blur=3, zoom=1), "'blur'"),
        (_changed(trus="left out"), "no trus"),
        (_changed(output=None), "no output"),
        (_changed(seed="many"), "seed = 'many', which is not a whole number"),
        (_changed(seed=True), "seed = True"),
        (_changed(seed=1.5), "seed = 1.5"),
        (_changed(method=None), "method = None"),
        (_changed(mr_mask=5), "mr_mask = 5, which is not a path"),
        (_changed(overwrite=1), "overwrite = 1, which is not true or false"),
    ],
)
def test_what_is_no_job_is_refused_by_name(text: str, named: str):
    with pytest.raises(InputError) as error:
        Job.from_json(text)
    assert named in str(error.value)
    assert str(error.value).endswith(".")


def test_a_missing_job_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"none\.json"):
        Job.read(tmp_path / "none.json")


def test_input_files_are_those_that_are_read():
    assert set(_JOB.input_files) == {"mr", "trus"}
    names = {field.name for field in fields(Job) if str(field.type).startswith("Path")}
    assert set(_full_job().input_files) == names - {"output", "models"} | {"initial"}


def test_a_job_without_settings_has_those_of_the_pipeline():
    assert settings_of(_JOB) == Settings()


@pytest.mark.parametrize(
    "event",
    [
        Event("progress", "align", 0.25, "Grüße, 5°"),
        Event("done", output="/ä/out"),
        Event("error", kind="input", message="mr.nrrd is empty."),
    ],
)
def test_an_event_is_one_line_of_ascii(event: Event):
    line = event.to_line()
    assert line.isascii()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert Event.from_line(line) == event


@pytest.mark.parametrize(
    "line", ["", "Elapsed time: 3 s", "3", "{}", '{"type": "other"}', '{"type": "done", "x": 1}']
)
def test_chatter_is_no_event(line: str):
    assert Event.from_line(line) is None


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (KeyboardInterrupt(), "cancelled", 130),
        (MemoryError(), "failed", 3),
        (OSError(28, "full", "f"), "input", 2),
    ],
)
def test_every_exception_is_one_sentence(error: BaseException, kind: str, code: int):
    failure = failure_of(error, hint="look there")
    assert (failure.kind, failure.exit_code) == (kind, code)
    assert failure.message.endswith(".")


def test_a_job_runs_with_the_rigid_transform_it_is_given(case_files: CaseFiles, tmp_path: Path):
    path = tmp_path / "rigid.tfm"
    sitk.WriteTransform(TRUTH, str(path))
    seen: list[Progress] = []
    job = _case_job(case_files, tmp_path / "out", rigid=path)
    result = run_job(job, progress=seen.append)
    centre = result.rigid.transform.GetCenter()
    assert result.rigid.method == "given"
    assert result.rigid.transform.GetParameters() == pytest.approx(as_rigid(TRUTH, centre).GetParameters())
    assert result.measures.values["dsc"] > 0.98
    assert seen[-1] == Progress("write", 1.0)
    written = json.loads((job.output / "result.json").read_text(encoding="utf-8"))
    assert written["inputs"]["rigid"] == str(path)


@pytest.mark.parametrize(("spread_mm", "warned"), [(4.0, True), (18.0, False)])
def test_a_result_says_that_its_landmark_pairs_lie_close_together(
    spread_mm: float, warned: bool, case_files: CaseFiles, tmp_path: Path
):
    """In the result, its file and its report, which bear the name that the job gives."""
    sitk.WriteTransform(TRUTH, str(tmp_path / "rigid.tfm"))
    centre = mask_centroid_mm(trus_mask())
    marked = Landmarks(("a", "b", "c"), centre + spread_mm * np.eye(3))
    write_landmarks(marked, tmp_path / "pairs.mrk.json")
    given = {"rigid": tmp_path / "rigid.tfm", "rigid_points": tmp_path / "pairs.mrk.json"}
    job = _case_job(case_files, tmp_path / "out", case_name="Ms. Jones – left", **given)
    result = run_job(job)
    written = json.loads((job.output / "result.json").read_text(encoding="utf-8"))
    report = html.unescape((job.output / "report.html").read_text(encoding="utf-8"))
    assert ("pairs_close_together" in [warning.code for warning in result.warnings]) is warned
    assert ("pairs_close_together" in [warning["code"] for warning in written["warnings"]]) is warned
    assert ("The landmark pairs lie close together" in report) is warned
    assert "<h1>Ms. Jones – left</h1>" in report
    assert written["case"] == "Ms. Jones – left"


def test_a_rigid_transform_that_scales_is_refused_by_name(case_files: CaseFiles, tmp_path: Path):
    transform = sitk.AffineTransform(3)
    transform.Scale(1.2)
    sitk.WriteTransform(transform, str(tmp_path / "big.tfm"))
    with pytest.raises(InputError, match=r"big\.tfm"):
        run_job(_case_job(case_files, tmp_path / "out", rigid=tmp_path / "big.tfm"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["measure", "write"])
def test_a_cancelled_job_leaves_nothing(stage: str, case_files: CaseFiles, tmp_path: Path):
    token = CancelToken()

    def cancel_in_stage(progress: Progress) -> None:
        if progress.stage == stage:
            token.cancel()

    with pytest.raises(Cancelled):
        run_job(_case_job(case_files, tmp_path / "out"), progress=cancel_in_stage, cancel=token)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_job_carries_targets_and_says_how_sure_it_is(case_files: CaseFiles, tmp_path: Path):
    """A network that deforms nothing under the true rigid transform: where the targets are is known."""
    sitk.WriteTransform(TRUTH, str(tmp_path / "rigid.tfm"))
    asked = {"method": "cmsa", "models": install_all(tmp_path / "models"), "rigid": tmp_path / "rigid.tfm"}
    asked |= {"targets": case_files.mr_landmarks, "confidence": 2}
    job = _case_job(case_files, tmp_path / "out", **asked)
    stages: list[str] = []
    run_job(job, progress=lambda progress: stages.append(progress.stage))
    assert list(dict.fromkeys(stages)) == ["deform", "resample", "measure", "confidence", "write"]
    confidence = sitk.ReadImage(str(job.output / "confidence_mm.nii.gz"))
    gland = sitk.ReadImage(str(job.output / "trus_mask.nii.gz"))
    assert Grid.of(confidence).same_as(Grid.of(gland))
    inside = sitk.GetArrayFromImage(gland) > 0
    values = sitk.GetArrayFromImage(confidence)
    assert 0.1 < values[inside].mean() < 10
    assert not values[~inside].any()
    rows = read_targets_csv(job.output / "targets.csv")
    assert tuple(row.name for row in rows) == trus_landmarks().names
    np.testing.assert_allclose([row.trus_mm for row in rows], trus_landmarks().points_mm, atol=0.01)
    written = json.loads((job.output / "result.json").read_text(encoding="utf-8"))
    assert written["confidence"]["mean_mm"] == pytest.approx(values[inside].mean(), abs=1e-3)
    assert written["indicator"]["level"] in ("good", "check", "poor")
    assert [target["name"] for target in written["targets"]] == list(trus_landmarks().names)
    for target, row in zip(written["targets"], rows, strict=True):
        assert target["trus_mm"] == pytest.approx(row.trus_mm)
        assert row.capsule_mm > 0
        assert target["capsule_distance_mm"] == pytest.approx(row.capsule_mm)
        assert target["apex_to_base"] == pytest.approx(row.apex_to_base)
        assert target["spread_mm"] == pytest.approx(row.spread_mm)
    report = (job.output / "report.html").read_text(encoding="utf-8")
    assert html.escape(written["indicator"]["headline"], quote=False) in report
    assert "Targets on the TRUS" in report
    # Every file is one that a later run may replace.
    check_output(job.output, overwrite=True)


def test_points_and_segments_are_carried_together(case_files: CaseFiles, tmp_path: Path):
    """Two overlapping lesions, one called like a point, under the true rigid transform."""
    sitk.WriteTransform(TRUTH, str(tmp_path / "rigid.tfm"))
    name, centre_mm = mr_landmarks().names[0], mr_landmarks().points_mm[0]
    balls = [ellipsoid(MR_GRID, (r, r, r), centre_mm=tuple(centre_mm.tolist())) for r in (6.0, 4.0)]
    write_segments([(name, balls[0]), ("ROI", balls[1])], tmp_path / "lesions.seg.nrrd")
    asked = {"rigid": tmp_path / "rigid.tfm", "targets": case_files.mr_landmarks}
    job = _case_job(case_files, tmp_path / "out", lesions=tmp_path / "lesions.seg.nrrd", **asked)
    run_job(job)
    written = json.loads((job.output / "result.json").read_text(encoding="utf-8"))
    found = {target["name"]: target for target in written["targets"]}
    assert list(found) == [*mr_landmarks().names, f"{name} (lesion)", "ROI"]
    for target in (found[name], found[f"{name} (lesion)"], found["ROI"]):
        assert np.linalg.norm(target["trus_mm"] - trus_landmarks().points_mm[0]) < 0.6
    sphere_ml = 4 / 3 * np.pi * np.array([6.0, 4.0]) ** 3 / 1000
    for target, ball_ml in zip([found[f"{name} (lesion)"], found["ROI"]], sphere_ml, strict=True):
        assert target["mr_volume_ml"] == pytest.approx(ball_ml, rel=0.1)
        assert target["trus_volume_ml"] == pytest.approx(ball_ml, rel=0.15)
    assert written["inputs"]["lesions"] == str(tmp_path / "lesions.seg.nrrd")


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"confidence": 1}, "1 perturbations"), ({"targets": Path("none.mrk.json")}, "none.mrk.json")],
)
def test_what_cannot_be_carried_is_refused_before_computing(
    changed: dict[str, object], named: str, case_files: CaseFiles, tmp_path: Path
):
    stages: list[Progress] = []
    with pytest.raises(InputError, match=named):
        run_job(_case_job(case_files, tmp_path / "out", **changed), progress=stages.append)
    assert stages == []


def _case_job(case: CaseFiles, output: Path, **changed: object) -> Job:
    values: dict[str, object] = {"method": "centroid", "device": "cpu"}
    values |= {"mr_mask": case.mr_mask, "trus_mask": case.trus_mask}
    return Job(case.mr, case.trus, output, **(values | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize("module", ["job", "job_process", "worker"])
def test_jobs_need_nothing_heavy(module: str):
    """Applications import these modules in their own process, where torch and ANTs are not to be loaded."""
    code = (
        f"import sys, MRTRUSRegistrationLib.{module}\n"
        "heavy = {'torch', 'ants', 'SimpleITK', 'numpy', 'scipy', 'psutil', 'typer', 'rich', 'jinja2'}\n"
        "print(sorted(heavy.intersection(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
