"""Targets drawn or marked on the MR, carried to the TRUS: points, segments, or both.

The user's own node on the MR is never changed; what is carried are copies in TRUS space that the user may
nudge. Where each point was carried to is kept, so that it can be put back.
"""

from __future__ import annotations

import json

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer

from ..errors import InputError
from ..geometry import Grid, resample_mask
from ..results import Landmarks
from ..segments import Segment, voxel_count
from .case import NOTICE_ATTRIBUTE
from .case_nodes import CaseNodes
from .frames import points_ras
from .hierarchy import put_beside
from .marked_points import attach
from .markups import add_landmarks
from .readers import check_volume, landmarks_of, segments_of, volume_grid
from .segmentations import add_segmentation
from .stages import Stage, mr_to_trus, resampling_of, stage_of, transformed
from .texts import NOTICE

# Reddish purple: neither the MR's, nor the TRUS's, nor the error vectors' colour.
TARGET_COLOR = (0.80, 0.47, 0.65)


def carry_targets_to_trus(
    case: CaseNodes, source: slicer.vtkMRMLNode | None, *, stage: Stage | None = None
) -> slicer.vtkMRMLNode:
    """Carry a point list or a segmentation on the MR to TRUS space; returns the new node there.

    `stage` is the one that is shown where none is given. An earlier result of the same kind is replaced.
    `InputError` for another kind of node, and for one without points or segments.
    """
    if source is None or source.GetScene() is not case.scene:
        raise InputError("The targets are no longer in the scene: mark them again.")
    check_volume(case.mr, "MR")
    check_volume(case.trus, "TRUS")
    stage = stage or stage_of(case)
    if source.IsA("vtkMRMLMarkupsFiducialNode"):
        node = _carry_points(case, source, stage)
    elif source.IsA("vtkMRMLSegmentationNode"):
        node = _carry_segments(case, source, stage)
    else:
        raise InputError(
            f"{source.GetName()} is neither a point list nor a segmentation: choose one of them."
        )
    node.SetAttribute(NOTICE_ATTRIBUTE, NOTICE)
    put_beside(node, case.rigid or case.measures)
    if source.IsA("vtkMRMLMarkupsFiducialNode"):
        case.set("mrTargets", source)
        attach(case.mr, source)
    else:
        case.set("mrTargetSegments", source)
        source.SetAndObserveTransformNodeID(case.mr.GetTransformNodeID())
    return node


def _carry_points(
    case: CaseNodes, source: slicer.vtkMRMLMarkupsFiducialNode, stage: Stage
) -> slicer.vtkMRMLMarkupsFiducialNode:
    points = landmarks_of(source)
    if not len(points):
        raise InputError(f"{source.GetName()} has no placed points: place one on every target.")
    carried = points_ras(transformed(mr_to_trus(case, stage), points_ras(points.points_mm)))
    return add_carried_points(case, Landmarks(points.names, carried))


def add_carried_points(case: CaseNodes, points: Landmarks) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Add targets that were carried to the TRUS already, LPS mm; earlier ones are replaced."""
    case.remove("targets")
    node = add_landmarks(case.scene, points, "Targets in TRUS", color=TARGET_COLOR)
    node.SetLocked(False)
    case.set("targets", node)
    case.set_attribute("CarriedTargets", json.dumps(points.points_mm.tolist()))
    _follow_trus(node, case)
    return node


def _carry_segments(
    case: CaseNodes, source: slicer.vtkMRMLSegmentationNode, stage: Stage
) -> slicer.vtkMRMLSegmentationNode:
    masks = lesion_masks(source, volume_grid(case.mr))
    grid, transform = volume_grid(case.trus), resampling_of(case, stage)
    carried = {name: resample_mask(mask, grid, transform) for name, mask in masks.items()}
    case.remove("targetSegments")
    node = add_segmentation(case.scene, carried, case.trus, "Target segments in TRUS", color=TARGET_COLOR)
    case.set("targetSegments", node)
    _follow_trus(node, case)
    return node


def lesion_masks(source: slicer.vtkMRMLSegmentationNode, grid: Grid) -> dict[str, sitk.Image]:
    """The drawn segments by name as masks on `grid`, without the gland; `InputError` where none is left."""
    masks = {
        name: mask
        for name, mask in segments_of(source, grid).items()
        if voxel_count(mask) and not Segment(name, mask).is_gland
    }
    if not masks:
        raise InputError(f"The segmentation {source.GetName()} holds no lesion: draw one or choose none.")
    return masks


def _follow_trus(node: slicer.vtkMRMLTransformableNode, case: CaseNodes) -> None:
    node.SetAndObserveTransformNodeID(case.trus.GetTransformNodeID())


def nudges_mm(case: CaseNodes) -> tuple[float, ...]:
    """How far each carried point was moved by hand; () without points, or where points were added."""
    carried = _carried(case)
    if case.targets is None or carried is None:
        return ()
    now = landmarks_of(case.targets).points_mm
    if now.shape != carried.shape:
        return ()
    return tuple(np.linalg.norm(now - carried, axis=1).tolist())


def reset_target(case: CaseNodes, number: int) -> bool:
    """Put a carried point back to where the registration puts it; false where there is no such point."""
    carried = _carried(case)
    if case.targets is None or carried is None or not 0 <= number < len(carried):
        return False
    if number >= case.targets.GetNumberOfControlPoints():
        return False
    case.targets.SetNthControlPointPosition(number, *points_ras(carried[number]).tolist())
    return True


def target_points(case: CaseNodes) -> Landmarks | None:
    """The targets in TRUS space, LPS mm, where the user has them now; `None` without any."""
    if case.targets is None:
        return None
    points = landmarks_of(case.targets)
    return points if len(points) else None


def target_masks(case: CaseNodes) -> dict[str, sitk.Image]:
    """The target segments by name, as masks on the TRUS grid; {} without any."""
    if case.target_segments is None or case.trus is None:
        return {}
    grid: Grid = volume_grid(case.trus)
    return segments_of(case.target_segments, grid)


def _carried(case: CaseNodes) -> np.ndarray | None:
    text = case.attribute("CarriedTargets")
    return np.array(json.loads(text), float).reshape(-1, 3) if text else None
