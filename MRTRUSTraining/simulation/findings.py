"""Rows of the simulator's evidence: what was measured, what the sources say, whether both agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Finding:
    """One row; `within` is None where the sources give nothing to agree with."""

    quantity: str
    measured: str
    expected: str
    source: str
    within: bool | None


def finding(
    quantity: str,
    value: float,
    limits: tuple[float, float],
    *,
    expected: str,
    source: str,
    shown: str = "",
    digits: int = 2,
) -> Finding:
    """A row that agrees where `value` lies within `limits`; `shown` replaces the value in the table.

    Where the cases had nothing to measure (nan) the row neither agrees nor disagrees.
    """
    within = None if np.isnan(value) else bool(limits[0] <= value <= limits[1])
    return Finding(quantity, shown or f"{value:.{digits}f}", expected, source, within)


def spread(values: Sequence[float] | np.ndarray, *, digits: int = 2, unit: str = "") -> str:
    """Mean ± sd (least to most, n) of values."""
    array = np.asarray(values, float)
    if array.size == 0:
        return "none drawn"
    mean, sd, low, high = array.mean(), array.std(), array.min(), array.max()
    figures = f"{mean:.{digits}f} ± {sd:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return f"{figures}{' ' + unit if unit else ''}, n = {array.size}"


def table(findings: Sequence[Finding]) -> str:
    """A Markdown table."""
    words = {True: "yes", False: "**no**", None: "–"}
    lines = ["| quantity | measured | expected | source | within |", "|---|---|---|---|---|"]
    for each in findings:
        cells = (each.quantity, each.measured, each.expected, each.source, words[each.within])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
