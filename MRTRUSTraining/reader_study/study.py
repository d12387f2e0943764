"""The scores of a reader study: what its CSV files hold, checked.

One row a case, reader and condition. Columns (any order, names as given; blank cells mean "not given"):

===================  ========================================================================
case                 name of the case
reader               name of the reader, such as `junior`
condition            what was read, such as `original`, `registered`, `trus`
t2_score             PI-RADS-like score on T2-weighted images alone, 1 to 5
confidence           7-point Likert, 1 (highly uncertain) to 7 (highly certain)
laterality           side of the lesion: `left`, `right`, `bilateral` or `none`
reference_pirads     recorded PI-RADS v2.1, 1 to 5; 4 and 5 count as positive
biopsy_laterality    side of the cancer in the biopsy: `left`, `right`, `bilateral` or `none`
gleason              such as `3+4`, or `benign`
zone, note           kept for the readers (see the form); not analysed
===================  ========================================================================

The first three are required, and one of the next three. The references belong to a case: they may stand in
any of its rows, or in a file of their own that has `case` and no `reader`. Lines that begin with `#` are
comments; they are shown in the report.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

from MRTRUSRegistrationLib.errors import InputError

SCORES = tuple(range(1, 6))
CONFIDENCES = tuple(range(1, 8))
SIDES = ("left", "right", "bilateral")
POSITIVE_FROM = 4
BENIGN = "benign"
GRADE_GROUPS = {"3+3": 1, "3+4": 2, "4+3": 3, "4+4": 4, "3+5": 4, "5+3": 4, "4+5": 5, "5+4": 5, "5+5": 5}

KEYS = ("case", "reader", "condition")
RATINGS = ("t2_score", "confidence", "laterality")
REFERENCES = ("reference_pirads", "biopsy_laterality", "gleason")
COLUMNS = (*KEYS, *RATINGS, *REFERENCES, "zone", "note")

Rating = Literal["t2_score", "confidence", "laterality"]


@dataclass(frozen=True)
class Sitting:
    """One reader's readings under one condition."""

    reader: str
    condition: str

    def __str__(self) -> str:
        return f"{self.reader}, {self.condition}"


@dataclass(frozen=True)
class Reading:
    """What one reader said about one case under one condition; None where nothing was said."""

    case: str
    sitting: Sitting
    t2_score: int | None = None
    confidence: int | None = None
    laterality: str | None = None

    @property
    def empty(self) -> bool:
        return self.t2_score is None and self.confidence is None and self.laterality is None


@dataclass(frozen=True)
class Reference:
    """What is known about a case; None where it is not."""

    reference_pirads: int | None = None
    biopsy_laterality: str | None = None
    gleason: str | None = None

    @property
    def positive(self) -> bool | None:
        """PI-RADS 4 or 5."""
        return None if self.reference_pirads is None else self.reference_pirads >= POSITIVE_FROM

    @property
    def grade_group(self) -> int | None:
        """ISUP grade group 1 to 5; 0 is benign."""
        return None if self.gleason is None else GRADE_GROUPS.get(self.gleason, 0)


