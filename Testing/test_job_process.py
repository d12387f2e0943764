"""Real workers: followed, cancelled, killed; never half a result, never a process left behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from cases import CaseFiles

from MRTRUSRegistrationLib.errors import RegistrationError
from MRTRUSRegistrationLib.job import Event, Job
from MRTRUSRegistrationLib.job_process import JobProcess, JobServer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the signals are those of POSIX")
_PATIENCE_S = 300


def _job(case: CaseFiles, output: Path, **changed: object) -> Job:
    values: dict[str, object] = {
        "method": "centroid",
        "mr_mask": case.mr_mask,
        "trus_mask": case.trus_mask,
        "device": "cpu",
    }
    return Job(case.mr, case.trus, output, **(values | changed))  # type: ignore[arg-type]


def _slow_job(case: CaseFiles, output: Path, **changed: object) -> Job:
    """Many seconds inside ANTs' C++ code, where no Python runs."""
    return _job(case, output, method="syn", **changed)


@pytest.fixture
def started() -> Iterator[Callable[..., JobProcess]]:
    """Start jobs; whatever still runs when the test ends is killed."""
    processes: list[JobProcess] = []

    def start(job: Job, **options: object) -> JobProcess:
        processes.append(JobProcess(job, **options))  # type: ignore[arg-type]
        return processes[-1]

    yield start
    for process in processes:
        process.cancel(within_s=0.2)


def _until(wanted: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.02)


def _follow(process: JobProcess | JobServer, until: Callable[[list[Event]], bool]) -> list[Event]:
    events: list[Event] = []

    def enough() -> bool:
        before = time.monotonic()
        events.extend(process.poll())
        assert time.monotonic() - before < 0.5
        return until(events)

    _until(enough)
    return events


def _ended(process: JobProcess) -> list[Event]:
    return _follow(process, lambda events: process.state != "running")


def _in_stage(process: JobProcess | JobServer, stage: str) -> None:
    _follow(process, lambda events: any(event.stage == stage for event in events))


def _family(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _gone(family: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)


def _launcher(folder: Path) -> str:
    """A program that, like PythonSlicer, is not Python but starts it and waits."""
    path = folder / "launcher"
    path.write_text(f'#!/bin/sh\n{shlex.quote(sys.executable)} "$@"\nexit $?\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
def test_a_job_is_followed_to_its_result(case_files: CaseFiles, tmp_path: Path, started):
    process = started(_job(case_files, tmp_path / "out"), folder=tmp_path / "job")
    events = _ended(process)
    assert (process.state, process.message) == ("done", "")
    *progress, last = events
    assert last == Event("done", output=str(tmp_path / "out"))
    assert {event.type for event in progress} == {"progress"}
    stages = list(dict.fromkeys(event.stage for event in progress))
    assert stages == ["align", "resample", "measure", "write"]
    assert all(0 <= event.fraction <= 1 for event in progress)
    assert json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))["format"] == 1
    _until(lambda: process.poll() == [] and not (tmp_path / "job" / "tmp").exists())
    assert _gone(_family_if_any(process.pid))
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["job.json", "worker.log"]


def _family_if_any(pid: int) -> list[psutil.Process]:
    return _family(pid) if psutil.pid_exists(pid) else []


