"""labels.csv: what became of every single label, which a mean over landmarks does not show."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.geometry import Grid, mask_volume_ml, resample_mask
from MRTRUSRegistrationLib.measures import dsc, gland_centroid_mm
from MRTRUSRegistrationLib.results import LandmarkRow, Registration

from ..data.cases import LoadedCase


@dataclass(frozen=True)
class LabelRow:
    """One label of one registration, on the TRUS grid.

    `error_mm` is the distance of the centroids, nan for a landmark that the warp lost; `volume_ml` the
    label's in the TRUS. A landmark given as a point has neither volume nor overlap.
    """

    label: str
    volume_ml: float = np.nan
    dsc: float = np.nan
    initial_error_mm: float = np.nan
    rigid_error_mm: float = np.nan
    error_mm: float = np.nan
    lost: int = 0


def label_rows(
    case: LoadedCase, result: Registration, landmarks: Sequence[LandmarkRow]
) -> tuple[LabelRow, ...]:
    """The gland's row, then those of the landmarks, whose errors have been measured."""
    moved = _moved(case, result, 0)
    gland = LabelRow(
        case.label_names[0],
        mask_volume_ml(case.trus_gland),
        dsc(moved, case.trus_gland),
        error_mm=gland_centroid_mm(moved, case.trus_gland),
    )
    return (gland, *(_landmark_row(case, result, row) for row in landmarks))


def _landmark_row(case: LoadedCase, result: Registration, row: LandmarkRow) -> LabelRow:
    known = LabelRow(
        row.name,
        initial_error_mm=row.initial_error_mm,
        rigid_error_mm=_or_nan(row.rigid_error_mm),
        error_mm=_or_nan(row.error_mm),
        lost=int(row.lost),
    )
    if case.points is not None:
        return known
    n = case.label_names.index(row.name)
    label = case.trus_labels[n]
    figures = {"volume_ml": mask_volume_ml(label), "dsc": dsc(_moved(case, result, n), label)}
    return LabelRow(**(vars(known) | figures))


def _moved(case: LoadedCase, result: Registration, n: int) -> sitk.Image:
    return resample_mask(case.mr_labels[n], Grid.of(case.trus), result.transform)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def labels_csv(rows: Iterable[tuple[str, str, str, str, LabelRow]]) -> str:
    """CSV text of rows with case, patient, method and masks before them; nan as an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = [field.name for field in fields(LabelRow)]
    writer.writerow(["case", "patient", "method", "masks", *names])
    for *identity, label in rows:
        values = [getattr(label, name) for name in names]
        shown = ["" if v != v else f"{v:.4f}" if isinstance(v, float) else v for v in values]
        writer.writerow([*identity, *shown])
    return buffer.getvalue()
