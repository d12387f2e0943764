"""Opening volume files: header first, voxels later, one sentence for whatever is wrong.

Positions are LPS millimetres, as in ITK; sizes and spacings are in index order (i, j, k).
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .results import QualityWarning

FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd) or DICOM"

# More voxels than this, over all channels, is no prostate image and would not fit into memory.
MAX_VOXELS = 400_000_000

_IMAGE_IO = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".nrrd": "NrrdImageIO",
    ".nhdr": "NrrdImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
# NIfTI's codes of floating-point voxels, and the lengths of headers of its two versions.
_NIFTI_FLOATS = {"16": "f4", "64": "f8"}
_NIFTI_HEADERS = (348, 540)
IMAGE_SUFFIXES = tuple(_IMAGE_IO)
DICOM_IO = "GDCMImageIO"


@dataclass(frozen=True)
class VolumeFile:
    """A volume whose header has been read and whose voxels have not.

    `size_vox`, `spacing_mm`, `origin_mm` and the n×n row-major `direction` have the axes of the file (those
    of length one beyond the third are left out). `files` has one entry, or the slices of a DICOM series from
    the lowest to the highest along the slice normal, `slice_spacing_mm` apart.
    """

    path: Path
    files: tuple[str, ...]
    image_io: str
    size_vox: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    origin_mm: tuple[float, ...]
    direction: tuple[float, ...]
    components: int
    metadata: dict[str, str] = field(default_factory=dict)
    slice_spacing_mm: float | None = None
    warnings: tuple[QualityWarning, ...] = ()

    @property
    def name(self) -> str:
        return file_name(self.path)

    @property
    def axes(self) -> np.ndarray:
        """3×3 matrix whose columns are the directions of the first three index axes."""
        n = len(self.size_vox)
        return np.reshape(self.direction, (n, n))[:3, :3]

    def read(self) -> sitk.Image:
        """The voxels, with the file's own pixel type; `InputError` if they are damaged or incomplete."""
        with readable(self.path):
            image = self._read_slices() if len(self.files) > 1 else self._read_file()
        while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
            image = image[..., 0]
        return image

    def hidden_not_finite(self) -> int:
        """How many voxels are not finite that `read` gives as zero: ITK does so with NIfTI alone."""
        if self.image_io != "NiftiImageIO":
            return 0
        with readable(self.path):
            return _not_finite_in_nifti(self)

    def _read_file(self) -> sitk.Image:
        if self.image_io == "NiftiImageIO":
            _check_nifti_length(self)
        return sitk.ReadImage(self.files[0], imageIO=self.image_io)

    def _read_slices(self) -> sitk.Image:
        reader = sitk.ImageSeriesReader()
        reader.SetImageIO(self.image_io)
        reader.SetFileNames(self.files)
        image = reader.Execute()
        # ITK takes this spacing from the first two slices; over the whole stack it is exact.
        image.SetSpacing((*self.spacing_mm[:2], self.slice_spacing_mm or self.spacing_mm[2]))
        return image


def file_name(path: Path) -> str:
    """The name that messages call a file by."""
    return path.name or str(path.resolve())


def open_volume(path: Path) -> VolumeFile:
    """Read the header of an image or label file, or of the only series in a DICOM folder.

    Raises `InputError` for whatever cannot be opened as a volume, before any voxel is loaded.
    """
    from .dicom import open_dicom_file, open_dicom_folder  # here, as it needs this module

    check_present(path)
    if path.is_dir():
        volume = open_dicom_folder(path)
    elif (image_io := _IMAGE_IO.get(suffix_of(path))) is not None:
        volume = read_header(path, str(path), image_io)
    elif _starts_as_dicom(path):
        volume = open_dicom_file(path)
    else:
        raise InputError(f"{file_name(path)} is not a file type that can be read: give {FORMATS}.")
    _check_amount(volume)
    return volume


