"""Starting, following and ending workers from an application that must not wait for them.

Only the standard library is imported here. psutil is used where it is installed; without it, the process
group (POSIX) or taskkill (Windows) reaches the worker's children.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .errors import RegistrationError
from .job import Event, Job

State = Literal["running", "done", "failed", "cancelled"]

_POSIX = os.name == "posix"
_STEP_S = 0.02
_LAST_WORDS_BYTES = 8192
_LAST_WORDS_CHARACTERS = 300
# How long a launcher may be gone before what it left running is ended.
_ORPHAN_S = 1.0


class JobProcess:
    """One job in a process of its own.

    `state` is running, done, failed or cancelled, as of the last `poll` or `cancel`; `message` is one
    sentence about a run that is not done; `log` is what the worker and its libraries said besides.

    `python` runs the worker with the variables of `environment` (this process's, if None). `folder` gets the
    job, the log and temporary files, and is the caller's to remove; without it, a temporary folder is made,
    and kept only if the run fails. Raises `RegistrationError` where the process cannot be started.
    """

    def __init__(
        self,
        job: Job,
        *,
        python: str = sys.executable,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._own_folder = folder is None
        self._folder = Path(tempfile.mkdtemp(prefix="mrtrus-job-")) if folder is None else folder
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "job.json"
        path.write_text(job.to_json(), encoding="utf-8")
        self._worker = WorkerProcess([str(path)], folder=self._folder, python=python, environment=environment)
        self.state: State = "running"
        self.message = ""

    @property
    def log(self) -> Path:
        return self._worker.log

    @property
    def pid(self) -> int:
        return self._worker.pid

    def poll(self) -> list[Event]:
        """What the worker said since the last call, at once; `state` and `message` follow it."""
        events = self._worker.poll()
        for event in events:
            self._follow(event)
        if self._worker.ended and self.state == "running":
            self.state, self.message = "failed", self._worker.reason()
        self._clean_up()
        return events

    def cancel(self, within_s: float = 2.0) -> None:
        """End the worker and all its children within that time; nothing happens to a run that has ended.

        It is asked first, so that it leaves no half result, and killed if it does not hear.
        """
        if self.state != "running":
            return
        self._worker.end(within_s)
        self.state, self.message = "cancelled", "Cancelled."
        self._clean_up()

    def _follow(self, event: Event) -> None:
        if self.state != "running" or event.type == "progress":
            return
        if event.type == "done":
            self.state = "done"
        else:
            self.state = "cancelled" if event.kind == "cancelled" else "failed"
            self.message = event.message

    def _clean_up(self) -> None:
        if self._own_folder and self.state in ("done", "cancelled"):
            shutil.rmtree(self._folder, ignore_errors=True)


class JobServer:
    """A worker that runs one job after the other with its models loaded, and started anew if it crashes."""

    def __init__(
        self, *, folder: Path, python: str = sys.executable, environment: Mapping[str, str] | None = None
    ) -> None:
        self._folder, self._python, self._environment = folder, python, environment
        self._worker: WorkerProcess | None = None
        self.busy = False

    @property
    def pid(self) -> int | None:
        return None if self._worker is None else self._worker.pid

    def start(self, job: Path) -> None:
        """Let the worker run the job in a file; only when it is not busy."""
        if self._worker is None or self._worker.ended:
            self._worker = WorkerProcess(
                ["--serve"], folder=self._folder, python=self._python, environment=self._environment
            )
        self._worker.send(str(job.absolute()))
        self.busy = True

    def poll(self) -> list[Event]:
        """What the worker said since the last call; a crash is an error event."""
        if self._worker is None:
            return []
        events = self._worker.poll()
        if any(event.type != "progress" for event in events):
            self.busy = False
        if self.busy and self._worker.ended:
            self.busy = False
            events.append(Event("error", kind="failed", message=self._worker.reason()))
        return events

    def close(self, within_s: float = 2.0) -> None:
        """End the worker, whatever it does."""
        if self._worker is not None:
            self._worker.end(within_s)
        self._worker, self.busy = None, False


class WorkerProcess:
    """A worker in a process group of its own, its events read in the background, its log in a file."""

    def __init__(
        self, arguments: Sequence[str], *, folder: Path, python: str, environment: Mapping[str, str] | None
    ) -> None:
        # Temporary files of a run that is killed lie where they are found again.
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self.log = folder / "worker.log"
        command = [python, "-m", f"{__package__}.worker", "--attached", *arguments]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(environment, self._temporary),
                    **_own_group(),
                )
            except OSError as error:
                raise RegistrationError(
                    f"The worker cannot be started with {python} ({error.strerror}); check the installation."
                ) from error
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._gone_since: float | None = None
        self.ended = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, line: str) -> None:
        """A line for its standard input; that it is gone shows when it is polled."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def poll(self) -> list[Event]:
        """The events since the last call; `ended` is set once there can be no more."""
        gone = self._process.poll() is not None
        complete = gone and not self._reader.is_alive()
        events = []
        while not self._events.empty():
            events.append(self._events.get())
        if complete:
            self._close()
        elif gone:
            self._end_orphans()
        return events

    def end(self, within_s: float) -> None:
        """End the process and everything that it started, within that time."""
        if self.ended:
            return
        family = _family(self.pid)
        self._close_stdin()
        if _POSIX:
            _signal_group(self.pid, signal.SIGTERM)
        if not self._wait(family, within_s / 2):
            _kill(self.pid, [*family, *_family(self.pid)])
            self._wait(family, within_s / 2)
        self._close()

    def reason(self) -> str:
        """Why it ended without saying so itself, in one sentence."""
        words = self._last_words()
        last = f"its last message was: {words.rstrip('.')}." if words else "it left no message."
        return f"{_how_it_ended(self._process.returncode)}; {last}"

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError), self._process.stdout as stream:
            for line in stream:
                event = Event.from_line(line.decode("utf-8", errors="replace"))
                if event is not None:
                    self._events.put(event)

    def _end_orphans(self) -> None:
        """A launcher that was killed leaves the real worker running, which still holds our pipe."""
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        if now - self._gone_since > _ORPHAN_S:
            self._close_stdin()
            _kill(self.pid, [])

    def _wait(self, family: list[Any], seconds: float) -> bool:
        """Whether all of them are gone before the time is over."""
        end = time.monotonic() + seconds
        while _alive(self._process, family):
            if time.monotonic() > end:
                return False
            time.sleep(_STEP_S)
        return True

    def _close(self) -> None:
        self.ended = True
        self._close_stdin()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _last_words(self) -> str:
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - _LAST_WORDS_BYTES))
                lines = log.read().decode("utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:_LAST_WORDS_CHARACTERS]


def _environment(given: Mapping[str, str] | None, temporary: Path) -> dict[str, str]:
    environment = dict(os.environ if given is None else given)
    # Last, so that the package's folder brings no other packages with it when it is a site-packages.
    paths = [*filter(None, [environment.get("PYTHONPATH")]), str(Path(__file__).resolve().parents[1])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    # The current folder may hold files named like modules.
    environment["PYTHONSAFEPATH"] = "1"
    return environment | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary.absolute()))


