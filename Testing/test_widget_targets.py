"""Targets and lesions in the panel: handed to the worker, moved by hand, put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import slicer
from scene_fixtures import MR_CENTRE_MM, ball, registration
from slicer_standins import OpenModule, open_module, slicer_scene

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_volume_ml
from MRTRUSRegistrationLib.images import read_image
from MRTRUSRegistrationLib.mrml.case import add_case
from MRTRUSRegistrationLib.mrml.markups import add_landmarks
from MRTRUSRegistrationLib.mrml.segmentations import add_segmentation
from MRTRUSRegistrationLib.mrml.targets_nodes import carry_targets_to_trus, target_points
from MRTRUSRegistrationLib.results import Landmarks
from MRTRUSRegistrationLib.target_files import read_targets

WHITE = (1.0, 1.0, 1.0)
NAMES = ("ROI 1", "ROI 2")


@pytest.fixture
def opened() -> Iterator[OpenModule]:
    """The module looking at a deformable result with two points and two lesions on the MR."""
    scene = slicer_scene()
    case = add_case(scene, registration(), name="Case")
    points = Landmarks(NAMES, MR_CENTRE_MM + np.array([(6.0, 0.0, 0.0), (-5.0, 4.0, 2.0)]))
    module = open_module(scene)
    module.ui.resultComboBox.currentIndex = 0
    parameters = module.parameters
    parameters.targets = add_landmarks(scene, points, "Targets", color=WHITE)
    grid = Grid.of(registration().mr)
    masks = {"Prostate": ball(grid, 20.0), "Lesion": ball(grid, 6.0), "Inner part": ball(grid, 4.0)}
    masks["Not drawn"] = grid.blank()
    parameters.lesions = add_segmentation(scene, masks, case.mr, "Lesions", color=WHITE)
    for source in (parameters.targets, parameters.lesions):
        carry_targets_to_trus(case, source)
    module.widget.panel.refresh()
    yield module
    module.close()


def test_segments_of_the_lesions_become_targets_of_the_job(opened: OpenModule, tmp_path: Path):
    """Under their names, whole where they overlap, without the gland and what was not drawn."""
    from MRTRUSRegistrationLib.gui.job_inputs import inputs_again
    from MRTRUSRegistrationLib.mrml.job_inputs import write_inputs

    job = write_inputs(
        inputs_again(opened.parameters, opened.widget.panel.case), tmp_path, {"method": "rigid"}
    )
    mr = read_image(job.mr, role="MR")
    points, lesions = (read_targets(path, mr) for path in (job.targets, job.lesions))
    assert tuple(point.name for point in points) == NAMES
    assert [lesion.name for lesion in lesions] == ["Lesion", "Inner part"]
    volumes_ml = [mask_volume_ml(lesion.label) for lesion in lesions]
    assert volumes_ml == pytest.approx([4 / 3 * np.pi * r**3 / 1000 for r in (6.0, 4.0)], rel=0.1)
    in_scene = slicer.vtkMRMLSegmentationNode.GetSegmentation(opened.widget.panel.case.target_segments)
    names = [in_scene.GetNthSegment(n).GetName() for n in range(in_scene.GetNumberOfSegments())]
    assert names == ["Lesion", "Inner part"]


def test_a_segmentation_without_a_lesion_is_refused(opened: OpenModule, tmp_path: Path):
    from MRTRUSRegistrationLib.gui.job_inputs import inputs_again
    from MRTRUSRegistrationLib.mrml.job_inputs import write_inputs

    case, grid = opened.widget.panel.case, Grid.of(registration().mr)
    only_gland = {"prostate": ball(grid, 20.0), "Lesion": grid.blank()}
    opened.parameters.lesions = add_segmentation(opened.scene, only_gland, case.mr, "Gland only", color=WHITE)
    with pytest.raises(InputError, match="Gland only holds no lesion"):
        write_inputs(inputs_again(opened.parameters, case), tmp_path, {"method": "rigid"})


@pytest.mark.slow
def test_the_run_reports_points_and_lesions(opened: OpenModule, tmp_path: Path):
    """The worker's own report and figures, as the panel exports them."""
    opened.parameters.method = "centroid"
    opened.click("registerAgainButton")
    opened.wait_for_run()
    assert opened.desktop.errors == []
    report = opened.widget.panel.case.report.GetText()
    table = report[report.index('<table class="targets') :]
    for name in (*NAMES, "Lesion", "Inner part"):
        assert f"<th>{name}</th>" in table


