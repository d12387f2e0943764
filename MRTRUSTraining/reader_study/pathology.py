"""Tables against the biopsy: side of the lesion, and scores by Gleason grade group."""

from __future__ import annotations

from typing import Any

from .accuracy import CASES, CONDITION, FIRST, READER, SECOND, P, pair_names, share_cells, share_column
from .rank_tests import EXACT_CASES, mcnemar, proportion, rank_correlation
from .study import SCORES, SIDES, Sitting, Study
from .table import Column, Table

_ALL = "all"
_GROUPS = tuple(range(6))


def concordance(study: Study, sitting: Sitting, side: str) -> dict[str, bool]:
    """Whether the reader named the biopsy's side, for every case with cancer on `side` (or on any: "all").

    Cases whose biopsy found no cancer have no side and are left out.
    """
    wanted = SIDES if side == _ALL else (side,)
    named = study.values("laterality", sitting)
    truth = {case: study.reference(case).biopsy_laterality for case in named}
    return {case: named[case] == truth[case] for case in named if truth[case] in wanted}


def concordance_table(study: Study) -> Table:
    rows = []
    for sitting in study.sittings("laterality"):
        row: dict[str, object] = dict(vars(sitting))
        for side in (*SIDES, _ALL):
            agrees = concordance(study, sitting, side)
            row |= share_cells(side, proportion(sum(agrees.values()), len(agrees)))
        rows.append(row)
    return Table(
        "laterality",
        "Concordance with biopsy",
        (READER, CONDITION, *(share_column(side) for side in (*SIDES, _ALL))),
        tuple(rows),
        "By the side of the cancer in the biopsy. Concordant: the reader named exactly that side. Percent, "
        "with the Wilson 95 % interval.",
    )


def concordance_change_table(study: Study) -> Table:
    """Exact McNemar test of the concordance of each reader between two conditions."""
    rows = []
    for one, other in study.reader_pairs("laterality"):
        for side in (*SIDES, _ALL):
            first, second = concordance(study, one, side), concordance(study, other, side)
            cases = [case for case in first if case in second]
            result = mcnemar([first[case] for case in cases], [second[case] for case in cases])
            rows.append({**pair_names(one, other), "side": side, **vars(result)})
    return Table(
        "laterality_change",
        "Change of concordance",
        (
            FIRST,
            SECOND,
            Column("Side in biopsy", "{side}"),
            Column("Gained", "{gained:d}"),
            Column("Lost", "{lost:d}"),
            P,
            CASES,
        ),
        tuple(rows),
        "Exact McNemar test: gained cases are concordant only in the second, lost ones only in the first.",
    )


def _scored(study: Study) -> dict[str, dict[str, int]]:
    """Scores by source: the reference's PI-RADS and every sitting's T2 score."""
    known = {case: study.reference(case).reference_pirads for case in study.cases}
    reference = {case: value for case, value in known.items() if value is not None}
    sources = {"reference, PI-RADS": reference} if reference else {}
    for sitting in study.sittings("t2_score"):
        sources[f"{sitting}, T2 score"] = study.numbers("t2_score", sitting)
    return sources


def _graded(study: Study, scores: dict[str, int]) -> list[tuple[int, int]]:
    """Score and grade group of the cases that have both."""
    groups = {case: study.reference(case).grade_group for case in scores}
    return [(scores[case], group) for case, group in groups.items() if group is not None]


def gleason_table(study: Study) -> Table:
    """How many cases of each score fell into each grade group; 0 is benign."""
    rows: list[dict[str, Any]] = []
    for source, scores in _scored(study).items():
        pairs = _graded(study, scores)
        for score in SCORES if pairs else ():
            counts = {f"group_{g}": sum(pair == (score, g) for pair in pairs) for g in _GROUPS}
            rows.append({"source": source, "score": score, **counts, "cases": sum(counts.values())})
    groups = tuple(Column(f"GG {g}" if g else "Benign", f"{{group_{g}:d}}") for g in _GROUPS)
    return Table(
        "gleason",
        "Scores by Gleason grade group",
        (Column("Source", "{source}"), Column("Score", "{score:d}"), *groups, CASES),
        tuple(rows),
        "ISUP grade groups: 1 is 3+3, 2 is 3+4, 3 is 4+3, 4 is 8 in sum, 5 is 9 or 10.",
    )


def gleason_correlation_table(study: Study) -> Table:
    """Spearman's rank correlation of score and grade group, benign below group 1."""
    rows = []
    for source, scores in _scored(study).items():
        pairs = _graded(study, scores)
        if pairs:
            result = rank_correlation(*zip(*pairs, strict=True))
            rows.append({"source": source, **vars(result), "cases": len(pairs)})
    return Table(
        "gleason_correlation",
        "Correlation of score and grade group",
        (Column("Source", "{source}"), Column("Spearman's rho", "{rho:.3f}"), P, CASES),
        tuple(rows),
        f"Benign counts below grade group 1; p is exact up to {EXACT_CASES} cases (all orders), above from "
        "the t distribution.",
    )
