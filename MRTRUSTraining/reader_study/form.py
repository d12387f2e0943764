"""The readers' forms: one page and one empty CSV for each reader and condition."""

from __future__ import annotations

import csv
import io
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.page_template import page_template

from .criteria import CONFIDENCE_ANCHORS, SCORE_MEANINGS, SIDE_LABELS, SOURCE, T2_CRITERIA, ZONES
from .sheet import KEYS, REFERENCES, Record, read_records

FORM_COLUMNS = (*KEYS, "zone", "t2_score", "confidence", "laterality", "note")


@dataclass(frozen=True)
class Plan:
    """Who reads what. `side_only` are conditions that ask for the side of the lesion alone.

    Each form has the cases in its own order, drawn from `seed`, so that none profits from practice.
    """

    cases: tuple[str, ...]
    readers: tuple[str, ...]
    conditions: tuple[str, ...]
    side_only: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.readers or not self.conditions:
            raise InputError("Give at least one reader and one condition.")
        for name in (*self.readers, *self.conditions):
            if not re.fullmatch(r"[\w-]+", name):
                raise InputError(
                    f"The name {name!r} cannot be part of a file name; use letters, digits, - and _."
                )

        for names in (self.readers, self.conditions):
            # Scores of such readers would be refused, see `study.read_study`.
            if len({name.casefold() for name in names}) < len(names):
                raise InputError(f"{', '.join(names)}: give every reader and condition a name of its own.")

    def order(self, reader: str, condition: str) -> list[str]:
        cases = list(self.cases)
        random.Random(f"{self.seed} {reader} {condition}").shuffle(cases)
        return cases


@dataclass(frozen=True)
class CaseList:
    """The names of the cases in a file, and how many lines of it were comments."""

    names: tuple[str, ...]
    comments: int = 0


def read_cases(path: Path) -> CaseList:
    """The column `case` of a CSV file, or the first cell of every line of a file without that header.

    Blank lines are left out, and so are comments: lines that begin with `#` and a space. `InputError` names
    the row without a name, the case that is there twice, or a header that is not the first line.
    """
    records = read_records(path, bare_comments=False)
    rows = [record for record in records if record.cells]
    header = [cell.lower() for cell in rows[0].cells] if rows else []
    column = header.index("case") if "case" in header else 0
    rows = rows[1:] if "case" in header else rows
    if not rows:
        raise InputError(f"{path} names no cases; write one a line.")
    below = next((row for row in rows if row.cells[0].lower() == "case"), None)
    if below is not None:
        raise InputError(
            f"{path}, row {below.number}: the header {', '.join(below.cells)} must be the first line but "
            "comments, which begin with # and a space."
        )
    names = [_case_name(path, row, column) for row in rows]
    folded = [name.casefold() for name in names]
    twice = [name for place, name in enumerate(names) if folded[place] in folded[:place]]
    if twice:
        raise InputError(f"{path} names the case {twice[0]} twice; remove one.")
    return CaseList(tuple(names), sum(bool(record.comment) for record in records))


def _case_name(path: Path, row: Record, column: int) -> str:
    name = row.cells[column] if column < len(row.cells) else ""
    if not name:
        raise InputError(f"{path}, row {row.number}: the case has no name; give one or remove the row.")
    return name


def write_forms(plan: Plan, folder: Path) -> list[str]:
    """Write every form, and reference.csv for whoever knows the truth; returns the names of the files."""
    files = {"reference.csv": _csv(("case", *REFERENCES), [(case,) for case in plan.cases])}
    for reader in plan.readers:
        for condition in plan.conditions:
            order = plan.order(reader, condition)
            rows = [(case, reader, condition) for case in order]
            files[f"scores_{reader}_{condition}.csv"] = _csv(FORM_COLUMNS, rows)
            files[f"form_{reader}_{condition}.html"] = form_html(plan, reader, condition)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(files)


def _csv(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows((*row, *[""] * (len(columns) - len(row))) for row in rows)
    return stream.getvalue()


def form_html(plan: Plan, reader: str, condition: str) -> str:
    """A page that shows one case at a time, keeps answers in the browser and hands them out as CSV."""
    return page_template("form.html.j2", Path(__file__).parent).render(
        reader=reader,
        condition=condition,
        source=SOURCE,
        with_scores=condition not in plan.side_only,
        zones=ZONES,
        score_meanings=SCORE_MEANINGS,
        confidence_anchors=CONFIDENCE_ANCHORS,
        side_labels=SIDE_LABELS,
        data={
            "reader": reader,
            "condition": condition,
            "seed": plan.seed,
            "cases": plan.order(reader, condition),
            "criteria": T2_CRITERIA,
            "columns": FORM_COLUMNS,
            "needed": ["zone", "t2_score", "confidence", "laterality"]
            if condition not in plan.side_only
            else ["laterality"],
        },
    )
