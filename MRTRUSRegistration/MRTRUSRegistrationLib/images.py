"""The MR and the TRUS image: reading and checking them.

Frame: LPS, millimetres. What is returned is a 3-D float32 image with finite voxels that keeps the file's
spacing, origin and (oblique) axes, unless the user said how the axes lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .dicom import modality_of
from .errors import InputError
from .geometry import Grid, orientation_code, orientation_direction, with_orientation
from .results import QualityWarning
from .volume_files import VolumeFile, check_orthonormal, file_name, open_volume

Role = Literal["MR", "TRUS"]

_SPACING_MM = (0.05, 10.0)
_EXTENT_MM = (20.0, 600.0)
_SIDE_VOX = (8, 2048)
_OPTION = {"MR": "--mr-orientation", "TRUS": "--trus-orientation"}
_OTHER_MODALITY = {"MR": "US", "TRUS": "MR"}


@dataclass(frozen=True)
class LoadedImage:
    """A checked image.

    `image` is 3-D, float32 and finite. `file_grid` is the grid as the file has it, which differs from the
    image's own where an orientation code has re-labelled the axes: what belongs to the file (masks,
    landmarks) is carried over by its voxels.
    """

    image: sitk.Image
    path: Path
    role: Role
    file_grid: Grid
    warnings: tuple[QualityWarning, ...] = ()
    orientation_known: bool = True

    @property
    def name(self) -> str:
        return file_name(self.path)

    @property
    def grid(self) -> Grid:
        return Grid.of(self.image)

    @property
    def relabelled(self) -> bool:
        return not self.grid.same_as(self.file_grid)


def read_image(path: str | Path, *, role: Role, orientation: str | None = None) -> LoadedImage:
    """Read and check an image file (NIfTI, NRRD, MetaImage) or a folder with one DICOM series.

    `orientation` says towards which side of the patient the index axes run, such as "LPS", and overrules
    the header; a code that the header agrees with changes nothing. Raises `InputError` for a file that
    cannot be used.
    """
    if orientation is not None:
        _check_code(orientation, role)
    volume = open_volume(Path(path))
    _check_header(volume, role)
    image = _as_float(volume)
    file_grid = Grid.of(image)
    if orientation is not None and orientation.upper() != orientation_code(file_grid.direction):
        image = with_orientation(image, orientation)
    known = orientation is not None or not _looks_unset(file_grid)
    warnings = volume.warnings if known else (*volume.warnings, _orientation_warning(volume.name, role))
    return LoadedImage(image, Path(path), role, file_grid, warnings, known)


def check_different(mr: LoadedImage, trus: LoadedImage) -> None:
    """Raise `InputError` where MR and TRUS are the same file or have the same voxels."""
    same = mr.path.resolve() == trus.path.resolve()
    if not same and mr.image.GetSize() == trus.image.GetSize():
        arrays = (sitk.GetArrayViewFromImage(loaded.image) for loaded in (mr, trus))
        same = np.array_equal(*arrays)
    if same:
        raise InputError(
            f"{mr.name} was given as MR and {trus.name} as TRUS, but they are the same image: give both."
        )


def _check_code(code: str, role: Role) -> None:
    try:
        orientation_direction(code)
    except ValueError as error:
        raise InputError(
            f"{_OPTION[role]} {code} is not an orientation code: give one letter each of L/R, P/A and S/I,"
            " such as LPS."
        ) from error


def _check_header(volume: VolumeFile, role: Role) -> None:
    name, sides = volume.name, " × ".join(str(n) for n in volume.size_vox)
    if volume.components > 1:
        raise InputError(
            f"{name} is a colour, complex or vector image ({volume.components} values a voxel):"
            " give a grey-value one."
        )
    if len(volume.size_vox) < 3 or volume.size_vox[2] == 1:
        raise InputError(f"{name} is a 2-D image ({sides} voxels): give a 3-D volume.")
    if len(volume.size_vox) > 3:
        raise InputError(f"{name} holds several volumes ({sides} voxels): give a file with one of them.")
    if modality_of(volume) == _OTHER_MODALITY[role]:
        raise InputError(
            f"{name} was given as {role} but its DICOM header says {modality_of(volume)}: check that MR and"
            " TRUS are not swapped."
        )
    _check_grid(volume)


def _check_grid(volume: VolumeFile) -> None:
    spacing = np.array(volume.spacing_mm)
    if not ((spacing >= _SPACING_MM[0]) & (spacing <= _SPACING_MM[1])).all():
        shown = " × ".join(f"{value:g}" for value in spacing)
        raise InputError(
            f"{volume.name} has a voxel spacing of {shown} mm, unlike any prostate image: correct its header."
        )
    sides = " × ".join(str(n) for n in volume.size_vox)
    if not all(_SIDE_VOX[0] <= n <= _SIDE_VOX[1] for n in volume.size_vox):
        raise InputError(
            f"{volume.name} has {sides} voxels, but each side needs {_SIDE_VOX[0]} to {_SIDE_VOX[1]}: give"
            " the whole volume, cropped or resampled if it is huge."
        )
    extent = spacing * volume.size_vox
    if not ((extent >= _EXTENT_MM[0]) & (extent <= _EXTENT_MM[1])).all():
        shown = " × ".join(f"{value:.0f}" for value in extent)
        raise InputError(
            f"{volume.name} is {shown} mm, but a side needs {_EXTENT_MM[0]:.0f} to {_EXTENT_MM[1]:.0f}"
            " to hold a prostate: check the spacing in its header."
        )
    check_orthonormal(volume)


def _as_float(volume: VolumeFile) -> sitk.Image:
    """The voxels as float32; `InputError` if they are not finite or all the same."""
    image = sitk.Cast(volume.read(), sitk.sitkFloat32)
    array = sitk.GetArrayViewFromImage(image)
    bad = array.size - int(np.count_nonzero(np.isfinite(array))) + volume.hidden_not_finite()
    if bad:
        part = "only" if bad == array.size else f"{bad}"
        raise InputError(
            f"{volume.name} holds {part} voxels that are not finite numbers (NaN or infinite): replace them,"
            " for instance by zero."
        )
    if array.min() == array.max():
        raise InputError(
            f"{volume.name} is empty, every voxel is {array.min():g}: check that the right one was exported."
        )
    return image


def _looks_unset(grid: Grid) -> bool:
    """Whether nobody wrote the geometry: axes of a default header and an origin within a voxel of zero."""
    axes = np.abs(grid.axes - np.eye(3)).max() < 1e-6 or np.abs(grid.axes - np.diag([-1, -1, 1])).max() < 1e-6
    return bool(axes and np.all(np.abs(grid.origin_mm) <= np.array(grid.spacing_mm) * (1 + 1e-6)))


def _orientation_warning(name: str, role: Role) -> QualityWarning:
    return QualityWarning(
        "orientation_unknown",
        f"{name} has a header that no scanner writes (axes and origin are the defaults), so how its axes lie"
        f" in the patient is a guess; say it with {_OPTION[role]}, for instance {_OPTION[role]} LPS.",
    )
