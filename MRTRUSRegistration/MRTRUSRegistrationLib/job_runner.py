"""One registration at a time in a child process: started, polled by a timer, cancelled, handed over.

The scene is not touched here: whoever starts a run gets its folder when it is complete, and only then.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .errors import InputError

if TYPE_CHECKING:
    from .job import Job
    from .job_process import JobProcess

_POLL_MS = 100


class Timer(Protocol):
    """Calls back again and again between `start` and `stop`."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class Listener:
    """What happens when: a stage advances, a run is done, or it ended otherwise.

    `still_wanted` is asked at every poll and answers with the reason to stop, or "".
    """

    progress: Callable[[str, float, str], None]
    done: Callable[[Path], None]
    failed: Callable[[str], None]
    cancelled: Callable[[], None]
    still_wanted: Callable[[], str]


class JobRunner:
    """Runs jobs of the worker, one at a time; `timer` makes the host's timer of an interval in ms."""

    def __init__(self, *, timer: Callable[[int, Callable[[], None]], Timer]) -> None:
        self._timer = timer(_POLL_MS, self.poll)
        self._process: JobProcess | None = None
        self._listener: Listener | None = None
        self._folder: Path | None = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(
        self,
        write_job: Callable[[Path], Job],
        listener: Listener,
        *,
        python: str,
        environment: dict[str, str],
    ) -> None:
        """Make a temporary folder, let `write_job` fill it, and start the worker.

        Whatever `write_job` raises is raised here, and nothing is left behind.
        """
        if self.running:
            raise InputError("A registration is running; wait for it or cancel it.")
        folder = _temporary_folder()
        try:
            self._process = self._launch(write_job(folder), python, environment, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._listener, self._folder = listener, folder
        self._timer.start()

    def _launch(self, job: Job, python: str, environment: dict[str, str], folder: Path) -> JobProcess:
        from .job_process import JobProcess

        return JobProcess(job, python=python, environment=environment, folder=folder)

    def poll(self) -> None:
        """Hand on what the worker said since the last call; called by the timer."""
        if self._process is None or self._listener is None:
            return
        reason = self._listener.still_wanted()
        if reason:
            self._stop(then=lambda listener: listener.failed(reason))
            return
        for event in self._process.poll():
            if event.type == "progress":
                self._listener.progress(event.stage, event.fraction, event.message)
        self._finish_if_ended()

    def _finish_if_ended(self) -> None:
        process = self._process
        if process is None or process.state == "running":
            return
        message, output = process.message, self._output()
        ends: dict[str, Callable[[Listener], Any]] = {
            "done": lambda listener: listener.done(output),
            "cancelled": lambda listener: listener.cancelled(),
        }
        self._end(ends.get(process.state, lambda listener: listener.failed(message)))

    def _output(self) -> Path:
        assert self._folder is not None
        return self._folder / "result"

    def cancel(self) -> None:
        """End the worker and its children; the listener hears of it."""
        self._stop(then=lambda listener: listener.cancelled())

    def stop_silently(self) -> None:
        """End the worker without telling anybody, when there is nobody left to tell."""
        self._stop(then=lambda listener: None)

    def _stop(self, *, then: Callable[[Listener], Any]) -> None:
        if self._process is not None:
            self._process.cancel()
            self._end(then)

    def _end(self, tell: Callable[[Listener], Any]) -> None:
        """Be ready for the next run before anybody is told, and clean up after everybody was."""
        self._timer.stop()
        listener, folder = self._listener, self._folder
        self._process = self._listener = self._folder = None
        try:
            if listener is not None:
                tell(listener)
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _temporary_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="mrtrus-"))
    except OSError as error:
        raise InputError(
            f"No temporary folder can be made in {tempfile.gettempdir()} ({error.strerror}); free some space "
            "or check its rights."
        ) from error
