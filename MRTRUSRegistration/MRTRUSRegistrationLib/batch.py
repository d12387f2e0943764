"""Many cases, one after the other or side by side, in worker processes that keep their models loaded.

The output folder holds `batch.csv` and `cohort.html`, both complete after every case, a result folder a case
in `cases/`, each case's job in `jobs/` (which the worker runs again by itself), the workers' logs, and
`batch.json`, from which an interrupted batch goes on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from .batch_book import Book
from .batch_cases import BatchCase, read_cases
from .batch_report import CaseRow
from .errors import InputError, RegistrationError
from .job import Job
from .job_process import JobServer
from .job_run import settings_of
from .models import list_models, models_folders
from .outputs import SYSTEM_FILES
from .pipeline import method_named

_LOCK = ".batch.lock"
_STEP_S = 0.05
# What numerical libraries take the number of their threads from.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


@dataclass(frozen=True)
class BatchSettings:
    """What all cases have in common; the fields of a job, and how the batch is run."""

    method: str = "cmsa"
    models: Path | None = None
    device: str = "auto"
    seed: int = 0
    confidence: int = 0
    workers: int = 1
    retry_failed: bool = False

    def common_job(self) -> Job:
        """A job without files; `InputError` where no case could be run with these settings."""
        if self.workers < 1:
            raise InputError(f"The number of workers {self.workers} is not 1 or more.")
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(f"The device {self.device!r} is not known; use auto, cpu or cuda.")
        models = None if self.models is None else self.models.absolute()
        job = Job(
            *(Path(), Path(), Path()),
            method=self.method,
            models=models,
            device=self.device,
            seed=self.seed,
            confidence=self.confidence,
            overwrite=True,
        )
        settings_of(job)
        # Every card is read, and the file of a network compared with its own.
        list_models(models)
        method_named(self.method, models)
        return job


@dataclass(frozen=True)
class Running:
    """A case that is being computed."""

    case: str
    stage: str
    fraction: float


@dataclass(frozen=True)
class BatchProgress:
    """Where a batch stands; `finished` is the case that this report is about, if it is about one's end."""

    done: int
    failed: int
    left: int
    seconds_left: float | None
    running: tuple[Running, ...] = ()
    finished: CaseRow | None = None


Watch = Callable[[BatchProgress], None]


@dataclass(frozen=True)
class BatchResult:
    """The rows of all cases, in the order they were given, and where everything lies."""

    rows: tuple[CaseRow, ...]
    output: Path

    @property
    def failed(self) -> tuple[str, ...]:
        return tuple(row.case for row in self.rows if row.status == "failed")

    def check(self) -> None:
        """`RegistrationError` where cases have failed, which is what a command ends with."""
        if self.failed:
            raise RegistrationError(
                f"{len(self.failed)} of {len(self.rows)} cases failed ({_listed(self.failed)}); the reasons "
                f"are in {self.table}."
            )

    @property
    def table(self) -> Path:
        return self.output / "batch.csv"

    @property
    def page(self) -> Path:
        return self.output / "cohort.html"


def run_batch(
    source: Path,
    output: Path,
    *,
    settings: BatchSettings | None = None,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    watch: Watch | None = None,
) -> BatchResult:
    """Register the cases of a table or a folder (see `read_cases`) into a folder.

    Cases that are complete with the same files, settings and models are kept; failed ones are too, unless
    `settings.retry_failed` or something of them has changed. A case that fails, or takes its worker process
    along, does not stop the others. `python` and `environment` are the workers' (see `JobProcess`).

    Raises `InputError` for what cannot be understood, `RegistrationError` where no worker can be started.
    Ctrl+C ends the workers, leaves table and page complete, and is raised on.
    """
    settings = settings or BatchSettings()
    cases = read_cases(source, output.absolute() / "cases", settings.common_job())
    cards = _cards(settings.models)
    _make_folder(output)
    with _alone_in(output):
        book = Book(output.absolute(), cases, _description(source, settings))
        todo = book.begin(retry_failed=settings.retry_failed, cards=cards)
        book.write()
        # Every worker that is started loads its own models.
        count = min(settings.workers, len(todo))
        variables = _environment(environment, count)
        desks = [
            _Desk(JobServer(folder=output / "workers" / str(n + 1), python=python, environment=variables))
            for n in range(count)
        ]
        _Floor(book, desks, watch).work(deque(todo))
    return BatchResult(book.rows, output)


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join([*names[:most], *(["…"] if len(names) > most else [])])