def _own_group() -> dict[str, Any]:
    if _POSIX:
        return {"start_new_session": True}
    flags = ("CREATE_NEW_PROCESS_GROUP", "CREATE_NO_WINDOW")
    return {"creationflags": sum(getattr(subprocess, flag) for flag in flags)}


def _family(pid: int) -> list[Any]:
    """The process and its children as psutil sees them; empty where psutil is not installed."""
    try:
        import psutil
    except ImportError:
        return []
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _alive(process: subprocess.Popen[bytes], family: list[Any]) -> bool:
    if process.poll() is None:
        return True
    if family:
        return any(_runs(member) for member in family)
    return _POSIX and _signal_group(process.pid, 0)


def _runs(member: Any) -> bool:
    import psutil

    try:
        return member.is_running() and member.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _kill(pid: int, family: list[Any]) -> None:
    if _POSIX:
        _signal_group(pid, signal.SIGKILL)
    else:
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(pid)], capture_output=True, check=False)
    for member in filter(_runs, family):
        # It may have gone by itself in between.
        with contextlib.suppress(Exception):
            member.kill()


def _signal_group(pid: int, number: int) -> bool:
    """Whether the group of a process still has members that could be signalled."""
    try:
        os.killpg(pid, number)
    except OSError:
        return False
    return True


def _how_it_ended(code: int | None) -> str:
    # A launcher passes a signal on as 128 and its number.
    number = -code if code is not None and code < 0 else (code or 0) - 128
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"The registration ended unexpectedly (exit code {code})"
    if name == "SIGKILL":
        return "The registration was ended from outside (SIGKILL), perhaps because memory ran out"
    return f"The registration crashed ({name})"
