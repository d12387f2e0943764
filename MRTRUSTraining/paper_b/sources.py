"""Images to prepare: a data set of pairs, or a folder of cases with NIfTI or DICOM in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.images import read_image
from MRTRUSRegistrationLib.masks import on_image_grid, open_label_file
from MRTRUSRegistrationLib.segments import binary
from MRTRUSRegistrationLib.volume_files import IMAGE_SUFFIXES, channels, open_volume, suffix_of

from ..data.case_files import Layout
from ..data.cases import find_cases, load_case
from .settings import Modality

SIDES: tuple[tuple[Modality, str], ...] = (("MR", "mr"), ("TRUS", "trus"))
# What a DICOM header says of the acquisition and not of the patient.
_ACQUISITION = {
    "modality": "0008|0060",
    "manufacturer": "0008|0070",
    "model": "0008|1090",
    "field_strength_t": "0018|0087",
    "repetition_time_ms": "0018|0080",
    "echo_time_ms": "0018|0081",
    "slice_thickness_mm": "0018|0050",
}


@dataclass(frozen=True)
class SourceVolume:
    """One image of a case with its binary label channels on the same grid; `acquisition` from DICOM.

    `label_names` are the gland's and the landmarks', a number each where they have no names.
    """

    modality: Modality
    path: Path
    image: sitk.Image
    labels: tuple[sitk.Image, ...]
    label_names: tuple[str, ...]
    acquisition: dict[str, str]


@dataclass(frozen=True)
class SourceCase:
    """A case: one volume or one of each modality."""

    name: str
    volumes: tuple[SourceVolume, ...]


def data_set_cases(data: Path, layout: Layout) -> Iterator[SourceCase]:
    """The pairs of a data set, with the axes that its loader knows."""
    for case in find_cases(data, layout):
        loaded = load_case(case)
        sides: tuple[tuple[Modality, Path, sitk.Image, tuple[sitk.Image, ...]], ...] = (
            ("MR", case.mr_path, loaded.mr, loaded.mr_labels),
            ("TRUS", case.trus_path, loaded.trus, loaded.trus_labels),
        )
        volumes = (SourceVolume(*side, loaded.label_names, acquisition(side[1])) for side in sides)
        yield SourceCase(case.name, tuple(volumes))


def folder_cases(folder: Path) -> Iterator[SourceCase]:
    """One folder a case, with mr and trus, each a file or a folder of DICOM slices, or one of them.

    mr_labels and trus_labels, where there are any, are files of binary channels, the gland first.
    """
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and _has_images(path)]
    if not found:
        raise InputError(
            f"{folder} holds no cases; give a data set, or a folder a case with mr and trus in it (a volume "
            "file, or a folder of DICOM slices)."
        )
    for path in found:
        volumes = [_volume(path, modality, name) for modality, name in SIDES]
        yield SourceCase(path.name, tuple(volume for volume in volumes if volume is not None))


def acquisition(path: Path) -> dict[str, str]:
    """What the DICOM header of a volume says of its acquisition; empty for other formats."""
    metadata = open_volume(path).metadata
    values = {name: metadata.get(key, "").strip() for name, key in _ACQUISITION.items()}
    return {name: value for name, value in values.items() if value}


def _has_images(folder: Path) -> bool:
    return any(_entry(folder, name) is not None for _, name in SIDES)


def _entry(folder: Path, name: str) -> Path | None:
    """The file of that name whatever its suffix, or the folder."""
    paths = [path for path in sorted(folder.iterdir()) if path.name[: len(name)] == name]
    fitting = [path for path in paths if _stem(path) == name]
    if len(fitting) > 1:
        raise InputError(f"The case {folder} has both {fitting[0].name} and {fitting[1].name}; keep one.")
    return fitting[0] if fitting else None


def _stem(path: Path) -> str:
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if path.is_file() and suffix in IMAGE_SUFFIXES else path.name


def _volume(folder: Path, modality: Modality, name: str) -> SourceVolume | None:
    path, labels_path = _entry(folder, name), _entry(folder, f"{name}_labels")
    if path is None:
        return None
    loaded = read_image(path, role=modality)
    labels: list[sitk.Image] = []
    if labels_path is not None:
        volume = open_label_file(labels_path)
        parts = [binary(part) for part in channels(volume.read())]
        labels = [on_image_grid(part, loaded, name=str(labels_path)) for part in parts]
    names = tuple("gland" if n == 0 else f"landmark {n}" for n in range(len(labels)))
    return SourceVolume(modality, path, loaded.image, tuple(labels), names, acquisition(path))
