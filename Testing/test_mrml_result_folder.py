"""Result folders committed to a user's scene: in one step, around the user's nodes, or not at all."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from mrml_case import NAME, commit, write_folder  # noqa: E402
from scene_readers import mask_of, to_lps  # noqa: E402

from MRTRUSRegistrationLib.errors import InputError  # noqa: E402
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, resample  # noqa: E402
from MRTRUSRegistrationLib.mrml.case_nodes import case_nodes, find_cases  # noqa: E402
from MRTRUSRegistrationLib.mrml.readers import gland_mask_of, image_of, volume_grid  # noqa: E402
from MRTRUSRegistrationLib.mrml.result_folder import add_result, load_result  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import new_scene, read_scene  # noqa: E402
from MRTRUSRegistrationLib.mrml.stages import stages_of  # noqa: E402
from MRTRUSRegistrationLib.mrml.volumes import add_volume  # noqa: E402


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("result") / "out")


@pytest.fixture
def committed(written):
    return commit(*written)


def _ids(scene) -> set[str]:
    nodes = scene.GetNodes()
    return {nodes.GetItemAsObject(n).GetID() for n in range(nodes.GetNumberOfItems())}


def _items(scene) -> int:
    import vtk

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    found = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), found, True)
    return found.GetNumberOfIds()


def test_a_folder_is_read_as_it_was_written(written):
    result, folder = written
    content = load_result(folder)
    points = np.random.default_rng(0).uniform(-20, 20, (20, 3)) + Grid.of(result.trus).centre_mm
    for ours, theirs in (
        (content.rigid, result.rigid.transform),
        (content.deformation, result.deformation.transform),
    ):
        expected = [theirs.TransformPoint(p) for p in points.tolist()]
        assert [ours.TransformPoint(p) for p in points.tolist()] == [
            pytest.approx(e, abs=1e-9) for e in expected
        ]
    assert content.measures["deformable"].values == result.measures.values
    assert content.measures["initial"].values == result.initial_measures.values
    assert [row.name for row in content.rows] == list(result.trus_landmarks.names)
    assert content.warnings == result.warnings
    assert content.provenance == result.provenance
    assert "<html" in content.report_html


def test_the_users_own_volumes_are_used_and_not_changed(committed):
    case, scene = committed.case, committed.scene
    assert case.mr is committed.mr
    assert case.trus is committed.trus
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
    assert committed.mr.GetParentTransformNode() is case.rigid
    assert committed.trus.GetParentTransformNode() is None
    assert committed.mr.GetName() == "T2"
    back = resample(image_of(committed.mr), Grid.of(committed.result.mr), nearest=True)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(committed.result.mr))


def test_landmarks_are_those_of_the_run(committed):
    node, result = committed.case.mr_landmarks, committed.result
    assert [node.GetNthControlPointLabel(n) for n in range(6)] == list(result.mr_landmarks.names)
    points = [to_lps(node.GetNthControlPointPosition(n)) for n in range(6)]
    assert np.array(points) == pytest.approx(result.mr_landmarks.points_mm, abs=1e-3)
    # The sixth one is lost: the warp carries it out of the TRUS.
    world = [to_lps(node.GetNthControlPointPositionWorld(n)) for n in range(5)]
    assert np.array(world) == pytest.approx(result.trus_landmarks.points_mm[:5], abs=0.01)


def test_the_start_is_that_of_the_run(written, tmp_path):
    result, folder = written[0], tmp_path / "out"
    assert load_result(written[1]).initial.TransformPoint((0.0, 0.0, 0.0)) == pytest.approx(
        mask_centroid_mm(result.mr_gland.mask) - mask_centroid_mm(result.trus_gland.mask)
    )
    shutil.copytree(written[1], folder)
    sitk.WriteTransform(sitk.TranslationTransform(3, (5.0, 0.0, 0.0)), str(folder / "initial.h5"))
    assert load_result(folder).initial.TransformPoint((1.0, 2.0, 3.0)) == (6.0, 2.0, 3.0)


def test_glands_are_the_masks_of_the_folder(committed):
    for gland, mask in (
        (committed.case.mr_gland, committed.result.mr_gland.mask),
        (committed.case.trus_gland, committed.result.trus_gland.mask),
    ):
        read = gland_mask_of(gland, Grid.of(mask), "MR")
        assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(mask))


def test_the_gland_as_slicer_exports_it_is_the_gland_that_is_read(committed):
    slicers = mask_of(committed.case.trus_gland, committed.trus)
    ours = gland_mask_of(committed.case.trus_gland, volume_grid(committed.trus), "TRUS")
    assert np.array_equal(sitk.GetArrayFromImage(slicers), sitk.GetArrayFromImage(ours))


def test_cases_survive_saving_and_reloading(committed, tmp_path):
    committed.scene.SetRootDirectory(str(tmp_path))
    assert committed.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene = read_scene(tmp_path / "scene.mrb")
    (case,) = find_cases(scene)
    assert (case.name, case.version, case.active) == (NAME, 1, True)
    assert case.mr is scene.GetFirstNodeByName("T2")
    assert case.trus is scene.GetFirstNodeByName("US")
    for role in (
        "mr_gland",
        "trus_gland",
        "rigid",
        "deformation",
        "trus_landmarks",
        "measures",
        "provenance",
    ):
        assert getattr(case, role).GetScene() is scene, role
    assert stages_of(case) == ("before", "rigid", "deformable")
    assert case.mr.GetParentTransformNode() is case.rigid
    assert case.rigid.GetParentTransformNode() is case.deformation
    assert case.warnings[0]["code"] == committed.result.warnings[0].code
    assert case.report.GetText() == (committed.folder / "report.html").read_text(encoding="utf-8")


def test_a_scene_of_the_command_line_holds_the_same_case(committed):
    scene = read_scene(committed.folder / "scene.mrb")
    (case,) = find_cases(scene)
    assert case.name == NAME
    assert case.mr is scene.GetFirstNodeByName("MR")
    world = [to_lps(case.mr_landmarks.GetNthControlPointPositionWorld(n)) for n in range(6)]
    assert np.array(world) == pytest.approx(committed.result.trus_landmarks.points_mm, abs=0.01)


def test_a_node_that_takes_the_id_of_one_that_was_not_saved_has_no_role(committed, tmp_path):
    model = committed.scene.AddNewNodeByClass("vtkMRMLModelNode", "outline")
    committed.case.set("mrOutline", model)
    assert committed.case.get("mrOutline") is model
    committed.scene.SetRootDirectory(str(tmp_path))
    assert committed.scene.WriteToMRB(str(tmp_path / "scene.mrb"))
    scene = read_scene(tmp_path / "scene.mrb")
    stranger = scene.AddNewNodeByClass("vtkMRMLModelNode", "somebody's bone")
    assert stranger.GetID() == model.GetID()
    assert find_cases(scene)[0].get("mrOutline") is None


def test_deleted_nodes_are_none(committed):
    case, scene = committed.case, committed.scene
    for node in (case.deformation, case.mr_gland, case.measures, committed.mr):
        scene.RemoveNode(node)
    assert (case.deformation, case.mr_gland, case.measures, case.mr) == (None,) * 4
    assert stages_of(case) == ("before", "rigid")
    assert case.trus is committed.trus


def test_a_closed_scene_is_said_in_one_sentence(committed):
    committed.scene.Clear(False)
    assert committed.case.mr is None
    assert not committed.case.present
    with pytest.raises(InputError, match="no longer in the scene"):
        stages_of(committed.case)
    assert find_cases(committed.scene) == []
    assert case_nodes(None) is None


def test_a_scene_closed_during_the_run(written):
    result, folder = written
    scene = new_scene()
    mr, trus = add_volume(scene, result.mr, "T2"), add_volume(scene, result.trus, "US")
    scene.Clear(False)
    with pytest.raises(InputError, match="no longer in the scene"):
        add_result(scene, folder, mr_node=mr, trus_node=trus, name=NAME)
    assert find_cases(scene) == []


def _scene_with(result):
    scene = new_scene()
    return scene, add_volume(scene, result.mr, "T2"), add_volume(scene, result.trus, "US")


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda scene, mr, trus: (mr, mr), "T2 is chosen as both MR and TRUS"),
        (lambda scene, mr, trus: (trus, mr), "made from another MR than US"),
        (lambda scene, mr, trus: (mr, None), "no longer in the scene"),
        (
            lambda scene, mr, trus: (mr, scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "new")),
            "new is empty",
        ),
        (
            lambda scene, mr, trus: (mr, add_volume(scene, sitk.Image(8, 8, 1, sitk.sitkUInt8), "flat")),
            "flat is a 2-D",
        ),
        (
            lambda scene, mr, trus: (mr, add_volume(scene, sitk.Image(8, 8, 8, sitk.sitkUInt8), "other")),
            "another TRUS",
        ),
    ],
)
def test_volumes_that_cannot_be_used_leave_the_scene_as_it_was(written, choose, message):
    scene, mr, trus = _scene_with(written[0])
    chosen = choose(scene, mr, trus)
    before, items = _ids(scene), _items(scene)
    before = _ids(scene)
    with pytest.raises(InputError, match=message):
        add_result(scene, written[1], mr_node=chosen[0], trus_node=chosen[1], name=NAME)
    assert _ids(scene) == before
    assert _items(scene) == items
    assert mr.GetParentTransformNode() is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "does not hold a finished registration"),
        (lambda folder: (folder / "rigid.h5").unlink(), "not a complete result"),
        (lambda folder: (folder / "mr_mask.nii.gz").write_bytes(b"x"), "not a complete result"),
        (lambda folder: (folder / "result.json").write_text("{"), "does not hold a finished registration"),
        (lambda folder: (folder / "result.json").write_text('{"format": 99}'), "another version"),
        (lambda folder: (folder / "result.json").write_text('{"format": 1}'), "not a complete result"),
    ],
)
def test_a_damaged_folder_leaves_the_scene_as_it_was(written, tmp_path, spoil, message):
    folder = tmp_path / "out"
    shutil.copytree(written[1], folder)
    spoil(folder)
    scene, mr, trus = _scene_with(written[0])
    before = _ids(scene)
    with pytest.raises(InputError, match=message):
        add_result(scene, folder, mr_node=mr, trus_node=trus, name=NAME)
    assert _ids(scene) == before


def test_a_failure_in_the_middle_removes_what_was_added(written, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(written[1], folder)
    field = sitk.GetImageFromArray(np.ones((4, 4, 4, 3)), isVector=True)
    composite = sitk.CompositeTransform([written[0].rigid.transform, sitk.DisplacementFieldTransform(field)])
    sitk.WriteTransform(composite, str(folder / "mr_to_trus.h5"))
    scene, mr, trus = _scene_with(written[0])
    before, items = _ids(scene), _items(scene)
    before = _ids(scene)
    with pytest.raises(InputError, match="rim of zeros"):
        add_result(scene, folder, mr_node=mr, trus_node=trus, name=NAME)
    assert _ids(scene) == before
    assert _items(scene) == items
    assert find_cases(scene) == []
    assert mr.GetParentTransformNode() is None
    assert not scene.IsBatchProcessing()


def test_a_trus_that_the_run_relabelled_is_added(written, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(written[1], folder)
    sitk.WriteImage(written[0].trus, str(folder / "trus.nii.gz"))
    scene = new_scene()
    mr = add_volume(scene, written[0].mr, "T2")
    wrong = sitk.Image(written[0].trus)
    wrong.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    trus = add_volume(scene, wrong, "US")
    case = add_result(scene, folder, mr_node=mr, trus_node=trus, name=NAME)
    assert case.trus.GetName() == "US (axes corrected)"
    assert trus.GetScene() is scene
    assert np.array_equal(
        sitk.GetArrayFromImage(resample(image_of(case.trus), Grid.of(written[0].trus), nearest=True)),
        sitk.GetArrayFromImage(written[0].trus),
    )
