"""What a review draws besides the images: error vectors, contours, deformation; in numbers."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from mrml_case import commit_in_memory  # noqa: E402
from scene_readers import to_lps  # noqa: E402

from MRTRUSRegistrationLib.errors import InputError  # noqa: E402
from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask  # noqa: E402
from MRTRUSRegistrationLib.jacobian import jacobian_determinant  # noqa: E402
from MRTRUSRegistrationLib.mrml.colors import JACOBIAN, color_node  # noqa: E402
from MRTRUSRegistrationLib.mrml.contours import Contours  # noqa: E402
from MRTRUSRegistrationLib.mrml.deformation_view import (  # noqa: E402
    OUTSIDE,
    overlay_volume,
    overlays_of,
    show_arrows,
    show_in_slices,
    show_warped_grid,
)
from MRTRUSRegistrationLib.mrml.errors_view import (  # noqa: E402
    go_to_landmark,
    landmark_errors,
    rms_error_mm,
    show_error_vectors,
)
from MRTRUSRegistrationLib.mrml.readers import image_of, volume_grid  # noqa: E402
from MRTRUSRegistrationLib.mrml.volumes import add_volume  # noqa: E402
from MRTRUSRegistrationLib.transforms import inverse_points_mm  # noqa: E402


@pytest.fixture
def committed():
    return commit_in_memory()


def _points(model) -> np.ndarray:
    """(n, 3) LPS positions of a model's points."""
    points = model.GetPolyData().GetPoints()
    return to_lps(np.array([points.GetPoint(n) for n in range(points.GetNumberOfPoints())]))


@pytest.mark.parametrize("stage", ["before", "rigid", "deformable"])
def test_landmark_errors_are_distances_in_trus_space(committed, stage):
    result = committed.result
    rigid = result.initial if stage == "before" else result.rigid.transform
    field = result.deformation.transform if stage == "deformable" else None
    moved = inverse_points_mm(rigid, field, result.mr_landmarks.points_mm)
    expected = np.linalg.norm(moved - result.trus_landmarks.points_mm, axis=1)
    errors = landmark_errors(committed.case, stage)
    assert [error.name for error in errors] == list(result.trus_landmarks.names)
    assert [error.error_mm for error in errors] == pytest.approx(expected.tolist(), abs=0.01)
    assert rms_error_mm(errors) == pytest.approx(np.sqrt(np.mean(expected**2)), abs=0.01)


def test_error_vectors_lead_from_trus_to_mr_and_follow_the_stage(committed):
    node = show_error_vectors(committed.case, "rigid")
    longest = max(error.error_mm for error in landmark_errors(committed.case, "rigid"))
    assert longest > 1
    points = _points(node)
    for error in landmark_errors(committed.case, "rigid"):
        for end in (error.trus_mm, error.mr_mm):
            # The shaft begins around the one end, the tip is the other.
            assert np.linalg.norm(points - end, axis=1).min() < 0.09 * error.error_mm + 1e-3
    again = show_error_vectors(committed.case, "deformable")
    assert again is node
    assert np.abs(_points(node) - committed.result.trus_landmarks.points_mm.mean(axis=0)).max() < 15
    assert max(error.error_mm for error in landmark_errors(committed.case, "deformable")) < 0.01


def test_a_landmark_that_only_one_image_has_is_left_out(committed):
    committed.case.mr_landmarks.SetLocked(False)
    committed.case.mr_landmarks.RemoveNthControlPoint(2)
    names = [error.name for error in landmark_errors(committed.case, "rigid")]
    assert names == [f"target {n}" for n in (1, 2, 4, 5, 6)]


def test_without_landmarks_there_are_no_vectors(committed):
    assert show_error_vectors(committed.case, "rigid") is not None
    committed.scene.RemoveNode(committed.case.trus_landmarks)
    assert landmark_errors(committed.case, "rigid") == ()
    assert rms_error_mm(()) is None
    assert show_error_vectors(committed.case, "rigid") is None
    assert committed.case.get("errorVectors") is None


