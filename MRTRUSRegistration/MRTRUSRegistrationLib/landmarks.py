"""Landmarks of one image, and the pairs that two images have in common. Frame: LPS, millimetres."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .geometry import mask_centroid_mm
from .images import LoadedImage
from .landmark_files import Frame, NamedPoints, read_points, write_points
from .masks import on_image_grid, open_label_file
from .results import Landmarks, QualityWarning
from .segments import Segment, binary, has_segments, read_segments, voxel_count
from .volume_files import VolumeFile, channels, check_present, file_name

_OUTSIDE_MM = 20.0
_MAX_LABELS = 200


@dataclass(frozen=True)
class LandmarkPairs:
    """Landmarks that correspond: both sides have the same names in the same order."""

    mr: Landmarks
    trus: Landmarks
    warnings: tuple[QualityWarning, ...] = ()


def read_landmarks(path: str | Path, loaded: LoadedImage, *, frame: Frame | None = None) -> Landmarks:
    """Read the landmarks of an image, as points or as labels.

    Points: .mrk.json or .fcsv of 3D Slicer, or CSV with the columns name, x_lps, y_lps, z_lps (or x_ras, …);
    `frame` says LPS or RAS where a CSV file does not, and a line that begins with # is a comment
    (`landmark_files.read_points`). Labels: 4-D (the first channel is the gland and is left out, and so are
    empty channels), an integer label map (each value a landmark) or .seg.nrrd (each segment but the gland).
    Points and labels lie in the file's frame and move along where an orientation code re-labelled the image.
    Raises `InputError` for a file that cannot be used.
    """
    path = Path(path)
    check_present(path)
    points = None if path.is_dir() else read_points(path, frame=frame)
    if points is None:
        return _read_labels(path, loaded)
    _check_names(points.names, file_name(path))
    _check_points(points, loaded, file_name(path))
    return Landmarks(points.names, _carried_along(points.points_mm, loaded))


def pair_landmarks(mr: Landmarks, trus: Landmarks, mr_name: str, trus_name: str) -> LandmarkPairs:
    """Pair the landmarks of both images by name, in the order of the MR.

    Without common names, lists of equal length with numbered default names (F-1, landmark 2, 3) are paired
    by number. A label without a partner is left out with a warning; a point without one is an `InputError`
    that names it.
    """
    mr_keys, trus_keys = ([name.casefold() for name in side.names] for side in (mr, trus))
    common = [key for key in mr_keys if key in trus_keys]
    numbers = _default_numbers(mr.names), _default_numbers(trus.names)
    if not common and len(mr) == len(trus) and numbers[0] is not None and numbers[1] is not None:
        return _pair_by_number(mr, trus, (numbers[0], numbers[1]), mr_name, trus_name)
    missing = _without_partner(mr, trus_keys, mr_name) + _without_partner(trus, mr_keys, trus_name)
    if missing and not (common and mr.labels and trus.labels):
        raise InputError(f"Landmarks without a partner: {', '.join(missing)}; give both the same names.")
    chosen = _chosen(mr, [mr_keys.index(key) for key in common])
    partner = _chosen(trus, [trus_keys.index(key) for key in common])
    warnings = tuple(
        QualityWarning("landmark_unpaired", f"The landmark {entry} has no partner and is left out.")
        for entry in missing
    )
    return LandmarkPairs(chosen, replace(partner, names=chosen.names), warnings)


def write_landmarks(landmarks: Landmarks, path: str | Path) -> None:
    """Write the points as Slicer markups (.mrk.json, LPS) or as CSV (name, x_lps, y_lps, z_lps)."""
    write_points(NamedPoints(landmarks.names, landmarks.points_mm), Path(path))


def _read_labels(path: Path, loaded: LoadedImage) -> Landmarks:
    volume = open_label_file(path)
    labels = [label for label in _labels(volume) if voxel_count(label.mask)]
    if not labels:
        raise InputError(f"{volume.name} holds no landmarks: give one label for each.")
    names = tuple(label.name for label in labels)
    _check_names(names, volume.name)
    masks = [on_image_grid(s.mask, loaded, name=f"Landmark {s.name} of {volume.name}") for s in labels]
    for name, mask in zip(names, masks, strict=True):
        if not voxel_count(mask):
            raise InputError(
                f"Landmark {name} of {volume.name} is too small for the voxels of {loaded.name}: give it as a"
                " point."
            )
    return Landmarks(names, np.array([mask_centroid_mm(mask) for mask in masks]), tuple(masks))


def _labels(volume: VolumeFile) -> list[Segment]:
    if has_segments(volume):
        return [segment for segment in read_segments(volume) if not segment.is_gland]
    image = volume.read()
    if image.GetDimension() > 3 or image.GetNumberOfComponentsPerPixel() > 1:
        parts = channels(image)[1:]
        return [Segment(f"landmark {number}", binary(part)) for number, part in enumerate(parts, start=1)]
    return _label_map(image, volume.name)


def _label_map(image: sitk.Image, name: str) -> list[Segment]:
    """Every positive value of an integer label map as a landmark of its own."""
    if image.GetPixelID() in (sitk.sitkFloat32, sitk.sitkFloat64):
        raise InputError(f"{name} holds no integers: save the landmarks as an integer label map.")
    values = np.unique(sitk.GetArrayViewFromImage(image))
    values = values[values > 0]
    if len(values) > _MAX_LABELS:
        raise InputError(f"{name} holds {len(values)} different values, so it is no label map: give one.")
    return [Segment(str(value), image == value) for value in values.tolist()]


def _check_names(names: tuple[str, ...], file: str) -> None:
    repeated = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    if repeated:
        raise InputError(f"{file} has several landmarks named {', '.join(repeated)}: give each its own name.")


def _check_points(points: NamedPoints, loaded: LoadedImage, file: str) -> None:
    """Raise `InputError` for points that are no numbers or lie far outside of the image."""
    bad = [n for n, p in zip(points.names, points.points_mm, strict=True) if not np.isfinite(p).all()]
    if bad:
        raise InputError(f"{file} has no finite position for {', '.join(bad)}: correct or remove it.")
    grid = loaded.file_grid
    index = _index(points.points_mm, loaded)
    beyond = np.maximum(-0.5 - index, index - (np.array(grid.size_vox) - 0.5)).clip(0) * grid.spacing_mm
    far_mm = np.linalg.norm(beyond, axis=1)
    if far_mm.max() > _OUTSIDE_MM:
        name = points.names[int(far_mm.argmax())]
        raise InputError(
            f"{file} has the landmark {name} {far_mm.max():.0f} mm outside of {loaded.name}: check that it"
            " belongs to this image and that its frame (LPS or RAS) is right."
        )


def _carried_along(points_mm: np.ndarray, loaded: LoadedImage) -> np.ndarray:
    """Points of the file's frame where the image now has them."""
    if not loaded.relabelled:
        return points_mm
    matrix = loaded.grid.index_to_point
    return _index(points_mm, loaded) @ matrix[:3, :3].T + matrix[:3, 3]


