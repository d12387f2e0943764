"""A scene bundle, written and read again by slicer-core, against SimpleITK's registration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

vtk = pytest.importorskip("vtk", reason="needs slicer-core (pip install mrtrus[slicer])")
slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from scene_fixtures import cubic_displaced, registration  # noqa: E402
from scene_readers import image_of, mask_of, to_lps  # noqa: E402

from MRTRUSRegistrationLib.errors import InputError  # noqa: E402
from MRTRUSRegistrationLib.geometry import Grid, resample  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import quiet_vtk, read_scene, write_scene  # noqa: E402
from MRTRUSRegistrationLib.results import Registration  # noqa: E402
from MRTRUSRegistrationLib.transforms import inverse_points_mm  # noqa: E402

NAME = "Case 7/µ <&>"


@pytest.fixture(scope="module")
def result() -> Registration:
    """Images in floating point, so that Slicer's resampling does not round to whole numbers."""
    return registration(pixel_type=sitk.sitkFloat32)


@pytest.fixture(scope="module")
def scene(result, tmp_path_factory):
    return _round_trip(result, tmp_path_factory.mktemp("scene"))


def _round_trip(result: Registration, folder: Path) -> slicer.vtkMRMLScene:
    write_scene(result, folder / "scene.mrb", name=NAME)
    return read_scene(folder / "scene.mrb")


def _node(scene, name):
    node = scene.GetFirstNodeByName(name)
    assert node is not None, name
    return node


def _slicer_registered(scene) -> sitk.Image:
    """The MR image on the voxels of the TRUS image, by Slicer's own resampling through its transforms."""
    logic = slicer.vtkSlicerVolumesLogic()
    logic.SetMRMLScene(scene)
    resampled = logic.ResampleVolumeToReferenceVolume(_node(scene, "MR"), _node(scene, "TRUS"))
    image = image_of(resampled)
    scene.RemoveNode(resampled)
    return image


def _differences(scene, result: Registration) -> np.ndarray:
    """Slicer's registered MR less ours, at the TRUS voxels whose MR point is well inside the MR image."""
    grid = Grid.of(result.trus)
    inner = sitk.Image(result.mr.GetSize(), sitk.sitkUInt8)
    inner.CopyInformation(result.mr)
    inner[1:-1, 1:-1, 1:-1] = 1
    inside = sitk.GetArrayFromImage(resample(inner, grid, result.transform, nearest=True)) > 0
    theirs = sitk.GetArrayFromImage(resample(_slicer_registered(scene), grid))
    assert inside.mean() > 0.5
    return (theirs - sitk.GetArrayFromImage(result.registered_mr))[inside]


def test_registered_mr_equals_slicers_where_the_field_has_a_node_at_every_voxel(scene, result):
    # The intensities span 1000; 0.05 is what float32 interpolation leaves.
    assert np.abs(_differences(scene, result)).max() < 0.05


def test_registered_mr_is_close_to_slicers_on_a_field_with_its_own_grid(tmp_path):
    # ITK interpolates the field linearly, Slicer by cubic splines: some hundredths of a millimetre, where
    # the intensities, which span 1000, change by up to 150 in a millimetre.
    other = registration(pixel_type=sitk.sitkFloat32, field_spacing_mm=1.3)
    differences = np.abs(_differences(_round_trip(other, tmp_path), other))
    assert differences.mean() < 0.5
    assert differences.max() < 10


def test_registered_mr_of_a_rigid_registration(tmp_path):
    rigid = registration(pixel_type=sitk.sitkFloat32, deformable=False)
    scene = _round_trip(rigid, tmp_path)
    assert np.abs(_differences(scene, rigid)).max() < 0.05
    assert scene.GetFirstNodeByName("MR to TRUS deformation") is None
    assert _node(scene, "MR").GetParentTransformNode() is _node(scene, "MR to TRUS rigid")
    assert _node(scene, "MR to TRUS rigid").GetParentTransformNode() is None
    columns = _columns(_node(scene, "Measures"))
    assert columns == ["Measure", "Before", "Rigid"]


def _world_landmarks(scene) -> np.ndarray:
    node = _node(scene, "MR landmarks")
    position = np.zeros(3)
    points = []
    with quiet_vtk():
        for n in range(node.GetNumberOfControlPoints()):
            node.GetNthControlPointPositionWorld(n, position)
            points.append(to_lps(position))
    return np.array(points)


