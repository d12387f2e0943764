"""The tables of an evaluation as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from MRTRUSRegistrationLib.outputs import write_text_atomically

from .evaluate import MetricsRow, all_labels_csv, metrics_csv
from .mureg import challenge_csv
from .summary import challenge_summary


def write_tables(rows: Sequence[MetricsRow], folder: Path) -> Path:
    """Write metrics.csv, labels.csv and, where the challenge's figures were taken, challenge.csv; those of an
    earlier evaluation are replaced.

    Returns the path of metrics.csv; `OSError` names the file that cannot be written.
    """
    metrics = folder / "metrics.csv"
    write_text_atomically(metrics_csv(rows), metrics)
    write_text_atomically(all_labels_csv(rows), folder / "labels.csv")
    cohorts = challenge_summary(rows)
    (folder / "challenge.csv").unlink(missing_ok=True)
    if cohorts:
        write_text_atomically(challenge_csv(cohorts), folder / "challenge.csv")
    return metrics
