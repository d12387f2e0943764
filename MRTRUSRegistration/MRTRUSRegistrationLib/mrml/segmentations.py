"""Segmentation nodes from binary masks."""

from __future__ import annotations

import SimpleITK as sitk  # noqa: N813
import slicer

from .frames import fill_vtk_image, index_to_ras, right_handed, vtk_matrix

SEGMENT_ID = "Prostate"
# Slicer's terminology string: context, category, type and its modifier, anatomic context, region, modifier.
_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^123037004^Anatomical Structure~SCT^41216001^Prostate~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)


def add_gland_segmentation(
    scene: slicer.vtkMRMLScene,
    mask: sitk.Image,
    volume: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    *,
    color: tuple[float, float, float],
) -> slicer.vtkMRMLSegmentationNode:
    """Add a segmentation node with one segment, the prostate, from a binary `mask`."""
    node = add_segmentation(scene, {SEGMENT_ID: mask}, volume, name, color=color)
    segment = node.GetSegmentation().GetSegment(SEGMENT_ID)
    segment.SetTag(segment.GetTerminologyEntryTagName(), _TERMINOLOGY)
    return node


def add_segmentation(
    scene: slicer.vtkMRMLScene,
    masks: dict[str, sitk.Image],
    volume: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    *,
    color: tuple[float, float, float],
) -> slicer.vtkMRMLSegmentationNode:
    """Add a segmentation node with one segment a binary mask, named by its key.

    `volume` gives the reference geometry, so that the Segment Editor edits on the voxels of that image.
    Slices show the outline only: a filled segment would hide the image under it.
    """
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for segment, mask in masks.items():
        node.AddSegmentFromBinaryLabelmapRepresentation(_labelmap(mask), segment, list(color), segment)
    node.GetDisplayNode().SetVisibility2DFill(False)
    node.GetDisplayNode().SetOpacity3D(0.5)
    return node


def _labelmap(mask: sitk.Image) -> slicer.vtkOrientedImageData:
    labelmap = slicer.vtkOrientedImageData()
    mask = right_handed(mask)
    fill_vtk_image(labelmap, sitk.Cast(mask != 0, sitk.sitkUInt8))
    labelmap.SetImageToWorldMatrix(vtk_matrix(index_to_ras(mask)))
    return labelmap