def test_landmarks_lie_where_the_inverse_mapping_puts_them(scene, result):
    assert _world_landmarks(scene) == pytest.approx(result.trus_landmarks.points_mm, abs=0.01)


def test_landmarks_of_a_rigid_registration(tmp_path):
    rigid = registration(deformable=False)
    assert _world_landmarks(_round_trip(rigid, tmp_path)) == pytest.approx(
        rigid.trus_landmarks.points_mm, abs=1e-6
    )


def test_landmarks_invert_the_field_as_slicer_interpolates_it(scene, result):
    displaced = cubic_displaced(result.deformation.transform, _world_landmarks(scene))
    back = [result.rigid.transform.TransformPoint(point) for point in displaced.tolist()]
    assert np.array(back) == pytest.approx(result.mr_landmarks.points_mm, abs=5e-4)


def test_the_deformation_matters_to_these_landmarks(result):
    rigid_only = inverse_points_mm(result.rigid.transform, None, result.mr_landmarks.points_mm)
    shift_mm = np.linalg.norm(rigid_only - result.trus_landmarks.points_mm, axis=1)
    assert shift_mm.max() > 1.5


def test_chain_of_transforms(scene):
    rigid, deformation = _node(scene, "MR to TRUS rigid"), _node(scene, "MR to TRUS deformation")
    for name in ("MR", "MR gland", "MR landmarks"):
        assert _node(scene, name).GetParentTransformNode() is rigid
    for name in ("TRUS", "TRUS gland", "TRUS landmarks", "MR to TRUS deformation"):
        assert _node(scene, name).GetParentTransformNode() is None
    assert rigid.GetParentTransformNode() is deformation
    assert rigid.IsLinear()
    for node in (rigid, deformation):
        assert node.GetNodeReference(node.GetMovingNodeReferenceRole()) is _node(scene, "MR")
        assert node.GetNodeReference(node.GetFixedNodeReferenceRole()) is _node(scene, "TRUS")


@pytest.mark.parametrize(("name", "image"), [("MR", "mr"), ("TRUS", "trus")])
def test_images_are_the_input(scene, result, name, image):
    given = getattr(result, image)
    read = image_of(_node(scene, name))
    assert read.GetPixelID() == given.GetPixelID()
    back = resample(read, Grid.of(given), nearest=True)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(given))


@pytest.mark.parametrize(("name", "gland"), [("MR", "mr_gland"), ("TRUS", "trus_gland")])
def test_segmentations(scene, result, name, gland):
    given = getattr(result, gland).mask
    node, volume = _node(scene, f"{name} gland"), _node(scene, name)
    parent = volume.GetTransformNodeID()
    for moved in (node, volume):
        moved.SetAndObserveTransformNodeID(None)
    back = resample(mask_of(node, volume), Grid.of(given), nearest=True)
    for moved in (node, volume):
        moved.SetAndObserveTransformNodeID(parent)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(given))
    segment = node.GetSegmentation().GetSegment("Prostate")
    assert "SCT^41216001^Prostate" in segment.GetTerminology()
    assert not node.GetDisplayNode().GetVisibility2DFill()
    reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    assert reference is volume


def test_the_two_glands_have_different_colours(scene):
    colors = {
        _node(scene, f"{name} gland").GetSegmentation().GetSegment("Prostate").GetColor()
        for name in ("MR", "TRUS")
    }
    assert len(colors) == 2


def _columns(table) -> list[str]:
    return [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())]


def _column(table, title: str) -> list:
    column = table.GetTable().GetColumnByName(title)
    return [column.GetValue(n) for n in range(column.GetNumberOfValues())]


def test_measures_table_is_in_plain_words(scene):
    table = _node(scene, "Measures")
    assert _columns(table) == ["Measure", "Before", "Rigid", "Deformable"]
    titles = ["Landmark error, RMS (mm)", "Gland overlap (Dice)", "Folds in the gland (%)"]
    assert _column(table, "Measure") == titles
    assert _column(table, "Before") == ["5.50", "0.70", "–"]
    assert _column(table, "Deformable") == ["2.00", "0.91", "0.00"]


