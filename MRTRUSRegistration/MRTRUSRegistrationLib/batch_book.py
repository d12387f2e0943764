"""The rows of a batch and its files: what is finished, and from where an interrupted batch goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import __version__
from .batch_cases import BatchCase
from .batch_report import CaseRow, batch_csv, cohort_html, done_row, thumbnail
from .errors import InputError
from .job import Event, Job
from .outputs import write_text_atomically

FORMAT_VERSION = 1


def fingerprint(job: Job, cards: str) -> str:
    """What a result depends on: settings, models, version, and the files by size and time of change."""
    content = json.loads(job.to_json())
    for name in ("output", "overwrite"):
        del content[name]
    stamps = {name: _stamp(path) for name, path in job.input_files.items()}
    text = json.dumps([content, stamps, cards, __version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _stamp(path: Path) -> list[Any]:
    try:
        if path.is_dir():
            return [[entry.name, *_stamp(entry)] for entry in sorted(path.iterdir())]
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


class Book:
    """The rows of a batch, and its files."""

    def __init__(self, folder: Path, cases: Sequence[BatchCase], description: Mapping[str, str]) -> None:
        self.folder = folder
        self.cases = cases
        self._description = description
        self._rows = {case.name: CaseRow(case.name) for case in cases}
        self._thumbnails: dict[str, bytes] = {}
        self._state: dict[str, dict[str, Any]] = {}
        self._fingerprints: dict[str, str] = {}

    @property
    def rows(self) -> tuple[CaseRow, ...]:
        return tuple(self._rows.values())

    def count(self, status: str) -> int:
        return sum(row.status == status for row in self.rows)

    def begin(self, *, retry_failed: bool, cards: str) -> list[BatchCase]:
        """Take over what an earlier run has finished; returns the cases that are to be run."""
        self._state = self._read_state()
        self._fingerprints = {case.name: fingerprint(case.job, cards) for case in self.cases}
        for case in self.cases:
            row = self._kept(case, retry_failed)
            if row is not None:
                self._rows[case.name] = row
                self._add_thumbnail(case)
        return [case for case in self.cases if self._rows[case.name].status == "pending"]

    def _kept(self, case: BatchCase, retry_failed: bool) -> CaseRow | None:
        """The row of a case that need not be run again."""
        entry = self._state.get(case.name)
        if entry is None or entry.get("fingerprint") != self._fingerprints[case.name]:
            return None
        if entry.get("status") == "failed":
            return None if retry_failed else CaseRow(case.name, "failed", message=str(entry.get("message")))
        # The figures are those of the result itself, which may have been removed.
        with contextlib.suppress(InputError):
            return done_row(case.name, case.job.output, seconds=entry.get("seconds"))
        return None

    def write_job(self, case: BatchCase) -> Path:
        path = self.folder / "jobs" / f"{case.name}.json"
        path.parent.mkdir(exist_ok=True)
        write_text_atomically(case.job.to_json(), path)
        return path

    def record(self, case: BatchCase, end: Event, seconds: float) -> CaseRow:
        """Note how a case ended, and bring every file up to date."""
        row = self._row(case, end, round(seconds, 2))
        self._rows[case.name] = row
        self._state[case.name] = {
            "fingerprint": self._fingerprints[case.name],
            "status": row.status,
            "seconds": row.seconds,
            "message": row.message,
        }
        self._thumbnails.pop(case.name, None)
        self._thumbnail_path(case).unlink(missing_ok=True)
        self._add_thumbnail(case)
        self.write()
        return row

    def _row(self, case: BatchCase, end: Event, seconds: float) -> CaseRow:
        try:
            if end.type == "done":
                return done_row(case.name, case.job.output, seconds=seconds)
            message = end.message
        except InputError as error:
            message = str(error)
        return CaseRow(case.name, "failed", seconds=seconds, message=message)

    def write(self) -> None:
        """Write state, table and page, each complete or as it was."""
        state = {"format": FORMAT_VERSION, "cases": self._state}
        write_text_atomically(json.dumps(state, indent=1) + "\n", self.folder / "batch.json")
        # A table that is open in a spreadsheet program may be locked; the next case brings it up to date.
        with contextlib.suppress(PermissionError):
            write_text_atomically(batch_csv(self.rows), self.folder / "batch.csv")
        with contextlib.suppress(PermissionError):
            write_text_atomically(self._page(), self.folder / "cohort.html")

    def _page(self) -> str:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        done = [case for case in self.cases if self._rows[case.name].status == "done"]
        return cohort_html(
            self.rows,
            title=self.folder.name,
            thumbnails=self._thumbnails,
            reports={case.name: f"cases/{case.name}/report.html" for case in done},
            settings={**self._description, "mrtrus": __version__, "date": now},
        )

    def _thumbnail_path(self, case: BatchCase) -> Path:
        return self.folder / "thumbnails" / f"{case.name}.jpg"

    def _add_thumbnail(self, case: BatchCase) -> None:
        if self._rows[case.name].status != "done":
            return
        path = self._thumbnail_path(case)
        # A case without a picture is still a case.
        with contextlib.suppress(InputError):
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(thumbnail(case.job.output))
            self._thumbnails[case.name] = path.read_bytes()

    def _read_state(self) -> dict[str, dict[str, Any]]:
        path = self.folder / "batch.json"
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version, cases = content["format"], dict(content["cases"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not the state of a batch; give another output folder.") from error
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path} has format {version!r}, but this version reads format {FORMAT_VERSION}; give "
                "another output folder."
            )
        return cases
