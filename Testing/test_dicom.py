"""DICOM folders and multi-frame files."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from input_cases import OBLIQUE, noise, write_dicom
from pydicom.uid import generate_uid

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.images import read_image

STEP_MM = OBLIQUE.spacing_mm[2]
HEIGHTS_MM = [k * STEP_MM for k in range(OBLIQUE.size_vox[2])]


def refused(folder: Path, *fragments: str, role: str = "MR") -> None:
    with pytest.raises(InputError) as error:
        read_image(folder, role=role)
    for fragment in (folder.name, *fragments):
        assert fragment in str(error.value)
    assert "\n" not in str(error.value)


def test_oblique_series_in_any_file_order(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr", noise())
    result = read_image(tmp_path / "mr", role="MR")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result.image), sitk.GetArrayFromImage(noise()))
    np.testing.assert_allclose(result.grid.index_to_point, OBLIQUE.index_to_point, atol=1e-6)
    assert result.warnings == ()
    assert result.orientation_known


def test_rescaled_voxels(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr", noise(), RescaleSlope="2", RescaleIntercept="-100")
    image = read_image(tmp_path / "mr", role="MR").image
    expected = 2.0 * sitk.GetArrayFromImage(noise()) - 100
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), expected)


def test_descending_slices_become_ascending_ones_in_place(tmp_path: Path) -> None:
    """Slices placed against the normal: the same anatomy at the same world position."""
    write_dicom(tmp_path / "mr", noise(), heights_mm=[-height for height in HEIGHTS_MM])
    result = read_image(tmp_path / "mr", role="MR")
    array = sitk.GetArrayFromImage(noise())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result.image), array[::-1])
    first_file_origin = result.image.TransformIndexToPhysicalPoint((0, 0, len(array) - 1))
    np.testing.assert_allclose(first_file_origin, OBLIQUE.origin_mm, atol=1e-6)


def test_scouts_and_reports_beside_the_series_are_left_alone(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr", noise())
    scout = Grid((16, 16, 3), (8.0, 8.0, 20.0), (1.0, 2.0, 3.0))
    write_dicom(tmp_path / "mr", noise(scout), SeriesDescription="scout")
    report = pydicom.dcmread(next((tmp_path / "mr").iterdir()))
    report.SeriesInstanceUID, report.Modality = generate_uid(), "SR"
    del report.PixelData, report.Rows, report.Columns
    report.save_as(tmp_path / "mr" / "report.dcm")
    (tmp_path / "mr" / "readme.txt").write_text("not DICOM")
    assert read_image(tmp_path / "mr", role="MR").image.GetSize() == OBLIQUE.size_vox


def test_several_series_are_named(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr", noise(), SeriesDescription="T2 axial")
    write_dicom(tmp_path / "mr", noise(), SeriesDescription="ADC")
    refused(tmp_path / "mr", "2 DICOM series", "T2 axial (24 slices)", "ADC (24 slices)", "only the one")


def test_folder_without_dicom(tmp_path: Path) -> None:
    (tmp_path / "mr").mkdir()
    refused(tmp_path / "mr", "without a DICOM series")
    (tmp_path / "mr" / "notes.txt").write_text("nothing")
    refused(tmp_path / "mr", "without a DICOM series")


@pytest.mark.parametrize("missing", [1, 11, 22])
def test_missing_slice(tmp_path: Path, missing: int) -> None:
    keep = [k for k in range(24) if k != missing]
    write_dicom(tmp_path / "mr", noise()[:, :, :23], heights_mm=[HEIGHTS_MM[k] for k in keep])
    refused(tmp_path / "mr", "lacks slices", f"between slices {missing} and {missing + 1}", "4.0 mm")


def test_several_volumes_in_one_series(tmp_path: Path) -> None:
    uid = generate_uid()
    write_dicom(tmp_path / "mr", noise(), SeriesInstanceUID=uid)
    write_dicom(tmp_path / "mr", noise(seed=1), SeriesInstanceUID=uid)
    refused(tmp_path / "mr", "several slices at one position")


def test_uneven_slices_give_a_warning(tmp_path: Path) -> None:
    heights = list(HEIGHTS_MM)
    heights[10] += 0.4
    write_dicom(tmp_path / "mr", noise(), heights_mm=heights)
    result = read_image(tmp_path / "mr", role="MR")
    assert [w.code for w in result.warnings] == ["uneven_slices"]
    assert "0.4 mm" in result.warnings[0].message
    np.testing.assert_allclose(result.grid.spacing_mm[2], STEP_MM, atol=1e-6)


def test_slices_of_different_size(tmp_path: Path) -> None:
    uid = generate_uid()
    write_dicom(tmp_path / "mr", noise(), SeriesInstanceUID=uid)
    small = Grid((30, 28, 24), OBLIQUE.spacing_mm, (90.0, 0.0, 90.0), OBLIQUE.direction)
    write_dicom(tmp_path / "mr", noise(small), SeriesInstanceUID=uid)
    refused(tmp_path / "mr", "different size or direction")


def test_tilted_stack(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr", noise())
    for file in (tmp_path / "mr").iterdir():
        dataset = pydicom.dcmread(file)
        sideways = 0.1 * (24 - dataset.InstanceNumber) * OBLIQUE.axes[:, 1]
        dataset.ImagePositionPatient = [
            f"{value:.9g}" for value in np.array(dataset.ImagePositionPatient, float) + sideways
        ]
        dataset.save_as(file)
    refused(tmp_path / "mr", "right angles")


def test_single_slice_file(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mr", noise())
    refused(next((tmp_path / "mr").iterdir()), "single DICOM slice", "folder")


def test_swapped_modalities(tmp_path: Path) -> None:
    write_dicom(tmp_path / "case", noise(), Modality="US")
    refused(tmp_path / "case", "given as MR", "says US", "swapped")
    assert read_image(tmp_path / "case", role="TRUS").image.GetSize() == OBLIQUE.size_vox


def multi_frame(path: Path, sop_class: str) -> Path:
    """The stack of noise as frames of one file, without the extension .dcm."""
    write_dicom(path.parent / "single", noise())
    dataset = pydicom.dcmread(next((path.parent / "single").iterdir()))
    dataset.NumberOfFrames = 24
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.Modality = "US"
    dataset.PixelData = sitk.GetArrayFromImage(noise()).astype("<i2").tobytes()
    dataset.save_as(path)
    return path


def test_ultrasound_loop_over_time_is_no_volume(tmp_path: Path) -> None:
    refused(multi_frame(tmp_path / "loop", "1.2.840.10008.5.1.4.1.1.3.1"), "loop over time", role="TRUS")


def test_dicom_segmentation(tmp_path: Path) -> None:
    refused(multi_frame(tmp_path / "seg.dcm", "1.2.840.10008.5.1.4.1.1.66.4"), ".seg.nrrd", role="TRUS")


def test_multi_frame_volume_as_file_and_in_a_folder(tmp_path: Path) -> None:
    """A multi-frame secondary capture: its voxels arrive in order."""
    (tmp_path / "trus").mkdir()
    path = multi_frame(tmp_path / "trus" / "volume", "1.2.840.10008.5.1.4.1.1.7.3")
    for file in (tmp_path / "trus" / "single").iterdir():
        file.unlink()
    for given in (path, path.parent):
        image = read_image(given, role="TRUS").image
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(noise()))
