"""A finished result folder with a known answer, and scenes that it was committed to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import slicer
from scene_fixtures import registration

from MRTRUSRegistrationLib.mrml.case import add_content
from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.content import content_of
from MRTRUSRegistrationLib.mrml.result_folder import add_result
from MRTRUSRegistrationLib.mrml.scene_file import new_scene
from MRTRUSRegistrationLib.mrml.volumes import add_volume
from MRTRUSRegistrationLib.outputs import write_result
from MRTRUSRegistrationLib.results import Registration

NAME = "Case 7"


@dataclass(frozen=True)
class Committed:
    """A scene with the user's two volumes and one case; the scene has to outlive the nodes."""

    scene: slicer.vtkMRMLScene
    case: CaseNodes
    mr: slicer.vtkMRMLScalarVolumeNode
    trus: slicer.vtkMRMLScalarVolumeNode
    result: Registration
    folder: Path


@cache
def known_registration(**options) -> Registration:
    """`scene_fixtures.registration`, made once for all tests: nobody changes it."""
    return registration(**options)


def write_folder(folder: Path, **options) -> tuple[Registration, Path]:
    """Register nothing, but write the result folder as a run does."""
    result = _with_carried_positions(known_registration(**options))
    write_result(result, folder, case_name=NAME)
    return result, folder


def _with_carried_positions(result: Registration) -> Registration:
    """Landmark rows that say where each MR point was carried to; the lost one was carried nowhere."""
    if result.trus_landmarks is None:
        return result
    places = result.trus_landmarks.points_mm.tolist()
    rows = tuple(
        replace(row, warped_mm=None if row.lost else tuple(place))
        for row, place in zip(result.measures.landmark_rows, places, strict=True)
    )
    return replace(result, measures=replace(result.measures, landmark_rows=rows))


def commit_in_memory(*, scene: slicer.vtkMRMLScene | None = None, **options) -> Committed:
    """The same case without files, for tests that need none."""
    result = known_registration(**options)
    scene = scene or new_scene()
    mr, trus = _volumes(scene, result)
    case = add_content(scene, content_of(result), mr=mr, trus=trus, name=NAME)
    return Committed(scene, case, mr, trus, result, Path())


def commit(result: Registration, folder: Path, *, scene: slicer.vtkMRMLScene | None = None) -> Committed:
    """Load the images as a user does, and commit the folder around them."""
    scene = scene or new_scene()
    mr, trus = _volumes(scene, result)
    case = add_result(scene, folder, mr_node=mr, trus_node=trus, name=NAME)
    return Committed(scene, case, mr, trus, result, folder)


def _volumes(scene: slicer.vtkMRMLScene, result: Registration) -> tuple:
    return add_volume(scene, result.mr, "T2"), add_volume(scene, result.trus, "US")
