"""Reading, pairing and writing landmarks."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from input_cases import OBLIQUE, SIZE_VOX, SPACING_MM, ball, loaded, save

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, orientation_direction
from MRTRUSRegistrationLib.landmarks import pair_landmarks, read_landmarks, write_landmarks
from MRTRUSRegistrationLib.results import Landmarks


def beside_centre(*offset_mm: float) -> tuple[float, ...]:
    return tuple((OBLIQUE.centre_mm + np.array(offset_mm)).tolist())


# Three points about the middle of the image, in LPS.
POINTS = {
    "apex": beside_centre(1.25, -2.5, -10.0),
    "base, left": beside_centre(4.0, 3.5, 9.75),
    "F-3": beside_centre(-6.125, 0.5, 2.0),
}


def expect_points(found: Landmarks, expected: dict[str, tuple], atol: float = 1e-6) -> None:
    assert found.names == tuple(expected)
    np.testing.assert_allclose(found.points_mm, list(expected.values()), atol=atol)


def refused(path: Path, *fragments: str, **options: str) -> None:
    with pytest.raises(InputError) as error:
        read_landmarks(path, loaded(), **options)
    for fragment in (path.name, *fragments):
        assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- points --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mrk.json", "fcsv"])
@pytest.mark.parametrize("ras", [False, True])
def test_points_written_by_slicer(tmp_path: Path, suffix: str, ras: bool) -> None:
    files = pytest.importorskip("slicer_files", exc_type=ImportError)
    path = tmp_path / f"points.{suffix}"
    files.write_points(path, POINTS, unplaced="later", ras=ras)
    assert ("RAS" if ras else "LPS") in path.read_text()
    expect_points(read_landmarks(path, loaded()), POINTS, atol=1e-3 if suffix == "fcsv" else 1e-6)


def test_points_are_read_by_slicer(tmp_path: Path) -> None:
    files = pytest.importorskip("slicer_files", exc_type=ImportError)
    write_landmarks(Landmarks(tuple(POINTS), np.array(list(POINTS.values()))), tmp_path / "points.mrk.json")
    found = files.read_points(tmp_path / "points.mrk.json")
    assert tuple(found) == tuple(POINTS)
    np.testing.assert_allclose(list(found.values()), list(POINTS.values()), atol=1e-6)


@pytest.mark.parametrize("suffix", ["mrk.json", "csv"])
def test_written_points_come_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"points.{suffix}"
    write_landmarks(Landmarks(tuple(POINTS), np.array(list(POINTS.values()))), path)
    expect_points(read_landmarks(path, loaded()), POINTS, atol=1e-12)


def test_a_landmark_may_be_named_like_a_comment(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    points = {"#1": POINTS["apex"], "# 2; left": POINTS["F-3"], "#base": POINTS["F-3"]}
    write_landmarks(Landmarks(tuple(points), np.array(list(points.values()))), path)
    expect_points(read_landmarks(path, loaded()), points, atol=1e-12)


def test_a_number_sign_begins_a_name_or_a_comment(tmp_path: Path) -> None:
    rows = '#1;-20,0;30,0;-15,0\n#base;9;9;9\n"#base";-21,5;31,5;-16,5\n'
    found = read_landmarks(table(tmp_path / "points.csv", f"name;x_lps;y_lps;z_lps\n{rows}"), loaded())
    expect_points(found, {"#1": (-20.0, 30.0, -15.0), "#base": (-21.5, 31.5, -16.5)})


# One point, written in many ways: LPS (-20, 30, -15), so RAS (20, -30, -15).
POINT = {"a": (-20.0, 30.0, -15.0)}


@pytest.mark.parametrize(
    "text",
    [
        "name,x_lps,y_lps,z_lps\na,-20,30,-15\n",
        "Z_LPS, Label ,Y_LPS,X_LPS\n-15,a, 30 ,-20\n",
        "name,x_ras,y_ras,z_ras\na,20,-30,-15\n",
        "name,x_ras_mm,y_ras_mm,z_ras_mm\na,20,-30,-15\n",
        "label,R,A,S,description\na,20,-30,-15,first\n",
        "name,l,p,s\na,-20,30,-15\n",
        "# frame: LPS\nname,x,y,z\na,-20,30,-15\n",
        "# Frame = RAS\nx,y,z,name\n20,-30,-15,a\n\n,,,\n",
        "\ufeffname;x_lps;y_lps;z_lps\na;-20,0;30,0;-15,0\n",
        "name\tx_lps\ty_lps\tz_lps\na\t-20\t30\t-15\n",
        '"name","x_lps","y_lps","z_lps","seen; by whom"\n"a",-20,30,-15,\n',
        '"x_lps";"y_lps, mm";"y_lps";"z_lps";"name"\n-20;;30;-15;a\n',
        "name,x,y,z\n# as seen by two\na,-20,30,-15\n# frame: LPS,,,\n",
        "name,x_lps,y_lps,z_lps\n#b,9,9,9\na,-20,30,-15\n",
        "name,x_lps,y_lps,z_lps\n# apex, base and urethra\na,-20,30,-15\n# exported 1 May, 2026\n",
        "name,x_lps,y_lps,z_lps\n#1, the apex, is not sure, 1\n#2\na,-20,30,-15\n",
        'name,x_lps,y_lps,z_lps\n# called "apex\na,-20,30,-15\n # b, "base\n',
        'name,x_lps,y_lps,z_lps\n"# apex, base",,,\na,-20,30,-15\n',
        "name;x_lps;y_lps;z_lps\n#b;9,0;9,0;9,0\na;-20,0;30,0;-15,0\n",
        "x_lps,y_lps,z_lps,name\n#9,9,9,b\n-20,30,-15,a\n",
    ],
)
def test_table_with_a_stated_frame(tmp_path: Path, text: str) -> None:
    expect_points(read_landmarks(table(tmp_path / "points.csv", text), loaded()), POINT)


@pytest.mark.parametrize(("frame", "row"), [("LPS", "-20,30,-15"), ("RAS", "20,-30,-15")])
def test_frame_of_a_table_as_an_option(tmp_path: Path, frame: str, row: str) -> None:
    path = table(tmp_path / "points.csv", f"name,x,y,z\na,{row}\n")
    expect_points(read_landmarks(path, loaded(), frame=frame), POINT)
    refused(path, "LPS or RAS", "# frame: LPS", "x_lps")


def test_frame_that_contradicts_the_file(tmp_path: Path) -> None:
    path = table(tmp_path / "points.csv", "name,x_lps,y_lps,z_lps\na,-20,30,-15\n")
    refused(path, "its points are LPS, but RAS was asked for", frame="RAS")


@pytest.mark.parametrize(("code", "row"), [("0", "20,-30,-15"), ("1", "-20,30,-15"), ("RAS", "20,-30,-15")])
def test_older_fcsv(tmp_path: Path, code: str, row: str) -> None:
    columns = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
    text = f"# Markups fiducial file version = 4.10\n# CoordinateSystem = {code}\n# columns = {columns}\n"
    row = f"vtkMRMLMarkupsFiducialNode_0,{row},0,0,0,1,1,1,0,a,,vtkMRMLScalarVolumeNode1\n"
    expect_points(read_landmarks(table(tmp_path / "F.fcsv", text + row), loaded()), POINT)


def test_points_in_voxel_indices_are_refused(tmp_path: Path) -> None:
    refused(table(tmp_path / "F.fcsv", "# CoordinateSystem = 2\n1,5,5,5,0,0,0,1,1,1,0,a,,\n"), "frame 2")


def test_table_without_names_numbers_its_points(tmp_path: Path) -> None:
    path = table(tmp_path / "points.csv", "x_lps,y_lps,z_lps\n-20,30,-15\n-21,31,-16\n")
    assert read_landmarks(path, loaded()).names == ("landmark 1", "landmark 2")


def test_points_move_along_with_a_relabelled_image(tmp_path: Path) -> None:
    """The same voxel before and after the axes were said to run to P, I and R."""
    file_grid = Grid(SIZE_VOX, SPACING_MM)
    turned = Grid.centred(file_grid.centre_mm, SIZE_VOX, SPACING_MM, orientation_direction("PIR"))
    index = np.array([4.5, 20.0, 11.25])
    x, y, z = index * SPACING_MM
    path = table(tmp_path / "points.csv", f"name,x_lps,y_lps,z_lps\na,{x},{y},{z}\n")
    expected = (turned.index_to_point @ np.append(index, 1))[:3]
    found = read_landmarks(path, loaded(turned, file_grid=file_grid))
    np.testing.assert_allclose(found.points_mm, [expected], atol=1e-9)
    assert np.linalg.norm(expected - (x, y, z)) > 5


@pytest.mark.parametrize(("beyond_mm", "accepted"), [(19.0, True), (21.0, False)])
def test_points_far_outside_of_the_image(tmp_path: Path, beyond_mm: float, accepted: bool) -> None:
    edge = (OBLIQUE.index_to_point @ [SIZE_VOX[0] - 0.5, 10, 10, 1])[:3]
    x, y, z = edge + beyond_mm * OBLIQUE.axes[:, 0]
    path = table(tmp_path / "points.csv", f"name,x_lps,y_lps,z_lps\na,{x},{y},{z}\n")
    if accepted:
        assert len(read_landmarks(path, loaded())) == 1
    else:
        refused(path, "landmark a 21 mm outside of image.nrrd", "frame")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("name,x_lps,y_lps,z_lps\na,-20,30,-15\nA,-20,30,-14\n", "several landmarks named a"),
        ("name,x_lps,y_lps,z_lps\na,-20,nan,-15\n", "no finite position for a"),
        ("name,x_lps,y_lps,z_lps\na,-20,thirty,-15\n", "not three numbers"),
        ("name,x_lps,y_lps,z_lps\na,-20,30\n", "not three numbers"),
        ("name,x_lps,y_lps,z_lps\n", "no landmarks"),
        ("# only a comment\n", "no landmarks"),
        ("name,u,v,w\na,1,2,3\n", "no columns x_lps, y_lps, z_lps"),
        ("name,x_lps,y_lps\na,1,2\n", "no columns x_lps, y_lps, z_lps"),
        ("", "empty file"),
    ],
)
def test_unusable_table(tmp_path: Path, text: str, fragment: str) -> None:
    refused(table(tmp_path / "points.csv", text), fragment)


def markups(**changes: object) -> dict:
    point = {"id": "1", "label": "a", "position": [-20, 30, -15]} | changes.pop("point", {})
    return {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [point]} | changes]}


def test_minimal_markups(tmp_path: Path) -> None:
    path = table(tmp_path / "p.mrk.json", json.dumps(markups(point={"label": ""})))
    expect_points(read_landmarks(path, loaded()), {"1": POINT["a"]})


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        ("{", "not a markups file"),
        ("[1, 2]", "not a markups file"),
        ('{"markups": [{}]}', "not a markups file"),
        (json.dumps(markups(type="Line")), "no landmarks"),
        (json.dumps(markups(controlPoints=[])), "no landmarks"),
        (json.dumps(markups(point={"positionStatus": "undefined"})), "no landmarks"),
        (json.dumps(markups(point={"position": [1, 2]})), "not three numbers"),
        (json.dumps(markups(coordinateUnits="voxel")), "not in mm"),
        (json.dumps(markups(coordinateSystem="IJK")), "frame IJK"),
    ],
)
def test_unusable_markups(tmp_path: Path, content: str, fragment: str) -> None:
    refused(table(tmp_path / "p.mrk.json", content), fragment)


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00\x01\x80")
    refused(tmp_path / "p.csv", "cannot be read as text")


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "p.csv", "does not exist")


# --- labels --------------------------------------------------------------------------------------------

LEFT = ball(radius_mm=3, shift_mm=(8, 0, 0))
RIGHT = ball(radius_mm=4, shift_mm=(-8, 1, 2))


def expect_labels(found: Landmarks, expected: dict[str, sitk.Image]) -> None:
    assert found.names == tuple(expected)
    for label, mask, point in zip(found.labels, expected.values(), found.points_mm, strict=True):
        assert label.GetPixelID() == sitk.sitkUInt8
        np.testing.assert_array_equal(sitk.GetArrayFromImage(label), sitk.GetArrayFromImage(mask))
        np.testing.assert_allclose(point, mask_centroid_mm(mask), atol=1e-4)
        assert Grid.of(label) == OBLIQUE


@pytest.mark.parametrize("pixel_type", [sitk.sitkFloat64, sitk.sitkUInt8])
def test_channels_but_the_gland_and_empty_ones(tmp_path: Path, pixel_type: int) -> None:
    parts = [sitk.Cast(part, pixel_type) for part in (ball(), LEFT, LEFT * 0, RIGHT)]
    path = save(sitk.JoinSeries(parts), tmp_path / "labels.nii.gz")
    expect_labels(read_landmarks(path, loaded()), {"landmark 1": LEFT, "landmark 3": RIGHT})


def test_values_of_a_label_map(tmp_path: Path) -> None:
    labels = sitk.Cast(LEFT, sitk.sitkInt16) * 12 + sitk.Cast(RIGHT, sitk.sitkInt16) * 3
    expect_labels(read_landmarks(save(labels, tmp_path / "labels.nrrd"), loaded()), {"3": RIGHT, "12": LEFT})


def test_segments_but_the_gland(tmp_path: Path) -> None:
    write = pytest.importorskip("slicer_files", exc_type=ImportError).write_segmentation
    path = tmp_path / "case.seg.nrrd"
    write(path, {"cyst": LEFT, "Prostate": ball(), "calcification": RIGHT})
    expect_labels(read_landmarks(path, loaded()), {"cyst": LEFT, "calcification": RIGHT})


def test_labels_move_along_with_a_relabelled_image(tmp_path: Path) -> None:
    file_grid = Grid(SIZE_VOX, SPACING_MM)
    turned = Grid.centred(file_grid.centre_mm, SIZE_VOX, SPACING_MM, orientation_direction("PIR"))
    label = ball(file_grid, radius_mm=3, shift_mm=(8, 0, 0))
    found = read_landmarks(save(label, tmp_path / "labels.nrrd"), loaded(turned, file_grid=file_grid))
    # The first index axis runs to posterior (+y) now.
    np.testing.assert_allclose(found.points_mm[0] - turned.centre_mm, [0, 8, 0], atol=0.5)


def test_float_label_map(tmp_path: Path) -> None:
    refused(save(sitk.Cast(LEFT, sitk.sitkFloat32), tmp_path / "labels.nrrd"), "integer label map")


def test_image_given_as_labels(tmp_path: Path) -> None:
    noise = np.arange(np.prod(SIZE_VOX)).reshape(SIZE_VOX[::-1]).astype(np.int32)
    refused(save(OBLIQUE.image(noise), tmp_path / "labels.nrrd"), "no label map")


@pytest.mark.parametrize("count", [1, 3])
def test_labels_without_landmarks(tmp_path: Path, count: int) -> None:
    """Nothing at all, and a gland with two empty channels."""
    parts = [ball() * (count > 1)] + [ball() * 0] * (count - 1)
    refused(save(sitk.JoinSeries(parts), tmp_path / "labels.nrrd"), "no landmarks")


def test_label_off_its_image(tmp_path: Path) -> None:
    away = Grid(SIZE_VOX, SPACING_MM, (300.0, 0.0, 0.0), OBLIQUE.direction)
    refused(save(ball(away, radius_mm=3), tmp_path / "labels.nrrd"), "Landmark 1", "off its image")


def test_label_that_slips_between_the_voxels(tmp_path: Path) -> None:
    """A label of one voxel of 0.2 mm, half-way between voxel centres of the image."""
    start = (OBLIQUE.index_to_point @ [10.5, 10.5, 10.5, 1])[:3] - 1.0
    grid = Grid((11, 11, 11), (0.2,) * 3, tuple(start.tolist()))
    array = np.zeros((11, 11, 11), np.uint8)
    array[5, 5, 5] = 1
    refused(save(grid.image(array), tmp_path / "labels.nrrd"), "too small", "as a point")


# --- pairs ---------------------------------------------------------------------------------------------


def points(*names: str, labels: bool = False) -> Landmarks:
    """Landmarks at (n, 0, 0), n being their place in the list."""
    positions = np.array([[float(n), 0, 0] for n in range(len(names))])
    return Landmarks(names, positions, (ball(),) * len(names) if labels else ())


def test_pairs_by_name_in_the_order_of_the_mr() -> None:
    pairs = pair_landmarks(points("a", "B", "c"), points("c", "A", "b"), "mr.csv", "trus.csv")
    assert pairs.mr.names == pairs.trus.names == ("a", "B", "c")
    np.testing.assert_array_equal(pairs.mr.points_mm[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(pairs.trus.points_mm[:, 0], [1, 2, 0])
    assert pairs.warnings == ()


@pytest.mark.parametrize(
    ("mr", "trus"),
    [(("F-1", "F-2"), ("MR points-2", "MR points-1")), (("1", "3"), ("landmark 2", "landmark 1"))],
)
def test_default_names_pair_by_number(mr: tuple, trus: tuple) -> None:
    pairs = pair_landmarks(points(*mr), points(*trus), "mr.csv", "trus.csv")
    assert pairs.mr.names == pairs.trus.names == mr
    np.testing.assert_array_equal(pairs.trus.points_mm[:, 0], [1, 0])
    assert [w.code for w in pairs.warnings] == ["landmarks_paired_by_number"]
    assert f"{mr[0]} with {trus[1]}" in pairs.warnings[0].message


@pytest.mark.parametrize(
    ("mr", "trus", "missing"),
    [
        (("a", "b"), ("a",), "b of mr.csv"),
        (("a",), ("a", "c"), "c of trus.csv"),
        (("a", "b"), ("c", "d"), "a of mr.csv, b of mr.csv, c of trus.csv, d of trus.csv"),
        (("F-1", "F-2"), ("G-1", "G-2", "G-3"), "F-1 of mr.csv"),
        (("F-1", "F-2"), ("apex 1", "base 2"), "base 2 of trus.csv"),
    ],
)
def test_points_without_partner(mr: tuple, trus: tuple, missing: str) -> None:
    with pytest.raises(InputError, match=f"without a partner: .*{missing}"):
        pair_landmarks(points(*mr), points(*trus), "mr.csv", "trus.csv")


def test_label_without_partner_is_left_out_with_a_warning() -> None:
    mr, trus = points("a", "b", "c", labels=True), points("a", "c", labels=True)
    pairs = pair_landmarks(mr, trus, "mr.nii", "trus.nii")
    assert pairs.mr.names == pairs.trus.names == ("a", "c")
    assert len(pairs.mr.labels) == len(pairs.trus.labels) == 2
    np.testing.assert_array_equal(pairs.mr.points_mm[:, 0], [0, 2])
    assert [w.code for w in pairs.warnings] == ["landmark_unpaired"]
    assert "b of mr.nii" in pairs.warnings[0].message


def test_labels_with_nothing_in_common() -> None:
    with pytest.raises(InputError, match="without a partner"):
        pair_landmarks(points("a", labels=True), points("b", labels=True), "mr.nii", "trus.nii")
