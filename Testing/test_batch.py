"""Batches with real workers: what fails stays alone, what is finished stays, and nothing is half written."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk  # noqa: N813
from cases import CaseFiles, install_all
from PIL import Image

from MRTRUSRegistrationLib.batch import BatchProgress, BatchResult, BatchSettings, run_batch
from MRTRUSRegistrationLib.batch_book import fingerprint
from MRTRUSRegistrationLib.batch_cases import BatchCase, read_cases
from MRTRUSRegistrationLib.batch_report import CaseRow, batch_csv, cohort_html, distribution, thumbnail
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import mask_volume_ml
from MRTRUSRegistrationLib.job import Job
from MRTRUSRegistrationLib.models import load_network
from MRTRUSRegistrationLib.results import QualityWarning

_SCRIPT = Path(__file__).resolve().parents[1] / "MRTRUSRegistration" / "Scripts" / "batch.py"
_CENTROID = BatchSettings(method="centroid", device="cpu")
_COMMON = _CENTROID.common_job()
_PATIENCE_S = 300


def _table(path: Path, case: CaseFiles, names: list[str], **changed: dict[str, object]) -> Path:
    """A CSV whose cases are all the small one, but for the cells that are changed by case."""
    cells = {"mr": case.mr, "trus": case.trus, "mr_mask": case.mr_mask, "trus_mask": case.trus_mask}
    cells |= {"mr_landmarks": case.mr_landmarks, "trus_landmarks": case.trus_landmarks}
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["case", *cells])
        writer.writeheader()
        writer.writerows({"case": name, **cells, **changed.get(name, {})} for name in names)
    return path


def _rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "batch.csv").open(newline="", encoding="utf-8") as stream:
        return {row["case"]: row for row in csv.DictReader(stream)}


def _workers_of(pid: int) -> list[psutil.Process]:
    """The workers that a batch has running."""
    return [child for child in psutil.Process(pid).children(recursive=True) if _serves(child)]


def _serves(process: psutil.Process) -> bool:
    try:
        return "--serve" in process.cmdline()
    except psutil.Error:
        return False


def _until(wanted: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.02)


# ---- the cases of a table or a folder


def _text_table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_becomes_jobs_with_paths_relative_to_it(tmp_path: Path):
    text = (
        "\ufeffCase;MR;TRUS;mr_mask;initial;rigid;targets;lesions;landmark_frame;trus_orientation\r\n"
        "\r\n"
        " one ; a/mr.nrrd;/abs/us.nrrd;;world;;;;;\r\n"
        '"zwei, ü";b.nrrd;../c.nrrd;m.nrrd;start.tfm;r.tfm;t.csv;l.seg.nrrd;RAS;PRS\r\n'
    )
    path = _text_table(tmp_path / "cases.csv", text)
    one, two = read_cases(path, Path("/out"), _COMMON)
    assert (one.name, two.name) == ("one", "zwei, ü")
    assert one.job == dataclasses.replace(
        _COMMON,
        mr=tmp_path / "a/mr.nrrd",
        trus=Path("/abs/us.nrrd"),
        output=Path("/out/one"),
        initial="world",
    )
    assert two.job == dataclasses.replace(
        _COMMON,
        mr=tmp_path / "b.nrrd",
        trus=tmp_path.parent / "c.nrrd",
        output=Path("/out/zwei, ü"),
        mr_mask=tmp_path / "m.nrrd",
        initial=str(tmp_path / "start.tfm"),
        rigid=tmp_path / "r.tfm",
        targets=tmp_path / "t.csv",
        lesions=tmp_path / "l.seg.nrrd",
        landmark_frame="RAS",
        trus_orientation="PRS",
    )


_GOOD = "case,mr,trus\na,m,t\n"
BAD_TABLES = {
    "empty": ("", ("empty",)),
    "blank": ("\n , \n", ("empty",)),
    "header only": ("case,mr,trus\n", ("holds no cases",)),
    "unknown column": ("case,mr,trus,blur\na,m,t,1\n", ("'blur'", "mr_mask")),
    "column twice": ("case,mr,trus,mr\na,m,t,m\n", ("mr twice",)),
    "no column trus": ("case,mr\na,m\n", ("no column trus",)),
    "no column case": ("mr,trus\nm,t\n", ("no column case",)),
    "empty cell": (f"{_GOOD}b,,t\n", ("no mr in case 2",)),
    "short row": (f"{_GOOD}b,m\n", ("no trus in case 2",)),
    "long row": (f"{_GOOD}b,m,t,x\n", ("case 2", "more cells")),
    "same name twice": (f"{_GOOD}A,m,t\n", ("case A stands twice",)),
    "slash": ("case,mr,trus\na/b,m,t\n", ("'a/b'",)),
    "backslash": ("case,mr,trus\na\\b,m,t\n", ("folder",)),
    "dots": ("case,mr,trus\n..,m,t\n", ("'..'",)),
    "hidden": ("case,mr,trus\n.a,m,t\n", ("'.a'",)),
    "reserved": ("case,mr,trus\nNUL.x,m,t\n", ("'NUL.x'",)),
    "too long": (f"case,mr,trus\n{'a' * 101},m,t\n", ("too long",)),
    "open quote": ('case,mr,trus\n"a,m,t\n', ("not a CSV",)),
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_bad_table_is_refused_in_one_sentence(kind: str, tmp_path: Path, run_cli):
    text, named = BAD_TABLES[kind]
    path = _text_table(tmp_path / "cases.csv", text)
    code, output, error = run_cli(["batch", path, "--output", tmp_path / "out", "--method", "centroid"])
    assert (code, output, error.count("\n")) == (2, "", 1), error
    for part in ("cases.csv", *named):
        assert part in error
    assert [entry.name for entry in tmp_path.iterdir()] == ["cases.csv"]


def test_a_table_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "cases.csv").write_bytes(b"case,mr,trus\n\xff\xfe,m,t\n")
    with pytest.raises(InputError, match=r"cases\.csv .* UTF-8"):
        read_cases(tmp_path / "cases.csv", tmp_path, _COMMON)


def _touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def test_a_folder_of_case_folders(tmp_path: Path):
    _touch(tmp_path / "b", "mr.nii.gz", "trus.nrrd", "mr.json", "notes.txt")
    _touch(tmp_path / "a", "mr.mha", "trus_mask.seg.nrrd", "mr_landmarks.mrk.json", "trus_landmarks.csv")
    _touch(tmp_path / "a" / "trus", "1.dcm")
    _touch(tmp_path / "c", "trus.nii")
    _touch(tmp_path / "results", "batch.csv")
    _touch(tmp_path, "readme.txt")
    a, b, c = read_cases(tmp_path, tmp_path / "out", _COMMON)
    assert [case.name for case in (a, b, c)] == ["a", "b", "c"]
    assert (a.job.mr, a.job.trus) == (tmp_path / "a/mr.mha", tmp_path / "a/trus")
    assert a.job.trus_mask == tmp_path / "a/trus_mask.seg.nrrd"
    assert a.job.mr_mask is None
    assert a.job.mr_landmarks == tmp_path / "a/mr_landmarks.mrk.json"
    assert a.job.trus_landmarks == tmp_path / "a/trus_landmarks.csv"
    assert (b.job.mr, b.job.trus) == (tmp_path / "b/mr.nii.gz", tmp_path / "b/trus.nrrd")
    # The run of this case will say that its MR is missing.
    assert not c.job.mr.exists()


def test_two_files_for_one_image_are_refused(tmp_path: Path):
    _touch(tmp_path / "a", "mr.nii.gz", "mr.nrrd", "trus.nrrd")
    with pytest.raises(InputError, match=r"a has both mr\.nii\.gz and mr\.nrrd"):
        read_cases(tmp_path, tmp_path / "out", _COMMON)


@pytest.mark.parametrize(("mr", "trus"), [("moving", "fixed"), ("mr", "us")])
def test_the_layout_of_the_public_sets(mr: str, trus: str, tmp_path: Path):
    """Labels of several channels are landmarks; the gland alone is none."""
    _touch(tmp_path / f"{mr}_images", "one.nii.gz", "two.nii.gz", "list.txt")
    _touch(tmp_path / f"{trus}_images", "one.nii.gz", "two.nii.gz")
    label = sitk.Image([4, 5, 6], sitk.sitkUInt8) + 1
    for side in (mr, trus):
        (tmp_path / f"{side}_labels").mkdir()
        sitk.WriteImage(label, str(tmp_path / f"{side}_labels" / "two.nii.gz"))
        sitk.WriteImage(
            sitk.JoinSeries([label, label]),
            str(tmp_path / f"{side}_labels" / "one.nii.gz"),
            imageIO="NiftiImageIO",
        )
    one, two = read_cases(tmp_path, tmp_path / "out", _COMMON)
    assert (one.name, two.name) == ("one", "two")
    assert one.job.mr == tmp_path / f"{mr}_images" / "one.nii.gz"
    assert one.job.trus == tmp_path / f"{trus}_images" / "one.nii.gz"
    assert one.job.trus_landmarks == tmp_path / f"{trus}_labels" / "one.nii.gz"
    assert two.job.mr_landmarks is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--method", "magic"], "magic"),
        (["--device", "tpu"], "tpu"),
        (["--seed", "-1"], "-1"),
        (["--workers", "0"], "workers"),
        (["--confidence", "-1"], "perturbations"),
        (["--models", "/nowhere"], "nowhere"),
    ],
)
def test_settings_with_which_no_case_could_run_are_refused(options: list[str], named: str, tmp_path, run_cli):
    path = _text_table(tmp_path / "cases.csv", _GOOD)
    code, _, error = run_cli(["batch", path, "--output", tmp_path / "out", *options])
    assert (code, error.count("\n")) == (2, 1)
    assert named in error
    assert not (tmp_path / "out").exists()


def test_a_broken_card_is_refused_before_the_first_case(tmp_path: Path, run_cli):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "cmsa.json").write_text("{", encoding="utf-8")
    path = _text_table(tmp_path / "cases.csv", _GOOD)
    code, _, error = run_cli(["batch", path, "--output", tmp_path / "out", "--models", tmp_path / "models"])
    assert (code, error.count("\n")) == (2, 1)
    assert "cmsa.json" in error
    assert not (tmp_path / "out").exists()


def test_missing_cases_and_empty_folders_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="none does not exist"):
        read_cases(tmp_path / "none", tmp_path, _COMMON)
    with pytest.raises(InputError, match="holds no cases"):
        read_cases(tmp_path, tmp_path, _COMMON)


def test_a_folder_that_holds_other_things_is_not_used(tmp_path: Path):
    _touch(tmp_path / "out", "batch.csv")
    path = _text_table(tmp_path / "cases.csv", _GOOD)
    with pytest.raises(InputError, match="not empty and holds no batch"):
        run_batch(path, tmp_path / "out", settings=_CENTROID)
    (tmp_path / "out" / "batch.json").write_text('{"format": 99, "cases": {}}', encoding="utf-8")
    with pytest.raises(InputError, match="format 99"):
        run_batch(path, tmp_path / "out", settings=_CENTROID)
    (tmp_path / "out" / "batch.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="not the state of a batch"):
        run_batch(path, tmp_path / "out", settings=_CENTROID)


def test_the_fingerprint_of_a_job_is_what_its_result_depends_on(tmp_path: Path):
    _touch(tmp_path, "mr.nrrd", "us.nrrd")
    job = Job(tmp_path / "mr.nrrd", tmp_path / "us.nrrd", tmp_path / "out", initial=str(tmp_path / "i.tfm"))
    first = fingerprint(job, "cards")
    assert fingerprint(dataclasses.replace(job, output=tmp_path / "b", overwrite=True), "cards") == first
    changed = [fingerprint(job, "others"), fingerprint(dataclasses.replace(job, seed=1), "cards")]
    _touch(tmp_path, "i.tfm")
    changed.append(fingerprint(job, "cards"))
    os.utime(tmp_path / "mr.nrrd", ns=(1, 1))
    changed.append(fingerprint(job, "cards"))
    assert len({first, *changed}) == 5


# ---- a batch with one bad case, and what follows


@pytest.fixture(scope="module")
def batch(case_files: CaseFiles, tmp_path_factory: pytest.TempPathFactory) -> _Batch:
    """A table with a case that cannot be read and one that takes its worker along, and its first run."""
    folder = tmp_path_factory.mktemp("batch")
    names = ["good", "bad", "crash", "last"]
    table = _table(folder / "cases.csv", case_files, names, bad={"mr": "none.nii.gz"})
    return _Batch.run(table, folder / "out")


@dataclasses.dataclass(frozen=True)
class _Batch:
    table: Path
    result: BatchResult
    seen: list[BatchProgress]

    @classmethod
    def run(cls, table: Path, output: Path) -> _Batch:
        seen: list[BatchProgress] = []

        def watch(now: BatchProgress) -> None:
            seen.append(now)
            if [case.case for case in now.running if case.stage] == ["crash"]:
                for worker in _workers_of(os.getpid()):
                    worker.kill()

        return cls(table, run_batch(table, output, settings=_CENTROID, watch=watch), seen)

    @property
    def output(self) -> Path:
        return self.result.output

    def copy(self, folder: Path) -> Path:
        """The finished folder elsewhere, to go on with it."""
        return Path(shutil.copytree(self.output, folder / "out", copy_function=shutil.copy2))


def test_one_bad_case_and_one_crash_do_not_stop_the_rest(batch: _Batch):
    rows = {row.case: row for row in batch.result.rows}
    assert {name: row.status for name, row in rows.items()} == {
        "good": "done",
        "bad": "failed",
        "crash": "failed",
        "last": "done",
    }
    assert "none.nii.gz does not exist" in rows["bad"].message
    assert "SIGKILL" in rows["crash"].message
    assert batch.result.failed == ("bad", "crash")
    assert _workers_of(os.getpid()) == []


def test_the_table_has_the_figures_of_each_result(batch: _Batch):
    rows = _rows(batch.output)
    assert list(rows) == ["good", "bad", "crash", "last"]
    assert list(rows["good"]) == [
        *("case", "status", "dsc", "hd95_mm", "tre_rms_mm", "landmarks", "folds_percent"),
        *("mr_gland_ml", "trus_gland_ml", "indicator", "warnings", "seconds", "message"),
    ]
    folder = batch.output / "cases" / "good"
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    final = content["measures"]["final"]
    for name in ("dsc", "hd95_mm", "tre_rms_mm", "landmarks"):
        assert float(rows["good"][name]) == pytest.approx(final[name], rel=1e-5)
    volume_ml = mask_volume_ml(sitk.ReadImage(str(folder / "mr_mask.nii.gz")))
    assert float(rows["good"]["mr_gland_ml"]) == pytest.approx(volume_ml, abs=0.01)
    assert rows["good"]["warnings"].split() == [entry["code"] for entry in content["warnings"]]
    assert rows["bad"]["dsc"] == ""
    assert "none.nii.gz" in rows["bad"]["message"]


def test_progress_counts_every_case_once(batch: _Batch):
    ended = [now for now in batch.seen if now.finished is not None]
    assert [now.finished.case for now in ended if now.finished] == ["good", "bad", "crash", "last"]
    assert [(now.done, now.failed, now.left) for now in ended] == [
        (1, 0, 3),
        (1, 1, 2),
        (1, 2, 1),
        (2, 2, 0),
    ]
    assert all((now.seconds_left is None) == (now.done + now.failed == 0) for now in batch.seen)
    stages = {case.stage for now in batch.seen for case in now.running if case.case == "good"}
    assert stages.issuperset({"align", "measure", "write"})


class _Page(HTMLParser):
    """What the tests ask of a page: its links, pictures, and the text of each element with an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [values["href"]] if values.get("href") else []  # type: ignore[list-item]
        self.sources += [values["src"]] if values.get("src") else []  # type: ignore[list-item]
        self.rows += tag == "tr"