def case_line(row: CaseRow) -> str:
    """How a case ended, in one line of text."""
    if row.status == "failed":
        return f"{row.case}: failed. {row.message}"
    parts = [row.status if row.dsc is None else f"DSC {row.dsc:.3f}"]
    if row.tre_rms_mm is not None:
        parts.append(f"landmark error {row.tre_rms_mm:.2f} mm")
    if row.warnings:
        parts.append(f"{len(row.warnings)} warning{'s' if len(row.warnings) > 1 else ''}")
    if row.seconds is not None:
        parts.append(f"{row.seconds:.1f} s")
    return f"{row.case}: {', '.join(parts)}"


def _description(source: Path, settings: BatchSettings) -> dict[str, str]:
    values = asdict(settings) | {"models": settings.models or "those installed"}
    del values["retry_failed"]
    return {"cases": str(source), **{name: str(value) for name, value in values.items()}}


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in output.iterdir()}.difference((*SYSTEM_FILES, _LOCK))
    except OSError as error:
        raise InputError(
            f"The output folder {output} cannot be made ({error.strerror}); give another."
        ) from error
    if names and "batch.json" not in names:
        raise InputError(f"The output folder {output} is not empty and holds no batch; give another folder.")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep a second batch out of the folder; the system forgets the lock of a process that was killed."""
    with (folder / _LOCK).open("w") as stream:
        try:
            _lock(stream)
        except OSError as error:
            # Some network drives know no locks.
            if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                raise InputError(
                    f"Another batch is at work in {folder}; wait for it or give another folder."
                ) from error
        yield


def _lock(stream: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _environment(given: Mapping[str, str] | None, workers: int) -> dict[str, str]:
    """Workers side by side share the processors; together they would otherwise use each several times."""
    environment = dict(os.environ if given is None else given)
    if workers > 1:
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        environment = {**dict.fromkeys(_THREADS, threads), **environment}
    return environment


def _cards(models: Path | None) -> str:
    """A digest of all model cards, each of which has the checksum of its model."""
    digest = hashlib.sha256()
    for folder in models_folders(models):
        for path in sorted(folder.glob("*.json")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class _Desk:
    """A worker and the case that it has."""

    def __init__(self, server: JobServer) -> None:
        self.server = server
        self.case: BatchCase | None = None
        self.started = 0.0
        self.stage = ""
        self.fraction = 0.0

    def give(self, case: BatchCase, job: Path) -> None:
        self.case, self.started, self.stage, self.fraction = case, time.monotonic(), "", 0.0
        self.server.start(job)


class _Floor:
    """Hands cases to workers until none is left, and tells who watches."""

    def __init__(self, book: Book, desks: list[_Desk], watch: Watch | None) -> None:
        self._book, self._desks, self._watch = book, desks, watch
        self._begin = time.monotonic()
        self._ended = 0

    def work(self, todo: deque[BatchCase]) -> None:
        """Returns when every case has ended; however it ends, no worker is left behind."""
        try:
            self._tell(None)
            while todo or any(desk.case for desk in self._desks):
                for desk in self._desks:
                    if desk.case is None and todo:
                        case = todo.popleft()
                        desk.give(case, self._book.write_job(case))
                    self._listen(desk)
                time.sleep(_STEP_S)
        finally:
            for desk in self._desks:
                desk.server.close()

    def _listen(self, desk: _Desk) -> None:
        for event in desk.server.poll():
            if event.type == "progress":
                desk.stage, desk.fraction = event.stage, event.fraction
                self._tell(None)
            elif desk.case is not None:
                if event.kind == "cancelled":
                    # Somebody asked the worker to stop, which is no fault of the case.
                    raise KeyboardInterrupt
                case, desk.case = desk.case, None
                self._ended += 1
                self._tell(self._book.record(case, event, time.monotonic() - desk.started))

    def _tell(self, finished: CaseRow | None) -> None:
        if self._watch is None:
            return
        running = tuple(Running(d.case.name, d.stage, d.fraction) for d in self._desks if d.case is not None)
        left = self._book.count("pending")
        each = (time.monotonic() - self._begin) / self._ended if self._ended else None
        self._watch(
            BatchProgress(
                done=self._book.count("done"),
                failed=self._book.count("failed"),
                left=left,
                seconds_left=None if each is None else each * left,
                running=running,
                finished=finished,
            )
        )
