"""Label files: the layers and segments of a 3D Slicer segmentation, and which of them is the gland."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .volume_files import VolumeFile, channels

_GLAND_NAMES = ("prostate", "gland", "prostate gland", "whole prostate", "whole gland")


@dataclass(frozen=True)
class Segment:
    """One structure of a segmentation: a binary uint8 `mask` on the file's own grid."""

    name: str
    mask: sitk.Image

    @property
    def is_gland(self) -> bool:
        """Whether the name says that this is the whole gland."""
        return re.sub(r"[\W_]+", " ", self.name).strip().casefold() in _GLAND_NAMES


def has_segments(volume: VolumeFile) -> bool:
    """Whether the file names its segments, as Slicer's .seg.nrrd does."""
    return "Segment0_LabelValue" in volume.metadata or "Segment0_Name" in volume.metadata


def read_segments(volume: VolumeFile) -> list[Segment]:
    """The named segments of a Slicer segmentation file, in the file's order."""
    layers = channels(volume.read())
    segments = []
    number = 0
    while any(f"Segment{number}_{key}" in volume.metadata for key in ("Name", "LabelValue", "ID")):
        segments.append(_segment(volume, layers, number))
        number += 1
    return segments


def gland_segment(volume: VolumeFile) -> Segment:
    """The gland of a Slicer segmentation: by its name, else the only segment; `InputError` if unclear."""
    segments = read_segments(volume)
    by_name = [s for s in segments if re.search("prostate|gland", s.name, re.IGNORECASE)]
    for candidates in ([s for s in segments if s.is_gland], by_name, segments):
        if len(candidates) == 1:
            return candidates[0]
    names = ", ".join(segment.name for segment in segments)
    raise InputError(
        f"{volume.name} holds several segments ({names}), none of which is clearly the gland: name it"
        ' "prostate".'
    )


def binary(label: sitk.Image) -> sitk.Image:
    """A 3-D label image as uint8 0/1: floating-point values above one half, or integers other than zero."""
    if label.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64):
        return label > 0.5
    return label != 0


def voxel_count(mask: sitk.Image) -> int:
    return int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))


def _segment(volume: VolumeFile, layers: list[sitk.Image], number: int) -> Segment:
    """Older files have no layer and value keys: each segment is a layer of its own with value 1."""
    key = f"Segment{number}_"
    try:
        layer = int(volume.metadata.get(key + "Layer", number if len(layers) > 1 else 0))
        value = int(volume.metadata.get(key + "LabelValue", 1))
        mask = layers[layer] == value
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{volume.name} has a damaged list of segments: save the segmentation again in 3D Slicer."
        ) from error
    return Segment(volume.metadata.get(key + "Name", f"segment {number + 1}").strip(), mask)
