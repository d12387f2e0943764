"""Reading and checking the MR and the TRUS image."""

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from input_cases import OBLIQUE, SIZE_VOX, SPACING_MM, noise, save

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, orientation_code, orientation_direction
from MRTRUSRegistrationLib.images import check_different, read_image

LPS_AXES = orientation_direction("LPS")
RAS_AXES = orientation_direction("RAS")


def corner_gap_mm(a: Grid, b: Grid) -> float:
    far = np.append(np.array(a.size_vox) - 1, 1.0)
    ends = (a.index_to_point - b.index_to_point) @ np.column_stack([[0, 0, 0, 1.0], far])
    return float(np.abs(ends).max())


@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "mha", "mhd", "nii", "nii.gz"])
def test_every_format_keeps_voxels_and_oblique_geometry(tmp_path: Path, suffix: str) -> None:
    image = noise()
    result = read_image(save(image, tmp_path / f"mr.{suffix}"), role="MR")
    assert result.image.GetPixelID() == sitk.sitkFloat32
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result.image), sitk.GetArrayFromImage(image))
    # NIfTI stores its matrix in single precision.
    tolerance_mm = 2e-5 if suffix.startswith("nii") else 1e-6
    assert corner_gap_mm(result.grid, OBLIQUE) < tolerance_mm
    assert result.file_grid == result.grid
    assert result.orientation_known
    assert result.warnings == ()


def test_lps_position_is_that_of_nibabel(tmp_path: Path) -> None:
    affine = np.array([[0.1, -1.2, 0.3, 20.0], [1.1, 0.1, -0.2, -35.0], [0.2, 0.4, 1.9, 50.0], [0, 0, 0, 1]])
    u, _, vt = np.linalg.svd(affine[:3, :3])
    affine[:3, :3] = (u @ vt) * SPACING_MM  # orthogonal axes
    array = np.zeros(SIZE_VOX, np.float32)
    array[5, 20, 11] = 1
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "mr.nii.gz")
    image = read_image(tmp_path / "mr.nii.gz", role="MR").image
    k, j, i = np.argwhere(sitk.GetArrayFromImage(image) == 1)[0].tolist()
    world_ras = nib.load(tmp_path / "mr.nii.gz").affine @ [5, 20, 11, 1]
    expected_lps = world_ras[:3] * [-1, -1, 1]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((i, j, k)), expected_lps, atol=1e-5)


def test_left_handed_axes_are_kept(tmp_path: Path) -> None:
    axes = OBLIQUE.axes * [1, 1, -1]
    grid = Grid(SIZE_VOX, SPACING_MM, (5.0, 60.0, 70.0), tuple(axes.ravel().tolist()))
    result = read_image(save(noise(grid), tmp_path / "mr.nii.gz"), role="MR")
    assert corner_gap_mm(result.grid, grid) < 2e-5


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii.gz"])
def test_single_volume_in_four_dimensions_is_squeezed(tmp_path: Path, suffix: str) -> None:
    grid = Grid(SIZE_VOX, SPACING_MM, (-50.0, 40.0, 30.0), orientation_direction("LSA"))
    path = save(sitk.JoinSeries([noise(grid)]), tmp_path / f"mr.{suffix}")
    result = read_image(path, role="MR")
    assert result.image.GetDimension() == 3
    assert corner_gap_mm(result.grid, grid) < 1e-5


# --- orientation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("role", "option"), [("MR", "--mr-orientation"), ("TRUS", "--trus-orientation")])
@pytest.mark.parametrize("axes", [LPS_AXES, RAS_AXES])
@pytest.mark.parametrize("origin_vox", [0.0, -1.0])
def test_default_header_gives_a_warning_with_the_option(
    tmp_path: Path, role: str, option: str, axes: tuple, origin_vox: float
) -> None:
    grid = Grid(SIZE_VOX, SPACING_MM, tuple(origin_vox * s for s in SPACING_MM), axes)
    result = read_image(save(noise(grid), tmp_path / "a.nii.gz"), role=role)
    assert not result.orientation_known
    assert [w.code for w in result.warnings] == ["orientation_unknown"]
    assert option in result.warnings[0].message
    assert "a.nii.gz" in result.warnings[0].message


@pytest.mark.parametrize(
    ("origin", "axes"), [((-30.0, 0.0, 0.0), LPS_AXES), ((0.0, 0.0, 0.0), orientation_direction("LSA"))]
)
def test_header_with_a_position_or_other_axes_is_trusted(tmp_path: Path, origin: tuple, axes: tuple) -> None:
    grid = Grid(SIZE_VOX, SPACING_MM, origin, axes)
    result = read_image(save(noise(grid), tmp_path / "a.nrrd"), role="TRUS")
    assert result.orientation_known
    assert result.warnings == ()


