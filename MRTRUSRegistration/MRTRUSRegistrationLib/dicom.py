"""DICOM volumes: a folder with the slices of one series, or one multi-frame file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .results import QualityWarning
from .volume_files import DICOM_IO, VolumeFile, file_name, read_header, readable

# Scouts and the like have fewer slices than any prostate volume.
_MIN_SLICES = 8
_POSITION_TOLERANCE_MM = 0.1

_MODALITY = "0008|0060"
_SOP_CLASS = "0008|0016"
_SERIES_DESCRIPTION = "0008|103e"
_ULTRASOUND_LOOPS = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.3.1")
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True)
class _Series:
    files: tuple[str, ...]
    slices: int
    description: str


def modality_of(volume: VolumeFile) -> str:
    """DICOM's modality such as "MR" or "US", empty for other formats."""
    return volume.metadata.get(_MODALITY, "").strip()


def open_dicom_folder(folder: Path) -> VolumeFile:
    """The header of the one volume series directly in `folder`.

    Raises `InputError` for none or several series, and for slices that do not stack into one volume.
    """
    series = _find_series(folder)
    if not series:
        raise InputError(
            f"{file_name(folder)} is a folder without a DICOM series directly in it: give the folder that"
            " holds the slices, or an image file."
        )
    volumes = [entry for entry in series if entry.slices >= _MIN_SLICES] or series
    if len(volumes) > 1:
        names = ", ".join(f"{entry.description} ({entry.slices} slices)" for entry in volumes)
        raise InputError(
            f"{file_name(folder)} holds {len(volumes)} DICOM series, {names}: give a folder with only the one"
            " to use."
        )
    if len(volumes[0].files) == 1:
        return replace(open_dicom_file(Path(volumes[0].files[0])), path=folder)
    return _stack(folder, volumes[0].files)


def open_dicom_file(path: Path) -> VolumeFile:
    """The header of one multi-frame DICOM file; `InputError` for a single slice or a loop over time."""
    volume = read_header(path, str(path), DICOM_IO)
    sop_class = volume.metadata.get(_SOP_CLASS, "").strip().rstrip("\0")
    if sop_class in _ULTRASOUND_LOOPS:
        raise InputError(
            f"{volume.name} is an ultrasound loop over time, not a volume: export the 3-D volume from the"
            " ultrasound system."
        )
    if sop_class == _SEGMENTATION:
        raise InputError(f"{volume.name} is a DICOM segmentation: save it as .seg.nrrd or NIfTI first.")
    if volume.size_vox[2:] in ((), (1,)):
        raise InputError(f"{volume.name} is a single DICOM slice: give the folder that holds the series.")
    return volume


def _find_series(folder: Path) -> list[_Series]:
    with readable(folder):
        identifiers = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
        groups = [
            sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid, False, False, False)
            for uid in identifiers
        ]
    found = [_describe(files) for files in groups]
    return [series for series in found if series.slices > 0]


def _describe(files: tuple[str, ...]) -> _Series:
    """What a series is; no slices where it holds no image, such as a report."""
    try:
        header = read_header(Path(files[0]), files[0], DICOM_IO)
    except InputError:
        return _Series(files, 0, "")
    slices = len(files) if len(files) > 1 else (*header.size_vox, 1)[2]
    return _Series(files, slices, header.metadata.get(_SERIES_DESCRIPTION, "").strip() or "without a name")


def _stack(folder: Path, files: tuple[str, ...]) -> VolumeFile:
    """Sort the slices along their normal and check that they form a regular stack."""
    headers = [read_header(Path(file), file, DICOM_IO) for file in files]
    first = headers[0]
    for header in headers[1:]:
        same_grid = header.size_vox[:2] == first.size_vox[:2] and np.allclose(
            [*header.spacing_mm[:2], *header.axes.ravel()],
            [*first.spacing_mm[:2], *first.axes.ravel()],
            atol=1e-3,
        )
        if not same_grid:
            raise InputError(
                f"{file_name(folder)} holds slices of different size or direction under one series: give a"
                " folder with one volume."
            )
    positions = np.array([header.origin_mm for header in headers])
    order = np.argsort(positions @ first.axes[:, 2], kind="stable")
    spacing_mm, warnings = _slice_spacing(folder, positions[order], first.axes[:, 2])
    return replace(
        headers[order[0]],
        path=folder,
        files=tuple(files[n] for n in order),
        size_vox=(*first.size_vox[:2], len(files)),
        spacing_mm=(*first.spacing_mm[:2], spacing_mm),
        slice_spacing_mm=spacing_mm,
        warnings=warnings,
    )


def _slice_spacing(
    folder: Path, positions_mm: np.ndarray, normal: np.ndarray
) -> tuple[float, tuple[QualityWarning, ...]]:
    """Distance of sorted slices, from their (n, 3) positions; `InputError` where they form no stack."""
    name = file_name(folder)
    heights_mm = (positions_mm - positions_mm[0]) @ normal
    gaps_mm = np.diff(heights_mm)
    if gaps_mm.min() < 0.01:
        raise InputError(
            f"{name} holds several slices at one position (several volumes, time points or b-values): give a"
            " folder with one volume."
        )
    sideways = positions_mm - positions_mm[0] - heights_mm[:, None] * normal
    if np.linalg.norm(sideways, axis=1).max() > 0.5:
        raise InputError(
            f"{name} holds slices that are not stacked at right angles (a tilted gantry or radial slices):"
            " resample it on to a regular grid first."
        )
    if gaps_mm.max() > 1.5 * np.median(gaps_mm):
        where = int(np.argmax(gaps_mm)) + 1
        raise InputError(
            f"{name} lacks slices: {gaps_mm.max():.1f} mm lie between slices {where} and {where + 1} where"
            f" {np.median(gaps_mm):.1f} mm are usual, so export the whole series again."
        )
    spacing_mm = float(heights_mm[-1] / (len(heights_mm) - 1))
    off_mm = float(np.abs(heights_mm - spacing_mm * np.arange(len(heights_mm))).max())
    if off_mm <= _POSITION_TOLERANCE_MM:
        return spacing_mm, ()
    message = f"The slices of {name} are uneven; taking them as even moves them by up to {off_mm:.1f} mm."
    return spacing_mm, (QualityWarning("uneven_slices", message),)
