"""Reading nodes back into SimpleITK, written apart from the code under test."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
import vtk
from slicer.util import arrayFromVolume, arrayFromVTKMatrix


def to_lps(points_ras_mm: np.ndarray) -> np.ndarray:
    """(…, 3) from RAS to LPS, and back."""
    return np.asarray(points_ras_mm, float) * [-1, -1, 1]


def image_of(volume: slicer.vtkMRMLScalarVolumeNode) -> sitk.Image:
    """The volume's voxels, in its own place and without its transforms."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    lps = np.diag([-1, -1, 1, 1]) @ arrayFromVTKMatrix(matrix)
    image = sitk.GetImageFromArray(arrayFromVolume(volume))
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def mask_of(
    segmentation: slicer.vtkMRMLSegmentationNode, reference: slicer.vtkMRMLScalarVolumeNode
) -> sitk.Image:
    """The only segment as a binary image on the voxels of `reference`, by Slicer's own export."""
    scene = segmentation.GetScene()
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "export")
    identifiers = vtk.vtkStringArray()
    segmentation.GetSegmentation().GetSegmentIDs(identifiers)
    slicer.vtkSlicerSegmentationsModuleLogic.ExportSegmentsToLabelmapNode(
        segmentation, identifiers, labels, reference
    )
    mask = image_of(labels)
    scene.RemoveNode(labels)
    return sitk.Cast(mask > 0, sitk.sitkUInt8)


def world_points_lps(node: slicer.vtkMRMLTransformNode, points_lps_mm: np.ndarray) -> np.ndarray:
    """Where points under the transform node lie in the world, both (n, 3) LPS."""
    to_world = vtk.vtkGeneralTransform()
    node.GetTransformToWorld(to_world)
    return to_lps(np.array([to_world.TransformPoint(p) for p in to_lps(points_lps_mm).tolist()]))