def test_orientation_code_turns_the_axes_about_the_middle(tmp_path: Path) -> None:
    grid = Grid(SIZE_VOX, SPACING_MM)
    path = save(noise(grid), tmp_path / "trus.nrrd")
    result = read_image(path, role="TRUS", orientation="pIr")
    assert orientation_code(result.grid.direction) == "PIR"
    np.testing.assert_allclose(result.grid.centre_mm, grid.centre_mm, atol=1e-9)
    assert result.file_grid == grid
    assert result.relabelled
    assert result.orientation_known
    assert result.warnings == ()
    # Along the first index axis one now goes towards the patient's back (+P).
    step = np.subtract(*(result.image.TransformIndexToPhysicalPoint((i, 0, 0)) for i in (1, 0)))
    np.testing.assert_allclose(step, [0, SPACING_MM[0], 0], atol=1e-9)


def test_code_that_the_header_agrees_with_changes_nothing(tmp_path: Path) -> None:
    code = orientation_code(OBLIQUE.direction)
    result = read_image(save(noise(), tmp_path / "mr.nrrd"), role="MR", orientation=code.lower())
    assert corner_gap_mm(result.grid, OBLIQUE) < 1e-6
    assert not result.relabelled


def test_agreeing_code_settles_a_default_header(tmp_path: Path) -> None:
    path = save(noise(Grid(SIZE_VOX, SPACING_MM)), tmp_path / "trus.nrrd")
    result = read_image(path, role="TRUS", orientation="LPS")
    assert result.orientation_known
    assert result.warnings == ()


# --- bad input -----------------------------------------------------------------------------------------


def refused(path: Path, *fragments: str, role: str = "MR", orientation: str | None = None) -> None:
    """The file is refused by one sentence that holds its name and the fragments."""
    with pytest.raises(InputError) as error:
        read_image(path, role=role, orientation=orientation)
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    for fragment in (path.name, *fragments):
        assert fragment in message


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "mr.nii.gz", "does not exist")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "mr.nii.gz").touch()
    refused(tmp_path / "mr.nii.gz", "empty file")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha", "dcm"])
def test_file_of_another_type_than_its_name_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mr.{suffix}"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"no image" * 100)
    refused(path, "cannot be read")


@pytest.mark.parametrize("name", ["mr.png", "mr.txt", "mr"])
def test_unknown_file_type(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"something" * 50)
    refused(tmp_path / name, "not a file type", "NIfTI", "NRRD", "DICOM")


@pytest.mark.parametrize("suffix", ["nii", "nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_truncated_file(tmp_path: Path, suffix: str, kept: float) -> None:
    path = save(noise(), tmp_path / f"mr.{suffix}")
    os.truncate(path, int(path.stat().st_size * kept))
    refused(path, "cannot be read", "incomplete")


def test_damaged_gzip_stream(tmp_path: Path) -> None:
    path = save(noise(), tmp_path / "mr.nii.gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refused(path, "cannot be read")


def test_nifti_in_several_gzip_members_is_read(tmp_path: Path) -> None:
    content = save(noise(), tmp_path / "mr.nii").read_bytes()
    (tmp_path / "mr.nii.gz").write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    image = read_image(tmp_path / "mr.nii.gz", role="MR").image
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(noise()))


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 1)])
def test_two_dimensional_image(tmp_path: Path, shape: tuple) -> None:
    nib.save(nib.Nifti1Image(np.random.rand(*shape).astype("f"), np.eye(4)), tmp_path / "mr.nii")
    refused(tmp_path / "mr.nii", "2-D")


def test_several_volumes(tmp_path: Path) -> None:
    refused(
        save(sitk.JoinSeries([noise(), noise()]), tmp_path / "mr.nrrd"), "several volumes", "32 × 28 × 24 × 2"
    )


@pytest.mark.parametrize("suffix", ["nrrd", "nii.gz", "mha"])
def test_vector_image(tmp_path: Path, suffix: str) -> None:
    path = save(sitk.Compose([noise()] * 3), tmp_path / f"mr.{suffix}")
    refused(path, "vector image", "3 values")


def test_complex_image(tmp_path: Path) -> None:
    part = sitk.Cast(noise(), sitk.sitkFloat32)
    refused(save(sitk.RealAndImaginaryToComplex(part, part), tmp_path / "mr.nii"), "complex", "2 values")


@pytest.mark.parametrize("value", [0, 7])
def test_constant_image(tmp_path: Path, value: int) -> None:
    refused(save(noise() * 0 + value, tmp_path / "mr.nrrd"), f"every voxel is {value}")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_some_voxels_not_finite(tmp_path: Path, bad: float) -> None:
    array = np.random.rand(*SIZE_VOX[::-1])
    array[3, 4, 5:7] = bad
    refused(save(OBLIQUE.image(array), tmp_path / "mr.nrrd"), "2 voxels", "NaN")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_some_voxels_of_nifti_not_finite(tmp_path: Path, suffix: str, kind: type, bad: float) -> None:
    """ITK gives them as zero."""
    array = np.random.rand(*SIZE_VOX[::-1]).astype(kind)
    path = save(OBLIQUE.image(array), tmp_path / f"good{suffix}")
    assert read_image(path, role="MR").image.GetSize() == SIZE_VOX
    array[3, 4, 5:7] = bad
    array[-1, -1, -1] = bad
    refused(save(OBLIQUE.image(array), tmp_path / f"mr{suffix}"), "3 voxels", "NaN")


