"""One registration as nodes of a scene."""

from __future__ import annotations

import json
from dataclasses import asdict

import slicer

from ..results import Registration
from .case_nodes import RESULT_ROLES, CaseNodes, new_case_node
from .content import CaseContent, content_of
from .frames import axes_right_handed, linear_matrix_ras
from .hierarchy import add_case_folder, add_version_folder
from .markups import add_landmarks
from .segmentations import add_gland_segmentation
from .stages import show_stage, stages_of
from .tables import add_landmark_table, add_measures_table
from .texts import NOTICE, add_text, provenance_json
from .transforms import add_grid_transform, add_linear_transform, set_registered_images
from .volumes import add_volume

# Orange and blue: told apart by readers with any kind of colour vision, and on grey images.
MR_COLOR = (0.90, 0.62, 0.0)
TRUS_COLOR = (0.34, 0.71, 0.91)
# Every node carries the notice: nodes are exported and copied singly.
NOTICE_ATTRIBUTE = "MRTRUSRegistration.Notice"

Nodes = dict[str, slicer.vtkMRMLNode | None]


def add_case(scene: slicer.vtkMRMLScene, result: Registration, *, name: str) -> CaseNodes:
    """Add everything of one registration to the scene, its images included, in a folder called `name`.

    The MR image, gland and landmarks observe the rigid transform and that observes the deformable one, so
    they appear in TRUS space; nothing is hardened. Volumes and points keep their own coordinates.
    """
    trus = add_volume(scene, result.trus, "TRUS")
    mr = add_volume(scene, result.mr, "MR")
    for node in (trus, mr):
        node.SetAttribute(NOTICE_ATTRIBUTE, NOTICE)
    folder = add_case_folder(scene, name, (trus, mr))
    return add_content(scene, content_of(result), mr=mr, trus=trus, name=name, folder_item=folder)


def add_content(
    scene: slicer.vtkMRMLScene,
    content: CaseContent,
    *,
    mr: slicer.vtkMRMLScalarVolumeNode,
    trus: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    previous: CaseNodes | None = None,
    folder_item: int | None = None,
) -> CaseNodes:
    """Add what a registration made around two volume nodes, and show its last stage.

    `previous` is any version of the case that is registered again. Of the two volumes nothing is changed but
    the transform that the MR observes, and that only at the end.
    """
    case = new_case_node(scene, name=previous.name if previous else name, previous=previous)
    suffix = f" v{case.version}" if previous else ""
    nodes = _result_nodes(scene, content, mr, trus, suffix)
    for role in RESULT_ROLES:
        node = nodes.get(role)
        if node is not None:
            node.SetAttribute(NOTICE_ATTRIBUTE, NOTICE)
            case.set(role, node)
    _set_inputs(case, mr, trus, previous)
    _keep(case, content)
    made = [node for role in RESULT_ROLES if (node := nodes.get(role)) is not None]
    if previous is not None:
        add_version_folder(scene, previous.measures or previous.rigid, f"Version {case.version}", made)
    else:
        add_case_folder(scene, name, made, folder_item=folder_item)
    show_stage(case, stages_of(case)[-1])
    return case


def _set_inputs(
    case: CaseNodes,
    mr: slicer.vtkMRMLScalarVolumeNode,
    trus: slicer.vtkMRMLScalarVolumeNode,
    previous: CaseNodes | None,
) -> None:
    """The inputs, and the transform under which the user had the MR, to give it back some day."""
    case.set("mr", mr)
    case.set("trus", trus)
    case.set("mrParent", previous.get("mrParent") if previous else mr.GetParentTransformNode())
    for role in ("mrTargets", "mrTargetSegments"):
        case.set(role, previous.get(role) if previous else None)


def _keep(case: CaseNodes, content: CaseContent) -> None:
    """What the case node itself remembers."""
    case.set_attribute("Active", "1")
    case.set_attribute("Method", content.method)
    case.set_attribute("Initial", json.dumps(linear_matrix_ras(content.initial).tolist()))
    case.set_attribute("TRUSAxes", axes_right_handed(content.trus_axes, content.trus_mask))
    case.set_attribute("Warnings", json.dumps([asdict(warning) for warning in content.warnings]))


def _result_nodes(
    scene: slicer.vtkMRMLScene,
    content: CaseContent,
    mr: slicer.vtkMRMLScalarVolumeNode,
    trus: slicer.vtkMRMLScalarVolumeNode,
    suffix: str,
) -> Nodes:
    nodes: Nodes = _transforms(scene, content, suffix)
    for node in (nodes["rigid"], nodes["deformation"]):
        if node is not None:
            set_registered_images(node, moving=mr, fixed=trus)
    glands = (("trusGland", content.trus_mask, trus, TRUS_COLOR), ("mrGland", content.mr_mask, mr, MR_COLOR))
    for role, mask, volume, color in glands:
        label = f"{role.removesuffix('Gland').upper()} gland{suffix}"
        nodes[role] = add_gland_segmentation(scene, mask, volume, label, color=color)
    points = (
        ("trusLandmarks", content.trus_landmarks, TRUS_COLOR),
        ("mrLandmarks", content.mr_landmarks, MR_COLOR),
    )
    for role, landmarks, color in points:
        label = f"{role.removesuffix('Landmarks').upper()} landmarks{suffix}"
        nodes[role] = add_landmarks(scene, landmarks, label, color=color) if landmarks else None
    return nodes | _tables(scene, content, suffix) | _texts(scene, content, suffix)


def _transforms(scene: slicer.vtkMRMLScene, content: CaseContent, suffix: str) -> Nodes:
    rigid = add_linear_transform(scene, content.rigid, f"MR to TRUS rigid{suffix}")
    deformation = None
    if content.deformation is not None:
        deformation = add_grid_transform(scene, content.deformation, f"MR to TRUS deformation{suffix}")
    return {"rigid": rigid, "deformation": deformation}


def _tables(scene: slicer.vtkMRMLScene, content: CaseContent, suffix: str) -> Nodes:
    nodes: Nodes = {"measures": add_measures_table(scene, content.measures, f"Measures{suffix}")}
    if content.rows:
        deformable = content.deformation is not None
        nodes["landmarkErrors"] = add_landmark_table(
            scene, content.rows, f"Landmark errors{suffix}", deformable=deformable
        )
    if content.confidence_mm is not None:
        nodes["confidence"] = add_volume(scene, content.confidence_mm, f"Confidence (mm){suffix}")
    return nodes


def _texts(scene: slicer.vtkMRMLScene, content: CaseContent, suffix: str) -> Nodes:
    warnings = "".join(f"\nWarning: {warning.message}" for warning in content.warnings)
    nodes: Nodes = {
        "notice": add_text(scene, NOTICE + warnings, f"Notice{suffix}"),
        "provenance": add_text(scene, provenance_json(content.provenance), f"Provenance{suffix}"),
    }
    if content.report_html:
        nodes["report"] = add_text(scene, content.report_html, f"Report{suffix}")
    return nodes
