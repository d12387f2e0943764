"""Points that are marked while the MR is shown in TRUS space: read in the MR's own coordinates."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from mrml_case import commit_in_memory  # noqa: E402
from scene_fixtures import MR_CENTRE_MM  # noqa: E402
from scene_readers import to_lps  # noqa: E402

from MRTRUSRegistrationLib.mrml.marked_points import (  # noqa: E402
    attach,
    belongs_to,
    doubt,
    follow,
    is_empty,
)
from MRTRUSRegistrationLib.mrml.readers import landmarks_of  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import read_scene  # noqa: E402
from MRTRUSRegistrationLib.mrml.stages import release, show_stage  # noqa: E402
from MRTRUSRegistrationLib.transforms import inverse_points_mm  # noqa: E402

POINTS = MR_CENTRE_MM + np.random.default_rng(8).uniform(-12, 12, (9, 3))


@pytest.fixture
def committed():
    return commit_in_memory()


def _list(committed):
    return committed.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "marked")


def _places(committed, stage):
    """Where the slice views show the tissue of POINTS at a stage, by SimpleITK's transforms."""
    field = committed.result.deformation.transform if stage == "deformable" else None
    return inverse_points_mm(committed.result.rigid.transform, field, POINTS)


def _click(points, places_mm):
    for place in to_lps(places_mm).tolist():
        points.AddControlPointWorld(place)


@pytest.mark.parametrize("stage", ["rigid", "deformable"])
def test_a_point_clicked_on_moved_tissue_has_the_coordinates_of_the_mr(committed, stage):
    show_stage(committed.case, stage)
    points = _list(committed)
    attach(committed.mr, points)
    _click(points, _places(committed, stage))
    assert landmarks_of(points).points_mm == pytest.approx(POINTS, abs=0.05)
    # Apart from the MR, what is read would be the place in the views.
    assert np.linalg.norm(_places(committed, stage) - POINTS, axis=1).min() > 50


def test_an_attached_list_goes_with_the_mr_through_all_stages(committed):
    points = _list(committed)
    attach(committed.mr, points)
    _click(points, _places(committed, "deformable"))
    own = landmarks_of(points).points_mm
    for stage in ("rigid", "before", "deformable"):
        show_stage(committed.case, stage)
        assert points.GetTransformNodeID() == committed.mr.GetTransformNodeID()
    assert landmarks_of(points).points_mm == pytest.approx(own, abs=0)
    release(committed.case)
    assert points.GetParentTransformNode() is None


def test_points_clicked_before_the_list_was_attached_stay_where_they_are_shown(committed):
    points, places = _list(committed), _places(committed, "deformable")
    _click(points, places)
    assert not belongs_to(committed.mr, points)
    attach(committed.mr, points, where_shown=True)
    assert landmarks_of(points).points_mm == pytest.approx(POINTS, abs=0.05)
    shown = [to_lps(points.GetNthControlPointPositionWorld(n)) for n in range(len(POINTS))]
    assert np.array(shown) == pytest.approx(places, abs=0.05)


def test_points_of_a_file_keep_their_own_coordinates(committed):
    points = _list(committed)
    for point in to_lps(POINTS).tolist():
        points.AddControlPoint(point)
    attach(committed.mr, points)
    assert belongs_to(committed.mr, points)
    assert landmarks_of(points).points_mm == pytest.approx(POINTS, abs=1e-9)


def test_a_doubted_list_is_not_the_mrs_when_the_mr_goes_back(committed):
    """Beside an MR in its own place the points look as if they had always been there."""
    points = _list(committed)
    _click(points, _places(committed, "deformable"))
    doubt(points)
    committed.mr.SetAndObserveTransformNodeID(None)
    assert not belongs_to(committed.mr, points)
    attach(committed.mr, points)
    assert belongs_to(committed.mr, points)


def test_a_point_that_hangs_at_the_mouse_is_not_placed(committed):
    points = _list(committed)
    assert is_empty(points)
    points.AddControlPointWorld(0.0, 0.0, 0.0)
    points.UnsetNthControlPointPosition(0)
    assert is_empty(points)
    points.AddControlPointWorld(1.0, 2.0, 3.0)
    assert not is_empty(points)


def test_lists_of_another_image_stay(committed):
    points = _list(committed)
    attach(committed.trus, points)
    follow(committed.mr)
    assert points.GetParentTransformNode() is None


def test_attachment_survives_saving(committed, tmp_path):
    points = _list(committed)
    attach(committed.mr, points)
    _click(points, _places(committed, "deformable"))
    committed.scene.SetRootDirectory(str(tmp_path))
    assert committed.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene = read_scene(tmp_path / "scene.mrb")
    again = scene.GetFirstNodeByName("marked")
    assert belongs_to(scene.GetFirstNodeByName("T2"), again)
    assert landmarks_of(again).points_mm == pytest.approx(POINTS, abs=0.05)
