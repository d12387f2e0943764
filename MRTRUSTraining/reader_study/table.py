"""A table that is written twice: as CSV with every digit, and as text for people."""

from __future__ import annotations

import csv
import io
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NO_FIGURE = "–"


@dataclass(frozen=True)
class Column:
    """A column for people: a `str.format` template over the row, such as "{auc:.3f}".

    Besides the usual ones there are the formats `p` (a p-value) and `percent` (of a share). A nan reads "–",
    and so does the whole cell if its first figure is nan.
    """

    title: str
    template: str

    def shown(self, row: Mapping[str, Any]) -> str:
        names = [name for _, name, _, _ in string.Formatter().parse(self.template) if name]
        if any(_is_nan(row[name]) for name in names[:1]):
            return NO_FIGURE
        return _Formatter().vformat(self.template, (), row)

    @property
    def numeric(self) -> bool:
        """Whether it holds figures, which are aligned to the right."""
        return ":" in self.template


@dataclass(frozen=True)
class Table:
    """Rows by column name; `name` is that of the file, `note` says how to read it."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    note: str = ""

    def lines(self) -> list[list[str]]:
        """The cells as people read them."""
        return [[column.shown(row) for column in self.columns] for row in self.rows]

    def csv(self, *, notice: str = "") -> str:
        """All figures of all rows under a header; empty cells for nan; `notice` becomes a first comment."""
        stream = io.StringIO()
        if notice:
            stream.write(f"# {notice}\n")
        writer = csv.DictWriter(stream, list(self.rows[0]) if self.rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _raw(value) for name, value in row.items()} for row in self.rows)
        return stream.getvalue()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if _is_nan(value):
            return NO_FIGURE
        if format_spec == "p":
            return p_text(value)
        if format_spec == "percent":
            return f"{100 * value:.1f}"
        text = str(super().format_field(value, format_spec))
        return text.replace("-", "−", 1) if isinstance(value, float) and text.startswith("-") else text


def p_text(p: float) -> str:
    """A p-value with three digits; below .001 only that."""
    if math.isnan(p):
        return NO_FIGURE
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def tests_in(tables: Sequence[Table]) -> int:
    """How many p-values the tables hold."""
    values = [row["p"] for table in tables for row in table.rows if "p" in row]
    return sum(not math.isnan(value) for value in values)


def _raw(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return value
