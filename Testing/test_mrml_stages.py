"""Before, rigid, deformable: what observes what, and where points then lie, against SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from mrml_case import commit_in_memory  # noqa: E402
from scene_readers import to_lps  # noqa: E402

from MRTRUSRegistrationLib.errors import InputError  # noqa: E402
from MRTRUSRegistrationLib.geometry import Grid  # noqa: E402
from MRTRUSRegistrationLib.mrml.case import add_content  # noqa: E402
from MRTRUSRegistrationLib.mrml.case_nodes import find_cases  # noqa: E402
from MRTRUSRegistrationLib.mrml.content import content_of  # noqa: E402
from MRTRUSRegistrationLib.mrml.frames import vtk_matrix  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import read_scene  # noqa: E402
from MRTRUSRegistrationLib.mrml.stages import (  # noqa: E402
    STAGES,
    mr_to_trus,
    release,
    resampling_of,
    show_stage,
    stage_of,
    stages_of,
    transformed,
)
from MRTRUSRegistrationLib.transforms import compose, inverse_points_mm, transform_points_mm  # noqa: E402


@pytest.fixture
def committed():
    return commit_in_memory()


def _expected(result, stage: str) -> tuple[sitk.Transform, sitk.Transform | None]:
    if stage == "before":
        return result.initial, None
    return result.rigid.transform, result.deformation.transform if stage == "deformable" else None


def _mr_points(result) -> np.ndarray:
    return Grid.of(result.mr).centre_mm + np.random.default_rng(1).uniform(-12, 12, (30, 3))


@pytest.mark.parametrize("stage", STAGES)
def test_points_under_each_stage_lie_where_simpleitk_puts_them(committed, stage):
    points = _mr_points(committed.result)
    node = committed.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "mine")
    for point in to_lps(points).tolist():
        node.AddControlPoint(point)
    committed.case.set("mrTargets", node)
    show_stage(committed.case, stage)
    world = [to_lps(node.GetNthControlPointPositionWorld(n)) for n in range(len(points))]
    expected = inverse_points_mm(*_expected(committed.result, stage), points)
    assert np.array(world) == pytest.approx(expected, abs=0.01)
    assert stage_of(committed.case) == stage


@pytest.mark.parametrize("stage", STAGES)
def test_transforms_read_from_nodes_are_those_of_the_run(committed, stage):
    points = Grid.of(committed.result.trus).centre_mm + np.random.default_rng(2).uniform(-15, 15, (30, 3))
    ours = transform_points_mm(resampling_of(committed.case, stage), points)
    # The centroids are matched by the folder's own masks.
    rigid, field = _expected(committed.result, stage)
    assert ours == pytest.approx(transform_points_mm(compose(rigid, field), points), abs=1e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_the_way_back_undoes_the_way_there(committed, stage):
    points = _mr_points(committed.result)
    carried = to_lps(transformed(mr_to_trus(committed.case, stage), to_lps(points)))
    back = transform_points_mm(resampling_of(committed.case, stage), carried)
    assert back == pytest.approx(points, abs=0.01)


def test_every_follower_observes_the_stage(committed):
    case = committed.case
    followers = (case.mr, case.mr_gland, case.mr_landmarks)
    show_stage(case, "before")
    assert all(node.GetParentTransformNode() is case.initial for node in followers)
    show_stage(case, "rigid")
    assert all(node.GetParentTransformNode() is case.rigid for node in followers)
    assert case.rigid.GetParentTransformNode() is None
    show_stage(case, "deformable")
    assert all(node.GetParentTransformNode() is case.rigid for node in followers)
    assert case.rigid.GetParentTransformNode() is case.deformation
    assert case.trus.GetParentTransformNode() is None


def test_a_trus_that_was_moved_takes_everything_along(committed):
    case = committed.case
    parent = committed.scene.AddNewNodeByClass("vtkMRMLTransformNode", "table")
    parent.SetMatrixTransformToParent(
        vtk_matrix(np.array([[1, 0, 0, 7.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    )
    committed.trus.SetAndObserveTransformNodeID(parent.GetID())
    for stage, outermost in (("before", "initial"), ("rigid", "rigid"), ("deformable", "deformation")):
        show_stage(case, stage)
        assert getattr(case, outermost).GetParentTransformNode() is parent
        assert case.trus_gland.GetParentTransformNode() is parent
    point = np.array(case.mr_landmarks.GetNthControlPointPositionWorld(0))
    expected = to_lps(committed.result.trus_landmarks.points_mm[0]) + np.array([7.0, 0, 0])
    assert point == pytest.approx(expected, abs=0.01)


def test_the_mr_goes_back_to_its_own_transform(committed):
    scene, case = committed.scene, committed.case
    own = scene.AddNewNodeByClass("vtkMRMLTransformNode", "own")
    case.mr.SetAndObserveTransformNodeID(own.GetID())
    content = content_of(committed.result)
    other = add_content(scene, content, mr=committed.mr, trus=committed.trus, name="other")
    assert committed.mr.GetParentTransformNode() is other.rigid
    release(other)
    assert committed.mr.GetParentTransformNode() is own


def test_a_rigid_case_has_no_deformable_stage():
    committed = commit_in_memory(deformable=False, landmarks=0)
    assert stages_of(committed.case) == ("before", "rigid")
    assert stage_of(committed.case) == "rigid"
    assert committed.case.deformation is None
    with pytest.raises(InputError, match="no deformable stage"):
        show_stage(committed.case, "deformable")
    assert committed.mr.GetParentTransformNode() is committed.case.rigid


def test_a_deleted_transform_leaves_the_other_stages(committed):
    committed.scene.RemoveNode(committed.case.deformation)
    with pytest.raises(InputError, match="no deformable stage"):
        show_stage(committed.case, "deformable")
    show_stage(committed.case, "rigid")
    assert committed.mr.GetParentTransformNode() is committed.case.rigid
    committed.scene.RemoveNode(committed.case.rigid)
    assert stages_of(committed.case) == ("before",)
    show_stage(committed.case, "before")
    assert committed.mr.GetParentTransformNode() is committed.case.initial
    committed.scene.RemoveNode(committed.case.initial)
    show_stage(committed.case, "before")
    assert committed.mr.GetParentTransformNode() is committed.case.initial


def test_the_stage_survives_saving(committed, tmp_path):
    show_stage(committed.case, "before")
    committed.scene.SetRootDirectory(str(tmp_path))
    assert committed.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene = read_scene(tmp_path / "scene.mrb")
    (case,) = find_cases(scene)
    assert stage_of(case) == "before"
    assert case.mr.GetParentTransformNode() is case.initial
    show_stage(case, "deformable")
    points = _mr_points(committed.result)
    carried = to_lps(transformed(mr_to_trus(case, "deformable"), to_lps(points)))
    assert carried == pytest.approx(
        inverse_points_mm(*_expected(committed.result, "deformable"), points), abs=0.01
    )
