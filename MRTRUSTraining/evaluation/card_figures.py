"""Figures of an evaluation, written into the cards of the models that it used."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import ModelCard, read_card
from MRTRUSRegistrationLib.outputs import write_text_atomically

from .evaluate import ZEROED

_REGISTRATION_COLUMNS = ("dsc", "hd95_mm", "tre_rms_mm", "dense_tre_mean_mm", "folds_percent")
# In sharp images what tells structures apart draws the gland too.
_DRAWING_TASKS = ("segmentation", "structures")
_DEFINITION = "mean over cases of the column of metrics.csv, mrtrus evaluate --masks {masks}"


def add_figures(models: Path, metrics: Path, split: str) -> list[Path]:
    """Add the means of metrics.csv to every card in `models`; figures of the same split are replaced.

    A model that drew masks, be it to segment the gland or to tell its structures apart, gets their DSC, a
    registration network the rows that it computed, controls with zeroed images and cases that failed apart.
    A figure that some of the `cases` lack has its own number of cases beside it. Returns the cards that
    changed; `InputError` for a file that is not a table of `mrtrus evaluate`, and where no card changed.
    """
    if not models.is_dir():
        raise InputError(f"The models folder {models} does not exist; give a folder with model cards.")
    rows = _rows(metrics)
    changed = []
    for path in sorted(models.glob("*.json")):
        card = read_card(path)
        figure = _figure(card, rows, split)
        if figure is not None:
            kept = [f for f in card.figures if (f.get("split"), f.get("definition")) != _identity(figure)]
            write_text_atomically(replace(card, figures=(*kept, figure)).to_json(), path)
            changed.append(path)
    if not changed:
        raise InputError(
            f"{metrics} has no figures of a model whose card is in {models}; give the table of an evaluation "
            "with these models."
        )
    return changed


def _identity(figure: Mapping[str, Any]) -> tuple[Any, Any]:
    return figure["split"], figure["definition"]


def _rows(metrics: Path) -> list[dict[str, str]]:
    try:
        with metrics.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"The table {metrics} cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{metrics} is not a table of mrtrus evaluate; give its metrics.csv.") from error
    if not rows or not {"case", "method", "masks"} <= set(rows[0]):
        raise InputError(f"{metrics} is not a table of mrtrus evaluate; give its metrics.csv.")
    return [row for row in rows if not row.get("error")]


def _figure(card: ModelCard, rows: Sequence[Mapping[str, str]], split: str) -> dict[str, Any] | None:
    """The card's own columns, or None where the table says nothing of this model."""
    if card.task in _DRAWING_TASKS:
        modality = card.modality.lower()
        drawn = [row for row in rows if row.get(f"segmenter_{modality}") == card.name]
        # Masks are the same for every method of a case.
        used = list({row["case"]: row for row in drawn}.values())
        columns = {"dsc": f"segmentation_dsc_{modality}"}
    else:
        used = [row for row in rows if _network(row) == card.name]
        columns = {column: column for column in _REGISTRATION_COLUMNS}
    found = {name: _values(used, column) for name, column in columns.items()}
    cases = max(map(len, found.values()))
    if not cases:
        return None
    definition = _DEFINITION.format(masks=used[0]["masks"])
    means = {name: round(float(np.mean(values)), 4) for name, values in found.items() if values}
    fewer = {f"{name}_cases": len(found[name]) for name in means if len(found[name]) < cases}
    return {"split": split, "definition": definition, "cases": cases, **means, **fewer}


def _network(row: Mapping[str, str]) -> str | None:
    """The registration network that computed a row; tables without that column name it by the method."""
    return None if row["method"].endswith(ZEROED) else row.get("model") or row["method"]


def _values(rows: Sequence[Mapping[str, str]], column: str) -> list[float]:
    values = [row[column] for row in rows if row.get(column)]
    try:
        return [float(value) for value in values]
    except ValueError as error:
        raise InputError(f"The column {column} of the table holds something other than numbers.") from error
