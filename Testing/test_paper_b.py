"""Paper B's preparation of images and its measures, on shapes and ramps with known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
import typer
from dataset_case import LANDMARKS_MM, write_dataset
from input_cases import OBLIQUE as DICOM_GRID
from input_cases import noise, write_dicom
from shapes import array, ellipsoid, points_mm, turned

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, mask_volume_ml, orientation_code
from MRTRUSTraining.data.augmentation import random_affine, random_displacement, random_intensity
from MRTRUSTraining.data.cases import find_cases, find_parts, load_case
from MRTRUSTraining.paper_b.command import prepare_paper_b
from MRTRUSTraining.paper_b.measures import registration_figures, segmentation_figures
from MRTRUSTraining.paper_b.preprocessing import (
    equalised,
    harmonised,
    kept_slices,
    prepare,
    resized_image,
    standard_grid,
    trimmed,
)
from MRTRUSTraining.paper_b.settings import HarmonisationSettings, PaperBSettings, SideSettings
from MRTRUSTraining.row import find_row
from MRTRUSTraining.segmentation_training import SegmentationSettings

SETTINGS = PaperBSettings()
OBLIQUE = Grid.centred(np.array((12.0, -30.0, 7.0)), (90, 70, 40), (0.9, 0.9, 1.8), turned(0.3, -0.2, 0.4))
SLOPE = np.array([0.7, -1.1, 0.4])


def ramp(grid: Grid) -> sitk.Image:
    """Values that grow linearly with the place in the world."""
    return grid.image((500 + points_mm(grid) @ SLOPE).astype(np.float32))


# --- trimming and size ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "count", "kept"),
    [("mr", 16, (1, 14)), ("mr", 30, (3, 26)), ("trus", 88, (22, 76)), ("trus", 40, (10, 34))],
)
def test_slices_that_the_paper_keeps(side: str, count: int, kept: tuple[int, int]) -> None:
    """MR: 10 % at both ends; TRUS: the first 25 %, the last 12.5 %; whole slices only."""
    assert kept_slices(count, getattr(SETTINGS, side)) == kept


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_trimming_keeps_world_positions(axis: int) -> None:
    image = ramp(OBLIQUE)
    cut = trimmed(image, axis, 5, 21)
    assert cut.GetSize()[axis] == 17
    np.testing.assert_allclose(array(cut), 500 + points_mm(Grid.of(cut)) @ SLOPE, atol=1e-3)


def test_slices_of_one_size_show_the_largest_rectangle_with_square_pixels() -> None:
    """81 × 63 mm slices: 118 × 88 pixels of 0.6864 mm, as the first side is the tighter one."""
    grid = standard_grid(OBLIQUE, SETTINGS.trus)
    assert grid.size_vox == (118, 88, 40)
    assert grid.spacing_mm == pytest.approx((81 / 118, 81 / 118, 1.8))
    np.testing.assert_allclose(grid.centre_mm, OBLIQUE.centre_mm, atol=1e-9)
    square = standard_grid(OBLIQUE, SETTINGS.mr)
    assert square.size_vox == (160, 160, 40)
    assert square.spacing_mm == pytest.approx((63 / 160, 63 / 160, 1.8))


def test_the_longer_side_gets_more_pixels_whatever_the_order_of_the_axes() -> None:
    """The public TRUS: 81 × 118 × 88 voxels, frames along the last axis, or along the first."""
    public = Grid((81, 118, 88), (0.8, 0.8, 0.8))
    assert standard_grid(public, SETTINGS.trus).size_vox == (88, 118, 88)
    other = SideSettings(0.25, 0.125, (118, 88), frame_axis=0)
    assert standard_grid(public, other).size_vox == (81, 118, 88)
    assert standard_grid(public, other).spacing_mm == pytest.approx((0.8, 0.8, 0.8))


@pytest.mark.parametrize("pixels", [(160, 160), (40, 32)])
def test_resizing_keeps_world_positions(pixels: tuple[int, int]) -> None:
    """Finer and coarser pixels, on an oblique grid; a linear ramp stays what it was but near the edge."""
    grid = standard_grid(OBLIQUE, SideSettings(0.1, 0.1, pixels))
    found = array(resized_image(ramp(OBLIQUE), grid))
    expected = 500 + points_mm(grid) @ SLOPE
    inner = (slice(None), slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(found[inner], expected[inner], atol=0.01)


def test_coarser_pixels_do_not_alias() -> None:
    """A checkerboard of single voxels becomes flat grey, not a moiré."""
    grid = Grid((120, 120, 4), (0.5, 0.5, 3.0))
    board = np.indices(grid.size_vox[::-1]).sum(axis=0) % 2 * 100.0
    coarse = standard_grid(grid, SideSettings(0.0, 0.0, (37, 37)))
    found = array(resized_image(grid.image(board.astype(np.float32)), coarse))[:, 3:-3, 3:-3]
    assert found.mean() == pytest.approx(50, abs=1)
    assert found.std() < 3


def test_labels_go_with_their_image() -> None:
    """A ball keeps its place and its volume; slices beyond the kept ones are gone."""
    place = OBLIQUE.centre_mm + np.array((4.0, -3.0, 2.0))
    ball = ellipsoid(OBLIQUE, (9, 9, 9), centre_mm=tuple(place))
    found = prepare(ramp(OBLIQUE), (ball,), SETTINGS.trus, name="a")
    assert found.slices == (10, 34)
    assert found.image.GetSize() == (118, 88, 25)
    assert Grid.of(found.labels[0]) == Grid.of(found.image)
    np.testing.assert_allclose(mask_centroid_mm(found.labels[0]), place, atol=0.2)
    assert mask_volume_ml(found.labels[0]) == pytest.approx(4 / 3 * np.pi * 0.729, rel=0.03)


@pytest.mark.parametrize(
    ("beyond_mm", "share"), [(-3.5, 1.0), (-2.0, 0.93), (-1.0, 0.74), (0.0, 0.5), (9.0, 0.0)]
)
def test_a_landmark_that_trimming_cuts_is_emptied_not_moved(beyond_mm: float, share: float) -> None:
    """A ball of 3 mm radius whose centre lies that far beyond the last plane that is kept; the gland stays.

    Of a ball with a cap of height h gone, π h² (3 r - h) / 3 of 4 π r³ / 3 is lost.
    """
    grid = Grid((60, 60, 120), (0.5, 0.5, 0.5))
    edge_mm = 0.5 * (kept_slices(120, SETTINGS.trus)[1] + 0.5)
    ball = ellipsoid(grid, (3, 3, 3), centre_mm=(15.0, 15.0, edge_mm + beyond_mm))
    found = prepare(ramp(grid), (ball, ball), SETTINGS.trus, name="a")
    assert found.kept == pytest.approx((share, share), abs=0.04)
    assert found.left_out == (() if share > 0.9 else (1,))
    assert array(found.labels[1]).any() == (share > 0.9)
    assert array(found.labels[0]).any() == (share > 0)
    if share > 0.9:
        np.testing.assert_allclose(mask_centroid_mm(found.labels[1]), mask_centroid_mm(ball), atol=0.3)


def test_an_empty_label_is_no_landmark_left_out() -> None:
    ball = ellipsoid(OBLIQUE, (9, 9, 9), centre_mm=tuple(OBLIQUE.centre_mm))
    found = prepare(ramp(OBLIQUE), (ball, ball * 0), SETTINGS.trus, name="a")
    assert (found.kept, found.left_out) == ((1.0, None), ())


def test_too_few_slices_are_refused() -> None:
    thin = Grid((40, 40, 9), (1.5, 1.5, 4.0))
    with pytest.raises(InputError, match=r"scan\.nii has 9 slices"):
        prepare(ramp(thin), (), SETTINGS.trus, name="scan.nii")


# --- harmonisation -------------------------------------------------------------------------------------


def test_equalised_values_are_uniform_and_black_stays_black() -> None:
    scaled = np.random.default_rng(0).uniform(0, 1, 40_000) ** 0.6
    scaled[:10_000] = 0
    found = equalised(scaled, 256)
    assert np.all(found[:10_000] == 0)
    shares = np.percentile(found[10_000:], [10, 25, 50, 75, 90])
    np.testing.assert_allclose(shares, [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.01)
    order = np.argsort(scaled)
    assert np.all(np.diff(found[order]) >= 0)


def test_gamma_follows_the_equalisation() -> None:
    grid = Grid((30, 30, 12), (1.0, 1.0, 1.0))
    image = grid.image(np.random.default_rng(1).uniform(1, 900, (12, 30, 30)).astype(np.float32))
    plain = array(harmonised(image, HarmonisationSettings(gamma=1.0, sharpening=0.0)))
    darker = array(harmonised(image, HarmonisationSettings(gamma=2.0, sharpening=0.0)))
    np.testing.assert_allclose(darker, plain**2, atol=1e-5)
    assert (plain.min(), plain.max()) == (0.0, 1.0)
    assert plain.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("frame_axis", [0, 1, 2])
def test_sharpening_acts_within_the_slices_alone(frame_axis: int) -> None:
    """A step between slices stays; a step within them overshoots by the factor of the Laplacian."""
    grid, settings = Grid((16, 16, 16), (1.0, 1.0, 1.0)), HarmonisationSettings((0.0, 100.0), gamma=1.0)
    for axis in range(3):
        index = np.indices((16, 16, 16))[2 - axis]
        image = grid.image(np.choose(index // 4 % 4, [0.0, 1.0, 2.0, 3.0]).astype(np.float32))
        soft = array(harmonised(image, HarmonisationSettings((0.0, 100.0), gamma=1.0, sharpening=0.0)))
        sharp = array(harmonised(image, settings, frame_axis=frame_axis))
        if axis == frame_axis:
            np.testing.assert_allclose(sharp, soft, atol=1e-6)
        else:
            line = np.moveaxis(sharp - soft, 2 - axis, 0)[:, 8, 8]
            step = np.moveaxis(soft, 2 - axis, 0)[:, 8, 8]
            # Voxel 7 is the last of its level, one step below voxel 8; voxel 8 rises by the same.
            assert line[7] == pytest.approx(-0.2 * (step[8] - step[7]), abs=1e-6)
            assert line[8] == pytest.approx(0.2 * (step[8] - step[7]), abs=1e-6)


# --- measures and augmentation -------------------------------------------------------------------------


def test_five_figures_of_a_segmentation() -> None:
    """Slabs of 10 and 12 slices of 20, eight in common: 16 right of 20, 4 mm apart at both faces."""
    grid = Grid((10, 10, 20), (1.0, 1.0, 2.0))
    predicted, reference = np.zeros((2, 20, 10, 10), np.uint8)
    predicted[2:12], reference[4:16] = 1, 1
    found = segmentation_figures(grid.image(predicted), grid.image(reference))
    assert found.dsc == pytest.approx(16 / 22)
    assert found.accuracy == pytest.approx((8 + 6) / 20)
    assert found.precision == pytest.approx(8 / 10)
    assert found.recall == pytest.approx(8 / 12)
    assert found.hd95_mm == pytest.approx(8.0)
    nothing = segmentation_figures(grid.image(predicted * 0), grid.image(reference))
    assert np.isnan(nothing.precision)
    assert (nothing.recall, nothing.dsc) == (0.0, 0.0)


def test_three_figures_of_a_registration() -> None:
    grid = Grid((12, 12, 12), (1.0, 1.0, 1.0))
    gland = ellipsoid(grid, (4, 4, 4), centre_mm=(6.0, 6.0, 6.0))
    points = np.array([[0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    found = registration_figures(gland, gland, points, points + np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0]]))
    assert (found.dsc, found.hd95_mm, found.tre_mm) == (1.0, 0.0, 3.0)
    assert np.isnan(registration_figures(gland, gland, np.empty((0, 3)), np.empty((0, 3))).tre_mm)
    with pytest.raises(ValueError, match="pairs"):
        registration_figures(gland, gland, points, points[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mr-2d", "mr-3d", "trus-2d", "trus-3d"])
def test_the_rows_rotate_translate_and_scale_only(name: str) -> None:
    method = find_row(f"paper-b-{name}").method
    assert isinstance(method, SegmentationSettings)
    rng, spread = np.random.default_rng(3), method.spatial
    matrices, shifts = zip(*(random_affine(rng, spread) for _ in range(200)), strict=True)
    for matrix in matrices[:20]:
        squared = matrix.T @ matrix
        np.testing.assert_allclose(squared, np.diag(np.diag(squared)), atol=1e-12)
    scales = np.log([np.sqrt(np.diag(m.T @ m)) for m in matrices])
    assert scales.std() == pytest.approx(0.08, rel=0.15)
    assert np.std(shifts) == pytest.approx(4.0, rel=0.15)
    field = random_displacement(rng, spread, (8, 9, 10)).numpy()
    np.testing.assert_allclose(np.diff(field, n=2, axis=2), 0, atol=1e-5)
    image = torch.rand(1, 1, 8, 9, 10)
    torch.testing.assert_close(random_intensity(image, rng, method.intensity), image)


# --- the command ---------------------------------------------------------------------------------------


def test_a_data_set_becomes_a_prepared_one(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "muregpro", ("a", "b"))
    split = {"train": ["a"], "val": ["b"], "patients": [["a"], ["b"]]}
    (tmp_path / "data" / "splits.json").write_text(json.dumps(split))
    prepare_paper_b(tmp_path / "data", tmp_path / "out")
    assert find_parts(tmp_path / "out", "muregpro") == {"train": ("a",), "val": ("b",)}
    case = load_case(find_cases(tmp_path / "out", "muregpro")[0])
    assert case.mr.GetSize() == (160, 160, 24)
    assert sorted(case.trus.GetSize()[:2]) == [88, 118]
    assert case.label_names == ("gland", "landmark 1", "landmark 2")
    for label, place in zip(case.mr_labels[1:], LANDMARKS_MM, strict=True):
        np.testing.assert_allclose(mask_centroid_mm(label), place, atol=0.6)
    record = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert record["settings"]["trus"]["first_share"] == 0.25
    assert record["settings"]["harmonisation"] is None
    trus = record["cases"][1]["trus"]
    assert (record["cases"][1]["case"], trus["slices_kept"]) == ("b", [7, 27])
    assert trus["prepared_size_vox"] == list(case.trus.GetSize())
    assert record["cases"][0]["mr"]["labels_kept"][0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_landmarks_that_are_cut_off_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second landmark of a in TRUS reaches into the first quarter of the frames, which is not kept."""
    write_dataset(tmp_path / "data", "muregpro", ("a", "b"))
    path = tmp_path / "data" / "us_labels" / "a.nii.gz"
    image = sitk.ReadImage(str(path))
    channels = array(image)
    channels[2] = 0
    channels[2, 5:9, 12:16, 12:16] = 1
    changed = sitk.GetImageFromArray(channels, isVector=False)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(path))
    prepare_paper_b(tmp_path / "data", tmp_path / "out")
    said = capsys.readouterr().out
    assert "1 landmark of 1 case" in said
    assert "left out: landmark 2 of a." in said
    first, second = (load_case(case) for case in find_cases(tmp_path / "out", "muregpro"))
    assert first.label_names == ("gland", "landmark 1")
    assert second.label_names == ("gland", "landmark 1", "landmark 2")
    record = json.loads((tmp_path / "out" / "prepared.json").read_text())["cases"][0]
    assert record["trus"]["labels"] == ["gland", "landmark 1", "landmark 2"]
    assert record["trus"]["labels_kept"][1:] == [1.0, 0.5]
    assert (record["mr"]["labels_left_out"], record["trus"]["labels_left_out"]) == ([], ["landmark 2"])


