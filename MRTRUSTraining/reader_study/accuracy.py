"""Tables of diagnostic accuracy: areas under the ROC curve, their comparison, the cut-off of the paper."""

from __future__ import annotations

import numpy as np

from .delong import IntervalKind, area_under_curve, compare_areas
from .rank_tests import Proportion, proportion
from .roc import RocCurve, roc_curve
from .study import POSITIVE_FROM, Sitting, Study
from .table import Column, Table

READER = Column("Reader", "{reader}")
CONDITION = Column("Condition", "{condition}")
CASES = Column("Cases", "{cases:d}")
P = Column("p", "{p:p}")
FIRST = Column("First", "{first_reader}, {first_condition}")
SECOND = Column("Second", "{second_reader}, {second_condition}")


def judged(study: Study, *sittings: Sitting) -> tuple[np.ndarray, np.ndarray]:
    """Scores (sittings, cases) and truth (cases,) of the cases with a reference that every sitting scored."""
    scores = [study.numbers("t2_score", sitting) for sitting in sittings]
    common = [case for case in scores[0] if all(case in one for one in scores)]
    cases = [case for case in common if study.reference(case).positive is not None]
    truth = np.array([bool(study.reference(case).positive) for case in cases], bool)
    return np.array([[one[case] for case in cases] for one in scores], float), truth


def curves(study: Study, *, seed: int = 0) -> dict[Sitting, RocCurve]:
    """The ROC curve of every sitting with positive and negative cases."""
    found = {}
    for sitting in study.sittings("t2_score"):
        scores, truth = judged(study, sitting)
        if truth.any() and not truth.all():
            found[sitting] = roc_curve(scores[0], truth, seed=seed)
    return found


def area_table(study: Study, *, interval: IntervalKind = "wald") -> Table:
    rows = []
    for sitting in study.sittings("t2_score"):
        scores, truth = judged(study, sitting)
        area = area_under_curve(scores[0], truth, interval=interval)
        rows.append(
            {**vars(sitting), "auc": area.value, **{k: v for k, v in vars(area).items() if k != "value"}}
        )
    return Table(
        "auc",
        "Area under the ROC curve",
        (
            READER,
            CONDITION,
            Column("AUC", "{auc:.3f}"),
            Column("95 % CI", "{low:.3f} to {high:.3f}"),
            Column("SE", "{se:.3f}"),
            Column("Positive", "{positives:d}"),
            Column("Negative", "{negatives:d}"),
        ),
        tuple(rows),
        f"T2 score against the reference, of which PI-RADS {POSITIVE_FROM} and 5 are positive. DeLong's "
        f"standard error; {'plain' if interval == 'wald' else 'logit'} interval.",
    )


def area_comparison_table(study: Study) -> Table:
    rows = []
    for one, other in [*study.reader_pairs("t2_score"), *study.condition_pairs("t2_score")]:
        scores, truth = judged(study, one, other)
        result = compare_areas(scores[0], scores[1], truth)
        rows.append(
            {
                **pair_names(one, other),
                "difference": result.value,
                **{k: v for k, v in vars(result).items() if k != "value"},
            }
        )
    return Table(
        "auc_comparison",
        "Areas compared",
        (
            FIRST,
            SECOND,
            Column("Difference", "{difference:+.3f}"),
            Column("95 % CI", "{low:+.3f} to {high:+.3f}"),
            Column("z", "{z:.2f}"),
            P,
            CASES,
        ),
        tuple(rows),
        "Second minus first; DeLong's test of two areas on the same cases.",
    )


def cut_off_table(study: Study) -> Table:
    """Sensitivity, specificity and accuracy of scores of 4 and 5, with Wilson intervals."""
    rows = []
    for sitting in study.sittings("t2_score"):
        scores, truth = judged(study, sitting)
        called = scores[0] >= POSITIVE_FROM
        shares = {
            "sensitivity": proportion(int((called & truth).sum()), int(truth.sum())),
            "specificity": proportion(int((~called & ~truth).sum()), int((~truth).sum())),
            "accuracy": proportion(int((called == truth).sum()), truth.size),
        }
        row: dict[str, object] = dict(vars(sitting))
        for name, share in shares.items():
            row |= share_cells(name, share)
        rows.append(row)
    return Table(
        "cut_off",
        f"At the cut-off of {POSITIVE_FROM}",
        (READER, CONDITION, *(share_column(name) for name in ("sensitivity", "specificity", "accuracy"))),
        tuple(rows),
        f"Scores of {POSITIVE_FROM} and 5 count as positive. Percent, with the Wilson 95 % interval.",
    )


def share_cells(name: str, share: Proportion) -> dict[str, object]:
    """The cells of a share: itself under `name`, its counts and interval with a suffix."""
    return {name: share.value} | {f"{name}_{k}": v for k, v in vars(share).items() if k != "value"}


def share_column(name: str) -> Column:
    """How people read the cells of a share."""
    return Column(
        name.capitalize(),
        f"{{{name}:percent}} ({{{name}_low:percent}} to {{{name}_high:percent}}), "
        f"{{{name}_hits}}/{{{name}_cases}}",
    )


def pair_names(one: Sitting, other: Sitting) -> dict[str, str]:
    return {
        "first_reader": one.reader,
        "first_condition": one.condition,
        "second_reader": other.reader,
        "second_condition": other.condition,
    }