def test_voxels_of_nifti_in_the_other_order_of_bytes(tmp_path: Path) -> None:
    """As nibabel writes them on request."""
    array = np.random.rand(26, 25, 24).astype(">f4")
    affine = np.diag([1.0, 1.1, 1.2, 1.0])
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">f4")
    nib.save(nib.Nifti1Image(array, affine, header), tmp_path / "good.nii")
    assert (tmp_path / "good.nii").read_bytes()[:4] == b"\x00\x00\x01\x5c"
    assert read_image(tmp_path / "good.nii", role="MR").image.GetSize() == (26, 25, 24)
    array[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Image(array, affine, header), tmp_path / "mr.nii")
    refused(tmp_path / "mr.nii", "1 voxels", "NaN")


def test_all_voxels_nan(tmp_path: Path) -> None:
    refused(save(OBLIQUE.image(np.full(SIZE_VOX[::-1], np.nan)), tmp_path / "mr.nrrd"), "only voxels", "NaN")


@pytest.mark.parametrize("spacing", [(0.01, 1.0, 1.0), (1.0, 1.0, 12.0)])
def test_absurd_spacing(tmp_path: Path, spacing: tuple) -> None:
    path = save(noise(Grid(SIZE_VOX, spacing, (9.0, 9.0, 99.0))), tmp_path / "mr.nrrd")
    refused(path, "spacing", f"{spacing[0]:g} × 1 × {spacing[2]:g} mm")


@pytest.mark.parametrize(("spacing", "extent"), [(0.5, "16 × 14 × 12"), (20.0 / 24, "27 × 23 × 20")])
def test_small_extent(tmp_path: Path, spacing: float, extent: str) -> None:
    path = save(noise(Grid(SIZE_VOX, (spacing,) * 3, (9.0, 9.0, 99.0))), tmp_path / "mr.mha")
    if spacing * 24 < 20:
        refused(path, extent, "20 to 600")
    else:
        assert read_image(path, role="MR").grid.spacing_mm[0] == pytest.approx(spacing)


def test_large_extent(tmp_path: Path) -> None:
    grid = Grid((80, 20, 20), (8.0, 3.0, 3.0), (9.0, 9.0, 99.0))
    refused(save(noise(grid), tmp_path / "mr.mha"), "640 × 60 × 60", "20 to 600")


def test_few_voxels_on_a_side(tmp_path: Path) -> None:
    grid = Grid((30, 30, 7), (3.0, 3.0, 6.0), (9.0, 9.0, 99.0))
    refused(save(noise(grid), tmp_path / "mr.nrrd"), "30 × 30 × 7", "8 to 2048")


def test_thick_slices_are_fine(tmp_path: Path) -> None:
    grid = Grid((40, 40, 12), (1.0, 1.0, 6.0), (9.0, 9.0, 99.0))
    assert read_image(save(noise(grid), tmp_path / "mr.nrrd"), role="MR").grid.spacing_mm == (1.0, 1.0, 6.0)


def test_huge_image_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    """The voxels are not even there, so that loading them would give another message."""
    path = tmp_path / "mr.mhd"
    save(noise(), path)
    path.write_text(path.read_text().replace("DimSize = 32 28 24", "DimSize = 2000 2000 1000"))
    refused(path, "too large", "2000 × 2000 × 1000")


def test_sheared_nifti(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[0, 1] = 0.5
    nib.save(nib.Nifti1Image(np.random.rand(*SIZE_VOX).astype("f"), affine), tmp_path / "mr.nii.gz")
    refused(tmp_path / "mr.nii.gz", "right angles")


def test_sheared_metaimage(tmp_path: Path) -> None:
    path = save(noise(Grid(SIZE_VOX, SPACING_MM)), tmp_path / "mr.mhd")
    text = path.read_text()
    assert "TransformMatrix = 1 0 0 0 1 0 0 0 1" in text
    path.write_text(text.replace("TransformMatrix = 1 0 0 0 1 0", "TransformMatrix = 1 0.3 0 0 1 0"))
    refused(path, "right angles")


@pytest.mark.parametrize("code", ["LPX", "LLS", "LP", ""])
def test_bad_orientation_code(tmp_path: Path, code: str) -> None:
    path = save(noise(), tmp_path / "trus.nrrd")
    with pytest.raises(InputError, match=r"--trus-orientation .*not an orientation code"):
        read_image(path, role="TRUS", orientation=code)


def test_same_image_twice(tmp_path: Path) -> None:
    first = read_image(save(noise(), tmp_path / "mr.nrrd"), role="MR")
    copy = read_image(save(noise(), tmp_path / "trus.nii.gz"), role="TRUS")
    other = read_image(save(noise(seed=1), tmp_path / "other.nrrd"), role="TRUS")
    for twin in (first, copy):
        with pytest.raises(InputError, match="same image"):
            check_different(first, twin)
    check_different(first, other)