def test_views_jump_to_a_landmark(committed):
    slice_node = committed.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    assert go_to_landmark(committed.case, "target 3")
    matrix = slice_node.GetSliceToRAS()
    centre = to_lps([matrix.GetElement(row, 3) for row in range(3)])
    assert centre == pytest.approx(committed.result.trus_landmarks.points_mm[2], abs=1e-3)
    assert not go_to_landmark(committed.case, "nowhere")


@pytest.mark.parametrize("stage", ["rigid", "deformable"])
def test_outlines_are_the_borders_of_the_glands(committed, stage):
    contours = Contours(committed.case)
    contours.show(stage)
    result = committed.result
    transform = result.rigid.transform if stage == "rigid" else result.transform
    moved = resample_mask(result.mr_gland.mask, Grid.of(result.trus).padded(15), transform)
    for role, mask in (("trusOutline", result.trus_gland.mask), ("mrOutline", moved)):
        distance = sitk.SignedMaurerDistanceMap(mask, squaredDistance=False, useImageSpacing=True)
        surface = _points(committed.case.get(role))
        index = [distance.TransformPhysicalPointToContinuousIndex(p) for p in surface.tolist()]
        inside = [p for p, i in zip(surface.tolist(), index, strict=True) if _within(distance, i)]
        assert len(inside) > 0.9 * len(surface)
        gaps = [distance.GetPixel(distance.TransformPhysicalPointToIndex(p)) for p in inside]
        # Voxels of 1 mm in TRUS and up to 2.2 mm in MR.
        assert np.mean(np.abs(gaps)) < 1.0
        assert np.max(np.abs(gaps)) < 2.6


def _within(image, index) -> bool:
    return all(0 <= value <= size - 1 for value, size in zip(index, image.GetSize(), strict=True))


def test_outlines_are_made_anew_after_the_gland_was_edited(committed):
    contours = Contours(committed.case)
    contours.show("rigid")
    before = committed.case.get("trusOutline").GetPolyData()
    contours.show("deformable")
    assert committed.case.get("trusOutline").GetPolyData() is before
    segment = committed.case.trus_gland.GetSegmentation().GetNthSegment(0)
    labelmap = segment.GetRepresentation("Binary labelmap")
    labelmap.GetPointData().GetScalars().SetComponent(0, 0, 1)
    labelmap.Modified()
    contours.show("deformable")
    assert committed.case.get("trusOutline").GetPolyData() is not before


def test_an_outline_of_a_deleted_gland_stays_away(committed):
    committed.scene.RemoveNode(committed.case.mr_gland)
    Contours(committed.case).show("rigid")
    assert committed.case.get("mrOutline") is None
    assert committed.case.get("trusOutline") is not None


def _in_gland(committed) -> np.ndarray:
    grid = volume_grid(committed.trus)
    return sitk.GetArrayFromImage(resample(committed.result.trus_gland.mask, grid, nearest=True)) > 0


def test_displacement_overlay_holds_lengths_in_the_gland(committed):
    node = overlay_volume(committed.case, "displacement")
    values, gland = sitk.GetArrayFromImage(image_of(node)), _in_gland(committed)
    field = resample(
        committed.result.deformation.transform.GetDisplacementField(), volume_grid(committed.trus)
    )
    expected = np.linalg.norm(sitk.GetArrayFromImage(field), axis=-1)
    assert np.abs(values - expected)[gland].max() < 0.01
    assert values[gland].max() > 2
    assert np.all(values[~gland] == OUTSIDE)
    assert overlay_volume(committed.case, "displacement") is node


def test_jacobian_overlay_is_the_determinant_in_the_gland(committed):
    values = sitk.GetArrayFromImage(image_of(overlay_volume(committed.case, "jacobian")))
    expected = jacobian_determinant(committed.result.deformation.transform, volume_grid(committed.trus))
    gland = _in_gland(committed)
    assert np.abs(values - sitk.GetArrayFromImage(expected))[gland].max() < 0.01
    assert np.ptp(values[gland]) > 0.2


