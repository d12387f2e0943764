"""Transform nodes from SimpleITK transforms.

A SimpleITK transform maps points of the fixed (TRUS) space to the moving (MR) space. In MRML that is the
transform *from* the parent: under such a node the MR volume appears, and its points lie, in TRUS space.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
import vtk

from .frames import FLIP, fill_vtk_image, index_to_ras, linear_matrix_ras, vtk_matrix


def add_linear_transform(
    scene: slicer.vtkMRMLScene, transform: sitk.Transform, name: str
) -> slicer.vtkMRMLTransformNode:
    """Add a transform node for a linear resampling transform; `ValueError` if it is not linear."""
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    node.SetMatrixTransformFromParent(vtk_matrix(linear_matrix_ras(transform)))
    return node


def add_grid_transform(
    scene: slicer.vtkMRMLScene, transform: sitk.DisplacementFieldTransform, name: str
) -> slicer.vtkMRMLTransformNode:
    """Add a transform node for a resampling displacement field, on the field's own grid.

    `ValueError` unless the field ends with a rim of zeros: Slicer continues a grid with its edge value
    where ITK continues it with zero. Interpolation is cubic, as after reading any transform file.
    """
    field = sitk.Image(transform.GetDisplacementField())
    _check_rim(sitk.GetArrayViewFromImage(field))
    grid = slicer.vtkOrientedGridTransform()
    grid.SetGridDirectionMatrix(_directions_ras(field))
    grid.SetDisplacementGridData(_grid_data(field))
    grid.SetInterpolationModeToCubic()
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", name)
    node.SetAndObserveTransformFromParent(grid)
    return node


def set_registered_images(
    transform: slicer.vtkMRMLTransformNode,
    *,
    moving: slicer.vtkMRMLScalarVolumeNode,
    fixed: slicer.vtkMRMLScalarVolumeNode,
) -> None:
    """Note in the transform node which images it brings together."""
    transform.SetNodeReferenceID(transform.GetMovingNodeReferenceRole(), moving.GetID())
    transform.SetNodeReferenceID(transform.GetFixedNodeReferenceRole(), fixed.GetID())


def _check_rim(field_kji: np.ndarray) -> None:
    for axis in range(3):
        if np.any(np.take(field_kji, (0, -1), axis=axis)):
            raise ValueError("The displacement field must end with a rim of zeros on all six sides.")


def _directions_ras(field: sitk.Image) -> vtk.vtkMatrix4x4:
    matrix = np.eye(4)
    matrix[:3, :3] = FLIP[:, None] * np.reshape(field.GetDirection(), (3, 3))
    return vtk_matrix(matrix)


def _grid_data(field: sitk.Image) -> vtk.vtkImageData:
    """Displacements in RAS mm; origin and spacing belong to the data, directions to the transform."""
    data = vtk.vtkImageData()
    ras = sitk.GetArrayViewFromImage(field) * FLIP
    fill_vtk_image(data, sitk.GetImageFromArray(ras, isVector=True))
    data.SetSpacing(field.GetSpacing())
    data.SetOrigin(index_to_ras(field)[:3, 3])
    return data