def test_the_page_needs_nothing_else_and_links_each_report(batch: _Batch):
    text = (batch.output / "cohort.html").read_text(encoding="utf-8")
    page = _Page(text)
    assert page.links == ["cases/good/report.html", "cases/last/report.html"]
    assert all((batch.output / link).is_file() for link in page.links)
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "none.nii.gz does not exist" in text
    assert "SIGKILL" in text
    assert "Research use only" in text


def test_a_thumbnail_shows_both_outlines(batch: _Batch, tmp_path: Path):
    path = tmp_path / "t.jpg"
    path.write_bytes(thumbnail(batch.output / "cases" / "good"))
    colours = np.asarray(Image.open(path)).astype(int)
    assert max(colours.shape[:2]) == 160
    blue, red = colours[..., 2] - colours[..., 0], colours[..., 0] - colours[..., 2]
    # Both glands agree here: one outline, two pixels wide and some 90 pixels across, half of it orange.
    assert 150 < np.count_nonzero(blue > 50) < 800
    assert 150 < np.count_nonzero(red > 50) < 800
    assert np.count_nonzero(np.ptp(colours, axis=-1) < 30) > 0.8 * colours[..., 0].size


def test_started_again_nothing_that_has_ended_is_run(batch: _Batch, tmp_path: Path):
    output = batch.copy(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in (output / "cases").rglob("*")}
    # The results' folders are part of the jobs, but not of what the results depend on.
    started = time.monotonic()
    seen: list[BatchProgress] = []
    result = run_batch(batch.table, output, settings=_CENTROID, watch=seen.append)
    assert time.monotonic() - started < 5
    assert [dataclasses.replace(row, seconds=0) for row in result.rows] == [
        dataclasses.replace(row, seconds=0) for row in batch.result.rows
    ]
    assert {p: p.stat().st_mtime_ns for p in (output / "cases").rglob("*")} == before
    assert all(now.finished is None for now in seen)


