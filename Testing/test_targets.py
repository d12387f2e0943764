"""Targets carried from MR to TRUS, where they lie in the gland, and their files."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from shapes import OBLIQUE, array, bump_mm, cube_grid, ellipsoid, turned

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, mask_volume_ml, reordered_direction
from MRTRUSRegistrationLib.images import LoadedImage
from MRTRUSRegistrationLib.landmark_files import NamedPoints, read_points, write_points
from MRTRUSRegistrationLib.results import GlandSegmentation
from MRTRUSRegistrationLib.segments import read_segments
from MRTRUSRegistrationLib.target_files import (
    SEGMENTS,
    read_targets,
    read_targets_csv,
    targets_csv,
    write_target_segments,
    write_targets,
)
from MRTRUSRegistrationLib.targets import (
    Target,
    TargetRow,
    TrusGland,
    carry_targets,
    describe_target,
    move_target,
)
from MRTRUSRegistrationLib.transforms import compose, field_transform, transform_points_mm
from MRTRUSRegistrationLib.volume_files import open_volume

CENTRE = np.array([12.0, -30.0, 45.0])
TILT = turned(0.2, -0.15, 0.3)
TRUS_GRID = Grid.centred(CENTRE, (90, 80, 86), (0.7, 0.8, 0.75), TILT)
MR_GRID = Grid.centred(np.array([-20.0, 14.0, 5.0]), (80, 80, 70), (0.9, 0.9, 1.0), turned(-0.1, 0.05, 0.1))
# Maps the TRUS gland's centre to the middle of the MR.
RIGID = sitk.Euler3DTransform(CENTRE.tolist(), 0.1, -0.2, 0.15, (MR_GRID.centre_mm - CENTRE).tolist())
FIELD = field_transform(bump_mm(TRUS_GRID, (5.0, -3.0, 4.0), width_mm=10.0), TRUS_GRID)
IDENTITY = sitk.TranslationTransform(3)
RADIUS_MM = 20.0


@pytest.fixture(scope="module")
def ball() -> sitk.Image:
    return ellipsoid(TRUS_GRID, (RADIUS_MM,) * 3, centre_mm=tuple(CENTRE.tolist()))


@pytest.fixture(scope="module")
def gland(ball: sitk.Image) -> TrusGland:
    return TrusGland.of(ball)


def lesion(trus_mm: np.ndarray, radius_mm: float = 5.0) -> sitk.Image:
    """A ball on the MR whose centre corresponds to a TRUS point by the rigid transform."""
    return ellipsoid(MR_GRID, (radius_mm,) * 3, centre_mm=RIGID.TransformPoint(trus_mm.tolist()))


def loaded(image: sitk.Image) -> LoadedImage:
    return LoadedImage(sitk.Cast(image, sitk.sitkFloat32), Path("mr.nii.gz"), "MR", Grid.of(image))


# --- the capsule ---------------------------------------------------------------------------------------


def test_distance_to_the_capsule_of_a_ball() -> None:
    """On fine oblique voxels the answer is exact to a tenth of a millimetre, inside and outside."""
    grid = cube_grid(72, 0.25, turned(0.3, -0.4, 0.2))
    gland = TrusGland.of(ellipsoid(grid, (8.0,) * 3))
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = rng.uniform(0, 30, 500)
    found = gland.surface.distance_mm(directions * radii[:, None])
    assert np.abs(found - (8.0 - radii)).max() < 0.13
    assert np.abs(found - (8.0 - radii)).mean() < 0.04


def test_distance_is_below_half_a_voxel_off_on_coarse_voxels(gland: TrusGland) -> None:
    rng = np.random.default_rng(1)
    directions = rng.normal(size=(500, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    radii = rng.uniform(0, 30, 500)
    error = gland.surface.distance_mm(CENTRE + directions * radii[:, None]) - (RADIUS_MM - radii)
    assert np.abs(error).max() < 0.4
    assert np.abs(error).mean() < 0.1


def test_distance_between_two_faces_of_a_box() -> None:
    """The faces of a mask lie between its voxels: a box of 20 voxels of 1 mm is 20 mm thick."""
    voxels = np.zeros((40, 40, 40), np.uint8)
    voxels[10:30, 5:35, 5:35] = 1
    gland = TrusGland.of(cube_grid(40, 1.0).image(voxels))
    heights = np.array([-12.0, -10.0, -9.3, -4.1, 0.0, 6.2, 10.0, 15.5])
    points = np.column_stack([np.zeros((8, 2)), heights])
    np.testing.assert_allclose(gland.surface.distance_mm(points), 10 - np.abs(heights), atol=0.01)


def test_a_gland_cut_by_the_image_border_is_closed_there() -> None:
    voxels = np.zeros((30, 30, 30), np.uint8)
    voxels[:12] = 1
    gland = TrusGland.of(cube_grid(30, 1.0).image(voxels))
    # Voxel k = 0 is the border: its outer face is the surface, 1.5 voxels from the centre of k = 1.
    assert gland.surface.distance_mm(np.array([[0, 0, -13.5]]))[0] == pytest.approx(1.5, abs=0.05)


def test_an_empty_gland_is_refused() -> None:
    with pytest.raises(InputError, match="mask of the TRUS is empty"):
        TrusGland.of(TRUS_GRID.blank())


# --- where in the gland --------------------------------------------------------------------------------


@pytest.mark.parametrize("up_mm", [-20.0, -14.0, -3.0, 0.0, 12.0, 20.0, 26.0])
def test_height_runs_from_apex_to_base_along_the_patient(gland: TrusGland, up_mm: float) -> None:
    """The patient's axis, not the oblique grid's."""
    expected = (up_mm + RADIUS_MM) / (2 * RADIUS_MM)
    point = np.add(CENTRE, (7.0, 3.0, up_mm))
    assert gland.apex_to_base(point) == pytest.approx(expected, abs=0.01)
    assert gland.third(point) == ("apex" if expected < 0.33 else "mid" if expected < 0.67 else "base")


@pytest.mark.parametrize(
    ("x_mm", "side"),
    [(-12.0, "right"), (-5.2, "right"), (-4.8, "midline"), (4.8, "midline"), (5.2, "left"), (15.0, "left")],
)
def test_left_is_the_patients_left(gland: TrusGland, x_mm: float, side: str) -> None:
    assert gland.side(np.add(CENTRE, (x_mm, 9.0, -6.0))) == side


def test_stated_axes_overrule_the_header(ball: sitk.Image) -> None:
    """The header says nothing; the index axes run to the back, to the right and to the head."""
    turned_gland = TrusGland.of(GlandSegmentation(ball, axes="PRS"))
    to_back, to_right, to_head = np.reshape(TILT, (3, 3)).T
    assert turned_gland.side(CENTRE + 10 * to_right) == "right"
    assert turned_gland.side(CENTRE - 10 * to_right + 10 * to_back) == "left"
    assert turned_gland.apex_to_base(CENTRE + 10 * to_head) == pytest.approx(0.75, abs=0.01)
    upside_down = TrusGland.of(ball, axes="LAI")
    assert upside_down.apex_to_base(CENTRE + 10 * to_head) == pytest.approx(0.25, abs=0.01)
    same = TrusGland.of(ball, axes="LPS")
    np.testing.assert_allclose(same.left, to_back)
    np.testing.assert_allclose(reordered_direction(TILT, "LPS", "LPS"), TILT)


# --- carrying ------------------------------------------------------------------------------------------


def test_points_go_through_the_exact_inverse(gland: TrusGland) -> None:
    """There and back with SimpleITK's own transform, rigid alone and deformed."""
    trus_mm = CENTRE + np.random.default_rng(2).uniform(-9, 9, (6, 3))
    for field in (None, FIELD):
        mr_mm = transform_points_mm(compose(RIGID, field), trus_mm)
        rows = carry_targets([Target(str(n), p) for n, p in enumerate(mr_mm)], RIGID, field, gland)
        np.testing.assert_allclose([row.trus_mm for row in rows], trus_mm, atol=1e-3)
        np.testing.assert_allclose([row.mr_mm for row in rows], mr_mm)
        depth = RADIUS_MM - np.linalg.norm(trus_mm - CENTRE, axis=1)
        np.testing.assert_allclose([row.capsule_mm for row in rows], depth, atol=0.4)
    moved = [row.trus_mm for row in carry_targets([Target("a", mr_mm[0])], RIGID, None, gland)]
    assert np.linalg.norm(moved[0] - trus_mm[0]) > 1, "the field must move the points for this test to tell"


