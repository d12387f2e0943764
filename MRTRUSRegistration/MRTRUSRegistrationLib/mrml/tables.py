"""Measures as table nodes, for reading; the exact figures of the measures are kept beside what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable

import slicer
import vtk

from ..plain_language import in_reading_order, measure_text, measure_title
from ..results import LandmarkRow, Measures

_FIGURES_ATTRIBUTE = "MRTRUSRegistration.Measures"
_STAGE_TITLES = {"initial": "Before", "rigid": "Rigid", "deformable": "Deformable"}


def add_measures_table(
    scene: slicer.vtkMRMLScene, stages: dict[str, Measures], name: str
) -> slicer.vtkMRMLTableNode:
    """Add a table with one row a measure and one column a stage (initial, rigid, deformable)."""
    keys = in_reading_order({key for measures in stages.values() for key in measures.values})
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table.AddColumn(_column("Measure", [measure_title(key) for key in keys]))
    for stage, measures in stages.items():
        texts = [measure_text(key, measures.values.get(key)) for key in keys]
        table.AddColumn(_column(_STAGE_TITLES[stage], texts))
    figures = {stage: _known(measures.values) for stage, measures in stages.items()}
    table.SetAttribute(_FIGURES_ATTRIBUTE, json.dumps(figures))
    _finish(table)
    return table


def table_measures(table: slicer.vtkMRMLTableNode) -> dict[str, dict[str, float]]:
    """The exact figures of a table of measures: by stage, then by name; {} for any other table."""
    return json.loads(table.GetAttribute(_FIGURES_ATTRIBUTE) or "{}")


def add_landmark_table(
    scene: slicer.vtkMRMLScene, rows: tuple[LandmarkRow, ...], name: str, *, deformable: bool
) -> slicer.vtkMRMLTableNode:
    """Add a table with one row a landmark: its errors in mm at every stage, and whether it was lost."""
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table.AddColumn(_column("Landmark", [row.name for row in rows]))
    table.AddColumn(_column("Before (mm)", [_error_text(row.initial_error_mm) for row in rows]))
    table.AddColumn(_column("Rigid (mm)", [_error_text(row.rigid_error_mm) for row in rows]))
    if deformable:
        table.AddColumn(_column("Deformable (mm)", [_error_text(row.error_mm) for row in rows]))
    table.AddColumn(_column("Lost", ["yes" if row.lost else "no" for row in rows]))
    _finish(table)
    return table


def _error_text(error_mm: float | None) -> str:
    return measure_text("error_mm", error_mm)


def _known(values: dict[str, float]) -> dict[str, float]:
    """Without nan, which JSON does not have."""
    return {key: value for key, value in values.items() if value == value}


def _finish(table: slicer.vtkMRMLTableNode) -> None:
    table.SetUseColumnTitleAsColumnHeader(True)
    table.SetLocked(True)


def _column(title: str, values: Iterable[str]) -> vtk.vtkStringArray:
    column = vtk.vtkStringArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value)
    return column