def test_bad_input_is_said_and_leaves_nothing(case_files: CaseFiles, tmp_path: Path, started):
    process = started(_job(case_files, tmp_path / "out", mr_mask=tmp_path / "none.nii.gz"))
    *_, last = _ended(process)
    assert (process.state, last.kind) == ("failed", "input")
    assert "none.nii.gz does not exist" in process.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_cancel_ends_ants_and_a_launchers_child_in_time(case_files: CaseFiles, tmp_path: Path, started):
    """The old result stays as it was, and neither processes nor temporary files are left."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "result.json").write_text("old", encoding="utf-8")
    process = started(
        _slow_job(case_files, output, overwrite=True),
        python=_launcher(tmp_path),
        folder=tmp_path / "job",
    )
    _in_stage(process, "deform")
    time.sleep(0.3)
    family = _family(process.pid)
    assert len(family) == 2
    before = time.monotonic()
    process.cancel()
    assert time.monotonic() - before < 2.2
    assert process.state == "cancelled"
    assert _gone(family)
    assert [path.name for path in output.iterdir()] == ["result.json"]
    assert (output / "result.json").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job", "launcher", "out"]
    assert not (tmp_path / "job" / "tmp").exists()
    assert all(event.type == "progress" for event in process.poll())
    assert process.state == "cancelled"


@pytest.mark.slow
def test_cancel_without_psutil(case_files: CaseFiles, tmp_path: Path, started, monkeypatch):
    """As in 3D Slicer, which does not bring it along."""
    process = started(_slow_job(case_files, tmp_path / "out"), python=_launcher(tmp_path))
    _until(lambda: len(_family(process.pid)) == 2)
    family = _family(process.pid)
    monkeypatch.setitem(sys.modules, "psutil", None)
    process.cancel()
    assert process.state == "cancelled"
    monkeypatch.undo()
    _until(lambda: _gone(family))


def test_a_killed_worker_is_a_failure_with_a_reason(case_files: CaseFiles, tmp_path: Path, started):
    process = started(_slow_job(case_files, tmp_path / "out"), folder=tmp_path / "job")
    _in_stage(process, "align")
    with process.log.open("a", encoding="utf-8") as log:
        log.write("the last thing that was said\n\n")
    os.kill(process.pid, signal.SIGKILL)
    _ended(process)
    assert process.state == "failed"
    assert process.message == (
        "The registration was ended from outside (SIGKILL), perhaps because memory ran out; its last message "
        "was: the last thing that was said."
    )
    assert not (tmp_path / "out").exists()


def test_a_crash_of_the_child_behind_a_launcher(case_files: CaseFiles, tmp_path: Path, started):
    process = started(_slow_job(case_files, tmp_path / "out"), python=_launcher(tmp_path))
    _until(lambda: len(_family(process.pid)) == 2)
    os.kill(_family(process.pid)[1].pid, signal.SIGSEGV)
    _ended(process)
    assert process.state == "failed"
    assert process.message.startswith("The registration crashed (SIGSEGV); ")


def test_a_python_that_cannot_run_it(case_files: CaseFiles, tmp_path: Path, started):
    with pytest.raises(RegistrationError, match="no-python"):
        started(_job(case_files, tmp_path / "out"), python=str(tmp_path / "no-python"))
    process = started(_job(case_files, tmp_path / "out"), python="/bin/false")
    _ended(process)
    assert process.message == "The registration ended unexpectedly (exit code 1); it left no message."


def _worker(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "MRTRUSRegistrationLib.worker", *map(str, arguments)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, text=True, **{**pipes, **options})  # type: ignore[call-overload]


def _written(job: Job, path: Path) -> Path:
    path.write_text(job.to_json(), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("how", ["starter gone", "reader gone"])
def test_a_worker_that_nobody_waits_for_ends(how: str, case_files: CaseFiles, tmp_path: Path):
    job = _written(_job(case_files, tmp_path / "out"), tmp_path / "job.json")
    with _worker(*(["--attached"] if how == "starter gone" else []), job) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdout.readline()
        (worker.stdin if how == "starter gone" else worker.stdout).close()
        assert worker.wait(timeout=_PATIENCE_S) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_libraries_cannot_write_between_the_events(case_files: CaseFiles, tmp_path: Path):
    """Python's print and C's file descriptor alike end in standard error, and SIGTERM in an event."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Chatter:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'SimpleITK':\n"
        "            import os\n"
        "            print('from Python'); os.write(1, b'from C\\n')\n"
        "sys.meta_path.insert(0, Chatter())\n",
        encoding="utf-8",
    )
    job = _written(_slow_job(case_files, tmp_path / "out"), tmp_path / "job.json")
    with _worker(job, env=os.environ | {"PYTHONPATH": str(tmp_path)}) as worker:
        assert worker.stdout is not None
        lines = [worker.stdout.readline()]
        worker.terminate()
        rest, errors = worker.communicate(timeout=_PATIENCE_S)
    events = [Event.from_line(line) for line in [*lines, *rest.splitlines()]]
    assert None not in events
    assert events[-1] == Event("error", kind="cancelled", message="Cancelled.")
    assert "from Python" in errors
    assert "from C" in errors
    assert worker.returncode == 130


@pytest.mark.slow
def test_one_worker_serves_several_jobs_and_is_replaced_when_killed(case_files: CaseFiles, tmp_path: Path):
    good = _written(_job(case_files, tmp_path / "good"), tmp_path / "good.json")
    bad = _written(_job(case_files, tmp_path / "bad", seed=-1), tmp_path / "bad.json")
    # Still at work when the signal comes: a short job may have ended by itself before.
    slow = _written(_slow_job(case_files, tmp_path / "slow"), tmp_path / "slow.json")
    server = JobServer(folder=tmp_path / "server")
    try:
        ends = [_served(server, path)[-1] for path in (bad, good)]
        first = server.pid
        assert [(end.type, end.kind) for end in ends] == [("error", "input"), ("done", "")]
        server.start(slow)
        assert server.pid == first
        os.kill(first, signal.SIGKILL)
        crash = _follow(server, lambda events: not server.busy)[-1]
        assert (crash.type, crash.kind) == ("error", "failed")
        assert "SIGKILL" in crash.message
        assert _served(server, bad)[-1].kind == "input"
        assert server.pid != first
    finally:
        family = _family_if_any(server.pid or 0)
        server.close()
    assert _gone(family)


def _served(server: JobServer, job: Path) -> list[Event]:
    server.start(job)
    return _follow(server, lambda events: not server.busy)


@pytest.mark.parametrize("arguments", [[], ["a.json", "--serve"]])
def test_a_worker_wants_either_a_job_or_to_serve(arguments: list[str]):
    with _worker(*arguments) as worker:
        assert worker.communicate(timeout=_PATIENCE_S)[1].strip().endswith("give either a job or --serve")
    assert worker.returncode == 2
