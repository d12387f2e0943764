"""The stages of a registration, one at a time: what the MR and all that belongs to it observe.

"before" is where the registration started: the initial transform (the glands' centroids matched, the headers
as they are, or a transform of the user's). Slicer, not this code, then carries volumes, points and segments.
"""

from __future__ import annotations

import json
from typing import Literal, get_args

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
import vtk

from ..errors import InputError
from ..transforms import compose
from .case_nodes import CaseNodes
from .frames import vtk_matrix
from .hierarchy import put_beside
from .marked_points import follow
from .readers import resampling_transform

Stage = Literal["before", "rigid", "deformable"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# What the measures call a stage.
MEASURE_COLUMNS: dict[Stage, str] = {"before": "initial", "rigid": "rigid", "deformable": "deformable"}


def stages_of(case: CaseNodes) -> tuple[Stage, ...]:
    """The stages that can be shown now; `InputError` when the case is gone."""
    scene_is_open = case.scene is not None
    found: list[Stage] = ["before"] if scene_is_open else []
    if case.rigid is not None:
        found.append("rigid")
        if case.deformation is not None:
            found.append("deformable")
    return tuple(found)


def stage_of(case: CaseNodes) -> Stage:
    """The stage that is shown."""
    stage = case.attribute("Stage")
    return stage if stage in STAGES else stages_of(case)[-1]


def accepted_stage(case: CaseNodes) -> Stage:
    """The stage that counts for the case: the rigid one where the user decided so, else the last."""
    stages = stages_of(case)
    return "rigid" if case.attribute("Accepted") == "RIGID" and "rigid" in stages else stages[-1]


def show_stage(case: CaseNodes, stage: Stage) -> None:
    """Let the MR, its gland, landmarks, targets and marked points observe the transform of `stage`.

    Nodes that were deleted are left out. `InputError` where the case has no such stage (any more).
    """
    transform = _outermost(case, stage)
    if stage == "deformable":
        case.rigid.SetAndObserveTransformNodeID(case.deformation.GetID())
        transform = case.rigid
    for node in (case.mr, case.mr_gland, case.mr_landmarks, case.mr_targets, case.mr_target_segments):
        if node is not None:
            node.SetAndObserveTransformNodeID(transform.GetID())
    if case.mr is not None:
        follow(case.mr)
    case.set_attribute("Stage", stage)


def release(case: CaseNodes) -> None:
    """Put the user's own nodes back to where they were before the registration."""
    parent = case.get("mrParent")
    for node in (case.mr, case.mr_targets, case.mr_target_segments):
        if node is not None:
            node.SetAndObserveTransformNodeID(parent.GetID() if parent else None)
    if case.mr is not None:
        follow(case.mr)


def stage_transforms(case: CaseNodes, stage: Stage) -> tuple[slicer.vtkMRMLTransformNode, ...]:
    """The transform nodes from the MR outwards; `InputError` where the case has no such stage."""
    if stage not in stages_of(case):
        raise InputError(f"{case.name} has no {stage} stage: register again.")
    if stage == "before":
        return (_initial(case),)
    return (case.rigid,) if stage == "rigid" else (case.rigid, case.deformation)


def resampling_of(case: CaseNodes, stage: Stage) -> sitk.Transform:
    """Where a TRUS point lies in the MR at that stage, both in their own volume's LPS mm."""
    inner, *outer = [resampling_transform(node) for node in stage_transforms(case, stage)]
    return compose(inner, *(outer or [None]))


def mr_to_trus(case: CaseNodes, stage: Stage) -> vtk.vtkGeneralTransform:
    """Where Slicer puts an MR point in the TRUS at that stage, both in their own volume's RAS mm."""
    chain = vtk.vtkGeneralTransform()
    chain.PostMultiply()
    for node in stage_transforms(case, stage):
        chain.Concatenate(node.GetTransformToParent())
    return chain


def transformed(transform: vtk.vtkAbstractTransform, points_ras_mm: np.ndarray) -> np.ndarray:
    """(n, 3) points through a VTK transform."""
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    given, mapped = vtk.vtkPoints(), vtk.vtkPoints()
    for points in (given, mapped):
        points.SetDataTypeToDouble()
    given.SetData(numpy_to_vtk(np.ascontiguousarray(points_ras_mm, float).reshape(-1, 3), deep=True))
    transform.TransformPoints(given, mapped)
    return vtk_to_numpy(mapped.GetData()).copy().reshape(-1, 3)


def _outermost(case: CaseNodes, stage: Stage) -> slicer.vtkMRMLTransformNode:
    """The outermost transform of a stage, put to where the TRUS is."""
    outermost = stage_transforms(case, stage)[-1]
    parent = case.trus.GetTransformNodeID() if case.trus is not None else None
    outermost.SetAndObserveTransformNodeID(parent)
    for node in (case.trus_gland, case.trus_landmarks, case.targets, case.target_segments):
        if node is not None:
            node.SetAndObserveTransformNodeID(parent)
    return outermost


def _initial(case: CaseNodes) -> slicer.vtkMRMLTransformNode:
    """The initial transform, made when it is first asked for: many cases never are shown before."""
    found = case.initial
    if found is not None:
        return found
    suffix = f" v{case.version}" if case.version > 1 else ""
    node = case.scene.AddNewNodeByClass("vtkMRMLTransformNode", f"MR to TRUS initial{suffix}")
    matrix = json.loads(case.attribute("Initial") or "null")
    node.SetMatrixTransformFromParent(vtk_matrix(np.eye(4) if matrix is None else np.array(matrix)))
    case.set("initial", node)
    put_beside(node, case.rigid or case.measures)
    return node
