"""From SimpleITK's LPS millimetres to MRML's RAS millimetres."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
import vtk

from ..geometry import Grid, opposite
from ..rigid import linear_parts

# The signs of the axes that differ between LPS and RAS; the same both ways.
FLIP = np.array([-1.0, -1.0, 1.0])


def points_ras(points_lps_mm: np.ndarray) -> np.ndarray:
    """Points or displacements (…, 3) from LPS to RAS, or back."""
    return np.asarray(points_lps_mm, float) * FLIP


def right_handed(image: sitk.Image) -> sitk.Image:
    """The same voxels in the same places, with the last index axis reversed where the axes are left-handed.

    Slicer does this when it reads such a volume; done beforehand, saving a scene changes no node's indices.
    """
    return image if _is_right_handed(image) else image[:, :, ::-1]


def axes_right_handed(axes: str, image: sitk.Image) -> str:
    """What `axes` says of the index axes of `image`, said of those of `right_handed(image)`."""
    return axes if _is_right_handed(image) else axes[:2] + opposite(axes[2:])


def _is_right_handed(image: sitk.Image) -> bool:
    return bool(np.linalg.det(Grid.of(image).axes) > 0)


def index_to_ras(image: sitk.Image) -> np.ndarray:
    """4×4 matrix from index (i, j, k, 1) to RAS millimetres."""
    return np.diag([*FLIP, 1.0]) @ Grid.of(image).index_to_point


def linear_matrix_ras(transform: sitk.Transform) -> np.ndarray:
    """4×4 RAS matrix of a linear SimpleITK transform of any class, composites included.

    `ValueError` unless the transform says that it is linear.
    """
    if not transform.IsLinear():
        raise ValueError(f"A {transform.GetName()} is not linear and has no matrix.")
    linear, offset = linear_parts(transform)
    matrix = np.eye(4)
    matrix[:3, :3] = linear * np.outer(FLIP, FLIP)
    matrix[:3, 3] = points_ras(offset)
    return matrix


def vtk_matrix(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    """A VTK matrix from a 4×4 array."""
    converted = vtk.vtkMatrix4x4()
    converted.DeepCopy(np.asarray(matrix, float).ravel().tolist())
    return converted


def fill_vtk_image(target: vtk.vtkImageData, image: sitk.Image) -> None:
    """Copy the voxels of `image`, and nothing of its geometry, into `target`."""
    from vtk.util.numpy_support import numpy_to_vtk

    components = image.GetNumberOfComponentsPerPixel()
    array = sitk.GetArrayViewFromImage(image).reshape(-1, components)
    target.SetDimensions(image.GetSize())
    target.GetPointData().SetScalars(numpy_to_vtk(array, deep=True))
