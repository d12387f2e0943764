"""The tables of the papers as Markdown and CSV: published figures beside ours, interval and paired test."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from .evaluation.evaluate import MetricsRow
from .evaluation.statistics import Summary, summarise
from .row import Place

REFERENCE = "rigid"


@dataclass(frozen=True)
class Column:
    """A figure: its name in metrics.csv, heading, published mean and deviation ("" for none), digits."""

    figure: str
    heading: str
    published: str
    published_sd: str
    digits: int


_DSC = Column("dsc", "DSC", "dsc", "dsc_sd", 3)
_TRE = Column("tre_rms_mm", "TRE mm", "tre_mm", "tre_sd_mm", 2)
_SEGMENTATION = (
    _DSC,
    Column("accuracy", "accuracy", "accuracy", "", 3),
    Column("precision", "precision", "", "", 3),
    Column("recall", "recall", "", "", 3),
    Column("hd95_mm", "HD95 mm", "hd95_mm", "", 2),
)
COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "1": (_DSC, _TRE),
    "2": (_DSC, _TRE),
    "V": _SEGMENTATION,
    "B": (
        *_SEGMENTATION,
        # Paper B takes the mean over a case's points, as far as its text can be read.
        Column("tre_mean_mm", "TRE (mean) mm", "tre_mm", "", 2),
    ),
}
_DEFINITIONS = """\
Ours: mean ± standard deviation over pairs [95 % interval of the mean, patient-level bootstrap; – of one
patient], with predicted masks where a method uses masks; the reference is always the human gland and
landmarks. TRE is the distance of the centroids of corresponding landmarks, per case as root mean square
or, where the heading says so, as mean over its landmarks; the gland is not one of them. Differences are
paired, to the rigid alignment, with the same kind of interval; p is of the two-sided Wilcoxon signed-rank
test of the patients' mean differences; of n patients it cannot be less than 2/2ⁿ. Published figures are
of other pairs, with the checkpoint chosen on the test pairs; ours was chosen on the validation part.
"""


@dataclass(frozen=True)
class Line:
    """One line of a table: published and own figures, and how these differ from the reference, by figure."""

    name: str
    place: Place
    summaries: Mapping[str, Summary]
    differences: Mapping[str, Summary]
    p_values: Mapping[str, float]
    cases: int
    training: str

    def published(self, column: Column) -> tuple[float | None, float | None]:
        """Mean and standard deviation as published, None where there is none."""
        known = self.place.published
        mean = getattr(known, column.published) if column.published else None
        deviation = getattr(known, column.published_sd) if column.published_sd else None
        return mean, deviation


def line_of(
    name: str,
    place: Place,
    table: str,
    *,
    figures: Mapping[str, Mapping[str, Sequence[float]]],
    patients: Sequence[str],
    training: str,
    registers: bool = True,
) -> Line:
    """The line of one method from all methods' figures, each one value a case.

    What registers is compared with the reference; the overlap of a segmenter's masks is another thing.
    """
    own, reference = figures.get(name, {}), figures.get(REFERENCE, {})
    known = [column.figure for column in COLUMNS[table] if column.figure in own]
    wanted = registers and name != REFERENCE
    compared = [figure for figure in known if wanted and figure in reference]
    return Line(
        name,
        place,
        {figure: summarise(own[figure], patients) for figure in known},
        {
            figure: summarise(_paired(own[figure], reference[figure]).tolist(), patients)
            for figure in compared
        },
        {figure: paired_p(own[figure], reference[figure], patients) for figure in compared},
        len(patients),
        training,
    )


def paired_p(values: Sequence[float], reference: Sequence[float], patients: Sequence[str]) -> float:
    """Two-sided Wilcoxon signed-rank test of the patients' mean differences; nan where there are none.

    Pairs of one patient are not independent, so that a patient counts once.
    """
    differences = _paired(values, reference)
    known, groups = np.isfinite(differences), np.asarray(patients)
    means = [float(differences[known & (groups == p)].mean()) for p in np.unique(groups[known])]
    if not means:
        return float("nan")
    return float(wilcoxon(means).pvalue) if np.any(means) else 1.0


def _paired(values: Sequence[float], reference: Sequence[float]) -> np.ndarray:
    return np.asarray(values, float) - np.asarray(reference, float)


def remarks_on(found: Sequence[MetricsRow]) -> list[str]:
    """What the figures of a method do not show: fields that were smoothed, landmarks without an error."""
    by_method = {row.method: [each for each in found if each.method == row.method] for row in found}
    smoothed, lost = [], []
    for name, rows in by_method.items():
        if count := sum("field_smoothed" in row.warnings.split() for row in rows):
            share = np.nanmean([row.own_folds_percent for row in rows])
            smoothed.append(f"{name} {count} ({share:.2f} %)")
        if count := sum(row.landmarks_lost for row in rows):
            lost.append(f"{name} {count}")
    remarks = []
    if smoothed:
        remarks.append(
            "Fields that folded, in the gland or beyond it, were smoothed where they did before they were "
            "measured. How many, and the share of the gland that had folded, in the mean over all pairs: "
            f"{', '.join(smoothed)}."
        )
    if lost:
        remarks.append(
            f"Landmarks carried so far out of the TRUS volume that they have no error: {', '.join(lost)}."
        )
    return remarks


def table_markdown(
    table: str, lines: Sequence[Line], *, title: str, command: str, remarks: Sequence[str] = ()
) -> str:
    """The page: table, remarks on single methods, definitions."""
    columns = COLUMNS[table]
    compared = {figure for line in lines for figure in line.differences}
    heads = ["row", *(head for column in columns for head in _heads(column, compared)), "training"]
    rows = [_row(heads), "|---" * len(heads) + "|"]
    for line in lines:
        cells = [cell for column in columns for cell in _cells(line, column, compared)]
        rows.append(_row([line.place.title, *cells, line.training]))
    said = [line for remark in remarks for line in (remark, "")]
    return "\n".join([f"# {title}", "", f"`{command}`", "", *rows, "", *said, _DEFINITIONS])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heads(column: Column, compared: Collection[str]) -> list[str]:
    """Of the cells of a figure; the reference has not every figure that a table has."""
    heads = [f"{column.heading} published", "ours"]
    return [*heads, "to rigid", "p"] if column.figure in compared else heads


def _cells(line: Line, column: Column, compared: Collection[str]) -> list[str]:
    cells = [_published(line, column), _ours(line, column)]
    if column.figure not in compared:
        return cells
    p = line.p_values.get(column.figure)
    shown = "–" if p is None or np.isnan(p) else f"{p:.3f}"
    return [*cells, _difference(line, column), shown]


def _published(line: Line, column: Column) -> str:
    mean, deviation = line.published(column)
    if mean is None:
        return "–"
    spread = "" if deviation is None else f" ± {deviation:.{column.digits}f}"
    return f"{mean:.{column.digits}f}{spread}"


def _ours(line: Line, column: Column) -> str:
    summary = line.summaries.get(column.figure)
    if summary is None or summary.pairs == 0:
        return "–"
    missing = "" if summary.pairs == line.cases else f" ({summary.pairs} of {line.cases})"
    return f"{summary.shown(column.digits)}{missing}"


def _difference(line: Line, column: Column) -> str:
    apart = line.differences.get(column.figure)
    return "–" if apart is None or apart.pairs == 0 else apart.shown_difference(column.digits)


def table_csv(table: str, lines: Sequence[Line]) -> str:
    """One line a row; an empty field where there is no figure."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ours, apart = ("mean", "sd", "low", "high", "pairs"), ("mean", "low", "high")
    parts = ["published", "published_sd", *ours, *(f"minus_rigid_{part}" for part in apart), "p_vs_rigid"]
    heads = [f"{column.figure}_{part}" for column in COLUMNS[table] for part in parts]
    writer.writerow(["row", "title", *heads, "training"])
    for line in lines:
        values = [value for column in COLUMNS[table] for value in _values(line, column)]
        writer.writerow([line.name, line.place.title, *map(_field, values), line.training])
    return buffer.getvalue()


def _values(line: Line, column: Column) -> list[float | int | None]:
    s, d = line.summaries.get(column.figure), line.differences.get(column.figure)
    ours = [None] * 5 if s is None else [s.mean, s.sd, s.low, s.high, s.pairs]
    apart = [None] * 3 if d is None else [d.mean, d.low, d.high]
    return [*line.published(column), *ours, *apart, line.p_values.get(column.figure)]


def _field(value: float | int | None) -> str:
    if value is None or np.isnan(value):
        return ""
    return str(value) if isinstance(value, int) else f"{value:.4f}"