@pytest.mark.slow
def test_only_what_changed_is_run_again(batch: _Batch, tmp_path: Path, case_files: CaseFiles):
    """A repaired case, another setting of one case, a removed result, a new case; failed ones when asked."""
    output = batch.copy(tmp_path)
    shutil.rmtree(output / "cases" / "last")
    names = ["good", "bad", "crash", "last"]
    table = _table(tmp_path / "cases.csv", case_files, names, bad={"mr_landmarks": "", "trus_landmarks": ""})
    seen: list[BatchProgress] = []
    result = run_batch(table, output, settings=_CENTROID, watch=seen.append)
    assert [now.finished.case for now in seen if now.finished] == ["bad", "last"]
    assert [row.status for row in result.rows] == ["done", "done", "failed", "done"]
    assert _rows(output)["bad"]["tre_rms_mm"] == ""
    seen.clear()
    settings = dataclasses.replace(_CENTROID, retry_failed=True, workers=2)
    result = run_batch(table, output, settings=settings, watch=seen.append)
    assert [now.finished.case for now in seen if now.finished] == ["crash"]
    assert result.failed == ()
    result.check()


@pytest.mark.slow
def test_changed_settings_run_a_case_again(batch: _Batch, tmp_path: Path, case_files: CaseFiles, run_cli):
    output = batch.copy(tmp_path)
    table = _table(tmp_path / "cases.csv", case_files, ["good"])
    arguments = ["batch", table, "--output", output, "--method", "initial", "--device", "cpu"]
    code, text, error = run_cli(arguments)
    assert (code, error) == (0, "")
    assert text.startswith("good: DSC 0.")
    assert f"Report: {output / 'cohort.html'}" in text
    content = json.loads((output / "cases" / "good" / "result.json").read_text(encoding="utf-8"))
    assert content["method"] == "initial"
    assert list(_rows(output)) == ["good"]