@dataclass(frozen=True)
class Study:
    """All readings and references; `comments` are the comment lines of the files."""

    readings: tuple[Reading, ...]
    references: Mapping[str, Reference]
    comments: tuple[str, ...] = ()

    @cached_property
    def _by_sitting(self) -> dict[Sitting, dict[str, Reading]]:
        table: dict[Sitting, dict[str, Reading]] = {}
        for reading in self.readings:
            table.setdefault(reading.sitting, {})[reading.case] = reading
        return table

    @property
    def cases(self) -> tuple[str, ...]:
        """Cases that were read, in order of first appearance."""
        return tuple(dict.fromkeys(reading.case for reading in self.readings))

    @property
    def readers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reading.sitting.reader for reading in self.readings))

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(reading.sitting.condition for reading in self.readings))

    @property
    def made_up(self) -> bool:
        """Whether a comment says that the study is made up."""
        return any(re.search(r"made[- ]up", comment, re.IGNORECASE) for comment in self.comments)

    def sittings(self, rating: Rating) -> tuple[Sitting, ...]:
        """Sittings in which the rating was given, reader by reader."""
        found = [Sitting(reader, condition) for reader in self.readers for condition in self.conditions]
        return tuple(sitting for sitting in found if self.values(rating, sitting))

    def reader_pairs(self, rating: Rating) -> list[tuple[Sitting, Sitting]]:
        """Two conditions of one reader, for every reader."""
        pairs = combinations(self.sittings(rating), 2)
        return [(one, other) for one, other in pairs if one.reader == other.reader]

    def condition_pairs(self, rating: Rating) -> list[tuple[Sitting, Sitting]]:
        """Two readers under one condition, for every condition."""
        pairs = combinations(self.sittings(rating), 2)
        return [(one, other) for one, other in pairs if one.condition == other.condition]

    def values(self, rating: Rating, sitting: Sitting) -> dict[str, int | str]:
        """The rating of every case that has it."""
        readings = self._by_sitting.get(sitting, {})
        values = {case: getattr(reading, rating) for case, reading in readings.items()}
        return {case: value for case, value in values.items() if value is not None}

    def numbers(self, rating: Literal["t2_score", "confidence"], sitting: Sitting) -> dict[str, int]:
        """A numeric rating of every case that has it."""
        return {case: int(value) for case, value in self.values(rating, sitting).items()}

    def reference(self, case: str) -> Reference:
        return self.references.get(case, Reference())


def read_study(paths: Sequence[Path]) -> Study:
    """The study in one or more CSV files; `InputError` names the file, row and column of a fault.

    Rows are counted as a spreadsheet counts them, the header included.
    """
    readings: dict[tuple[str, Sitting], tuple[Reading, _Row]] = {}
    references: dict[str, Reference] = {}
    comments: list[str] = []
    for path in paths:
        sheet = _read_sheet(path)
        comments += sheet.comments
        for row in sheet.rows:
            case = row.required("case")
            references[case] = _merged(references.get(case, Reference()), row)
            if "reader" in sheet.columns:
                _add(readings, _reading(row), row)
    study = Study(tuple(reading for reading, _ in readings.values()), references, tuple(comments))
    _require_content(study, paths)
    return study


def _add(readings: dict[tuple[str, Sitting], tuple[Reading, _Row]], reading: Reading, row: _Row) -> None:
    key = (reading.case, reading.sitting)
    if key in readings:
        raise row.error(
            "case", f"case {reading.case} ({reading.sitting}) stands already in {readings[key][1].place}"
        )
    readings[key] = (reading, row)


def _require_content(study: Study, paths: Sequence[Path]) -> None:
    names = ", ".join(path.name for path in paths)
    if not study.readings:
        raise InputError(f"{names}: no readings; give a file with the columns {', '.join(KEYS)}.")
    if all(reading.empty for reading in study.readings):
        raise InputError(f"{names}: every reading is empty; fill in {' or '.join(RATINGS)}.")


@dataclass(frozen=True)
class _Row:
    path: Path
    number: int
    cells: Mapping[str, str]

    @property
    def place(self) -> str:
        return f"row {self.number} of {self.path.name}"

    def error(self, column: str, reason: str) -> InputError:
        return InputError(f"{self.path}, row {self.number}, column {column}: {reason}; correct the file.")

    def required(self, column: str) -> str:
        value = self.cells.get(column, "")
        if not value:
            raise self.error(column, "the cell is empty")
        return value

    def whole_number(self, column: str, allowed: Sequence[int]) -> int | None:
        text = self.cells.get(column, "")
        if not text:
            return None
        # Spreadsheets may write 4 as 4.0.
        number = re.fullmatch(r"(\d+)(?:\.0*)?", text)
        if number is None or int(number[1]) not in allowed:
            raise self.error(column, f"{text!r} is not a whole number from {allowed[0]} to {allowed[-1]}")
        return int(number[1])

    def word(self, column: str, allowed: Sequence[str]) -> str | None:
        text = self.cells.get(column, "").lower().replace(" ", "")
        if text and text not in allowed:
            raise self.error(column, f"{self.cells[column]!r} is none of {', '.join(allowed)}")
        return text or None


