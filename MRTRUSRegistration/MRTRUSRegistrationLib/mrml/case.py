"""One registration as nodes of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import slicer

from ..results import Measures, Registration
from .hierarchy import add_case_folder
from .markups import add_landmarks
from .segmentations import add_gland_segmentation
from .tables import add_landmark_table, add_measures_table
from .texts import NOTICE, add_text, provenance_json
from .transforms import add_grid_transform, add_linear_transform, set_registered_images
from .volumes import add_volume

# Orange and blue: told apart by readers with any kind of colour vision, and on grey images.
MR_COLOR = (0.90, 0.62, 0.0)
TRUS_COLOR = (0.34, 0.71, 0.91)
# Every node carries the notice: nodes are exported and copied singly.
NOTICE_ATTRIBUTE = "MRTRUSRegistration.Notice"


@dataclass(frozen=True)
class CaseNodes:
    """The nodes of one case; the optional ones are `None` where the registration had nothing for them."""

    folder_item: int
    trus: slicer.vtkMRMLScalarVolumeNode
    mr: slicer.vtkMRMLScalarVolumeNode
    trus_gland: slicer.vtkMRMLSegmentationNode
    mr_gland: slicer.vtkMRMLSegmentationNode
    rigid: slicer.vtkMRMLTransformNode
    deformation: slicer.vtkMRMLTransformNode | None
    trus_landmarks: slicer.vtkMRMLMarkupsFiducialNode | None
    mr_landmarks: slicer.vtkMRMLMarkupsFiducialNode | None
    measures: slicer.vtkMRMLTableNode
    landmark_errors: slicer.vtkMRMLTableNode | None
    notice: slicer.vtkMRMLTextNode
    provenance: slicer.vtkMRMLTextNode


def add_case(scene: slicer.vtkMRMLScene, result: Registration, *, name: str) -> CaseNodes:
    """Add everything of one registration to the scene, in a subject-hierarchy folder called `name`.

    The MR image, gland and landmarks observe the rigid transform and that observes the deformable one, so
    they appear in TRUS space; nothing is hardened. Volumes and points keep their own coordinates.
    """
    trus = add_volume(scene, result.trus, "TRUS")
    mr = add_volume(scene, result.mr, "MR")
    rigid, deformation = _add_transforms(scene, result, mr=mr, trus=trus)
    glands = [
        add_gland_segmentation(scene, result.trus_gland.mask, trus, "TRUS gland", color=TRUS_COLOR),
        add_gland_segmentation(scene, result.mr_gland.mask, mr, "MR gland", color=MR_COLOR),
    ]
    points = _add_landmarks(scene, result)
    tables = _add_tables(scene, result)
    texts = _add_texts(scene, result)
    for node in (mr, glands[1], points[1]):
        if node is not None:
            node.SetAndObserveTransformNodeID(rigid.GetID())
    nodes = (trus, mr, *glands, rigid, deformation, *points, *tables, *texts)
    present = [node for node in nodes if node is not None]
    for node in present:
        node.SetAttribute(NOTICE_ATTRIBUTE, NOTICE)
    return CaseNodes(add_case_folder(scene, name, present), *nodes)


def _add_transforms(
    scene: slicer.vtkMRMLScene,
    result: Registration,
    *,
    mr: slicer.vtkMRMLScalarVolumeNode,
    trus: slicer.vtkMRMLScalarVolumeNode,
) -> tuple[slicer.vtkMRMLTransformNode, slicer.vtkMRMLTransformNode | None]:
    """The rigid node under the deformable one: a TRUS point x is rigid(x + u(x)) in MR space."""
    rigid = add_linear_transform(scene, result.rigid.transform, "MR to TRUS rigid")
    set_registered_images(rigid, moving=mr, fixed=trus)
    if result.deformation is None:
        return rigid, None
    deformation = add_grid_transform(scene, result.deformation.transform, "MR to TRUS deformation")
    set_registered_images(deformation, moving=mr, fixed=trus)
    rigid.SetAndObserveTransformNodeID(deformation.GetID())
    return rigid, deformation


def _add_landmarks(
    scene: slicer.vtkMRMLScene, result: Registration
) -> tuple[slicer.vtkMRMLMarkupsFiducialNode | None, slicer.vtkMRMLMarkupsFiducialNode | None]:
    """The landmarks of TRUS and of MR."""
    given = ((result.trus_landmarks, "TRUS", TRUS_COLOR), (result.mr_landmarks, "MR", MR_COLOR))
    trus, mr = (
        add_landmarks(scene, landmarks, f"{image} landmarks", color=color) if landmarks else None
        for landmarks, image, color in given
    )
    return trus, mr


def _add_tables(
    scene: slicer.vtkMRMLScene, result: Registration
) -> tuple[slicer.vtkMRMLTableNode, slicer.vtkMRMLTableNode | None]:
    stages: dict[str, Measures] = {"initial": result.initial_measures, "rigid": result.rigid_measures}
    if result.deformation is not None:
        stages["deformable"] = result.measures
    measures = add_measures_table(scene, stages, "Measures")
    rows = result.measures.landmark_rows
    return measures, add_landmark_table(scene, rows, "Landmark errors") if rows else None


def _add_texts(
    scene: slicer.vtkMRMLScene, result: Registration
) -> tuple[slicer.vtkMRMLTextNode, slicer.vtkMRMLTextNode]:
    warnings = "".join(f"\nWarning: {warning.message}" for warning in result.warnings)
    notice = add_text(scene, NOTICE + warnings, "Notice")
    return notice, add_text(scene, provenance_json(result.provenance), "Provenance")