def test_public_volumes_get_their_axes_before_the_header_is_theirs(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "mrus", ("a",))
    prepare_paper_b(tmp_path / "data", tmp_path / "out")
    case = load_case(find_cases(tmp_path / "out", "muregpro")[0])
    assert orientation_code(case.mr.GetDirection()) == orientation_code(case.trus.GetDirection()) == "PRS"


def test_dicom_folders_become_harmonised_volumes(tmp_path: Path) -> None:
    """One case with DICOM slices and a label map; world positions are those of the slices."""
    (tmp_path / "in" / "p1").mkdir(parents=True)
    write_dicom(tmp_path / "in" / "p1" / "mr", noise())
    ball = ellipsoid(DICOM_GRID, (9, 9, 9), centre_mm=tuple(DICOM_GRID.centre_mm))
    sitk.WriteImage(ball, str(tmp_path / "in" / "p1" / "mr_labels.nrrd"))
    app = typer.Typer()
    app.command("prepare-paper-b")(prepare_paper_b)
    app.command("other")(lambda: None)
    arguments = ["prepare-paper-b", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--clinical"]
    assert run_app(app, arguments) == 0
    image = sitk.ReadImage(str(tmp_path / "out" / "mr_images" / "p1.nii.gz"))
    assert image.GetSize() == (160, 160, 20)
    assert 0 <= array(image).min() < array(image).max() <= 1
    labels = sitk.ReadImage(str(tmp_path / "out" / "mr_labels" / "p1.nii.gz"))
    np.testing.assert_allclose(mask_centroid_mm(labels), DICOM_GRID.centre_mm, atol=0.2)
    record = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert record["settings"]["harmonisation"]["gamma"] == 1.2
    assert record["cases"][0]["mr"]["acquisition"]["modality"] == "MR"
    assert "test" not in json.dumps(record), "the patient's ID stays out"
    assert not (tmp_path / "out" / "us_images").exists()


def test_what_the_command_refuses(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "muregpro", ("a",))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    for arguments, message in (
        ((tmp_path / "data", tmp_path / "full"), "not an empty folder"),
        ((tmp_path / "absent", tmp_path / "out"), "does not exist"),
        ((tmp_path / "full", tmp_path / "out"), "holds no cases"),
        ((tmp_path / "full" / "mine.txt", tmp_path / "out"), "neither a data set nor a folder"),
    ):
        with pytest.raises(InputError, match=message):
            prepare_paper_b(*arguments)
    with pytest.raises(InputError, match="'nifti'"):
        prepare_paper_b(tmp_path / "data", tmp_path / "out", layout="nifti")
    with pytest.raises(InputError, match="index axis"):
        prepare_paper_b(tmp_path / "data", tmp_path / "out", trus_frame_axis=3)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full" / "mine.txt").read_text() == "x"