def test_positions_are_given_in_both_frames(gland: TrusGland) -> None:
    row = describe_target("a", (1.0, -2.0, 3.0), gland)
    assert (row.trus_mm, row.trus_ras_mm) == ((1.0, -2.0, 3.0), (-1.0, 2.0, 3.0))


def test_a_label_keeps_its_place_and_volume(gland: TrusGland) -> None:
    place = np.add(CENTRE, (8.0, -5.0, 3.0))
    label = lesion(place)
    (row,) = carry_targets([Target("L1", mask_centroid_mm(label), label)], RIGID, None, gland)
    np.testing.assert_allclose(row.trus_mm, place, atol=0.1)
    assert row.label is not None
    assert Grid.of(row.label).same_as(TRUS_GRID)
    assert row.label.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_allclose(mask_centroid_mm(row.label), row.trus_mm)
    assert row.mr_ml == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.03)
    assert row.trus_ml == pytest.approx(row.mr_ml, rel=0.03)
    assert row.warnings == ()


def test_a_label_is_resampled_as_by_the_whole_transform(gland: TrusGland) -> None:
    """Only a part of the grid is computed: the same voxels as SimpleITK gives on all of it."""
    label = lesion(np.add(CENTRE, (3.0, 4.0, -2.0)), 7.0)
    (row,) = carry_targets([Target("L1", mask_centroid_mm(label), label)], RIGID, FIELD, gland)
    soft = sitk.Resample(
        sitk.Cast(label, sitk.sitkFloat32), TRUS_GRID.blank(), compose(RIGID, FIELD), sitk.sitkLinear
    )
    np.testing.assert_array_equal(array(row.label), array(soft) > 0.5)
    assert array(row.label).sum() > 1000


