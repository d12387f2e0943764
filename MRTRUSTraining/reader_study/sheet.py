"""The rows of a CSV file of cases, scores or references, as spreadsheets of any country write it.

Comma, semicolon or tab as the first row with one has it, or as a line `sep=;` above it says; UTF-8, in the
composed form of Unicode (NFC) whatever the file has. Before the header every line that begins with `#` is a
comment, after it only one in which a space or nothing follows, because a case may be called `#1`.
"""

from __future__ import annotations

import csv
import re
import reprlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from MRTRUSRegistrationLib.errors import InputError

KEYS = ("case", "reader", "condition")
RATINGS = ("t2_score", "confidence", "laterality")
REFERENCES = ("reference_pirads", "biopsy_laterality", "gleason")
COLUMNS = (*KEYS, *RATINGS, *REFERENCES, "zone", "note")
_ANY_COMMENT = re.compile(r"\s*#")
_SPACED_COMMENT = re.compile(r"\s*#+(?:\s|$)")


@dataclass(frozen=True)
class Record:
    """A row that is not blank, with its number in a spreadsheet: its cells, or the text of a comment."""

    number: int
    cells: tuple[str, ...] = ()
    comment: str = ""


@dataclass(frozen=True)
class Row:
    """A row of figures: its number in a spreadsheet, and its cells by column."""

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
        # Spreadsheets may write 4 as 4.0, or as 4,0 where the comma is the decimal sign.
        number = re.fullmatch(r"0*(\d{1,9})(?:[.,]0*)?", text)
        if number is None or int(number[1]) not in allowed:
            raise self.error(
                column, f"{reprlib.repr(text)} is not a whole number from {allowed[0]} to {allowed[-1]}"
            )
        return int(number[1])

    def word(self, column: str, allowed: Sequence[str]) -> str | None:
        text = self.cells.get(column, "").lower().replace(" ", "")
        if text and text not in allowed:
            raise self.error(column, f"{reprlib.repr(self.cells[column])} is none of {', '.join(allowed)}")
        return text or None


@dataclass(frozen=True)
class Sheet:
    """A file of scores or references whose columns are known."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    comments: tuple[str, ...]


def read_sheet(path: Path) -> Sheet:
    """The content of a file; `InputError` names the file, its columns or its row of a wrong length."""
    records = read_records(path)
    header, *body = [record for record in records if record.cells] or [Record(0)]
    columns = _checked_columns(path, header.cells)
    comments = tuple(record.comment for record in records if record.comment)
    return Sheet(columns, tuple(_row(path, record, columns) for record in body), comments)


def read_records(path: Path, *, bare_comments: bool = True) -> list[Record]:
    """The rows of a CSV file that are not blank; `InputError` where it is no such file.

    Rows are counted as a spreadsheet counts them: a quoted cell may span several lines. Without
    `bare_comments` a `#` begins a comment only if a space or nothing follows it, everywhere.
    """
    try:
        return [*_records(_text(path), _ANY_COMMENT if bare_comments else _SPACED_COMMENT)]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); save it as CSV again.") from error


def _text(path: Path) -> str:
    try:
        return unicodedata.normalize("NFC", path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a UTF-8 text file; save it as CSV UTF-8.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a CSV file.") from error


def _records(text: str, comment: re.Pattern[str]) -> Iterator[Record]:
    # Spreadsheets take a first line such as `sep=;` for a setting and do not count it.
    setting = re.match(r'"?sep=([,;\t])"?\s*?(?:\n|$)', text, re.IGNORECASE)
    text = text[setting.end() :] if setting else text
    delimiter = setting[1] if setting else _delimiter(text, comment)
    lines = iter(text.split("\n"))
    for number, line in enumerate(lines, start=1):
        # Quotes mean nothing in a comment.
        plain = comment.match(line) is not None
        cells = (line.strip().rstrip(f"{delimiter} "),) if plain else _cells(line, lines, delimiter)
        if comment.match(cells[0]):
            words = f"{delimiter} ".join(filter(None, cells)).lstrip("# ")
            yield from [Record(number, comment=words)] if words else []
        elif any(cells):
            comment = _SPACED_COMMENT
            yield Record(number, cells)


def _cells(line: str, following: Iterator[str], delimiter: str) -> tuple[str, ...]:
    """The cells of a row; lines are taken from `following` while a quoted cell is open."""
    lines = (f"{part}\n" for part in chain([line], following))
    return tuple(cell.strip() for cell in next(csv.reader(lines, delimiter=delimiter, strict=True))) or ("",)


def _delimiter(text: str, comment: re.Pattern[str]) -> str:
    """The commonest separator of the first row that has one: where it is a semicolon, commas are decimal."""
    lines = (
        line for line in text.split("\n") if line.strip(' ",;\t') and not comment.match(line.lstrip(' "'))
    )
    # A separator between quotes belongs to a cell.
    bare = (re.sub(r'"[^"]*"', "", line) for line in lines)
    return max(",;\t", key=next((line for line in bare if re.search(r"[,;\t]", line)), "").count)


def _checked_columns(path: Path, header: Sequence[str]) -> tuple[str, ...]:
    # Spreadsheets add empty columns at the right end.
    width = max((place for place, name in enumerate(header, start=1) if name), default=0)
    columns = tuple(name.lower() for name in header[:width])
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


def _row(path: Path, record: Record, columns: Sequence[str]) -> Row:
    if any(record.cells[len(columns) :]):
        raise InputError(
            f"{path}, row {record.number} has {len(record.cells)} cells where the header has {len(columns)}; "
            "quote cells that hold a separator."
        )
    return Row(path, record.number, dict(zip(columns, record.cells, strict=False)))
