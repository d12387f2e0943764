"""Small images and DICOM series that the tests of input write to disk."""

from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.images import LoadedImage

SIZE_VOX = (32, 28, 24)
SPACING_MM = (1.5, 1.25, 2.0)


def oblique_direction() -> tuple[float, ...]:
    """Axes turned about all three LPS axes."""
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.31, -0.17, 0.23)
    return turn.GetMatrix()


OBLIQUE = Grid(SIZE_VOX, SPACING_MM, (-21.25, 13.5, -40.125), oblique_direction())


def noise(grid: Grid = OBLIQUE, *, seed: int = 0) -> sitk.Image:
    """An int16 image of noise."""
    array = np.random.default_rng(seed).integers(0, 1000, grid.size_vox[::-1])
    return grid.image(array.astype(np.int16))


def ball(grid: Grid = OBLIQUE, *, radius_mm: float = 14.0, shift_mm: tuple = (0.0, 0.0, 0.0)) -> sitk.Image:
    """A uint8 ball about the middle of the grid, shifted in LPS mm."""
    index = np.indices(grid.size_vox[::-1]).reshape(3, -1)[::-1].T
    points = index @ grid.index_to_point[:3, :3].T + np.array(grid.origin_mm)
    inside = np.linalg.norm(points - grid.centre_mm - np.array(shift_mm), axis=1) <= radius_mm
    return grid.image(inside.reshape(grid.size_vox[::-1]).astype(np.uint8))


def save(image: sitk.Image, path: Path) -> Path:
    sitk.WriteImage(image, str(path))
    return path


def loaded(grid: Grid = OBLIQUE, *, file_grid: Grid | None = None) -> LoadedImage:
    """An image as `read_image` returns it, without a file."""
    return LoadedImage(sitk.Cast(noise(grid), sitk.sitkFloat32), Path("image.nrrd"), "MR", file_grid or grid)


def write_dicom(
    folder: Path, image: sitk.Image, *, heights_mm: list[float] | None = None, **tags: object
) -> None:
    """One series with a file a slice, in an order of file names that is not that of the slices.

    `heights_mm` places the slices along their normal instead of evenly.
    """
    folder.mkdir(exist_ok=True)
    grid, array = Grid.of(image), sitk.GetArrayFromImage(image)
    heights = heights_mm or [k * grid.spacing_mm[2] for k in range(len(array))]
    series = str(tags.pop("SeriesInstanceUID", generate_uid()))
    for k, pixels in enumerate(array):
        position = np.array(grid.origin_mm) + heights[k] * grid.axes[:, 2]
        dataset = _slice(grid, pixels, position, series)
        dataset.InstanceNumber = len(array) - k
        for tag, value in tags.items():
            setattr(dataset, tag, value)
        dataset.save_as(
            folder / f"{(k * 7) % len(array):03d}_{dataset.SOPInstanceUID}.dcm", enforce_file_format=True
        )


def _slice(grid: Grid, pixels: np.ndarray, position_mm: np.ndarray, series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", pydicom.Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.SeriesDescription, dataset.PatientID = "MR", "T2 axial", "test"
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, "1.2.3"
    dataset.ImagePositionPatient = [f"{value:.9g}" for value in position_mm]
    dataset.ImageOrientationPatient = [f"{value:.9g}" for value in (*grid.axes[:, 0], *grid.axes[:, 1])]
    dataset.PixelSpacing = [grid.spacing_mm[1], grid.spacing_mm[0]]
    dataset.SliceThickness = grid.spacing_mm[2]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelData = pixels.astype("<i2").tobytes()
    return dataset