def test_a_label_cut_by_the_view_keeps_its_true_centre() -> None:
    """Most of it sticks out of the TRUS volume: the warning says so, the centre is not that of the rest."""
    grid = cube_grid(40, 1.0)
    gland = TrusGland.of(ellipsoid(grid, (15, 15, 15)))
    mr = Grid.centred(np.zeros(3), (80, 80, 80), (1.0,) * 3, turned(0, 0, 0))
    label = ellipsoid(mr, (6, 6, 6), centre_mm=(21.0, 0.0, 0.0))
    (row,) = carry_targets([Target("edge", mask_centroid_mm(label), label)], IDENTITY, None, gland)
    np.testing.assert_allclose(row.trus_mm, (21.0, 0, 0), atol=0.05)
    # A cap of 5 mm of a ball of 6 mm radius is 37.6 % of it.
    assert row.trus_ml == pytest.approx(row.mr_ml * 0.376, rel=0.03)
    codes = [w.code for w in row.warnings]
    assert codes == ["target_outside_gland", "target_outside_view", "target_cut"]
    assert "lies 6.0 mm outside" in row.warnings[0].message
    assert "Only 3" in row.warnings[2].message


def test_a_label_out_of_view_has_a_place_but_no_voxels() -> None:
    gland = TrusGland.of(ellipsoid(cube_grid(40, 1.0), (15, 15, 15)))
    mr = Grid.centred(np.array([50.0, 0.0, -60.0]), (20, 20, 20), (1.0,) * 3, turned(0, 0, 0))
    label = ellipsoid(mr, (5, 5, 5), centre_mm=(50.0, 0.0, -60.0))
    (row,) = carry_targets([Target("far", mask_centroid_mm(label), label)], IDENTITY, None, gland)
    np.testing.assert_allclose(row.trus_mm, (50, 0, -60), atol=0.05)
    assert row.trus_ml == 0
    assert "target_outside_view" in [w.code for w in row.warnings]
    assert row.apex_to_base < 0