def test_landmark_table_keeps_a_lost_landmark(scene):
    table = _node(scene, "Landmark errors")
    assert _columns(table) == ["Landmark", "Before (mm)", "Rigid (mm)", "Deformable (mm)", "Lost"]
    assert _column(table, "Landmark") == [f"target {n}" for n in range(1, 7)]
    assert _column(table, "Lost") == ["no"] * 5 + ["yes"]
    assert _column(table, "Before (mm)")[1] == "6.00"
    assert _column(table, "Deformable (mm)") == ["1.50"] * 5 + ["–"]


def test_one_folder_holds_the_case(scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.GetItemByName(NAME)
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(folder, children)
    names = [hierarchy.GetItemName(children.GetId(n)) for n in range(children.GetNumberOfIds())]
    assert names == [
        "TRUS",
        "MR",
        "TRUS gland",
        "MR gland",
        "MR to TRUS rigid",
        "MR to TRUS deformation",
        "TRUS landmarks",
        "MR landmarks",
        "Measures",
        "Landmark errors",
        "Notice",
        "Provenance",
    ]


def test_notice_warnings_and_provenance(scene, result):
    notice = _node(scene, "Notice").GetText()
    assert notice.startswith("Research use only; not a medical device.")
    assert result.warnings[0].message in notice
    assert json.loads(_node(scene, "Provenance").GetText()) == result.provenance
    assert "not a medical device" in _node(scene, "MR").GetAttribute("MRTRUSRegistration.Notice")


def test_case_without_landmarks(tmp_path):
    bare = replace(registration(landmarks=0), warnings=(), provenance={})
    scene = _round_trip(bare, tmp_path)
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_files_of_the_bundle_and_nothing_beside_it(result, tmp_path):
    write_scene(result, tmp_path / "scene.mrb", name=NAME)
    assert os.listdir(tmp_path) == ["scene.mrb"]
    with zipfile.ZipFile(tmp_path / "scene.mrb") as bundle:
        assert bundle.testzip() is None
        files = {Path(name).name for name in bundle.namelist() if not name.endswith("/")}
    assert files == {
        "scene.mrml",
        "MR.nrrd",
        "TRUS.nrrd",
        "MR gland.seg.nrrd",
        "TRUS gland.seg.nrrd",
        "MR landmarks.mrk.json",
        "TRUS landmarks.mrk.json",
        "MR to TRUS rigid.h5",
        "MR to TRUS deformation.h5",
        "Measures.tsv",
        "Landmark errors.tsv",
    }


def test_an_older_scene_is_replaced(result, tmp_path):
    (tmp_path / "scene.mrb").write_text("old")
    write_scene(result, tmp_path / "scene.mrb", name=NAME)
    assert zipfile.is_zipfile(tmp_path / "scene.mrb")


def test_a_failure_leaves_the_older_scene(result, tmp_path):
    (tmp_path / "scene.mrb").write_text("old")
    no_rim = sitk.GetImageFromArray(np.ones((4, 4, 4, 3)), isVector=True)
    broken = replace(result.deformation, transform=sitk.DisplacementFieldTransform(no_rim))
    with pytest.raises(ValueError, match="rim"):
        write_scene(replace(result, deformation=broken), tmp_path / "scene.mrb", name=NAME)
    assert os.listdir(tmp_path) == ["scene.mrb"]
    assert (tmp_path / "scene.mrb").read_text() == "old"


def test_a_folder_that_is_not_there(result, tmp_path):
    with pytest.raises(OSError, match="missing"):
        write_scene(result, tmp_path / "missing" / "scene.mrb", name=NAME)


@pytest.mark.parametrize("content", [b"", b"not a bundle"])
def test_what_is_not_a_bundle_is_refused(content, tmp_path):
    (tmp_path / "x.mrb").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.mrb is not a Slicer scene bundle"):
        read_scene(tmp_path / "x.mrb")


def test_a_zip_without_a_scene_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.mrb", "w") as bundle:
        bundle.writestr("a/b.txt", "")
    with pytest.raises(InputError, match="one scene"):
        read_scene(tmp_path / "x.mrb")


_QUIET = """
import sys
from pathlib import Path
from MRTRUSRegistrationLib.mrml.scene_file import read_scene, write_scene
from scene_fixtures import registration
write_scene(registration(), Path(sys.argv[1]), name="quiet")
scene = read_scene(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_nothing_is_printed(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", _QUIET, str(tmp_path / "scene.mrb")],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (run.stdout, run.stderr) == ("", "")


def test_importing_the_scene_file_does_not_import_slicer():
    code = "import sys, MRTRUSRegistrationLib.mrml.scene_file; print('slicer' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
