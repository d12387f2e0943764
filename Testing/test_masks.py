"""Reading gland masks, segments and the transform to start from."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from input_cases import OBLIQUE, SIZE_VOX, SPACING_MM, ball, loaded, noise, save

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, mask_volume_ml
from MRTRUSRegistrationLib.images import read_image
from MRTRUSRegistrationLib.input_transform import read_transform
from MRTRUSRegistrationLib.masks import check_same_patient, read_mask

BALL = sitk.GetArrayFromImage(ball())
SMALL = ball(radius_mm=2, shift_mm=(17, 0, 0))


def same_voxels(mask: sitk.Image, expected_kji: np.ndarray = BALL) -> None:
    assert mask.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), expected_kji)


def refused(path: Path, *fragments: str) -> None:
    with pytest.raises(InputError) as error:
        read_mask(path, loaded())
    for fragment in (path.name, *fragments):
        assert fragment in str(error.value)
    assert "\n" not in str(error.value)


# --- formats -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha", "mhd"])
def test_mask_on_its_image_grid_is_taken_as_it_is(tmp_path: Path, suffix: str) -> None:
    mask = read_mask(save(ball(), tmp_path / f"mask.{suffix}"), loaded())
    same_voxels(mask)
    assert Grid.of(mask) == OBLIQUE


@pytest.mark.parametrize("scale", [255, 3])
def test_every_label_that_is_not_zero_is_gland(tmp_path: Path, scale: int) -> None:
    labels = ball() * scale + sitk.Cast(ball(radius_mm=5), sitk.sitkUInt8) * (-1 if scale == 3 else 0)
    same_voxels(read_mask(save(labels, tmp_path / "mask.nrrd"), loaded()))


def test_probabilities_are_cut_at_one_half(tmp_path: Path) -> None:
    soft = np.where(BALL > 0, 0.51, 0.5).astype(np.float32)
    same_voxels(read_mask(save(OBLIQUE.image(soft), tmp_path / "mask.nii.gz"), loaded()))


def test_first_channel_of_four_dimensional_labels(tmp_path: Path) -> None:
    parts = [sitk.Cast(part, sitk.sitkFloat64) for part in (ball(), ball(radius_mm=3), SMALL)]
    path = save(sitk.JoinSeries(parts), tmp_path / "labels.nii.gz")
    same_voxels(read_mask(path, loaded()))


def test_mask_of_a_dicom_image_saved_with_float_rounding(tmp_path: Path) -> None:
    shifted = Grid(SIZE_VOX, SPACING_MM, tuple(v + 5e-4 for v in OBLIQUE.origin_mm), OBLIQUE.direction)
    same_voxels(read_mask(save(shifted.image(BALL), tmp_path / "mask.mha"), loaded()))


# --- grids and frames ----------------------------------------------------------------------------------


def test_mask_on_another_grid_is_resampled_in_world_space(tmp_path: Path) -> None:
    fine = Grid.centred(
        OBLIQUE.centre_mm + np.array([2, -1, 3]), (60, 60, 60), (0.7,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    )
    drawn = ball(fine, radius_mm=12)
    mask = read_mask(save(drawn, tmp_path / "mask.nrrd"), loaded())
    assert Grid.of(mask) == OBLIQUE
    np.testing.assert_allclose(mask_centroid_mm(mask), fine.centre_mm, atol=0.1)
    assert mask_volume_ml(mask) == pytest.approx(4 / 3 * np.pi * 1.2**3, rel=0.03)


def test_cropped_mask_gives_the_same_voxels(tmp_path: Path) -> None:
    inside = np.argwhere(BALL)
    (k0, j0, i0), (k1, j1, i1) = inside.min(0).tolist(), inside.max(0).tolist()
    cropped = ball()[i0 : i1 + 1, j0 : j1 + 1, k0 : k1 + 1]
    same_voxels(read_mask(save(cropped, tmp_path / "mask.nrrd"), loaded()))


@pytest.fixture
def relabelled(tmp_path: Path):
    """A TRUS with a default header whose axes were said to be PIR."""
    path = save(noise(Grid(SIZE_VOX, SPACING_MM)), tmp_path / "trus.nrrd")
    return read_image(path, role="TRUS", orientation="PIR")


def test_mask_moves_along_with_a_relabelled_image(tmp_path: Path, relabelled) -> None:
    drawn = ball(relabelled.file_grid, shift_mm=(4, 0, 0))
    mask = read_mask(save(drawn, tmp_path / "mask.nrrd"), relabelled)
    same_voxels(mask, sitk.GetArrayFromImage(drawn))
    # +x in the file is the first index axis, which now runs to posterior (+y).
    expected = mask_centroid_mm(drawn) - relabelled.file_grid.centre_mm
    np.testing.assert_allclose(expected[0], 4, atol=0.2)
    moved = mask_centroid_mm(mask) - relabelled.grid.centre_mm
    np.testing.assert_allclose(moved, [-expected[2], expected[0], -expected[1]], atol=1e-9)


def test_cropped_mask_moves_along_too(tmp_path: Path, relabelled) -> None:
    drawn = ball(relabelled.file_grid, radius_mm=11, shift_mm=(4, 0, 0))
    mask = read_mask(save(drawn[4:-2, 2:-3, 3:-2], tmp_path / "mask.nrrd"), relabelled)
    same_voxels(mask, sitk.GetArrayFromImage(drawn))


def test_mask_drawn_on_the_relabelled_image_stays_where_it_is(tmp_path: Path, relabelled) -> None:
    drawn = ball(relabelled.grid, shift_mm=(0, 4, 0))
    mask = read_mask(save(drawn, tmp_path / "mask.nrrd"), relabelled)
    np.testing.assert_allclose(mask_centroid_mm(mask), mask_centroid_mm(drawn), atol=1e-9)


# --- segmentations of 3D Slicer ------------------------------------------------------------------------


def segmentation(path: Path, names: list[str], masks: list[sitk.Image], **more: str) -> Path:
    """A .seg.nrrd with one layer whose values are 1, 2, …"""
    labels = masks[0] * 0
    for value, mask in enumerate(masks, start=1):
        labels = sitk.Maximum(labels, mask * value)
    for number, name in enumerate(names):
        entries = {"Name": name, "LabelValue": str(number + 1), "Layer": "0", "ID": f"Segment_{number}"}
        for key, text in entries.items():
            labels.SetMetaData(f"Segment{number}_{key}", text)
    return save(labels, path)


@pytest.mark.parametrize("name", ["Prostate", "prostate_gland", "GLAND", "my prostate 2"])
def test_segment_is_chosen_by_its_name(tmp_path: Path, name: str) -> None:
    path = segmentation(tmp_path / "case.seg.nrrd", ["lesion", name], [SMALL, ball()])
    same_voxels(read_mask(path, loaded()))


def test_whole_gland_wins_over_parts_named_after_it(tmp_path: Path) -> None:
    names = ["prostate tumour", "Prostate"]
    same_voxels(read_mask(segmentation(tmp_path / "case.seg.nrrd", names, [SMALL, ball()]), loaded()))


def test_only_segment_needs_no_name(tmp_path: Path) -> None:
    same_voxels(read_mask(segmentation(tmp_path / "case.seg.nrrd", ["Segment_1"], [ball()]), loaded()))


@pytest.mark.parametrize("names", [["a", "b"], ["prostate left", "prostate right"]])
def test_unclear_segments_are_named(tmp_path: Path, names: list[str]) -> None:
    path = segmentation(tmp_path / "case.seg.nrrd", names, [SMALL, ball()])
    refused(path, ", ".join(names), 'name it "prostate"')


def test_damaged_segment_list(tmp_path: Path) -> None:
    image = ball()
    image.SetMetaData("Segment0_Name", "prostate")
    image.SetMetaData("Segment0_Layer", "4")
    refused(save(image, tmp_path / "case.seg.nrrd"), "damaged list of segments")


def test_segmentation_written_by_slicer_with_overlapping_segments(tmp_path: Path) -> None:
    """Slicer writes overlapping segments as layers, on a grid cropped to what they fill."""
    write = pytest.importorskip("slicer_files", exc_type=ImportError).write_segmentation
    path = tmp_path / "case.seg.nrrd"
    write(path, {"lesion": ball(radius_mm=4), "Prostate": ball(), "apex": SMALL})
    assert sitk.ReadImage(str(path)).GetNumberOfComponentsPerPixel() == 2
    assert np.prod(sitk.ReadImage(str(path)).GetSize()) < 0.7 * np.prod(SIZE_VOX)
    same_voxels(read_mask(path, loaded()))


# --- bad masks -----------------------------------------------------------------------------------------


def test_mask_without_voxels(tmp_path: Path) -> None:
    refused(save(ball() * 0, tmp_path / "mask.nrrd"), "empty mask")


def test_mask_off_its_image(tmp_path: Path) -> None:
    away = Grid(SIZE_VOX, SPACING_MM, (300.0, 0.0, 0.0), OBLIQUE.direction)
    refused(save(ball(away), tmp_path / "mask.nrrd"), "off its image image.nrrd", "(0 % of it is inside)")


@pytest.mark.parametrize(("shift_mm", "accepted"), [(20.0, True), (28.0, False)])
def test_mask_partly_off_its_image(tmp_path: Path, shift_mm: float, accepted: bool) -> None:
    """The image reaches 24 mm from its middle along the first axis; half of a ball at 24 mm is inside."""
    shift = tuple((shift_mm * OBLIQUE.axes[:, 0]).tolist())
    grid = OBLIQUE.padded(20)
    path = save(ball(grid, shift_mm=shift), tmp_path / "mask.nrrd")
    if accepted:
        assert 1 < mask_volume_ml(read_mask(path, loaded())) < mask_volume_ml(ball())
    else:
        refused(path, "off its image")


def test_mask_that_fills_the_image(tmp_path: Path) -> None:
    refused(save(ball() * 0 + 1, tmp_path / "mask.nrrd"), "fills 100 %")


def test_mask_too_small_for_a_prostate(tmp_path: Path) -> None:
    refused(save(ball(radius_mm=8), tmp_path / "mask.nrrd"), "2.2 ml", "not a prostate")


def test_mask_too_large_for_a_prostate(tmp_path: Path) -> None:
    grid = Grid((40, 40, 40), (3.0,) * 3, (5.0, 5.0, 90.0))
    path = save(ball(grid, radius_mm=50), tmp_path / "mask.nrrd")
    with pytest.raises(InputError, match=r"mask.nrrd holds 52\d\.\d ml, which is not a prostate"):
        read_mask(path, loaded(grid))


def test_two_dimensional_mask(tmp_path: Path) -> None:
    refused(save(ball()[:, :, 12], tmp_path / "mask.nrrd"), "2-D")


def test_missing_mask(tmp_path: Path) -> None:
    refused(tmp_path / "mask.nrrd", "does not exist")


# --- two masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("radius_mm", "warned"), [(14.0, False), (12.5, False), (11.5, True), (10.5, True)])
def test_gland_volumes_of_one_patient(radius_mm: float, warned: bool) -> None:
    """Volume ratios of about 1, 1.4, 1.8 and 2.4."""
    for masks in ((ball(), ball(radius_mm=radius_mm)), (ball(radius_mm=radius_mm), ball())):
        warnings = check_same_patient(*masks, "mr.nrrd", "trus.nrrd")
        assert [w.code for w in warnings] == ["gland_volume_mismatch"] * warned


def test_gland_volumes_of_two_patients() -> None:
    with pytest.raises(InputError, match=r"12 ml in mr.nrrd and 3 ml in trus.nrrd.*same patient"):
        check_same_patient(ball(), ball(radius_mm=9.0), "mr.nrrd", "trus.nrrd")


# --- transforms ----------------------------------------------------------------------------------------

POINT = (3.0, -4.0, 5.0)


def rigid() -> sitk.Euler3DTransform:
    return sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.2, -0.3, (4.0, 5.0, 6.0))


@pytest.mark.parametrize("suffix", ["tfm", "txt", "h5", "mat"])
@pytest.mark.parametrize("composite", [False, True])
def test_linear_transform_keeps_its_mapping(tmp_path: Path, suffix: str, composite: bool) -> None:
    transform = rigid()
    if composite and suffix != "mat":
        transform = sitk.CompositeTransform([rigid(), sitk.TranslationTransform(3, (7.0, 8.0, 9.0))])
    sitk.WriteTransform(transform, str(tmp_path / f"start.{suffix}"))
    found = read_transform(tmp_path / f"start.{suffix}")
    np.testing.assert_allclose(found.TransformPoint(POINT), transform.TransformPoint(POINT), atol=1e-9)


def mirrored() -> sitk.AffineTransform:
    return sitk.AffineTransform([-1, 0, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0])


@pytest.mark.parametrize(
    ("transform", "fragment"),
    [
        (sitk.Euler2DTransform(), "2-D"),
        (sitk.DisplacementFieldTransform(sitk.Image([4, 4, 4], sitk.sitkVectorFloat64)), "not a linear"),
        (mirrored(), "mirrors"),
        (sitk.AffineTransform([1, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0]), "singular"),
    ],
)
def test_unusable_transform(tmp_path: Path, transform: sitk.Transform, fragment: str) -> None:
    sitk.WriteTransform(transform, str(tmp_path / "start.tfm"))
    with pytest.raises(InputError, match=f"start.tfm.*{fragment}"):
        read_transform(tmp_path / "start.tfm")


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("start.tfm", "nothing", "cannot be read"),
        ("start.mat", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "cannot be read"),
        ("start.json", "{}", "not a transform file"),
        ("start.tfm", "", "empty file"),
    ],
)
def test_file_that_is_no_transform(tmp_path: Path, name: str, content: str, fragment: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}.*{fragment}"):
        read_transform(tmp_path / name)


def test_missing_transform(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_transform(tmp_path / "start.tfm")
