"""Landmarks, measures and targets as rows for the page."""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any

from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.errors_view import landmark_errors, rms_error_mm
from MRTRUSRegistrationLib.mrml.readers import placed_ids
from MRTRUSRegistrationLib.mrml.stages import MEASURE_COLUMNS, Stage
from MRTRUSRegistrationLib.mrml.target_carrying import moved_mm
from MRTRUSRegistrationLib.mrml.target_table import target_rows
from MRTRUSRegistrationLib.mrml.versions import measures_of
from MRTRUSRegistrationLib.plain_language import in_reading_order, measure_text, measure_title


def landmark_rows(case: CaseNodes, stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
    """The error of every landmark at every stage in mm, and their root mean square as the last row."""
    by_stage = {stage: landmark_errors(case, stage) for stage in stages}
    first = by_stage[stages[-1]] if stages else ()
    if not first:
        return []
    errors = {stage: {entry.name: entry.error_mm for entry in found} for stage, found in by_stage.items()}
    rows = [
        {"name": entry.name, **{stage: f"{errors[stage][entry.name]:.1f}" for stage in stages}}
        for entry in first
    ]
    total = {stage: f"{rms_error_mm(found) or 0.0:.1f}" for stage, found in by_stage.items()}
    return [*rows, {"name": "TRE (RMS)", **total}]


def measure_rows(case: CaseNodes) -> list[dict[str, str]]:
    """The measures at every stage, as the report words them."""
    measures = measures_of(case)
    columns = {stage: measures.get(column, {}) for stage, column in MEASURE_COLUMNS.items()}
    return [
        {
            "name": measure_title(key),
            **{stage: measure_text(key, values.get(key)) for stage, values in columns.items()},
        }
        for key in in_reading_order({key for values in columns.values() for key in values})
    ]


def target_table_rows(case: CaseNodes) -> list[dict[str, Any]]:
    """Where a needle finds each target; `point` is the ID of a point, "" for a segment."""
    moved = moved_mm(case)
    points = placed_ids(case.targets) if case.targets is not None else ()
    return [
        {
            "name": row.name,
            "point": point_id,
            "side": row.side,
            "third": row.third,
            "capsule": f"{row.capsule_mm:.1f}",
            "moved": f"{moved[point_id]:.1f}" if point_id in moved else "",
        }
        # The segments come after the points.
        for point_id, row in zip(chain(points, repeat("")), target_rows(case), strict=False)
    ]