def test_failed_cases_give_exit_code_3_and_are_named(batch: _Batch, run_cli):
    arguments = ["batch", batch.table, "--output", batch.output, "--method", "centroid", "--device", "cpu"]
    code, text, error = run_cli([*arguments, "--quiet"])
    assert (code, text) == (3, "")
    assert error.startswith("Error: 2 of 4 cases failed (bad, crash); ")


# ---- a batch as a process of its own


def _script(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(_SCRIPT), *map(str, arguments), "--method", "centroid", "--device", "cpu"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_SCRIPT.parent,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the signals are those of POSIX")
def test_a_killed_batch_goes_on_where_it_was(tmp_path: Path, case_files: CaseFiles):
    """Killed without any warning, then interrupted, then left alone; another batch is kept out meanwhile."""
    table, output = _table(tmp_path / "cases.csv", case_files, ["a", "b"]), tmp_path / "out"
    with _script("--", table, "--output", output) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("a: DSC 0.")
        workers = _workers_of(process.pid)
        assert len(workers) == 1
        with pytest.raises(InputError, match="Another batch is at work"):
            run_batch(table, output, settings=_CENTROID)
        process.kill()
    _until(lambda: not workers[0].is_running() or workers[0].status() == psutil.STATUS_ZOMBIE)
    assert [row["status"] for row in _rows(output).values()] == ["done", "pending"]
    assert "not run yet" in (output / "cohort.html").read_text(encoding="utf-8")
    result = output / "cases" / "a" / "result.json"
    first = result.stat().st_mtime_ns
    with _script(table, "--output", output) as process:
        _until(lambda: bool(_workers_of(process.pid)))
        workers = _workers_of(process.pid)
        process.send_signal(signal.SIGINT)
        text, error = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, text, error) == (130, "", "Error: Cancelled.\n")
    assert not any(worker.is_running() for worker in workers)
    with _script(table, "--output", output) as process:
        text, error = process.communicate(timeout=_PATIENCE_S)
    assert (process.returncode, error) == (0, "")
    assert text.startswith("b: DSC 0.")
    assert [row["status"] for row in _rows(output).values()] == ["done", "done"]
    assert result.stat().st_mtime_ns == first
    assert not list((output / "cases").glob(".*"))


