"""The process that computes: `python -m MRTRUSRegistrationLib.worker JOB.json`.

Standard output holds one JSON object a line (see `job.Event`), whatever the libraries print; everything else
goes to standard error. Exit codes: 0 done, 2 bad input, 3 failed, 130 cancelled. With --serve, the paths of
jobs come from standard input, one a line, and are run one after the other by a process that keeps its models
loaded; then the exit code is 0 unless it was cancelled.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

from .errors import Cancelled, failure_of
from .job import Event, Job, run_job
from .progress import Progress

_HINT = "its log says where"
# How long a run that nobody waits for any more may take to clean up.
_GRACE_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job or jobs; returns the exit code."""
    options = _arguments(arguments)
    _use_private_packages()
    _log_to_stderr()
    signal.signal(signal.SIGTERM, _interrupt_once)
    channel = Channel.instead_of_stdout()
    inbox = Inbox(attached=options.attached)
    try:
        if options.serve or options.attached:
            inbox.open()
        if options.serve:
            return _serve(inbox, channel)
        return _run(options.job, channel)
    except KeyboardInterrupt:
        return Cancelled.exit_code
    finally:
        channel.close()


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="MRTRUSRegistrationLib.worker", description="Run a job.")
    parser.add_argument("job", type=Path, nargs="?", help="File with the job.")
    parser.add_argument("--serve", action="store_true", help="Read the paths of jobs from standard input.")
    parser.add_argument(
        "--attached", action="store_true", help="End the run when standard input closes: nobody waits for it."
    )
    options = parser.parse_args(arguments)
    if options.serve == (options.job is not None):
        parser.error("give either a job or --serve")
    return options


def _use_private_packages() -> None:
    """Put the folder in $MRTRUS_PACKAGES first, which PYTHONPATH cannot do inside 3D Slicer."""
    folder = os.environ.get("MRTRUS_PACKAGES")
    if folder:
        sys.path.insert(0, folder)


def _log_to_stderr() -> None:
    """The library's own words, such as which models it loads, go to the log; those of others stay off."""
    log = logging.getLogger(__package__)
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler(sys.stderr))


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """End like Ctrl+C does; a second signal would only disturb the cleaning up."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


class Channel:
    """Sends events to whoever reads the worker's standard output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @classmethod
    def instead_of_stdout(cls) -> Channel:
        """Take standard output over; what libraries print, in C++ too, goes to standard error from now on."""
        stream = os.fdopen(os.dup(1), "w", encoding="ascii")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        return cls(stream)

    def send(self, event: Event) -> None:
        """Send an event; `Cancelled` when the reader is gone, for then nobody waits for the result."""
        try:
            self._stream.write(event.to_line())
            self._stream.flush()
        except OSError as error:
            raise Cancelled from error

    def send_last(self, event: Event) -> None:
        """Send the event that ends a job, if there is somebody to read it."""
        with contextlib.suppress(Cancelled):
            self.send(event)

    def progress(self, progress: Progress) -> None:
        self.send(Event("progress", progress.stage, round(progress.fraction, 4), progress.message))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()


class Inbox:
    """The lines of standard input, read in the background; None stands for its end.

    With `attached`, its end interrupts the run in progress: whoever started it has gone or wants no result.
    This works on every system and however the starter ended.
    """

    def __init__(self, *, attached: bool) -> None:
        self._attached = attached
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._idle = threading.Event()

    def open(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> str | None:
        self._idle.set()
        line = self._lines.get()
        self._idle.clear()
        return line

    def _listen(self) -> None:
        # Unbuffered, because a buffer's lock, held by this thread, would break the end of the process.
        with contextlib.suppress(OSError), open(0, "rb", buffering=0, closefd=False) as stream:
            for line in filter(bytes.strip, stream):
                self._lines.put(line.decode("utf-8").strip())
        idle = self._idle.is_set()
        self._lines.put(None)
        if self._attached and not idle:
            _thread.interrupt_main(signal.SIGTERM)
            time.sleep(_GRACE_S)
            # Still there: it sits in a library that does not look at signals.
            os._exit(Cancelled.exit_code)


def _serve(inbox: Inbox, channel: Channel) -> int:
    while (line := inbox.next()) is not None:
        code = _run(Path(line), channel)
        if code == Cancelled.exit_code:
            return code
    return 0


def _run(path: Path, channel: Channel) -> int:
    """Run one job and say how it ended; returns the exit code of that."""
    try:
        job = Job.read(path)
        run_job(job, progress=channel.progress)
    except BaseException as error:
        failure = failure_of(error, hint=_HINT)
        if failure.kind == "failed":
            traceback.print_exc()
        channel.send_last(Event("error", kind=failure.kind, message=failure.message))
        return failure.exit_code
    channel.send_last(Event("done", output=str(job.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
