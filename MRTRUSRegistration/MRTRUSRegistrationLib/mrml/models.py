"""Model nodes from surfaces, lines and arrows. Points are RAS mm, in the space of the TRUS volume."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
import vtk

from .case_nodes import CaseNodes
from .frames import fill_vtk_image, index_to_ras, right_handed, vtk_matrix

_SMOOTHING_VOX = 1.0
# Enough for a tenth of a millimetre; with more, slices draw dots rather than lines.
_TRIANGLES = 6000


def show_model(
    case: CaseNodes,
    role: str,
    polydata: vtk.vtkPolyData,
    name: str,
    *,
    color: tuple[float, float, float] = (1.0, 1.0, 1.0),
    projected: bool = False,
) -> slicer.vtkMRMLModelNode:
    """Give the case's model with that role a new shape; the model is made when there is none.

    Slices show where they cut it, or with `projected` the whole of it, seen along the slice's normal.
    """
    node = case.get(role)
    if node is None:
        node = case.scene.AddNewNodeByClass("vtkMRMLModelNode", name)
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetColor(color)
        display.SetVisibility2D(True)
        display.SetSliceIntersectionThickness(2)
        if projected:
            display.SetSliceDisplayModeToProjection()
        case.set(role, node)
    node.SetAndObservePolyData(polydata)
    node.SetAndObserveTransformNodeID(case.trus.GetTransformNodeID() if case.trus is not None else None)
    return node


def set_visible(node: slicer.vtkMRMLDisplayableNode | None, visible: bool) -> None:
    """Show or hide a node; `None` is left alone."""
    if node is not None:
        node.SetDisplayVisibility(visible)


def surface_of(mask: sitk.Image) -> vtk.vtkPolyData:
    """The surface of a binary mask in RAS mm, smoothed by about a voxel; no points for an empty mask."""
    mask = right_handed(sitk.ConstantPad(sitk.Cast(mask, sitk.sitkFloat32), [2] * 3, [2] * 3, 0.0))
    soft = sitk.DiscreteGaussian(mask, [_SMOOTHING_VOX] * 3, 8, 0.01, False)
    image = vtk.vtkImageData()
    fill_vtk_image(image, soft)
    contour = vtk.vtkFlyingEdges3D()
    contour.SetInputData(image)
    contour.SetValue(0, 0.5)
    contour.ComputeNormalsOff()
    to_ras = vtk.vtkTransform()
    to_ras.SetMatrix(vtk_matrix(index_to_ras(mask)))
    return _simplified(moved(_run(contour), to_ras))


def _simplified(surface: vtk.vtkPolyData) -> vtk.vtkPolyData:
    if surface.GetNumberOfPolys() <= _TRIANGLES:
        return surface
    decimation = vtk.vtkQuadricDecimation()
    decimation.SetInputData(surface)
    decimation.SetTargetReduction(1 - _TRIANGLES / surface.GetNumberOfPolys())
    decimation.VolumePreservationOn()
    return _run(decimation)


def moved(polydata: vtk.vtkPolyData, transform: vtk.vtkAbstractTransform) -> vtk.vtkPolyData:
    """A copy of a surface whose points went through a transform, with normals of its own."""
    move = vtk.vtkTransformPolyDataFilter()
    move.SetInputData(polydata)
    move.SetTransform(transform)
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(move.GetOutputPort())
    normals.SplittingOff()
    return _run(normals)


def arrows(tails_ras_mm: np.ndarray, heads_ras_mm: np.ndarray) -> vtk.vtkPolyData:
    """Arrows from (n, 3) tails to (n, 3) heads; the point array `length_mm` says how long each one is."""
    vectors = np.asarray(heads_ras_mm, float) - np.asarray(tails_ras_mm, float)
    points = _point_set(tails_ras_mm)
    if not len(vectors):
        return points
    _add_array(points, "vector", vectors)
    _add_array(points, "length_mm", np.linalg.norm(vectors, axis=1))
    points.GetPointData().SetActiveVectors("vector")
    points.GetPointData().SetActiveScalars("length_mm")
    shape = vtk.vtkArrowSource()
    shape.SetShaftRadius(0.08)
    shape.SetTipRadius(0.22)
    shape.SetTipResolution(8)
    shape.SetShaftResolution(8)
    glyphs = vtk.vtkGlyph3D()
    glyphs.SetInputData(points)
    glyphs.SetSourceConnection(shape.GetOutputPort())
    glyphs.SetScaleModeToScaleByVector()
    glyphs.SetColorModeToColorByScalar()
    return _run(glyphs)


def polylines(lines_ras_mm: list[np.ndarray]) -> vtk.vtkPolyData:
    """Lines, each given by its (n, 3) points."""
    polydata = _point_set(np.concatenate(lines_ras_mm) if lines_ras_mm else np.zeros((0, 3)))
    cells, first = vtk.vtkCellArray(), 0
    for line in lines_ras_mm:
        cells.InsertNextCell(len(line), list(range(first, first + len(line))))
        first += len(line)
    polydata.SetVerts(None)
    polydata.SetLines(cells)
    return polydata


def _point_set(points_ras_mm: np.ndarray) -> vtk.vtkPolyData:
    from vtk.util.numpy_support import numpy_to_vtk

    points = vtk.vtkPoints()
    points.SetDataTypeToDouble()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(points_ras_mm, float).reshape(-1, 3), deep=True))
    polydata = vtk.vtkPolyData()
    polydata.SetPoints(points)
    return polydata


def _add_array(polydata: vtk.vtkPolyData, name: str, values: np.ndarray) -> None:
    from vtk.util.numpy_support import numpy_to_vtk

    array = numpy_to_vtk(np.ascontiguousarray(values, float), deep=True)
    array.SetName(name)
    polydata.GetPointData().AddArray(array)


def _run(filter_: vtk.vtkPolyDataAlgorithm) -> vtk.vtkPolyData:
    filter_.Update()
    return filter_.GetOutput()