def _reading(row: _Row) -> Reading:
    return Reading(
        row.required("case"),
        Sitting(row.required("reader"), row.required("condition")),
        row.whole_number("t2_score", SCORES),
        row.whole_number("confidence", CONFIDENCES),
        row.word("laterality", (*SIDES, "none")),
    )


def _merged(known: Reference, row: _Row) -> Reference:
    """What is known about the case with what this row adds; a contradiction is an error."""
    given = Reference(
        row.whole_number("reference_pirads", SCORES),
        row.word("biopsy_laterality", (*SIDES, "none")),
        row.word("gleason", (*GRADE_GROUPS, BENIGN)),
    )
    for entry in fields(Reference):
        old, new = getattr(known, entry.name), getattr(given, entry.name)
        if new is None:
            continue
        if old not in (None, new):
            raise row.error(
                entry.name, f"{new} contradicts {old} in an earlier row of case {row.cells['case']}"
            )
        known = replace(known, **{entry.name: new})
    _require_one_biopsy(known, row)
    return known


def _require_one_biopsy(known: Reference, row: _Row) -> None:
    if None in (known.biopsy_laterality, known.gleason):
        return
    if (known.biopsy_laterality == "none") != (known.gleason == BENIGN):
        raise row.error(
            "gleason",
            f"{known.gleason} and biopsy_laterality {known.biopsy_laterality} of case {row.cells['case']} "
            "contradict each other",
        )


@dataclass(frozen=True)
class _Sheet:
    columns: tuple[str, ...]
    rows: tuple[_Row, ...]
    comments: tuple[str, ...]


def _read_sheet(path: Path) -> _Sheet:
    comments: list[str] = []
    lines = iter(_lines(path, comments.append))
    try:
        _, header = next(lines, (0, []))
        columns = _checked_columns(path, header)
        rows = [_row(path, number, columns, cells) for number, cells in lines]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); save it as CSV again.") from error
    return _Sheet(columns, tuple(rows), tuple(comments))


def _lines(path: Path, on_comment: Callable[[str], None]) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line that is neither blank nor a comment."""
    text = _text(path)
    header = next((line for line in text.splitlines() if line.strip(' "#;,') and "#" not in line[:2]), "")
    # Spreadsheets separate by semicolons where the comma is the decimal sign.
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    for line in reader:
        cells = [cell.strip() for cell in line]
        if cells and cells[0].startswith("#"):
            on_comment(f"{delimiter} ".join(filter(None, cells)).lstrip("# "))
        elif any(cells):
            yield reader.line_num, cells


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a UTF-8 text file; save the scores as CSV UTF-8.") from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give a CSV file with the scores."
        ) from error


def _checked_columns(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    columns = tuple(name.lower() for name in header)
    for name in columns:
        if name not in COLUMNS or columns.count(name) > 1:
            problem = "stands twice" if name in COLUMNS else "is not known"
            raise InputError(f"{path}: the column {name!r} {problem}; the columns are {', '.join(COLUMNS)}.")
    required = KEYS if {"reader", "condition", *RATINGS} & {*columns} else KEYS[:1]
    missing = [name for name in required if name not in columns]
    if missing:
        raise InputError(f"{path}: the column {missing[0]} is missing; add it to the first row.")
    if len(required) == len(KEYS) and not {*RATINGS} & {*columns}:
        raise InputError(f"{path}: no column {', '.join(RATINGS)}; add at least one of them.")
    return columns


def _row(path: Path, number: int, columns: Sequence[str], cells: Sequence[str]) -> _Row:
    if len(cells) > len(columns) and any(cells[len(columns) :]):
        raise InputError(
            f"{path}, row {number} has {len(cells)} cells where the header has {len(columns)}; quote cells "
            "that hold a separator."
        )
    return _Row(path, number, dict(zip(columns, cells, strict=False)))
