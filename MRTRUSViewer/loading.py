"""From files to nodes: a result folder, a scene, or MR and TRUS with their points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.images import LoadedImage, check_different, read_image
from MRTRUSRegistrationLib.landmark_files import read_points
from MRTRUSRegistrationLib.landmarks import read_landmarks
from MRTRUSRegistrationLib.mrml.case import MR_COLOR, TRUS_COLOR
from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes, find_cases
from MRTRUSRegistrationLib.mrml.markups import add_landmarks
from MRTRUSRegistrationLib.mrml.result_folder import load_result
from MRTRUSRegistrationLib.mrml.scene_file import import_scene
from MRTRUSRegistrationLib.mrml.segmentations import add_segmentation
from MRTRUSRegistrationLib.mrml.stale import glands_remembered, remember_glands
from MRTRUSRegistrationLib.mrml.targets_nodes import TARGET_COLOR, add_carried_points
from MRTRUSRegistrationLib.mrml.texts import add_text
from MRTRUSRegistrationLib.mrml.transaction import all_or_nothing
from MRTRUSRegistrationLib.mrml.volumes import add_volume
from MRTRUSRegistrationLib.results import Landmarks, QualityWarning
from MRTRUSRegistrationLib.target_files import POINTS, read_targets


@dataclass(frozen=True)
class PairFiles:
    """The files of a case that is to be registered; landmarks only in both images or in none."""

    mr: Path
    trus: Path
    mr_landmarks: Path | None = None
    trus_landmarks: Path | None = None
    targets: Path | None = None


@dataclass(frozen=True)
class PairNodes:
    """Their nodes; `warnings` are about the files."""

    name: str
    mr: Any
    trus: Any
    mr_landmarks: Any = None
    trus_landmarks: Any = None
    targets: Any = None
    lesions: Any = None
    warnings: tuple[QualityWarning, ...] = ()


def open_scene(scene: Any, path: Path) -> CaseNodes:
    """Import a scene bundle; returns the case that it shows. `InputError` where it holds none."""
    known = {case.node.GetID() for case in find_cases(scene)}
    with all_or_nothing(scene):
        import_scene(scene, path)
        cases = [case for case in find_cases(scene) if case.node.GetID() not in known]
        if not cases:
            raise InputError(f"{path.name} holds no registration: choose a scene that this software saved.")
    # Not by the case's identifier: the same scene may be open already.
    case = next((case for case in cases if case.active), cases[-1])
    if not glands_remembered(case):
        remember_glands(case)
    return case


def open_result(scene: Any, folder: Path) -> CaseNodes:
    """Open the scene of a result folder, with what its other files add; `InputError` without a scene."""
    bundle = folder / "scene.mrb"
    if not bundle.is_file():
        raise InputError(f"{folder.name} has no scene.mrb: register again with the extra `slicer` installed.")
    content = load_result(folder)
    case = open_scene(scene, bundle)
    if case.confidence is None and content.confidence_mm is not None:
        case.set("confidence", add_volume(scene, content.confidence_mm, "Confidence (mm)"))
    if case.report is None and content.report_html:
        case.set("report", add_text(scene, content.report_html, "Report"))
    points = read_points(folder / POINTS) if (folder / POINTS).is_file() else None
    if case.targets is None and points is not None and len(points.names):
        add_carried_points(case, Landmarks(points.names, points.points_mm))
    return case


def open_pair(scene: Any, files: PairFiles, name: str) -> PairNodes:
    """Read and check the files, and add them to the scene, or nothing where one cannot be used."""
    if (files.mr_landmarks is None) != (files.trus_landmarks is None):
        raise InputError("Landmarks were given for one image only: give those of both images.")
    mr, trus = read_image(files.mr, role="MR"), read_image(files.trus, role="TRUS")
    check_different(mr, trus)
    points = {
        "mr_landmarks": _landmarks(files.mr_landmarks, mr),
        "trus_landmarks": _landmarks(files.trus_landmarks, trus),
    }
    targets = () if files.targets is None else read_targets(files.targets, mr)
    with all_or_nothing(scene):
        volume = add_volume(scene, mr.image, "MR")
        nodes = {
            role: None if found is None else add_landmarks(scene, found, _NAMES[role], color=_COLORS[role])
            for role, found in points.items()
        }
        return PairNodes(
            name=name,
            mr=volume,
            trus=add_volume(scene, trus.image, "TRUS"),
            targets=_target_points(scene, targets),
            lesions=_target_segments(scene, targets, volume),
            warnings=(*mr.warnings, *trus.warnings),
            **nodes,
        )


_NAMES = {"mr_landmarks": "MR landmarks", "trus_landmarks": "TRUS landmarks"}
_COLORS = {"mr_landmarks": MR_COLOR, "trus_landmarks": TRUS_COLOR}


def _landmarks(path: Path | None, image: LoadedImage) -> Landmarks | None:
    return None if path is None else read_landmarks(path, image)


def _target_points(scene: Any, targets: tuple[Any, ...]) -> Any:
    import numpy as np

    points = [target for target in targets if target.label is None]
    if not points:
        return None
    found = Landmarks(tuple(t.name for t in points), np.array([t.point_mm for t in points], float))
    return add_landmarks(scene, found, "Targets", color=TARGET_COLOR)


def _target_segments(scene: Any, targets: tuple[Any, ...], volume: Any) -> Any:
    labels = {target.name: target.label for target in targets if target.label is not None}
    return add_segmentation(scene, labels, volume, "Lesions", color=TARGET_COLOR) if labels else None