def test_a_label_below_the_voxels_of_the_trus_is_carried_as_a_point() -> None:
    gland = TrusGland.of(ellipsoid(cube_grid(20, 3.0), (24, 24, 24)))
    fine = cube_grid(60, 0.3)
    label = ellipsoid(fine, (0.5, 0.5, 0.5), centre_mm=(0.0, 0.0, 0.0))
    (row,) = carry_targets([Target("dot", mask_centroid_mm(label), label)], IDENTITY, None, gland)
    np.testing.assert_allclose(row.trus_mm, (0, 0, 0), atol=0.3)
    assert [w.code for w in row.warnings] == ["target_too_small"]


def test_an_empty_label_is_refused(gland: TrusGland) -> None:
    with pytest.raises(InputError, match="target L1 has no voxels"):
        carry_targets([Target("L1", np.zeros(3), MR_GRID.blank())], RIGID, None, gland)


def test_a_target_without_a_position_is_refused(gland: TrusGland) -> None:
    with pytest.raises(InputError, match="target L1 has no finite position"):
        describe_target("L1", (np.nan, 0, 0), gland)


def test_spread_is_that_of_the_map_there(ball: sitk.Image, gland: TrusGland) -> None:
    """A map that grows to the left; a point has its voxel's value, a label its mean, nothing outside."""
    inside = array(ball) > 0
    to_left = np.moveaxis(np.indices(inside.shape), 0, -1)[..., ::-1] @ TRUS_GRID.index_to_point[0, :3]
    values = np.where(inside, 10 + 0.1 * (to_left + TRUS_GRID.origin_mm[0] - CENTRE[0]), 0)
    confidence = TRUS_GRID.image(values.astype(np.float32))
    place = np.add(CENTRE, (8.0, -5.0, 3.0))
    label = lesion(place)
    targets = [Target("label", mask_centroid_mm(label), label)]
    targets += [Target("point", np.array(RIGID.TransformPoint(np.subtract(CENTRE, (6, 0, 0)).tolist())))]
    targets += [Target("outside", np.array(RIGID.TransformPoint(np.add(CENTRE, (0, 0, 25)).tolist())))]
    targets += [Target("far", np.array(RIGID.TransformPoint(np.add(CENTRE, (0, 0, 90)).tolist())))]
    rows = carry_targets(targets, RIGID, None, gland, confidence=confidence)
    assert rows[0].spread_mm == pytest.approx(10.8, abs=0.02)
    assert rows[1].spread_mm == pytest.approx(9.4, abs=0.08)
    assert (rows[2].spread_mm, rows[3].spread_mm) == (None, None)


# --- moving by hand ------------------------------------------------------------------------------------


def test_moving_a_target_moves_its_label_and_counts_the_way(gland: TrusGland) -> None:
    place = np.add(CENTRE, (8.0, -5.0, 3.0))
    label = lesion(place)
    (row,) = carry_targets([Target("L1", mask_centroid_mm(label), label)], RIGID, None, gland)
    moved = move_target(move_target(row, (-3.0, 4.0, 0.0), gland), (0, 0, 2.0), gland)
    np.testing.assert_allclose(moved.trus_mm, np.add(row.trus_mm, (-3, 4, 2)))
    np.testing.assert_allclose(mask_centroid_mm(moved.label), moved.trus_mm, atol=0.2)
    assert moved.moved_mm == pytest.approx(7.0)
    assert (moved.mr_mm, moved.mr_ml) == (row.mr_mm, row.mr_ml)
    assert moved.trus_ml == pytest.approx(row.trus_ml, rel=0.05)
    expected = RADIUS_MM - np.linalg.norm(np.array(moved.trus_mm) - CENTRE)
    assert moved.capsule_mm == pytest.approx(expected, abs=0.4)


# --- reading -------------------------------------------------------------------------------------------


def test_points_are_read_in_every_format(tmp_path: Path) -> None:
    points = MR_GRID.centre_mm + np.array([[1.0, 2, 3], [-4, 5, -6]])
    mr = loaded(MR_GRID.blank())
    for name in ("t.mrk.json", "t.csv"):
        write_points(NamedPoints(("L1", "L2"), points), tmp_path / name)
        found = read_targets(tmp_path / name, mr)
        assert [target.name for target in found] == ["L1", "L2"]
        np.testing.assert_allclose([target.point_mm for target in found], points)
        assert found[0].label is None
    (tmp_path / "ras.csv").write_text(f"name,x,y,z\nL1,{-points[0][0]},{-points[0][1]},{points[0][2]}\n")
    (found,) = read_targets(tmp_path / "ras.csv", mr, frame="RAS")
    np.testing.assert_allclose(found.point_mm, points[0])


