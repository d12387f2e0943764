"""Measures as table nodes."""

from __future__ import annotations

from collections.abc import Iterable

import slicer
import vtk

from ..results import LandmarkRow, Measures

_MISSING = float("nan")


def add_measures_table(
    scene: slicer.vtkMRMLScene, stages: dict[str, Measures], name: str
) -> slicer.vtkMRMLTableNode:
    """Add a table with one row a measure and one column a stage; a stage without the figure has NaN."""
    names = list(dict.fromkeys(key for measures in stages.values() for key in measures.values))
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table.AddColumn(_text_column("measure", names))
    for stage, measures in stages.items():
        table.AddColumn(_number_column(stage, [measures.values.get(key, _MISSING) for key in names]))
    _finish(table)
    return table


def add_landmark_table(
    scene: slicer.vtkMRMLScene, rows: tuple[LandmarkRow, ...], name: str
) -> slicer.vtkMRMLTableNode:
    """Add a table with one row a landmark: its errors in mm at every stage, and whether it was lost."""
    table = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table.AddColumn(_text_column("landmark", [row.name for row in rows]))
    table.AddColumn(_number_column("initial_error_mm", [row.initial_error_mm for row in rows]))
    table.AddColumn(_number_column("rigid_error_mm", [row.rigid_error_mm for row in rows]))
    table.AddColumn(_number_column("error_mm", [row.error_mm for row in rows]))
    table.AddColumn(_text_column("lost", ["yes" if row.lost else "no" for row in rows]))
    _finish(table)
    return table


def _finish(table: slicer.vtkMRMLTableNode) -> None:
    table.SetUseColumnTitleAsColumnHeader(True)
    table.SetLocked(True)


def _text_column(title: str, values: Iterable[str]) -> vtk.vtkStringArray:
    column = vtk.vtkStringArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value)
    return column


def _number_column(title: str, values: Iterable[float | None]) -> vtk.vtkDoubleArray:
    column = vtk.vtkDoubleArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(_MISSING if value is None else value)
    return column
