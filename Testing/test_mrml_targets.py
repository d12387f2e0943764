"""Targets on the MR carried to the TRUS: points and segments, nudged and put back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from mrml_case import commit_in_memory, known_registration  # noqa: E402
from scene_fixtures import MR_CENTRE_MM, TRUS_CENTRE_MM, ball  # noqa: E402
from scene_readers import to_lps  # noqa: E402
from shapes import array, overlap  # noqa: E402

from MRTRUSRegistrationLib.errors import InputError  # noqa: E402
from MRTRUSRegistrationLib.geometry import Grid, resample_mask  # noqa: E402
from MRTRUSRegistrationLib.mrml.case import add_content  # noqa: E402
from MRTRUSRegistrationLib.mrml.case_nodes import find_cases  # noqa: E402
from MRTRUSRegistrationLib.mrml.content import content_of  # noqa: E402
from MRTRUSRegistrationLib.mrml.readers import volume_grid  # noqa: E402
from MRTRUSRegistrationLib.mrml.result_folder import add_result  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import new_scene, read_scene  # noqa: E402
from MRTRUSRegistrationLib.mrml.segmentations import add_segmentation  # noqa: E402
from MRTRUSRegistrationLib.mrml.stages import show_stage  # noqa: E402
from MRTRUSRegistrationLib.mrml.target_carrying import carry_again, moved_mm  # noqa: E402
from MRTRUSRegistrationLib.mrml.target_table import target_rows  # noqa: E402
from MRTRUSRegistrationLib.mrml.targets_nodes import (  # noqa: E402
    add_carried_points,
    carry_targets_to_trus,
    nudges_mm,
    reset_target,
    target_masks,
    target_points,
)
from MRTRUSRegistrationLib.mrml.volumes import add_volume  # noqa: E402
from MRTRUSRegistrationLib.outputs import write_result  # noqa: E402
from MRTRUSRegistrationLib.results import Landmarks  # noqa: E402
from MRTRUSRegistrationLib.targets import TrusGland  # noqa: E402
from MRTRUSRegistrationLib.transforms import inverse_points_mm  # noqa: E402
from MRTRUSViewer.tables import target_table_rows  # noqa: E402

POINTS = MR_CENTRE_MM + np.array([[0.0, 0.0, 0.0], [8.0, -5.0, 3.0], [-6.0, 9.0, -8.0]])


@pytest.fixture
def committed():
    return commit_in_memory()


def _mark(committed, points=POINTS):
    node = committed.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "lesions")
    for number, point in enumerate(to_lps(points).tolist(), start=1):
        node.AddControlPoint(point, f"lesion {number}")
    return node


def test_points_are_carried_by_the_stage_that_is_shown(committed):
    source, result = _mark(committed), committed.result
    for stage, field in (("deformable", result.deformation.transform), ("rigid", None)):
        show_stage(committed.case, stage)
        node = carry_targets_to_trus(committed.case, source)
        expected = inverse_points_mm(result.rigid.transform, field, POINTS)
        found = target_points(committed.case)
        assert found.names == ("lesion 1", "lesion 2", "lesion 3")
        assert found.points_mm == pytest.approx(expected, abs=0.01)
        assert node is committed.case.targets
        assert node.GetParentTransformNode() is None
    own = [to_lps(source.GetNthControlPointPosition(n)) for n in range(3)]
    assert np.array(own) == pytest.approx(POINTS, abs=1e-9)
    names = [node.GetName() for node in _fiducials(committed.scene)]
    assert names.count("Targets in TRUS") == 1


def _fiducials(scene) -> list:
    nodes = scene.GetNodesByClass("vtkMRMLMarkupsFiducialNode")
    return [nodes.GetItemAsObject(n) for n in range(nodes.GetNumberOfItems())]


def test_the_users_points_appear_in_trus_space_too(committed):
    source = _mark(committed)
    carry_targets_to_trus(committed.case, source)
    world = [to_lps(source.GetNthControlPointPositionWorld(n)) for n in range(3)]
    assert np.array(world) == pytest.approx(target_points(committed.case).points_mm, abs=0.01)


def _nudges_mm(case) -> tuple[float, ...]:
    return tuple(nudges_mm(case).values())


def test_a_nudge_keeps_the_original_and_can_be_undone(committed):
    node = carry_targets_to_trus(committed.case, _mark(committed))
    carried = target_points(committed.case).points_mm
    node.SetNthControlPointPosition(1, *np.add(node.GetNthControlPointPosition(1), (0, 3.0, 4.0)))
    assert _nudges_mm(committed.case) == pytest.approx((0.0, 5.0, 0.0))
    assert reset_target(committed.case, node.GetNthControlPointID(1))
    assert target_points(committed.case).points_mm == pytest.approx(carried, abs=1e-9)
    assert _nudges_mm(committed.case) == pytest.approx((0, 0, 0))
    assert not reset_target(committed.case, "no such point")


def test_a_nudge_and_its_original_survive_saving(committed, tmp_path):
    node = carry_targets_to_trus(committed.case, _mark(committed))
    node.SetNthControlPointPosition(0, *np.add(node.GetNthControlPointPosition(0), (0, 0, 2.0)))
    committed.scene.SetRootDirectory(str(tmp_path))
    assert committed.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene = read_scene(tmp_path / "scene.mrb")
    (case,) = find_cases(scene)
    assert _nudges_mm(case) == pytest.approx((2, 0, 0), abs=1e-3)
    assert reset_target(case, case.targets.GetNthControlPointID(0))
    assert _nudges_mm(case) == pytest.approx((0, 0, 0), abs=1e-3)
    assert case.mr_targets.GetName() == "lesions"


def _in_trus(committed, stage: str) -> np.ndarray:
    """Where SimpleITK puts the three points in the TRUS."""
    result = committed.result
    field = result.deformation.transform if stage == "deformable" else None
    return inverse_points_mm(result.rigid.transform, field, POINTS)


def test_another_stage_carries_every_point_that_the_user_left_alone(committed):
    case = committed.case
    node = carry_targets_to_trus(case, _mark(committed))
    added = node.AddControlPoint(node.GetNthControlPointPosition(2), "mine")
    node.SetNthControlPointPosition(0, *np.add(node.GetNthControlPointPosition(0), (0, 3.0, 0)))
    node.SetNthControlPointLabel(1, "renamed")
    placed = target_points(case).points_mm
    assert np.linalg.norm(_in_trus(committed, "rigid") - placed[:3], axis=1).min() > 0.1
    for stage in ("rigid", "deformable", "rigid"):
        show_stage(case, stage)
        carry_again(case)
        found, carried = target_points(case), _in_trus(committed, stage)
        assert found.names == ("lesion 1", "renamed", "lesion 3", "mine")
        assert found.points_mm[[0, added]] == pytest.approx(placed[[0, added]], abs=1e-9)
        assert found.points_mm[1:3] == pytest.approx(carried[1:], abs=0.01)
        moved = np.linalg.norm(placed[0] - carried[0])
        assert _nudges_mm(case) == pytest.approx((moved, 0, 0, 0), abs=0.01)
    assert case.targets is node
    assert not reset_target(case, node.GetNthControlPointID(added))
    assert reset_target(case, node.GetNthControlPointID(0))
    assert target_points(case).points_mm[0] == pytest.approx(_in_trus(committed, "rigid")[0], abs=0.01)


def test_a_point_without_a_position_does_not_stand_for_another(committed):
    """The second target is the one that was moved, stays on accepting, is listed, and can be put back."""
    case = committed.case
    node = carry_targets_to_trus(case, _mark(committed))
    node.SetNthControlPointPosition(1, *np.add(node.GetNthControlPointPosition(1), (0, 0, 5.0)))
    node.UnsetNthControlPointPosition(0)
    placed, ids = target_points(case).points_mm, [node.GetNthControlPointID(n) for n in range(3)]
    assert moved_mm(case) == {ids[1]: pytest.approx(5.0)}
    rows = target_table_rows(case)
    assert [row["name"] for row in rows] == ["lesion 2", "lesion 3"]
    assert [(row["point"], row["moved"]) for row in rows] == [(ids[1], "5.0"), (ids[2], "")]
    show_stage(case, "rigid")
    carry_again(case)
    carried = _in_trus(committed, "rigid")
    expected = [carried[0], placed[0], carried[2]]
    assert target_points(case).points_mm == pytest.approx(np.array(expected), abs=0.01)
    assert list(moved_mm(case)) == [ids[1]]
    assert reset_target(case, ids[1])
    assert target_points(case).points_mm == pytest.approx(carried, abs=0.01)


def test_another_stage_follows_what_was_deleted_and_added(committed):
    case, source = committed.case, _mark(committed)
    node = carry_targets_to_trus(case, source)
    node.RemoveNthControlPoint(0)
    source.RemoveNthControlPoint(1)
    source.AddControlPoint(source.GetNthControlPointPosition(0), "new")
    show_stage(case, "rigid")
    carry_again(case)
    found, carried = target_points(case), _in_trus(committed, "rigid")
    assert found.names == ("lesion 3", "new")
    assert found.points_mm == pytest.approx(carried[[2, 0]], abs=0.01)


def test_another_stage_is_accepted_in_a_saved_scene(committed, tmp_path):
    node = carry_targets_to_trus(committed.case, _mark(committed))
    node.RemoveNthControlPoint(0)
    node.SetNthControlPointPosition(0, *np.add(node.GetNthControlPointPosition(0), (0, 0, 4.0)))
    placed = target_points(committed.case).points_mm
    committed.scene.SetRootDirectory(str(tmp_path))
    assert committed.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene = read_scene(tmp_path / "scene.mrb")
    (case,) = find_cases(scene)
    show_stage(case, "rigid")
    carry_again(case)
    found = target_points(case)
    assert found.names == ("lesion 2", "lesion 3")
    assert found.points_mm == pytest.approx(np.array([placed[0], _in_trus(committed, "rigid")[2]]), abs=0.01)


def test_another_stage_is_accepted_in_a_scene_that_does_not_say_what_was_carried(committed):
    """As older versions saved them: no target comes twice, and what was moved or added stays."""
    case, source = committed.case, _mark(committed)
    source.SetNthControlPointLabel(2, "lesion 1")
    node = carry_targets_to_trus(case, source)
    node.SetNthControlPointPosition(1, *np.add(node.GetNthControlPointPosition(1), (0, 0, 5.0)))
    node.AddControlPoint(node.GetNthControlPointPosition(0), "mine")
    placed, carried = target_points(case).points_mm, _in_trus(committed, "rigid")
    case.set_attribute("CarriedPoints", "")
    show_stage(case, "rigid")
    assert list(moved_mm(case)) == [node.GetNthControlPointID(1)]
    for _ in range(2):
        carry_again(case)
        assert target_points(case).names == ("lesion 1", "lesion 2", "lesion 1", "mine")
        expected = [carried[0], placed[1], carried[2], placed[3]]
        assert target_points(case).points_mm == pytest.approx(np.array(expected), abs=0.01)
    assert reset_target(case, node.GetNthControlPointID(1))
    assert target_points(case).points_mm[1] == pytest.approx(carried[1], abs=0.01)


def test_segments_are_resampled_to_the_trus(committed):
    result, grid = committed.result, Grid.of(committed.result.mr)
    lesions = {"left": ball(grid, 7.0), "right": ball(grid, 4.5)}
    source = add_segmentation(committed.scene, lesions, committed.mr, "lesions", color=(1, 0, 0))
    node = carry_targets_to_trus(committed.case, source)
    assert node is committed.case.target_segments
    masks = target_masks(committed.case)
    assert list(masks) == ["left", "right"]
    for name, lesion in lesions.items():
        expected = resample_mask(lesion, volume_grid(committed.trus), result.transform)
        assert array(expected).sum() > 100
        assert overlap(masks[name], expected) > 0.999
    assert source.GetParentTransformNode() is committed.case.rigid


def test_points_and_segments_beside_each_other(committed):
    lesion = add_segmentation(
        committed.scene, {"a": ball(Grid.of(committed.result.mr), 6.0)}, committed.mr, "s", color=(1, 0, 0)
    )
    carry_targets_to_trus(committed.case, lesion)
    points = _mark(committed)
    carry_targets_to_trus(committed.case, points)
    show_stage(committed.case, "before")
    assert points.GetParentTransformNode() is committed.case.initial
    assert lesion.GetParentTransformNode() is committed.case.initial
    assert len(target_masks(committed.case)) == 1


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda c: None, "no longer in the scene"),
        (lambda c: _mark(c, np.zeros((0, 3))), "lesions has no placed points"),
        (lambda c: c.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "empty"), "empty has no segments"),
        (lambda c: c.mr, "neither a point list nor a segmentation"),
    ],
)
def test_what_cannot_be_carried(committed, choose, message):
    with pytest.raises(InputError, match=message):
        carry_targets_to_trus(committed.case, choose(committed))
    assert committed.case.targets is None


def test_deleted_targets_are_none(committed):
    node = carry_targets_to_trus(committed.case, _mark(committed))
    committed.scene.RemoveNode(node)
    assert target_points(committed.case) is None
    assert nudges_mm(committed.case) == {}
    assert not reset_target(committed.case, "1")
    assert target_masks(committed.case) == {}


def test_masks_carry_what_sitk_carries_at_the_border_of_the_trus(committed):
    # A lesion that lies outside of the TRUS has no voxels there, and that is no error.
    grid = Grid.of(committed.result.mr)
    far = sitk.Image(ball(grid, 3.0))
    far = grid.image(np.roll(array(far), 22, axis=1))
    source = add_segmentation(committed.scene, {"far": far}, committed.mr, "lesions", color=(1, 0, 0))
    carry_targets_to_trus(committed.case, source)
    expected = resample_mask(far, volume_grid(committed.trus), committed.result.transform)
    assert array(target_masks(committed.case)["far"]).sum() == array(expected).sum()


@pytest.mark.parametrize("in_memory", [True, False])
def test_sides_are_the_workers_where_the_header_does_not_say_them(tmp_path, in_memory):
    # Left-handed axes, which a scene stores the other way round.
    known = known_registration()
    result = replace(known, trus_gland=replace(known.trus_gland, axes="PRS"))
    scene = new_scene()
    mr, trus = add_volume(scene, result.mr, "T2"), add_volume(scene, result.trus, "US")
    if in_memory:
        case = add_content(scene, content_of(result), mr=mr, trus=trus, name="Case")
    else:
        write_result(result, tmp_path / "out", case_name="Case")
        case = add_result(scene, tmp_path / "out", mr_node=mr, trus_node=trus, name="Case")
    shifts_mm = [np.eye(3)[axis] * way for axis in range(3) for way in (-9.0, 9.0)]
    points = Landmarks(tuple("abcdef"), TRUS_CENTRE_MM + np.array(shifts_mm))
    add_carried_points(case, points)
    gland, plain = TrusGland.of(result.trus_gland), TrusGland.of(result.trus_gland.mask)
    rows = target_rows(case)
    found = [(row.side, row.third) for row in rows]
    assert found == [(gland.side(p), gland.third(p)) for p in points.points_mm]
    assert found != [(plain.side(p), plain.third(p)) for p in points.points_mm]
    heights = [gland.apex_to_base(p) for p in points.points_mm]
    assert [row.apex_to_base for row in rows] == pytest.approx(heights, abs=1e-6)
