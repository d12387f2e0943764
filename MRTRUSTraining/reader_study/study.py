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
any of its rows, or in a file of their own that has `case` and no `reader`. Comments are shown in the report
(see sheet.py for what is one).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Literal

from MRTRUSRegistrationLib.errors import InputError

from .sheet import KEYS, RATINGS, Row, read_sheet

SCORES = tuple(range(1, 6))
CONFIDENCES = tuple(range(1, 8))
SIDES = ("left", "right", "bilateral")
POSITIVE_FROM = 4
BENIGN = "benign"
# How a comment begins that marks a study as made up.
MADE_UP_MARK = "MADE-UP STUDY"
# Also what a file of somebody's own may begin with; "not made up" does not.
_MADE_UP = re.compile(r"made[- ]up\b", re.IGNORECASE)
GRADE_GROUPS = {"3+3": 1, "3+4": 2, "4+3": 3, "4+4": 4, "3+5": 4, "5+3": 4, "4+5": 5, "5+4": 5, "5+5": 5}

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
        """Whether a comment begins with the mark of a made-up study, in whatever letters it is written."""
        return any(_MADE_UP.match(comment) for comment in self.comments)

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

    Names that differ only in upper and lower case are an error too, and so are references of which none
    belongs to a case that was read.
    """
    readings: dict[tuple[str, Sitting], tuple[Reading, Row]] = {}
    references: dict[str, Reference] = {}
    comments: list[str] = []
    for path in paths:
        sheet = read_sheet(path)
        comments += sheet.comments
        for row in sheet.rows:
            case = row.required("case")
            references[case] = _merged(references.get(case, Reference()), row)
            if "reader" in sheet.columns:
                _add(readings, _reading(row), row)
    study = Study(tuple(reading for reading, _ in readings.values()), references, tuple(comments))
    files = ", ".join(path.name for path in paths)
    _require_content(study, files)
    _require_distinct_names(study, files)
    _require_common_cases(study, files)
    return study


def _add(readings: dict[tuple[str, Sitting], tuple[Reading, Row]], reading: Reading, row: Row) -> None:
    key = (reading.case, reading.sitting)
    if key in readings:
        raise row.error(
            "case", f"case {reading.case} ({reading.sitting}) stands already in {readings[key][1].place}"
        )
    readings[key] = (reading, row)


def _require_content(study: Study, files: str) -> None:
    if not study.readings:
        raise InputError(f"{files}: no readings; give a file with the columns {', '.join(KEYS)}.")
    if all(reading.empty for reading in study.readings):
        raise InputError(f"{files}: every reading is empty; fill in {' or '.join(RATINGS)}.")


def _require_distinct_names(study: Study, files: str) -> None:
    # Spelling that wavers would make two readers, conditions or cases of one.
    kinds = {"readers": study.readers, "conditions": study.conditions, "cases": (*study.references,)}
    for kind, names in kinds.items():
        known: dict[str, str] = {}
        for name in names:
            other = known.setdefault(name.casefold(), name)
            if other != name:
                raise InputError(
                    f"{files}: the {kind} {other!r} and {name!r} differ in upper and lower case alone; write "
                    "one name everywhere, or names that differ more."
                )


def _require_common_cases(study: Study, files: str) -> None:
    known = [case for case, reference in study.references.items() if reference != Reference()]
    if known and not {*known} & {*study.cases}:
        raise InputError(
            f"{files}: no reference belongs to a case that was read; there are references of "
            f"{listed(known)} and readings of {listed(study.cases)}; name the cases alike in all files."
        )


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    given = [*names]
    more = f" and {len(given) - most} more" if len(given) > most else ""
    return ", ".join(given[:most]) + more


def _reading(row: Row) -> Reading:
    return Reading(
        row.required("case"),
        Sitting(row.required("reader"), row.required("condition")),
        row.whole_number("t2_score", SCORES),
        row.whole_number("confidence", CONFIDENCES),
        row.word("laterality", (*SIDES, "none")),
    )


def _merged(known: Reference, row: Row) -> Reference:
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


def _require_one_biopsy(known: Reference, row: Row) -> None:
    if None in (known.biopsy_laterality, known.gleason):
        return
    if (known.biopsy_laterality == "none") != (known.gleason == BENIGN):
        raise row.error(
            "gleason",
            f"{known.gleason} and biopsy_laterality {known.biopsy_laterality} of case {row.cells['case']} "
            "contradict each other",
        )
