"""Targets drawn or marked on the MR, carried to the TRUS: points, segments, or both.

The user's own node on the MR is never changed; what is carried are copies in TRUS space that the user may
nudge. From which point of the MR and to where each point was carried is kept, so that it can be put back and
carried again.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import asdict, dataclass, replace

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
from .readers import check_volume, landmarks_of, placed_ids, segments_of, volume_grid
from .segmentations import add_segmentation
from .stages import Stage, mr_to_trus, resampling_of, stage_of, stages_of, transformed
from .texts import NOTICE

# Reddish purple: neither the MR's, nor the TRUS's, nor the error vectors' colour.
TARGET_COLOR = (0.80, 0.47, 0.65)
_CARRIED = "CarriedPoints"


@dataclass(frozen=True)
class _Carried:
    """The ID of a point on the MR, "" where that is not in the scene, and where it was carried to, LPS mm."""

    source_id: str
    place_mm: tuple[float, float, float]


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
    return add_carried_points(case, _in_trus(case, source, stage), source_ids=placed_ids(source))


def _in_trus(case: CaseNodes, source: slicer.vtkMRMLMarkupsFiducialNode, stage: Stage) -> Landmarks:
    """The placed points of a list on the MR where a stage puts them in the TRUS; `InputError` without any."""
    points = landmarks_of(source)
    if not len(points):
        raise InputError(f"{source.GetName()} has no placed points: place one on every target.")
    carried = points_ras(transformed(mr_to_trus(case, stage), points_ras(points.points_mm)))
    return Landmarks(points.names, carried)


def add_carried_points(
    case: CaseNodes, points: Landmarks, *, source_ids: tuple[str, ...] | None = None
) -> slicer.vtkMRMLMarkupsFiducialNode:
    """Add targets that were carried to the TRUS already, LPS mm; earlier ones are replaced.

    `source_ids` are those of the points on the MR, where these are in the scene.
    """
    case.remove("targets")
    node = add_landmarks(case.scene, points, "Targets in TRUS", color=TARGET_COLOR)
    node.SetLocked(False)
    case.set("targets", node)
    origins = zip(source_ids or ("",) * len(points), points.points_mm.tolist(), strict=True)
    carried = [_Carried(source_id, tuple(place)) for source_id, place in origins]
    _remember(case, dict(zip(placed_ids(node), carried, strict=True)))
    _follow_trus(node, case)
    return node


def carry_points_again(case: CaseNodes, *, kept: Container[str]) -> None:
    """Carry the points anew by the stage that is shown; those whose IDs are `kept` stay where they are.

    So do points that were added in the TRUS, and those deleted there stay deleted. Points that were added on
    the MR come, points deleted there go; `InputError` where none is left.
    """
    points, source = case.targets, case.mr_targets
    carried, ids = _in_trus(case, source, stage_of(case)), placed_ids(source)
    places = dict(zip(ids, map(tuple, carried.points_mm.tolist()), strict=True))
    known = {
        point_id: replace(was, place_mm=places.get(was.source_id, was.place_mm))
        for point_id, was in _carried(case).items()
    }
    _put_again(points, known, present=places, kept=kept)
    sources = {was.source_id for was in known.values()}
    for source_id, name in zip(ids, carried.names, strict=True):
        if source_id not in sources:
            number = points.AddControlPoint(_ras(places[source_id]), name)
            known[points.GetNthControlPointID(number)] = _Carried(source_id, places[source_id])
    _remember(case, known)


def _put_again(
    points: slicer.vtkMRMLMarkupsFiducialNode,
    known: dict[str, _Carried],
    *,
    present: Container[str],
    kept: Container[str],
) -> None:
    """Put the known points to their places, but those `kept`; remove those whose source is not `present`."""
    # From the last one, because those after a removed one change their numbers.
    for number in reversed(range(points.GetNumberOfControlPoints())):
        point_id = points.GetNthControlPointID(number)
        now = known.get(point_id)
        if now is None or point_id in kept:
            continue
        if now.source_id in present:
            points.SetNthControlPointPosition(number, *_ras(now.place_mm))
        else:
            points.RemoveNthControlPoint(number)


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


def nudges_mm(case: CaseNodes) -> dict[str, float]:
    """How far each target point was moved by hand, by its ID, in the order of `target_points`.

    0 for those added in the TRUS; {} without points.
    """
    if case.targets is None:
        return {}
    known, points = _carried(case), landmarks_of(case.targets)
    nudges = {}
    for point_id, place in zip(placed_ids(case.targets), points.points_mm, strict=True):
        was = known.get(point_id)
        nudges[point_id] = 0.0 if was is None else float(np.linalg.norm(place - was.place_mm))
    return nudges


def reset_target(case: CaseNodes, point_id: str) -> bool:
    """Put a carried point back to where the registration puts it; false where there is no such point."""
    if case.targets is None:
        return False
    number, was = case.targets.GetControlPointIndexByID(point_id), _carried(case).get(point_id)
    if number < 0 or was is None:
        return False
    case.targets.SetNthControlPointPosition(number, *_ras(was.place_mm))
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


def _remember(case: CaseNodes, carried: dict[str, _Carried]) -> None:
    entries = {point_id: asdict(point) for point_id, point in carried.items()}
    case.set_attribute(_CARRIED, json.dumps(entries))


def _carried(case: CaseNodes) -> dict[str, _Carried]:
    """What was carried, by the IDs of the points in the TRUS, those deleted since included."""
    written = case.attribute(_CARRIED)
    if not written:
        return _carried_by_name(case)
    return {
        point_id: _Carried(entry["source_id"], tuple(entry["place_mm"]))
        for point_id, entry in json.loads(written).items()
    }


def _carried_by_name(case: CaseNodes) -> dict[str, _Carried]:
    """What must have been carried in a scene that does not say it, as older versions saved them.

    A point comes from the one on the MR that has its name, and was carried to the nearest of the places where
    the stages put that one: where it lies apart from them all, it was moved.
    """
    points, source, stages = case.targets, case.mr_targets, stages_of(case)[1:]
    if points is None or source is None or not placed_ids(source) or not stages:
        return {}
    places = np.stack([_in_trus(case, source, stage).points_mm for stage in stages])
    ids, names = placed_ids(source), list(landmarks_of(source).names)
    found, now = {}, landmarks_of(points)
    for point_id, name, place in zip(placed_ids(points), now.names, now.points_mm, strict=True):
        if name in names:
            number = names.index(name)
            nearest = np.linalg.norm(places[:, number] - place, axis=1).argmin()
            found[point_id] = _Carried(ids[number], tuple(places[nearest, number].tolist()))
            names[number] = ""  # each comes from one of its own where several share a name
    return found


def _ras(place_mm: tuple[float, float, float]) -> list[float]:
    return points_ras(np.array(place_mm)).tolist()
