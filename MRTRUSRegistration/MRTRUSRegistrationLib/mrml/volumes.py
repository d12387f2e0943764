"""Volume nodes from SimpleITK images."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
import vtk

from .frames import fill_vtk_image, index_to_ras, right_handed, vtk_matrix

# Slicer's own grey colour table; a singleton that every Slicer scene has under this ID.
_GREY = "vtkMRMLColorTableNodeGrey"


def add_volume(scene: slicer.vtkMRMLScene, image: sitk.Image, name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """Add a scalar volume node with the voxels, pixel type and (oblique) geometry of `image`.

    Left-handed axes are made right-handed by reversing the last one; every voxel stays where it is.
    """
    image = right_handed(image)
    data = vtk.vtkImageData()
    fill_vtk_image(data, image)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetIJKToRASMatrix(vtk_matrix(index_to_ras(image)))
    node.SetAndObserveImageData(data)
    node.CreateDefaultDisplayNodes()
    _set_window(node.GetDisplayNode(), image)
    return node


def _set_window(display: slicer.vtkMRMLScalarVolumeDisplayNode, image: sitk.Image) -> None:
    """Show the middle 98 % of the intensities: a few bright voxels would darken everything else."""
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), (1, 99))
    display.SetAndObserveColorNodeID(_GREY)
    display.AutoWindowLevelOff()
    display.SetWindowLevel(max(float(high - low), 1e-6), float(high + low) / 2)
