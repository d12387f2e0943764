"""Points that the user places after a registration, while the slice views show the MR in TRUS space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import slicer
from cases import mr_landmarks, trus_landmarks
from scene_fixtures import MR_CENTRE_MM, registration
from scene_readers import to_lps
from slicer_standins import OpenModule, open_module, slicer_scene

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.mrml.case import add_case
from MRTRUSRegistrationLib.mrml.job_inputs import write_inputs
from MRTRUSRegistrationLib.mrml.markups import add_landmarks
from MRTRUSRegistrationLib.mrml.readers import landmarks_of, resampling_transform
from MRTRUSRegistrationLib.results import Landmarks
from MRTRUSRegistrationLib.transforms import inverse_points_mm

MR_MM = MR_CENTRE_MM + np.array([(11.0, 2.0, -3.0), (-10.0, 4.0, 5.0), (1.0, -12.0, 1.0)])
RESULT = registration()
# Where the slice views show the tissue of MR_MM at the deformable stage.
SHOWN_MM = inverse_points_mm(RESULT.rigid.transform, RESULT.deformation.transform, MR_MM)


@pytest.fixture
def opened() -> Iterator[OpenModule]:
    """The module looking at a deformable result."""
    scene = slicer_scene()
    add_case(scene, RESULT, name="Case")
    module = open_module(scene)
    module.ui.resultComboBox.currentIndex = 0
    yield module
    module.close()


def empty_list(module: OpenModule, name: str) -> Any:
    return module.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)


def click(points: Any, places_mm: np.ndarray) -> None:
    for place in to_lps(places_mm).tolist():
        points.AddControlPointWorld(place)


def test_pairs_placed_on_the_fused_images_give_the_right_rigid_transform(opened: OpenModule, tmp_path: Path):
    from MRTRUSRegistrationLib.gui.job_inputs import inputs_again

    parameters = opened.parameters
    parameters.pairMr, parameters.pairTrus = empty_list(opened, "on MR"), empty_list(opened, "on TRUS")
    click(parameters.pairMr, SHOWN_MM)
    truth = RESULT.rigid.transform
    click(parameters.pairTrus, inverse_points_mm(truth, None, MR_MM))
    parameters.usePairs = True
    inputs = inputs_again(parameters, opened.widget.panel.case)
    job = write_inputs(inputs, tmp_path, {"method": "rigid"})
    found = sitk.ReadTransform(str(job.rigid))
    gaps = [
        np.subtract(found.TransformPoint(place), truth.TransformPoint(place)) for place in SHOWN_MM.tolist()
    ]
    assert np.abs(gaps).max() < 0.05


@pytest.mark.slow
def test_pairs_close_together_are_warned_of_in_the_panel(opened: OpenModule):
    """The run takes up the points that were clicked on the fused images, and the verdict speaks of them."""
    parameters, near_mm = opened.parameters, MR_CENTRE_MM + (MR_MM - MR_CENTRE_MM) / 3
    parameters.pairMr, parameters.pairTrus = empty_list(opened, "on MR"), empty_list(opened, "on TRUS")
    truth, field = RESULT.rigid.transform, RESULT.deformation.transform
    click(parameters.pairMr, inverse_points_mm(truth, field, near_mm))
    click(parameters.pairTrus, inverse_points_mm(truth, None, near_mm))
    parameters.usePairs = True
    parameters.method = "rigid"
    opened.click("registerAgainButton")
    opened.wait_for_run()
    assert opened.desktop.errors == []
    case = opened.widget.panel.case
    assert case.version == 2
    assert "The landmark pairs lie close together" in opened.ui.indicatorLabel.text
    assert [warning["code"] for warning in case.warnings].count("pairs_close_together") == 1
    found = resampling_transform(case.rigid)
    gaps = [np.subtract(found.TransformPoint(p), truth.TransformPoint(p)) for p in SHOWN_MM.tolist()]
    assert np.abs(gaps).max() < 0.2


def test_a_new_list_is_where_the_next_point_is_placed(opened: OpenModule):
    selection = slicer.vtkMRMLSelectionNode()
    selection.SetSingletonTag("Singleton")
    opened.scene.AddNode(selection)
    points = empty_list(opened, "targets")
    opened.parameters.targets = points
    assert selection.GetActivePlaceNodeID() == points.GetID()
    assert selection.GetActivePlaceNodeClassName() == "vtkMRMLMarkupsFiducialNode"


@pytest.mark.slow
@pytest.mark.parametrize("on_fused_images", [True, False])
def test_a_list_that_was_filled_elsewhere_is_asked_about_once(opened: OpenModule, on_fused_images: bool):
    """Only the user knows whether the points were clicked on the moved MR."""
    panel, points = opened.widget.panel, empty_list(opened, "found")
    click(points, SHOWN_MM)
    opened.parameters.targets = points
    # While a gland is edited the MR lies in its own place, where the points look as if they belonged there.
    opened.click("editMrGlandButton")
    panel.refresh()
    opened.widget.enter()
    opened.desktop.answer = on_fused_images
    for _ in range(2):
        opened.click("registerAgainButton")
        opened.click("cancelButton")
        opened.wait(lambda: not panel.runner.running)
    asked = [text for text in opened.desktop.questions if "Where were the points of found placed?" in text]
    assert len(asked) == 1
    expected = MR_MM if on_fused_images else SHOWN_MM
    assert landmarks_of(points).points_mm == pytest.approx(expected, abs=0.05)
    assert points.GetTransformNodeID() == panel.case.mr.GetTransformNodeID()


def test_a_point_placed_while_the_mr_lies_in_its_own_place(opened: OpenModule):
    """The list is chosen on the fused images; while a gland is edited the MR and the list leave them."""
    opened.parameters.targets = points = empty_list(opened, "targets")
    assert points.GetParentTransformNode() is not None
    opened.click("editMrGlandButton")
    click(points, MR_MM)
    opened.widget.enter()
    assert points.GetTransformNodeID() == opened.widget.panel.case.mr.GetTransformNodeID()
    assert landmarks_of(points).points_mm == pytest.approx(MR_MM, abs=1e-6)


def test_accepting_a_stage_carries_what_was_carried_and_not_what_was_chosen_since(opened: OpenModule):
    from MRTRUSRegistrationLib.mrml.targets_nodes import carry_targets_to_trus

    case, parameters = opened.widget.panel.case, opened.parameters
    first = add_landmarks(opened.scene, Landmarks(("a",), MR_MM[:1]), "first", color=(1.0, 1.0, 1.0))
    carry_targets_to_trus(case, first)
    parameters.targets = empty_list(opened, "second")
    opened.ui.acceptedComboBox.currentIndex = 1
    assert opened.desktop.errors == []
    expected = inverse_points_mm(RESULT.rigid.transform, None, MR_MM[:1])
    assert landmarks_of(case.targets).points_mm == pytest.approx(expected, abs=0.01)


def test_an_empty_list_is_refused_and_not_asked_about(opened: OpenModule, tmp_path: Path):
    from MRTRUSRegistrationLib.gui.job_inputs import inputs_again

    opened.parameters.targets = empty_list(opened, "nothing yet")
    inputs = inputs_again(opened.parameters, opened.widget.panel.case)
    with pytest.raises(InputError, match="nothing yet is empty"):
        write_inputs(inputs, tmp_path, {"method": "rigid"})


@pytest.mark.slow
def test_given_landmarks_disappear_behind_those_of_the_result():
    """A result has its own copies; the user's lists keep their points, and can be shown again."""
    from test_widget import fill

    module = open_module(slicer_scene())
    fill(module)
    given = module.parameters.mrLandmarks, module.parameters.trusLandmarks
    assert all(points.GetDisplayVisibility() for points in given)
    module.click("registerButton")
    module.wait_for_run()
    assert module.desktop.errors == []
    case = module.widget.panel.case
    assert not any(points.GetDisplayVisibility() for points in given)
    assert case.mr_landmarks.GetDisplayVisibility()
    for points, truth in zip(given, (mr_landmarks(), trus_landmarks()), strict=True):
        assert landmarks_of(points).points_mm == pytest.approx(truth.points_mm, abs=1e-6)
    assert given[0].GetTransformNodeID() == case.mr.GetTransformNodeID()
    module.close()
