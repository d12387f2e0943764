"""summary.md: the table of an evaluation, with its definitions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.unpaired import unpaired_in_all
from .evaluate import MetricsRow, unpaired_by_case
from .mureg import ChallengeRow, challenge_rows
from .statistics import Summary, summarise

_COLUMNS = (
    ("dsc", "DSC", 3),
    ("hd95_mm", "HD95 mm", 2),
    ("tre_rms_mm", "TRE (RMS) mm", 2),
    ("tre_mean_mm", "TRE (mean) mm", 2),
)
_DENSE = ("dense_tre_mean_mm", "dense TRE mm", 2)
_DEFINITIONS = """\
Mean ± standard deviation over pairs [95 % interval of the mean, patient-level bootstrap; – of one
patient]. DSC and HD95 compare the warped reference gland of the MR with the reference gland of the TRUS.
TRE is the distance of the centroids of corresponding landmarks, per case as root mean square or mean over
its landmarks (the gland is not one of them); none is dropped, and one that the warp carries more than 45
mm out of the TRUS volume counts as lost and has no distance.
Dense TRE is the mean distance to the true place over all voxels of the reference TRUS gland, where the
truth is known. A name with +zeroed is a control: the network got the masks and images without content.
Folds are voxels of the reference TRUS gland with a Jacobian determinant ≤ 0. Seconds are the stages of one
case, loading of models included, of files not.
"""

_OTHERS = """\
srm: as the published code of paper A computes it, centroids in voxels, gland included, small labels dropped.
mureg_site, mureg_code: µ-RegPro's figures as its web page defines and as its scorer computes them, in voxels
of the MR, TRUS moving. paper_b: TRE is the mean over landmarks. Numbers of different definitions cannot be
compared.
"""
_CHALLENGE = """\
Over all cases; the scorer leaves out a label that no case has, so its means differ from those above. Lengths
are divided by those before registration for the score; a failed case scores 0.
"""


def summary_markdown(rows: Sequence[MetricsRow], *, title: str, command: str) -> str:
    """The whole page: one table of methods, differences to rigid and centroid, segmentation, definitions."""
    parts = [f"# {title}", "", f"`{command}`", "", *_method_table(rows), "", *_difference_table(rows)]
    left_out = unpaired_in_all(unpaired_by_case(rows).values())
    parts += ["", *_segmentation_lines(rows), *(["", left_out] if left_out else []), "", _DEFINITIONS]
    parts += [*_extras_table(rows), *_challenge_table(rows)]
    failed = [f"- {row.case}, {row.method}: {row.error}" for row in rows if row.error]
    if failed:
        parts += ["## Failed", "", *failed, ""]
    return "\n".join(parts)


def _by_method(rows: Sequence[MetricsRow]) -> dict[str, list[MetricsRow]]:
    """The rows of each method that have figures."""
    grouped: dict[str, list[MetricsRow]] = {}
    for row in rows:
        if not row.error:
            grouped.setdefault(row.method, []).append(row)
    return grouped


def _method_table(rows: Sequence[MetricsRow]) -> list[str]:
    columns = _columns(rows)
    names = [label for _, label, _ in columns]
    lines = ["| method | pairs | " + " | ".join(names) + " | lost | folds % | seconds |"]
    lines.append("|---" * (len(names) + 5) + "|")
    for method, group in _by_method(rows).items():
        cells = [_cell(_summary(group, key), digits) for key, _, digits in columns]
        folds = max(row.folds_percent for row in group)
        seconds = float(np.mean([row.seconds for row in group]))
        lost = sum(row.landmarks_lost for row in group)
        total = sum(row.landmarks for row in group)
        figures = " | ".join([*cells, f"{lost} of {total}", f"{folds:.2f}", f"{seconds:.1f}"])
        lines.append(f"| {method} | {len(group)} | {figures} |")
    return lines


def _columns(rows: Sequence[MetricsRow]) -> tuple[tuple[str, str, int], ...]:
    """The columns; the true error only where the data set has the truth."""
    known = any(np.isfinite(row.dense_tre_mean_mm) for row in rows)
    return (*_COLUMNS, _DENSE) if known else _COLUMNS


def _summary(group: Sequence[MetricsRow], key: str) -> Summary:
    return summarise([getattr(row, key) for row in group], [row.patient for row in group])


def _cell(summary: Summary, digits: int) -> str:
    return "–" if summary.pairs == 0 else summary.shown(digits)


def _difference_table(rows: Sequence[MetricsRow]) -> list[str]:
    """Paired differences of the landmark error, which the table of means cannot show."""
    groups = _by_method(rows)
    references = [name for name in ("rigid", "centroid") if name in groups]
    if not references:
        return []
    lines = ["| paired difference of TRE (RMS), mm | " + " | ".join(f"to {r}" for r in references) + " |"]
    lines.append("|---" * (len(references) + 1) + "|")
    for method, group in groups.items():
        cells = [_difference_cell(group, groups[reference]) for reference in references]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _difference_cell(group: Sequence[MetricsRow], reference: Sequence[MetricsRow]) -> str:
    other = {row.case: row.tre_rms_mm for row in reference}
    differences = [row.tre_rms_mm - other.get(row.case, np.nan) for row in group]
    summary = summarise(differences, [row.patient for row in group])
    return "–" if summary.pairs == 0 else summary.shown_difference(2)


def _segmentation_lines(rows: Sequence[MetricsRow]) -> list[str]:
    """DSC of the masks that drove the registration; only predicted masks are worth a line."""
    first = {row.case: row for row in rows if row.masks == "predicted" and not row.error}
    if not first:
        return []
    group = list(first.values())
    mr, trus = _summary(group, "segmentation_dsc_mr"), _summary(group, "segmentation_dsc_trus")
    return [f"Segmentation DSC: MR {_cell(mr, 3)}, TRUS {_cell(trus, 3)}."]


def _extras_table(rows: Sequence[MetricsRow]) -> list[str]:
    """The measures taken on request: a line each, a column a method."""
    groups = _by_method(rows)
    names = list(dict.fromkeys(name for group in groups.values() for row in group for name in row.extras))
    if not names:
        return []
    lines = ["## Other groups' measures", "", f"| measure | {' | '.join(groups)} |"]
    lines.append("|---" * (len(groups) + 1) + "|")
    for name in names:
        cells = [
            _cell(
                summarise([row.extras.get(name, np.nan) for row in group], [row.patient for row in group]), 3
            )
            for group in groups.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", _OTHERS]


def challenge_summary(rows: Sequence[MetricsRow]) -> list[ChallengeRow]:
    """The µ-RegPro figures of every method that has any, in both variants."""
    found = []
    for method, group in _by_method(rows).items():
        figures = [row.challenge for row in group if row.challenge is not None]
        failed = sum(bool(row.error) for row in rows if row.method == method)
        seconds = float(np.mean([row.seconds for row in group]))
        found += challenge_rows(method, figures, failed=failed, seconds=seconds) if figures else []
    return found


def _challenge_table(rows: Sequence[MetricsRow]) -> list[str]:
    """The challenge's own table; lengths in voxels of the MR's grid."""
    found = challenge_summary(rows)
    if not found:
        return []
    names = ("dsc", "rdsc", "tre_vox", "rtre_vox", "rts_vox", "hd95_vox", "stdjd", "score")
    lines = ["## µ-RegPro, TRUS moving on to MR", "", f"| method | variant | cases | {' | '.join(names)} |"]
    lines.append("|---" * (len(names) + 3) + "|")
    for row in found:
        cells = ["–" if np.isnan(value) else f"{value:.3f}" for value in (getattr(row, n) for n in names)]
        lines.append(f"| {row.method} | mureg_{row.variant} | {row.cases} | {' | '.join(cells)} |")
    return [*lines, "", _CHALLENGE]
