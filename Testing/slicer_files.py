"""Files as 3D Slicer's own storage nodes write and read them. Importing this needs slicer-core."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
import slicer.util
import vtk

from MRTRUSRegistrationLib.geometry import Grid

_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_segmentation(path: Path, masks: dict[str, sitk.Image]) -> None:
    """Write the masks, all on one grid, as the segments of a .seg.nrrd."""
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
    for name, mask in masks.items():
        labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", name)
        slicer.util.updateVolumeFromArray(labels, sitk.GetArrayFromImage(mask))
        labels.SetIJKToRASMatrix(_vtk_matrix(_TO_RAS @ Grid.of(mask).index_to_point))
        logic.ImportLabelmapToSegmentationNode(labels, node)
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetCropToMinimumExtent(True)
    storage.SetFileName(str(path))
    assert storage.WriteData(node)


def write_points(path: Path, points: dict[str, tuple], *, unplaced: str = "", ras: bool = False) -> None:
    """Write LPS points as .mrk.json or .fcsv, `unplaced` as a point that was not placed yet."""
    scene, node, storage = _markups(path)
    for name, position in points.items():
        x, y, z = position
        node.AddControlPoint(vtk.vtkVector3d(-x, -y, z), name)
    if unplaced:
        node.UnsetNthControlPointPosition(node.AddControlPoint(vtk.vtkVector3d(0, 0, 0), unplaced))
    if ras:
        storage.SetCoordinateSystem(slicer.vtkMRMLStorageNode.CoordinateSystemRAS)
    assert storage.WriteData(node)
    assert scene.GetNumberOfNodes() > 0


def read_points(path: Path) -> dict[str, tuple]:
    """The points of a file as Slicer has them in its scene, in LPS."""
    _, node, storage = _markups(path)
    assert storage.ReadData(node)
    found = {}
    for number in range(node.GetNumberOfControlPoints()):
        x, y, z = node.GetNthControlPointPositionWorld(number)
        found[node.GetNthControlPointLabel(number)] = (-x, -y, z)
    return found


def _markups(path: Path) -> tuple:
    """A scene, a point list and its storage node; the scene has to outlive the nodes."""
    scene = slicer.vtkMRMLScene()
    scene.AddNewNodeByClass("vtkMRMLSelectionNode")
    logic = slicer.vtkSlicerMarkupsLogic()
    logic.SetMRMLScene(scene)
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "F")
    kind = "Fiducial" if path.suffix == ".fcsv" else "Json"
    storage = getattr(slicer, f"vtkMRMLMarkups{kind}StorageNode")()
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    return scene, node, storage


def _vtk_matrix(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    found = vtk.vtkMatrix4x4()
    found.DeepCopy(matrix.ravel())
    return found
