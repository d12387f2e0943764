"""Versions of a case side by side in the panel: their figures, and both in the slice views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from mrml_case import commit_in_memory
from slicer_standins import OpenModule, open_module, slicer_scene

from MRTRUSRegistrationLib.geometry import Grid, resample
from MRTRUSRegistrationLib.mrml.case import add_content
from MRTRUSRegistrationLib.mrml.content import content_of
from MRTRUSRegistrationLib.mrml.readers import voxels
from MRTRUSRegistrationLib.mrml.versions import deactivate, versions
from MRTRUSRegistrationLib.results import Measures
from MRTRUSRegistrationLib.transforms import compose

SHIFT_MM = (2.0, 0.0, 0.0)


def add_version(committed) -> None:
    """Register again with a rigid transform that lies 2 mm to the side, and other figures."""
    result = committed.result
    moved = sitk.Euler3DTransform(result.rigid.transform)
    moved.SetTranslation(np.add(moved.GetTranslation(), SHIFT_MM).tolist())
    changed = replace(
        result,
        rigid=replace(result.rigid, transform=moved),
        measures=Measures({"dsc": 0.80, "tre_rms_mm": 1.5, "folds_percent": 0.0}),
        warnings=(),
    )
    case = add_content(
        committed.scene,
        content_of(changed),
        mr=committed.mr,
        trus=committed.trus,
        name="ignored",
        previous=committed.case,
    )
    deactivate(versions(case)[0])


@pytest.fixture
def committed():
    return commit_in_memory(scene=slicer_scene())


@pytest.fixture
def opened(committed) -> Iterator[OpenModule]:
    """The module looking at the second of two versions."""
    add_version(committed)
    module = open_module(committed.scene)
    module.ui.resultComboBox.currentIndex = 1
    assert module.widget.panel.case.version == 2
    yield module
    module.close()


def layers(module: OpenModule) -> tuple[object, object, float]:
    view = module.scene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    ids = (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID())
    return (*(module.scene.GetNodeByID(node_id) for node_id in ids), view.GetForegroundOpacity())


def rows(module: OpenModule) -> dict[str, list[str]]:
    """The cells of the table by the title of their row."""
    found = {}
    for line in module.ui.versionsLabel.text.split("<tr>")[1:]:
        cells = [cell.split("<")[0] for cell in line.replace("<b>", "").split('">')[1:] if cell.strip()]
        found[cells[0]] = cells[1:]
    return found


def test_a_single_version_has_nothing_beside_it(committed):
    module = open_module(committed.scene)
    module.ui.resultComboBox.currentIndex = 0
    for name in ("firstVersionComboBox", "secondVersionComboBox", "showVersionsCheckBox", "versionsSlider"):
        assert not getattr(module.ui, name).enabled
        assert "only one version" in getattr(module.ui, name).toolTip
    assert module.ui.versionsLabel.text == ""
    module.close()


def test_figures_and_indicator_stand_side_by_side(opened: OpenModule):
    ui = opened.ui
    assert [ui.firstVersionComboBox.itemText(n) for n in range(2)] == ["version 1: cmsa", "version 2: cmsa"]
    assert (ui.firstVersionComboBox.currentIndex, ui.secondVersionComboBox.currentIndex) == (0, 1)
    found = rows(opened)
    assert found["Gland overlap (Dice)"] == ["0.91", "0.80", "-0.11"]
    assert found["Landmark error, RMS (mm)"] == ["2.00", "1.50", "-0.50"]
    assert found["Folds in the gland (%)"] == ["0.00", "0.00", "+0.00"]
    assert found["Indicator"][1] == "check"
    text = ui.versionsLabel.text
    assert "<b>0.91</b>" in text
    assert "<b>1.50</b>" in text
    assert "<b>0.00</b>" not in text


def test_the_table_follows_the_stage_that_counts(opened: OpenModule):
    """The rigid part of the second version is the first's: its figures are those of the rigid column."""
    opened.ui.acceptedComboBox.currentIndex = 1
    assert opened.ui.secondVersionComboBox.currentText == "version 2: cmsa, rigid part"
    assert rows(opened)["Gland overlap (Dice)"] == ["0.91", "0.85", "-0.06"]


def test_the_same_version_twice_cannot_be_compared(opened: OpenModule):
    opened.ui.firstVersionComboBox.currentIndex = 1
    assert opened.ui.versionsLabel.text == ""
    assert not opened.ui.showVersionsCheckBox.enabled
    assert "two different versions" in opened.ui.showVersionsCheckBox.toolTip


def test_both_are_laid_over_each_other_and_taken_away_again(opened: OpenModule, committed):
    ui, before = opened.ui, layers(opened)
    assert not ui.versionsSlider.enabled
    ui.showVersionsCheckBox.checked = True
    first, second, share = layers(opened)
    assert (first.GetName(), second.GetName(), share) == (
        "Registered MR of version 1",
        "Registered MR of version 2",
        0.5,
    )
    result = committed.result
    grid, field = Grid.of(result.trus), result.deformation.transform
    moved = sitk.Euler3DTransform(result.rigid.transform)
    moved.SetTranslation(np.add(moved.GetTranslation(), SHIFT_MM).tolist())
    for node, rigid in ((first, result.rigid.transform), (second, moved)):
        expected = sitk.GetArrayFromImage(resample(result.mr, grid, compose(rigid, field)))
        shown = voxels(node.GetImageData())
        # Slicer's grids are right-handed: a mirrored axis runs the other way there.
        candidates = [expected, *(np.flip(expected, axis) for axis in range(3))]
        assert min(np.abs(shown - candidate).mean() for candidate in candidates) < 1.0
    ui.versionsSlider.value = 0.8
    assert layers(opened)[2] == pytest.approx(0.8)
    ui.showVersionsCheckBox.checked = False
    assert layers(opened) == before
    assert opened.scene.GetFirstNodeByName("Registered MR of version 1") is None
    assert opened.desktop.errors == []


def test_what_is_shown_ends_when_the_views_show_something_else(opened: OpenModule):
    ui = opened.ui
    ui.showVersionsCheckBox.checked = True
    opened.click("rigidButton")
    assert not ui.showVersionsCheckBox.checked
    assert not ui.versionsSlider.enabled
    ui.showVersionsCheckBox.checked = True
    ui.resultComboBox.currentIndex = 0
    assert opened.widget.panel.case.version == 1
    assert not ui.showVersionsCheckBox.checked
    assert opened.scene.GetFirstNodeByName("Registered MR of version 2") is None
    assert opened.desktop.errors == []


def test_a_version_that_is_deleted_is_no_longer_offered(opened: OpenModule):
    opened.ui.showVersionsCheckBox.checked = True
    opened.scene.RemoveNode(opened.widget.panel.case.node)
    assert opened.ui.firstVersionComboBox.count == 0
    assert opened.ui.versionsLabel.text == ""
    for version in (1, 2):
        assert opened.scene.GetFirstNodeByName(f"Registered MR of version {version}") is None
    opened.scene.Clear(False)
    assert opened.desktop.errors == []