def move(module: OpenModule, number: int, shift_mm: tuple[float, float, float]) -> None:
    """Drag a target, as the user does, and let it go."""
    targets = module.widget.panel.case.targets
    position = np.array(targets.GetNthControlPointPosition(number)) + shift_mm
    targets.SetNthControlPointPosition(number, *position.tolist())
    targets.InvokeEvent(slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent)


def test_a_moved_target_can_be_put_back(opened: OpenModule):
    ui, case = opened.ui, opened.widget.panel.case
    carried = target_points(case).points_mm
    assert not ui.resetTargetButton.enabled
    assert ui.resetTargetButton.toolTip.startswith("No target was moved.")
    move(opened, 0, (0.0, 2.0, 0.0))
    move(opened, 1, (3.0, 0.0, 4.0))
    shown = [ui.movedTargetComboBox.itemText(n) for n in range(ui.movedTargetComboBox.count)]
    assert shown == ["ROI 1, by 2.0 mm", "ROI 2, by 5.0 mm"]
    ui.movedTargetComboBox.currentIndex = 1
    opened.click("resetTargetButton")
    assert ui.movedTargetComboBox.currentText == "ROI 1, by 2.0 mm"
    assert ui.movedTargetComboBox.count == 1
    back = np.array(case.targets.GetNthControlPointPosition(1)) * (-1, -1, 1)
    assert back == pytest.approx(carried[1], abs=1e-6)
    opened.click("resetTargetButton")
    assert not ui.resetTargetButton.enabled
    assert not ui.movedTargetComboBox.enabled
    assert opened.desktop.errors == []


def test_a_moved_target_is_named_where_another_has_no_position(opened: OpenModule):
    case = opened.widget.panel.case
    carried = target_points(case).points_mm
    case.targets.UnsetNthControlPointPosition(0)
    move(opened, 1, (3.0, 0.0, 4.0))
    assert opened.ui.movedTargetComboBox.currentText == "ROI 2, by 5.0 mm"
    opened.click("resetTargetButton")
    assert target_points(case).points_mm == pytest.approx(carried[1:], abs=1e-6)
    assert opened.desktop.errors == []


def test_the_other_result_accepted_leaves_what_the_user_placed(opened: OpenModule):
    """How far a target was moved is told of the place where the accepted result puts it."""
    case = opened.widget.panel.case
    move(opened, 0, (0.0, 3.0, 0.0))
    case.targets.AddControlPoint(case.targets.GetNthControlPointPosition(1), "mine")
    before = target_points(case).points_mm
    opened.ui.acceptedComboBox.currentIndex = 1
    after = target_points(case)
    assert after.names == (*NAMES, "mine")
    assert after.points_mm[[0, 2]] == pytest.approx(before[[0, 2]], abs=1e-9)
    rigid = np.array(case.mr_targets.GetNthControlPointPositionWorld(1)) * (-1, -1, 1)
    assert np.linalg.norm(before[1] - rigid) > 0.1
    assert after.points_mm[1] == pytest.approx(rigid, abs=0.01)
    from_rigid = np.array(case.mr_targets.GetNthControlPointPositionWorld(0)) * (-1, -1, 1) - before[0]
    assert opened.ui.movedTargetComboBox.count == 1
    assert opened.ui.movedTargetComboBox.currentText == f"ROI 1, by {np.linalg.norm(from_rigid):.1f} mm"
    assert opened.desktop.errors == []


def test_a_module_that_is_unloaded_hears_of_no_target(opened: OpenModule):
    targets = opened.widget.panel.case.targets
    event = slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent
    assert targets.HasObserver(event)
    opened.widget.cleanup()
    assert not targets.HasObserver(event)


def test_without_points_there_is_nothing_to_put_back(opened: OpenModule):
    opened.widget.panel.case.remove("targets")
    opened.widget.panel.refresh()
    assert "no target points" in opened.ui.resetTargetButton.toolTip
    assert "no target points" in opened.ui.moveTargetsCheckBox.toolTip
    assert opened.desktop.errors == []
