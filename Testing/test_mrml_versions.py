"""Registering again: versions are kept, compared, undone and deleted; inputs stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

import vtk  # noqa: E402
from mrml_case import NAME, commit_in_memory  # noqa: E402

from MRTRUSRegistrationLib.mrml.case import add_content  # noqa: E402
from MRTRUSRegistrationLib.mrml.case_nodes import find_cases  # noqa: E402
from MRTRUSRegistrationLib.mrml.content import content_of  # noqa: E402
from MRTRUSRegistrationLib.mrml.hierarchy import folder_of  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import read_scene  # noqa: E402
from MRTRUSRegistrationLib.mrml.versions import (  # noqa: E402
    activate,
    active_version,
    compare,
    deactivate,
    delete_version,
    measures_of,
    undo,
    versions,
)
from MRTRUSRegistrationLib.results import Measures  # noqa: E402


@pytest.fixture
def committed():
    return commit_in_memory()


def _again(committed, *, dsc: float = 0.95):
    """Register again with another rigid transform and a better overlap."""
    rigid = replace(committed.result.rigid, transform=sitk.Euler3DTransform(committed.result.rigid.transform))
    rigid.transform.SetTranslation([t + 2 for t in rigid.transform.GetTranslation()])
    measures = Measures({"dsc": dsc, "hd95_mm": 3.0}, committed.result.measures.landmark_rows)
    content = content_of(replace(committed.result, rigid=rigid, measures=measures))
    first = versions(committed.case)[0]
    case = add_content(
        committed.scene, content, mr=committed.mr, trus=committed.trus, name="ignored", previous=first
    )
    for other in versions(case)[:-1]:
        deactivate(other)
    return case


def _path(node) -> list[str]:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    names, item = [], folder_of(node)
    while item and item != hierarchy.GetSceneItemID():
        names.insert(0, hierarchy.GetItemName(item))
        item = hierarchy.GetItemParent(item)
    return names


def test_versions_lie_in_one_folder(committed):
    second = _again(committed)
    third = _again(committed)
    assert [case.version for case in versions(second)] == [1, 2, 3]
    assert [case.name for case in versions(second)] == [NAME] * 3
    assert _path(committed.case.measures) == [NAME]
    assert _path(second.measures) == [NAME, "Version 2"]
    assert _path(third.mr_gland) == [NAME, "Version 3"]
    assert third.rigid.GetName() == "MR to TRUS rigid v3"


def test_the_newest_version_is_shown_and_the_others_are_hidden(committed):
    second = _again(committed)
    assert committed.mr.GetParentTransformNode() is second.rigid
    assert active_version(committed.case).version == 2
    assert not committed.case.mr_gland.GetDisplayVisibility()
    assert second.mr_gland.GetDisplayVisibility()


def test_undo_goes_back_and_activate_forward_again(committed):
    second = _again(committed)
    back = undo(second)
    assert back.version == 1
    assert committed.mr.GetParentTransformNode() is committed.case.rigid
    assert committed.case.mr_gland.GetDisplayVisibility()
    assert not second.mr_gland.GetDisplayVisibility()
    assert undo(second) is None
    assert active_version(second).version == 1
    activate(second)
    assert committed.mr.GetParentTransformNode() is second.rigid


def test_two_versions_side_by_side(committed):
    rows = {row.name: row for row in compare(committed.case, _again(committed))}
    assert rows["dsc"].first == pytest.approx(0.91)
    assert rows["dsc"].second == pytest.approx(0.95)
    assert rows["dsc"].difference == pytest.approx(0.04)
    assert (rows["hd95_mm"].first, rows["hd95_mm"].second) == (None, 3.0)
    assert rows["hd95_mm"].difference is None
    assert rows["tre_rms_mm"].second is None


def test_what_the_table_rounds_is_kept_exactly(committed):
    assert measures_of(_again(committed, dsc=0.87941423))["deformable"]["dsc"] == 0.87941423


def test_measures_are_read_by_stage(committed, tmp_path):
    expected = {
        "initial": {"dsc": 0.7, "tre_rms_mm": 5.5},
        "rigid": {"dsc": 0.85, "tre_rms_mm": 3.25},
        "deformable": {"dsc": 0.91, "tre_rms_mm": 2.0, "folds_percent": 0.0},
    }
    assert measures_of(committed.case) == expected
    committed.scene.SetRootDirectory(str(tmp_path))
    assert committed.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene = read_scene(tmp_path / "scene.mrb")
    assert measures_of(find_cases(scene)[0]) == expected
    committed.scene.RemoveNode(committed.case.measures)
    assert measures_of(committed.case) == {}
    assert compare(committed.case, committed.case) == ()


def test_deleting_a_version_leaves_inputs_and_the_other_version(committed):
    second = _again(committed)
    kept = {node.GetID() for node in committed.case.results()}
    rest = delete_version(second)
    assert rest.version == 1
    assert committed.mr.GetParentTransformNode() is committed.case.rigid
    assert committed.case.mr_gland.GetDisplayVisibility()
    assert {node.GetID() for node in committed.case.results()} == kept
    assert len(find_cases(committed.scene)) == 1
    assert committed.scene.GetFirstNodeByName("Measures v2") is None
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(committed.scene)
    assert not hierarchy.GetItemByName("Version 2")
    assert hierarchy.GetItemByName(NAME)


def test_deleting_the_only_version_leaves_the_two_images(committed):
    own = committed.scene.AddNewNodeByClass("vtkMRMLTransformNode", "own")
    committed.case.set("mrParent", own)
    assert delete_version(committed.case) is None
    assert committed.mr.GetParentTransformNode() is own
    assert committed.trus.GetScene() is committed.scene
    assert find_cases(committed.scene) == []
    for name in (
        "vtkMRMLSegmentationNode",
        "vtkMRMLMarkupsFiducialNode",
        "vtkMRMLTableNode",
        "vtkMRMLTextNode",
    ):
        assert committed.scene.GetNumberOfNodesByClass(name) == 0
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(committed.scene)
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), children, True)
    assert children.GetNumberOfIds() == 0


def test_targets_of_the_user_go_on_to_the_next_version(committed):
    targets = committed.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "lesions")
    committed.case.set("mrTargets", targets)
    second = _again(committed)
    assert second.mr_targets is targets
    assert targets.GetParentTransformNode() is second.rigid
    delete_version(second)
    delete_version(committed.case)
    assert targets.GetScene() is committed.scene


def test_versions_survive_saving(committed, tmp_path):
    _again(committed)
    committed.scene.SetRootDirectory(str(tmp_path))
    assert committed.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene = read_scene(tmp_path / "scene.mrb")
    first, second = versions(find_cases(scene)[0])
    assert (first.version, first.active, second.version, second.active) == (1, False, 2, True)
    assert undo(second).version == 1
    assert first.mr.GetParentTransformNode() is first.rigid