@pytest.mark.slow
def test_the_script_refuses_like_the_command(tmp_path: Path):
    table = _text_table(tmp_path / "cases.csv", "case,mr\na,m\n")
    for arguments, named in (
        ([table, "--output", tmp_path / "out"], "no column trus"),
        ([table], "--output"),
    ):
        with _script(*arguments) as process:
            text, error = process.communicate(timeout=_PATIENCE_S)
        assert (process.returncode, text) == (2, "")
        assert named in error
        assert "Traceback" not in error


# ---- figures


def test_bars_hold_every_value_once():
    found = distribution("DSC", [0.8, 0.82, 0.82, 0.859999, None, 0.86], unit="", digits=2, width=0.02)
    assert found is not None
    assert [(round(bar.low, 2), round(bar.high, 2), bar.count) for bar in found.bars] == [
        (0.8, 0.82, 1),
        (0.82, 0.84, 2),
        (0.84, 0.86, 1),
        (0.86, 0.88, 1),
    ]
    assert found.summary == "0.83 ± 0.03 (mean ± SD of 5 cases), median 0.82, range 0.80 to 0.86"
    wide = distribution("TRE", [0.0, 100.0], unit=" mm", digits=1, width=0.5)
    assert wide is not None
    assert len(wide.bars) <= 24
    assert sum(bar.count for bar in wide.bars) == 2
    assert wide.bars[-1].low <= 100.0 < wide.bars[-1].high
    assert distribution("TRE", [None, float("nan")], unit=" mm", digits=1, width=0.5) is None