def read_header(path: Path, file: str, image_io: str) -> VolumeFile:
    """The header of one file; `path` is what the user gave, for messages."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(file)
    with readable(path):
        reader.ReadImageInformation()
    size, axes = reader.GetSize(), reader.GetDimension()
    while axes > 3 and size[axes - 1] == 1:
        axes -= 1
    direction = np.reshape(reader.GetDirection(), (len(size), len(size)))[:axes, :axes]
    return VolumeFile(
        path=path,
        files=(file,),
        image_io=image_io,
        size_vox=size[:axes],
        spacing_mm=reader.GetSpacing()[:axes],
        origin_mm=reader.GetOrigin()[:axes],
        direction=tuple(direction.ravel().tolist()),
        components=reader.GetNumberOfComponents(),
        metadata={key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()},
    )


def channels(image: sitk.Image) -> list[sitk.Image]:
    """The 3-D scalar volumes of a vector image or along the fourth axis; the image itself if it is both."""
    parts = [image]
    if image.GetNumberOfComponentsPerPixel() > 1:
        count = image.GetNumberOfComponentsPerPixel()
        parts = [sitk.VectorIndexSelectionCast(image, c) for c in range(count)]
    while parts[0].GetDimension() > 3:
        parts = [part[..., c] for part in parts for c in range(part.GetSize()[-1])]
    return parts


def check_present(path: Path) -> None:
    """Raise `InputError` unless `path` exists and, if a file, holds something."""
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{file_name(path)} is an empty file: copy or export it again.")


def suffix_of(path: Path) -> str:
    """The extension in lower case, with what stands before a final .gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:]) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what ITK and the system say about an unreadable file into one sentence, and ITK's chatter off."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        if "orthonormal" in str(error):
            raise _sheared(path) from error
        if path.is_file() and not os.access(path, os.R_OK):
            raise InputError(f"{path} may not be read: ask for the permission.") from error
        # The whole path: in a data set the image and its labels often have one name.
        raise InputError(
            f"{path} cannot be read, it may be damaged, incomplete or of another type than its"
            " name says: copy or export it again."
        ) from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def check_orthonormal(volume: VolumeFile) -> None:
    """Raise `InputError` where the axes are not at right angles, which no resampling here allows for."""
    axes = volume.axes
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise _sheared(volume.path)


def _sheared(path: Path) -> InputError:
    return InputError(
        f"{file_name(path)} has axes that are not at right angles (a sheared geometry): resample it on to a"
        " regular grid first."
    )


def _check_amount(volume: VolumeFile) -> None:
    if math.prod(volume.size_vox) * volume.components > MAX_VOXELS:
        sides = " × ".join(str(n) for n in volume.size_vox)
        raise InputError(f"{volume.name} is too large ({sides} voxels): crop or resample it first.")


def _starts_as_dicom(path: Path) -> bool:
    with readable(path), path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _check_nifti_length(volume: VolumeFile) -> None:
    """Raise `EOFError` where voxels are missing: ITK fills them with whatever is in memory."""
    header = volume.metadata
    sides = [int(header[f"dim[{axis}]"]) for axis in range(1, int(header["dim[0]"]) + 1)]
    expected = float(header["vox_offset"]) + math.prod(sides) * int(header["bitpix"]) / 8
    if _unpacked_length(Path(volume.files[0])) < expected:
        raise EOFError(f"{volume.name} ends early.")


def _unpacked_length(path: Path) -> int:
    """Bytes in a file, after unpacking where it is gzipped."""
    if not _is_gzipped(path):
        return path.stat().st_size
    with gzip.open(path, "rb") as stream:
        return sum(map(len, _blocks(stream)))


def _not_finite_in_nifti(volume: VolumeFile) -> int:
    kind = _NIFTI_FLOATS.get(volume.metadata["datatype"])
    if kind is None:
        return 0
    path = Path(volume.files[0])
    with gzip.open(path, "rb") if _is_gzipped(path) else path.open("rb") as stream:
        # The first number of a header is its length, by which the order of bytes is known.
        order = "<" if int.from_bytes(stream.read(4), "little") in _NIFTI_HEADERS else ">"
        number = np.dtype(order + kind)
        stream.seek(int(float(volume.metadata["vox_offset"])))
        whole = (block[: len(block) // number.itemsize * number.itemsize] for block in _blocks(stream))
        return sum(int(np.count_nonzero(~np.isfinite(np.frombuffer(each, number)))) for each in whole)


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _blocks(stream: _Stream) -> Iterator[bytes]:
    while block := stream.read(1 << 22):
        yield block