def _index(points_mm: np.ndarray, loaded: LoadedImage) -> np.ndarray:
    """(n, 3) continuous voxel indices (i, j, k) of points in the file's frame."""
    matrix = np.linalg.inv(loaded.file_grid.index_to_point)
    return points_mm @ matrix[:3, :3].T + matrix[:3, 3]


def _default_numbers(names: tuple[str, ...]) -> list[int] | None:
    """The numbers of default names such as "F-1", "F-2" or "1", "2"; None if they are real names."""
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    found = [(part[1], int(part[2])) for part in parts if part]
    default = len(found) == len(names) == len(set(found)) and len({prefix for prefix, _ in found}) == 1
    return [number for _, number in found] if default else None


def _pair_by_number(
    mr: Landmarks, trus: Landmarks, numbers: tuple[list[int], list[int]], mr_name: str, trus_name: str
) -> LandmarkPairs:
    first = _chosen(mr, np.argsort(numbers[0]).tolist())
    second = _chosen(trus, np.argsort(numbers[1]).tolist())
    pairs = ", ".join(f"{a} with {b}" for a, b in zip(first.names, second.names, strict=True))
    message = f"{mr_name} and {trus_name} have no landmark names in common; paired by number: {pairs}."
    warning = QualityWarning("landmarks_paired_by_number", message)
    return LandmarkPairs(first, replace(second, names=first.names), (warning,))


def _without_partner(side: Landmarks, others: list[str], file: str) -> list[str]:
    return [f"{name} of {file}" for name in side.names if name.casefold() not in others]


def _chosen(side: Landmarks, order: list[int]) -> Landmarks:
    labels = tuple(side.labels[n] for n in order) if side.labels else ()
    return Landmarks(tuple(side.names[n] for n in order), side.points_mm[order], labels)