def test_whatever_a_case_is_called_or_says_stays_text():
    warning = QualityWarning("folds", 'It <b>folds</b> "here"')
    rows = [
        CaseRow("a & <i>b</i>", "done", dsc=0.9, warnings=(warning,)),
        CaseRow("c#d", "done", dsc=0.8, warnings=(warning, QualityWarning("other", "Other."))),
        CaseRow("e", "failed", message='<script>alert("1")</script>\nnext'),
    ]
    reports = {row.case: f"cases/{row.case}/report.html" for row in rows[:2]}
    text = cohort_html(rows, title="<t>", thumbnails={}, reports=reports, settings={})
    assert "<i>b</i>" not in text
    assert "<script>alert" not in text
    assert _Page(text).links == ["cases/a%20%26%20%3Ci%3Eb%3C/i%3E/report.html", "cases/c%23d/report.html"]
    assert re.search(r"<code>folds</code></th><td [^>]*>2 of 2</td>", text)
    assert re.search(r"<code>other</code></th><td [^>]*>1 of 2</td>", text)
    table = list(csv.DictReader(batch_csv(rows).splitlines()))
    assert table[1]["warnings"] == "folds other"
    assert table[2]["message"] == '<script>alert("1")</script> next'


def test_a_model_is_loaded_once(tmp_path: Path):
    from cases import ThresholdNetwork, install

    model = install(tmp_path, ThresholdNetwork(), name="m", task="segmentation", modality="MR")
    assert load_network(model, "cpu") is load_network(model, "cpu")
    other = install(tmp_path / "b", ThresholdNetwork(), name="m", task="segmentation", modality="MR")
    assert load_network(other, "cpu") is not load_network(model, "cpu")


@pytest.mark.slow
def test_a_batch_loads_each_model_once_and_single_runs_make_the_same(
    case_files: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The benchmark on two cases with tiny networks; the time is the benchmark's to tell, not a test's."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "benchmarks"))
    from batch_time import compare

    models = install_all(tmp_path / "models")
    common = Job(Path(), Path(), Path(), method="cmsa", models=models, device="cpu")
    jobs = [
        dataclasses.replace(common, mr=case_files.mr, trus=case_files.trus, output=tmp_path / name)
        for name in ("one", "two")
    ]
    found = compare([BatchCase(job.output.name, job) for job in jobs], common, tmp_path)
    assert found.loads == {"gland-MR.pt": 1, "gland-TRUS.pt": 1, "cmsa.pt": 1}
    assert len(found.single_s) == 2
    assert found.ratio == pytest.approx(found.batch_s / sum(found.single_s))
    transforms = [tmp_path / "single/one", tmp_path / "batch/cases/one", tmp_path / "batch/cases/two"]
    first, *others = [sitk.ReadTransform(str(folder / "mr_to_trus.h5")) for folder in transforms]
    for other in others:
        assert other.TransformPoint((-31.0, 12.0, 44.0)) == first.TransformPoint((-31.0, 12.0, 44.0))
