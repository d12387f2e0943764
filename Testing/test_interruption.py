"""Real processes that are interrupted, killed, or out of disk: the old result or none, never half of one."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import SimpleITK as sitk  # noqa: N813
from cases import CaseFiles
from dataset_case import write_dataset
from disks import fill, mounted_disk

from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.outputs import check_output

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="the signals are those of POSIX"),
]
_PATIENCE_S = 300


@contextmanager
def _started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, which has ended when the context does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "MRTRUSRegistrationLib", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with Ctrl+C ignored, which they hand on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _wait_for_stage(process: subprocess.Popen[str], stage: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(stage):
            return
    raise AssertionError(f"The run ended before {stage}.")


def _wait_for_staging(process: subprocess.Popen[str], output: Path) -> Path:
    """Until the result is being written."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        for path in output.parent.glob(f".{output.name}.partial-{process.pid}"):
            return path
        time.sleep(0.005)
    raise AssertionError("The run wrote nothing.")


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=_PATIENCE_S)
    # HDF5 has its own words for a disk that fills up under it, which cannot be turned off.
    sentences = [line for line in error.splitlines() if line.startswith("Error: ")]
    assert len(sentences) <= 1
    assert "Traceback" not in error
    return process.returncode, "".join(sentences)


def _complete(output: Path) -> bool:
    """Whether the folder holds a result whose files can all be read."""
    content = json.loads((output / "result.json").read_text(encoding="utf-8"))
    trus = Grid.of(sitk.ReadImage(str(output / "trus_mask.nii.gz")))
    moved = sitk.ReadImage(str(output / "registered_mr.nii.gz"))
    sitk.ReadTransform(str(output / "mr_to_trus.h5"))
    report = (output / "report.html").read_text(encoding="utf-8").rstrip()
    return content["format"] == 1 and Grid.of(moved).same_as(trus) and report.endswith("</html>")


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def old_result(case_files: CaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("old") / "out"
    with _started(case_files.arguments(output)) as process:
        assert _end(process)[0] == 0
    assert _complete(output)
    return output


def test_an_interrupted_run_leaves_nothing(case_files: CaseFiles, tmp_path: Path):
    with _started(case_files.arguments(tmp_path / "out", method="rigid")) as process:
        _wait_for_stage(process, "align")
        process.send_signal(signal.SIGINT)
        assert _end(process) == (130, "Error: Interrupted.")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_while_writing_the_old_result_stays(case_files: CaseFiles, old_result: Path):
    before = _contents(old_result)
    with _started(case_files.arguments(old_result, overwrite=True)) as process:
        _wait_for_staging(process, old_result)
        process.send_signal(signal.SIGINT)
        assert _end(process) == (130, "Error: Interrupted.")
    assert _contents(old_result) == before
    assert [path.name for path in old_result.parent.iterdir()] == ["out"]


def test_termination_works_where_ctrl_c_is_ignored(case_files: CaseFiles, tmp_path: Path):
    """As for a job that a script starts in the background."""
    signal_before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _started(case_files.arguments(tmp_path / "out")) as process:
            signal.signal(signal.SIGINT, signal_before)
            _wait_for_stage(process, "align")
            process.send_signal(signal.SIGTERM)
            assert _end(process) == (130, "Error: Interrupted.")
    finally:
        signal.signal(signal.SIGINT, signal_before)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_evaluation_keeps_the_cases_that_were_done(tmp_path: Path):
    write_dataset(tmp_path / "data", "muregpro", ("a", "b", "c"))
    output = tmp_path / "out"
    options = {"data": tmp_path / "data", "layout": "muregpro", "methods": "initial,syn", "output": output}
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    with _started(["evaluate", *arguments, "--masks", "reference"]) as process:
        assert process.stdout is not None
        done = [process.stdout.readline().partition(":")[0] for _ in range(3)]
        process.kill()
    assert done == ["a initial", "a syn", "b initial"]
    # A writing that was killed leaves its hidden file behind; the one beside it is whole.
    assert [path.name for path in output.glob("[!.]*")] == ["metrics.partial.csv"]
    with (output / "metrics.partial.csv").open() as file:
        kept = [f"{line['case']} {line['method']}" for line in csv.DictReader(file)]
    assert kept[:2] == done[:2]


def test_killed_while_writing_the_old_result_stays(case_files: CaseFiles, old_result: Path):
    before = _contents(old_result)
    arguments = case_files.arguments(old_result, overwrite=True)
    with _started(arguments) as process:
        staging = _wait_for_staging(process, old_result)
        process.kill()
        assert _end(process)[0] == -signal.SIGKILL
    assert staging.is_dir()
    assert _contents(old_result) == before
    with _started(arguments) as process:
        assert _end(process)[0] == 0
    assert [path.name for path in old_result.parent.iterdir()] == ["out"]
    assert _complete(old_result)


def test_a_killed_first_run_leaves_no_result(case_files: CaseFiles, tmp_path: Path):
    output = tmp_path / "out"
    with _started(case_files.arguments(output)) as process:
        _wait_for_staging(process, output)
        process.kill()
    assert not output.exists()
    check_output(output, overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted_disk(tmp_path_factory.mktemp("disk"), size_mb=256) as folder:
        yield folder


@pytest.mark.parametrize("leave_bytes", [0, 400_000])
def test_a_disk_that_fills_up_leaves_the_old_result(leave_bytes: int, case_files: CaseFiles, disk: Path):
    output = disk / "out"
    output.mkdir(exist_ok=True)
    (output / "result.json").write_text("old", encoding="utf-8")
    with _started(case_files.arguments(output, method="rigid", overwrite=True)) as process:
        _wait_for_stage(process, "align")
        filler = fill(disk, leave_bytes=leave_bytes)
        code, message = _end(process)
    filler.unlink()
    assert code == 2
    assert message == f"Error: The disk of {output} is full; free some space and run again."
    assert _contents(output) == {"result.json": b"old"}
    assert [path.name for path in disk.iterdir()] == ["out"]


def test_a_disk_that_fills_up_while_writing_leaves_the_old_result(case_files: CaseFiles, disk: Path):
    output = disk / "out"
    output.mkdir(exist_ok=True)
    (output / "result.json").write_text("old", encoding="utf-8")
    with _started(case_files.arguments(output, overwrite=True)) as process:
        _wait_for_staging(process, output)
        filler = fill(disk, leave_bytes=0)
        code, message = _end(process)
    filler.unlink()
    assert (code, "is full" in message) == (2, True)
    assert _contents(output) == {"result.json": b"old"}


def test_a_disk_that_becomes_read_only_is_one_sentence(case_files: CaseFiles, tmp_path: Path):
    with mounted_disk(tmp_path, size_mb=256) as folder:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        with _started(case_files.arguments(folder / "out")) as process:
            code, message = _end(process)
    assert code == 2
    assert "Read-only file system" in message


# --- a simulation with workers


def _interrupted(is_time: Callable[[], bool], *options: str) -> tuple[int, str, float]:
    """Ctrl+C, as a terminal sends it, to a simulation with two workers when `is_time`.

    Returns the exit code, standard error, and the seconds that it took to end.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "MRTRUSTraining.cli", "simulate", "--cases", "40", "--jobs", "2", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    end = time.monotonic() + _PATIENCE_S
    try:
        while not is_time() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        _, error = process.communicate(timeout=_PATIENCE_S)
        return process.returncode, error, time.monotonic() - begun
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_ctrl_c_ends_a_simulation_and_leaves_whole_cases_only(tmp_path: Path):
    out = tmp_path / "out"
    options = ("--spacing-mm", "3", "--pictures", "--output", str(out))
    code, error, _ = _interrupted((out / "mr_images" / "case000000.nii.gz").exists, *options)
    assert (code, error.strip()) == (130, "Error: Interrupted.")
    assert not list(out.glob(".*"))
    kinds = ("mr_images", "us_images", "mr_labels", "us_labels", "transforms", "parameters", "pictures")
    names = [sorted(path.name.split(".")[0] for path in (out / kind).glob("*")) for kind in kinds]
    assert all(each == names[0] for each in names)


@pytest.mark.parametrize("wait_s", [0.0, 12.0], ids=["at its start", "while it renders"])
def test_ctrl_c_does_not_wait_for_simulated_cases_in_progress(tmp_path: Path, wait_s: float):
    """At this spacing a case takes a minute or more."""
    out = tmp_path / "out"

    def is_time() -> bool:
        if out.exists():
            time.sleep(wait_s)
        return out.exists()

    code, error, seconds = _interrupted(is_time, "--spacing-mm", "0.5", "--output", str(out))
    assert (code, error.strip()) == (130, "Error: Interrupted.")
    assert seconds < 20
    assert not list(out.iterdir())
