"""A batch on the terminal: a bar with what is done, failed and left, a line a case, a summary at the end."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from .batch import BatchProgress, BatchResult, Watch, case_line

_FIGURES = (
    ("dsc", "gland overlap (DSC)", 3),
    ("hd95_mm", "HD95 (mm)", 2),
    ("tre_rms_mm", "landmark error (RMS, mm)", 2),
    ("seconds", "seconds", 1),
)


@contextmanager
def batch_watch(console: Console, *, quiet: bool) -> Iterator[Watch | None]:
    """A bar on a terminal, and a line for each case that has ended; nothing when quiet."""
    if quiet:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    bar = Progress(*columns, console=console, disable=not console.is_terminal)

    def show(now: BatchProgress) -> None:
        bar.start()
        if not bar.tasks:
            bar.add_task("cases", total=now.done + now.failed + now.left, state="")
        bar.update(bar.tasks[0].id, completed=now.done + now.failed, state=_state(now))
        if now.finished is not None:
            style = "red" if now.finished.status == "failed" else None
            console.print(case_line(now.finished), style=style, highlight=False, markup=False, soft_wrap=True)

    try:
        yield show
    finally:
        if bar.tasks:
            bar.stop()


def _state(now: BatchProgress) -> str:
    parts = [f"{now.done} done", f"{now.failed} failed", f"{now.left} left"]
    if now.seconds_left is not None and now.left:
        minutes, seconds = divmod(round(now.seconds_left), 60)
        parts.append(f"about {minutes} min left" if minutes else f"about {seconds} s left")
    running = ", ".join(f"{case.case} {case.stage}".strip() for case in now.running)
    return " · ".join([*parts, running] if running else parts)


def summary_table(result: BatchResult) -> Table:
    """Counts and mean figures of a batch."""
    table = Table(title=None, box=None, pad_edge=False)
    for column, justify in (("", "left"), ("mean", "right"), ("median", "right"), ("cases", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for name, label, digits in _FIGURES:
        known = [getattr(row, name) for row in result.rows if row.status == "done"]
        _add_figure(table, label, [value for value in known if value is not None], digits)
    return table


def _add_figure(table: Table, label: str, values: Sequence[float], digits: int) -> None:
    if values:
        shown = (f"{value:.{digits}f}" for value in (statistics.fmean(values), statistics.median(values)))
        table.add_row(label, *shown, str(len(values)))