@pytest.mark.parametrize("pixel", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkFloat64])
def test_a_label_map_has_one_target_a_value(tmp_path: Path, pixel: int) -> None:
    middle = MR_GRID.centre_mm
    first = ellipsoid(MR_GRID, (5, 5, 5), centre_mm=tuple(np.add(middle, (10.0, 0, 0))))
    second = ellipsoid(MR_GRID, (4, 4, 4), centre_mm=tuple(np.subtract(middle, (10.0, 0, 0))))
    sitk.WriteImage(sitk.Cast(first + 3 * second, pixel), str(tmp_path / "map.nii.gz"))
    found = read_targets(tmp_path / "map.nii.gz", loaded(MR_GRID.blank()))
    assert [target.name for target in found] == ["target 1", "target 3"]
    np.testing.assert_allclose(found[1].point_mm, np.subtract(middle, (10.0, 0, 0)), atol=0.1)
    np.testing.assert_array_equal(array(found[0].label), array(first))


def bad_file(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.nii.gz"
    if kind == "empty":
        sitk.WriteImage(MR_GRID.blank(), str(path))
    elif kind == "probabilities":
        sitk.WriteImage(MR_GRID.image(np.random.default_rng(0).random((70, 80, 80))), str(path))
    elif kind == "channels":
        sitk.WriteImage(sitk.JoinSeries([MR_GRID.blank(), MR_GRID.blank()]), str(path))
    elif kind == "elsewhere":
        away = replace(OBLIQUE, origin_mm=(500.0, 0.0, 0.0))
        sitk.WriteImage(ellipsoid(away, (90, 90, 90), centre_mm=(500.0, 0, 0)), str(path))
    elif kind == "tiny":
        dot = ellipsoid(Grid.centred(MR_GRID.centre_mm + 0.45, (9,) * 3, (0.1,) * 3, TILT), (9, 9, 9))
        dot[4, 4, 4] = 1
        sitk.WriteImage(dot, str(path))
    elif kind == "table":
        path = folder / "targets.csv"
        path.write_text(targets_csv([]))
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "does not exist"),
        ("empty", "empty.nii.gz holds no targets"),
        ("probabilities", "probabilities.nii.gz is no label map"),
        ("channels", "channels.nii.gz holds several volumes"),
        ("elsewhere", "Target target 1 of elsewhere.nii.gz lies off its image"),
        ("tiny", "Target target 1 of tiny.nii.gz is too small"),
        ("table", "targets.csv is the table of a result"),
    ],
)
def test_files_that_cannot_be_used_get_one_sentence(tmp_path: Path, kind: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_targets(bad_file(kind, tmp_path), loaded(MR_GRID.blank()))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


# --- writing -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(gland: TrusGland) -> tuple[TargetRow, ...]:
    """A label, a second one that overlaps it, a point with a comma in its name outside of the gland."""
    first, second = lesion(np.add(CENTRE, (8.0, -5.0, 3.0))), lesion(np.add(CENTRE, (12.0, -5.0, 3.0)))
    targets = [
        Target(name, mask_centroid_mm(m), m) for name, m in (("L1", first), ("L2 (PI-RADS 4)", second))
    ]
    targets.append(
        Target('apex, "far"', np.array(RIGID.TransformPoint(np.subtract(CENTRE, (0, 0, 23)).tolist())))
    )
    confidence = TRUS_GRID.image(np.full(TRUS_GRID.size_vox[::-1], 1.25, np.float32))
    carried = carry_targets(targets, RIGID, None, gland, confidence=confidence)
    return (*carried[:2], replace(carried[2], moved_mm=1.5))


def test_the_table_comes_back(tmp_path: Path, rows: tuple[TargetRow, ...]) -> None:
    path = tmp_path / "targets.csv"
    path.write_text(targets_csv(rows), encoding="utf-8")
    found = read_targets_csv(path)
    assert len(found) == 3
    for row, back in zip(rows, found, strict=True):
        assert (back.name, back.side, back.third, back.warnings) == (
            row.name,
            row.side,
            row.third,
            row.warnings,
        )
        np.testing.assert_allclose(back.trus_mm, row.trus_mm, atol=6e-4)
        np.testing.assert_allclose(back.mr_mm, row.mr_mm, atol=6e-4)
        for name in ("capsule_mm", "apex_to_base", "mr_ml", "trus_ml", "spread_mm", "moved_mm"):
            assert getattr(back, name) == pytest.approx(getattr(row, name), abs=6e-4), name
    assert found[2].warnings[0].code == "target_outside_gland"
    assert found[2].mr_ml is None


def test_the_columns_name_their_frame(rows: tuple[TargetRow, ...]) -> None:
    record = next(csv.DictReader(targets_csv(rows).splitlines()))
    lps = [float(record[name]) for name in ("x_lps_mm", "y_lps_mm", "z_lps_mm")]
    ras = [float(record[name]) for name in ("r_ras_mm", "a_ras_mm", "s_ras_mm")]
    np.testing.assert_allclose(lps, rows[0].trus_mm, atol=6e-4)
    np.testing.assert_allclose(ras, np.multiply(lps, (-1, -1, 1)))
    assert record["space"] == "TRUS"


def test_the_table_is_also_a_list_of_points(tmp_path: Path, rows: tuple[TargetRow, ...]) -> None:
    (tmp_path / "targets.csv").write_text(targets_csv(rows), encoding="utf-8")
    points = read_points(tmp_path / "targets.csv")
    assert points.names == tuple(row.name for row in rows)
    np.testing.assert_allclose(points.points_mm, [row.trus_mm for row in rows], atol=6e-4)


@pytest.mark.parametrize(
    "text",
    ["", "name,x_lps_mm\nL1,3\n", targets_csv([]).replace("\n", "") + "\nL1,TRUS,one" + "," * 17 + "\n"],
)
def test_other_tables_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(InputError, match=r"other\.csv is (not a table of targets|an empty file)"):
        read_targets_csv(tmp_path / "other.csv")


def test_segments_come_back_whole_though_they_overlap(tmp_path: Path, rows: tuple[TargetRow, ...]) -> None:
    assert (array(rows[0].label) & array(rows[1].label)).any(), "they must overlap for this test to tell"
    written = write_targets(rows, tmp_path)
    assert [path.name for path in written] == ["targets.csv", "targets.mrk.json", SEGMENTS]
    volume = open_volume(tmp_path / SEGMENTS)
    segments = read_segments(volume)
    assert [segment.name for segment in segments] == ["L1", "L2 (PI-RADS 4)"]
    for segment, row in zip(segments, rows, strict=False):
        assert Grid.of(segment.mask).same_as(TRUS_GRID)
        np.testing.assert_array_equal(array(segment.mask), array(row.label))
        assert mask_volume_ml(segment.mask) == pytest.approx(row.trus_ml)
    np.testing.assert_allclose(
        read_points(tmp_path / "targets.mrk.json").points_mm, [row.trus_mm for row in rows]
    )


def test_points_alone_write_no_segments(tmp_path: Path, rows: tuple[TargetRow, ...]) -> None:
    assert len(write_targets(rows[2:], tmp_path)) == 2
    with pytest.raises(ValueError, match="No mask has voxels"):
        write_target_segments(rows[2:], tmp_path / SEGMENTS)


@pytest.mark.parametrize("overlapping", [True, False])
def test_slicer_reads_the_segments(tmp_path: Path, rows: tuple[TargetRow, ...], overlapping: bool) -> None:
    slicer = pytest.importorskip("slicer")
    from vtk.util.numpy_support import vtk_to_numpy

    chosen = rows[:2] if overlapping else rows[:1]
    write_target_segments(chosen, tmp_path / SEGMENTS)
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / SEGMENTS))
    assert storage.ReadData(node)
    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    assert [segmentation.GetSegment(i).GetName() for i in ids] == [row.name for row in chosen]
    for number, row in zip(ids, chosen, strict=True):
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(number, image)
        count = int((vtk_to_numpy(image.GetPointData().GetScalars()) > 0).sum())
        assert count == int(array(row.label).sum())
