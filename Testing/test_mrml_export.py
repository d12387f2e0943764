"""What is exported, read again by SimpleITK and by Slicer's own storage nodes."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from mrml_case import commit_in_memory  # noqa: E402
from scene_fixtures import MR_CENTRE_MM, ball  # noqa: E402
from scene_readers import to_lps, world_points_lps  # noqa: E402
from shapes import array  # noqa: E402
from slicer_files import read_points  # noqa: E402

from MRTRUSRegistrationLib.errors import InputError  # noqa: E402
from MRTRUSRegistrationLib.geometry import Grid, resample  # noqa: E402
from MRTRUSRegistrationLib.mrml.case_nodes import find_cases  # noqa: E402
from MRTRUSRegistrationLib.mrml.export import export_case, flat_grid, items_of  # noqa: E402
from MRTRUSRegistrationLib.mrml.readers import volume_grid  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import new_scene, read_scene  # noqa: E402
from MRTRUSRegistrationLib.mrml.segmentations import add_segmentation  # noqa: E402
from MRTRUSRegistrationLib.mrml.stages import mr_to_trus, transformed  # noqa: E402
from MRTRUSRegistrationLib.mrml.targets_nodes import carry_targets_to_trus, target_points  # noqa: E402
from MRTRUSRegistrationLib.mrml.texts import add_text  # noqa: E402
from MRTRUSRegistrationLib.transforms import transform_points_mm  # noqa: E402


@pytest.fixture
def committed():
    committed = commit_in_memory()
    node = committed.scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "lesions")
    node.AddControlPoint(to_lps(MR_CENTRE_MM + np.array([5.0, 1.0, -4.0])).tolist(), "PI-RADS 4, “left”")
    carry_targets_to_trus(committed.case, node)
    lesion = {"lesion": ball(Grid.of(committed.result.mr), 6.0)}
    carry_targets_to_trus(
        committed.case, add_segmentation(committed.scene, lesion, committed.mr, "drawn", color=(1, 0, 0))
    )
    committed.case.set("report", add_text(committed.scene, "<html>µ</html>", "Report"))
    return committed


def _trus_points(result, count: int = 300) -> np.ndarray:
    """Points anywhere in the TRUS volume."""
    grid = Grid.of(result.trus)
    index = np.random.default_rng(5).uniform(0, np.array(grid.size_vox) - 1, (count, 3))
    return index @ grid.index_to_point[:3, :3].T + np.array(grid.origin_mm)


def test_a_folder_may_be_given_from_where_one_is(committed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = export_case(committed.case, "here", items=("scene", "report"))
    assert files == (tmp_path / "here" / "report.html", tmp_path / "here" / "scene.mrb")


def test_everything_is_exported(committed, tmp_path):
    files = export_case(committed.case, tmp_path / "new" / "folder")
    assert sorted(path.name for path in files) == [
        "mr_to_trus.h5",
        "mr_to_trus_grid.nrrd",
        "registered_mr.nii.gz",
        "report.html",
        "rigid.h5",
        "scene.mrb",
        "targets.csv",
        "targets.mrk.json",
        "targets.nii.gz",
    ]
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == sorted(path.name for path in files)


def test_transforms_are_those_of_the_run(committed, tmp_path):
    export_case(committed.case, tmp_path, items=("transforms",))
    points, result = _trus_points(committed.result), committed.result
    for name, expected in (("mr_to_trus", result.transform), ("rigid", result.rigid.transform)):
        read = sitk.ReadTransform(str(tmp_path / f"{name}.h5"))
        assert transform_points_mm(read, points) == pytest.approx(
            transform_points_mm(expected, points), abs=1e-6
        )


def _slicer_transform(path: Path):
    scene = new_scene()
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "read")
    storage = scene.AddNewNodeByClass("vtkMRMLTransformStorageNode")
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    return scene, node


def test_flat_grid_maps_as_the_composition_in_itk_and_in_slicer(committed, tmp_path):
    export_case(committed.case, tmp_path, items=("grid",))
    points = _trus_points(committed.result)
    expected = transform_points_mm(committed.result.transform, points)
    field = sitk.ReadImage(str(tmp_path / "mr_to_trus_grid.nrrd"), sitk.sitkVectorFloat64)
    itk = transform_points_mm(sitk.DisplacementFieldTransform(field), points)
    assert np.linalg.norm(itk - expected, axis=1).max() < 1e-4
    # Slicer, which interpolates both by cubic splines, carries MR points to TRUS points.
    scene, node = _slicer_transform(tmp_path / "mr_to_trus_grid.nrrd")
    chain = to_lps(transformed(mr_to_trus(committed.case, "deformable"), to_lps(expected)))
    assert np.linalg.norm(world_points_lps(node, expected) - chain, axis=1).max() < 0.02
    assert np.linalg.norm(chain - points, axis=1).mean() < 0.02
    assert scene.GetNumberOfNodes() > 1


def test_the_nodes_of_the_grid_are_those_of_the_deformation(committed):
    own = Grid.of(committed.result.deformation.transform.GetDisplacementField())
    flat = flat_grid(committed.case)
    index = np.linalg.inv(own.index_to_point) @ [*flat.GetOrigin(), 1.0]
    assert index[:3] == pytest.approx(np.round(index[:3]), abs=1e-6)
    assert flat.GetSpacing() == pytest.approx(own.spacing_mm)
    assert flat_grid(committed.case, spacing_mm=9.0).GetSpacing() == (9.0,) * 3


@pytest.mark.parametrize("deformable", [True, False])
def test_flat_grid_covers_the_trus_and_a_margin(deformable):
    committed = commit_in_memory(deformable=deformable)
    flat, trus = flat_grid(committed.case), volume_grid(committed.trus)
    grid = Grid.of(flat)
    corners = np.array([[x, y, z, 1.0] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners[:, :3] *= np.array(trus.size_vox) - 1
    index = ((corners @ trus.index_to_point.T) @ np.linalg.inv(grid.index_to_point).T)[:, :3]
    assert (index * grid.spacing_mm).min() >= 10 - 1e-6
    assert ((np.array(grid.size_vox) - 1 - index) * grid.spacing_mm).min() >= 10 - 1e-6
    assert (index * grid.spacing_mm).min(axis=0).max() < 10 + max(grid.spacing_mm)
    mapped = transform_points_mm(
        sitk.DisplacementFieldTransform(sitk.Cast(flat, sitk.sitkVectorFloat64)),
        _trus_points(committed.result),
    )
    expected = transform_points_mm(committed.result.transform, _trus_points(committed.result))
    assert mapped == pytest.approx(expected, abs=1e-4)


def test_registered_mr(committed, tmp_path):
    export_case(committed.case, tmp_path, items=("registered_mr",))
    read = sitk.ReadImage(str(tmp_path / "registered_mr.nii.gz"))
    expected = resample(committed.result.mr, volume_grid(committed.trus), committed.result.transform)
    assert Grid.of(read).same_as(volume_grid(committed.trus))
    assert read.GetPixelID() == committed.result.mr.GetPixelID()
    assert np.abs(array(read).astype(int) - array(expected)).max() <= 1


def test_targets_are_lps(committed, tmp_path):
    export_case(committed.case, tmp_path, items=("targets",))
    place = target_points(committed.case).points_mm[0]
    (name,) = read_points(tmp_path / "targets.mrk.json")
    assert name == "PI-RADS 4, “left”"
    assert read_points(tmp_path / "targets.mrk.json")[name] == pytest.approx(place, abs=1e-3)
    with (tmp_path / "targets.csv").open(newline="", encoding="utf-8") as stream:
        header, row = csv.reader(stream)
    assert header == ["name", "x_lps", "y_lps", "z_lps"]
    assert row[0] == name
    assert [float(value) for value in row[1:]] == pytest.approx(place.tolist())
    labels = sitk.ReadImage(str(tmp_path / "targets.nii.gz"))
    assert Grid.of(labels).same_as(volume_grid(committed.trus))
    assert np.unique(array(labels)).tolist() == [0, 1]


def test_a_table_of_the_host_replaces_the_plain_one(committed, tmp_path):
    export_case(committed.case, tmp_path, items=("targets",), targets_csv="name,side\nx,left\n")
    assert (tmp_path / "targets.csv").read_text() == "name,side\nx,left\n"


def test_the_exported_scene_holds_the_case(committed, tmp_path):
    export_case(committed.case, tmp_path, items=("scene",))
    scene = read_scene(tmp_path / "scene.mrb")
    assert find_cases(scene)[0].mr.GetName() == "T2"


def test_only_what_is_there_is_offered(committed, tmp_path):
    rigid = commit_in_memory(deformable=False, landmarks=0)
    assert items_of(rigid.case) == ("scene", "transforms", "grid", "registered_mr")
    with pytest.raises(InputError, match="nothing of what was asked for"):
        export_case(rigid.case, tmp_path, items=("report", "targets"))
    rigid.scene.RemoveNode(rigid.mr)
    rigid.scene.RemoveNode(rigid.case.rigid)
    assert items_of(rigid.case) == ("scene",)


def test_a_failure_leaves_the_files_from_before(committed, tmp_path):
    (tmp_path / "mr_to_trus.h5").write_text("old")
    # A folder in the place of the second file, when the first one is in place already.
    (tmp_path / "rigid.h5").mkdir()
    with pytest.raises(InputError, match=r"failed \(Is a directory\)"):
        export_case(committed.case, tmp_path, items=("transforms",))
    assert (tmp_path / "mr_to_trus.h5").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["mr_to_trus.h5", "rigid.h5"]


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_to(committed, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"export to .* failed"):
        export_case(committed.case, tmp_path / "x")


def test_a_file_in_the_place_of_the_folder(committed, tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(InputError, match=r"export to .* failed"):
        export_case(committed.case, tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"