def test_an_overlay_is_transparent_outside_of_the_gland_and_has_its_scale(committed):
    node = overlay_volume(committed.case, "jacobian")
    display = node.GetDisplayNode()
    assert display.GetApplyThreshold()
    assert OUTSIDE < display.GetLowerThreshold() < -10
    assert (display.GetWindow(), display.GetLevel()) == (2.0, 1.0)
    assert display.GetColorNode() is color_node(committed.scene, JACOBIAN)
    assert not display.GetInterpolate()


def test_the_jacobian_scale_is_neutral_at_one_and_marks_folds():
    colors = JACOBIAN.colors()
    assert np.ptp(colors[127]) < 0.02
    assert colors[127].min() > 0.9
    assert colors[0].tolist() == [1.0, 0.0, 1.0]


def test_overlays_that_a_case_has(committed):
    assert overlays_of(committed.case) == ("none", "displacement", "jacobian")
    assert overlay_volume(committed.case, "none") is None
    with pytest.raises(InputError, match="no confidence to show"):
        overlay_volume(committed.case, "confidence")
    image = sitk.Cast(committed.result.trus, sitk.sitkFloat32) / 100
    committed.case.set("confidence", add_volume(committed.scene, image, "Confidence (mm)"))
    node = overlay_volume(committed.case, "confidence")
    assert node is committed.case.confidence
    assert node.GetDisplayNode().GetWindow() == 3.0
    committed.scene.RemoveNode(committed.case.deformation)
    assert overlays_of(committed.case) == ("none", "confidence")


def test_arrows_lead_from_the_rigid_to_the_deformed_place(committed):
    node = show_arrows(committed.case, spacing_mm=6.0)
    lengths = node.GetPolyData().GetPointData().GetArray("length_mm")
    largest = lengths.GetRange()[1]
    assert len(_points(node)) > 500
    inside = sitk.GetArrayFromImage(image_of(overlay_volume(committed.case, "displacement"))).max()
    assert 0.8 * inside < largest <= inside + 0.01


def test_the_warped_grid_undoes_to_straight_lines(committed):
    node = show_warped_grid(committed.case, spacing_mm=6.0)
    polydata = node.GetPolyData()
    points, deformation = _points(node), committed.result.deformation.transform
    straight = np.array([deformation.TransformPoint(p) for p in points.tolist()])
    axes = Grid.of(committed.result.trus).axes
    bent = 0.0
    for n in range(polydata.GetNumberOfCells()):
        ids = polydata.GetCell(n).GetPointIds()
        line = [ids.GetId(i) for i in range(ids.GetNumberOfIds())]
        # A straight line along one axis has no extent along the other two, but for what the field's
        # interpolation does: linear here, cubic in Slicer.
        assert np.sort(np.ptp(straight[line] @ axes, axis=0))[1] < 0.1
        bent = max(bent, np.sort(np.ptp(points[line] @ axes, axis=0))[1])
    assert polydata.GetNumberOfCells() > 30
    assert bent > 1


def test_slicers_own_display_of_the_deformation(committed):
    show_in_slices(committed.case, "none")
    assert committed.case.deformation.GetDisplayNode() is None
    show_in_slices(committed.case, "grid")
    display = committed.case.deformation.GetDisplayNode()
    assert display.GetVisibility2D()
    assert not display.GetVisibility3D()
    assert display.GetVisualizationMode() == display.VIS_MODE_GRID
    show_in_slices(committed.case, "arrows")
    assert display.GetVisualizationMode() == display.VIS_MODE_GLYPH
    show_in_slices(committed.case, "none")
    assert not display.GetVisibility()


def test_a_rigid_case_has_no_deformation_to_show():
    rigid = commit_in_memory(deformable=False, landmarks=0)
    assert overlays_of(rigid.case) == ("none",)
    for show in (show_arrows, show_warped_grid):
        with pytest.raises(InputError, match="no deformation to show"):
            show(rigid.case)
    show_in_slices(rigid.case, "grid")
