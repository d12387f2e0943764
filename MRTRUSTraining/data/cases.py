"""Data sets of paired cases with reference labels, in the layouts `mrus`, `muregpro` and `manifest`.

In all of them labels are 4-D files whose last axis is the channel: channel 0 is the gland, the others are
landmarks in the same order in both modalities, an empty channel standing for a missing one. A manifest may
give landmarks as lists of points instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, with_orientation
from MRTRUSRegistrationLib.images import LoadedImage, read_image
from MRTRUSRegistrationLib.landmarks import LandmarkPairs, pair_landmarks, read_landmarks
from MRTRUSRegistrationLib.results import Landmarks
from MRTRUSRegistrationLib.segmentation import PUBLIC_AXES

from .case_files import LAYOUTS as LAYOUTS
from .case_files import Case, Layout
from .folders import SIDES, absent_case, folder_cases
from .manifest import MANIFEST_NAME, manifest_cases
from .splits import SPLIT_NAME, Parts, check_leaks, own_parts, read_parts, read_patients
from .splits import read_case_names as read_case_names
from .unpaired import unpaired_sentence

# A landmark given as a point becomes a ball of the size of a usual landmark label.
_POINT_RADIUS_MM = 3.0


@dataclass(frozen=True)
class LoadedCase:
    """One case in memory: images (float32) and binary labels (uint8) in LPS millimetres.

    `mr_labels` and `trus_labels` correspond index by index; index 0 is the gland. `initial` maps TRUS points
    to MR points so that the middles of both volumes coincide, for their headers share the patient's axes and
    nothing else. `truth`, which simulated cases have, maps TRUS points to MR points exactly. `points` holds
    landmarks that were given as points; their labels are then balls of 3 mm radius about them. `unpaired`
    has a sentence for each landmark that was left out because one modality lacks it.
    """

    name: str
    patient: str
    mr: sitk.Image
    trus: sitk.Image
    mr_labels: tuple[sitk.Image, ...]
    trus_labels: tuple[sitk.Image, ...]
    label_names: tuple[str, ...]
    initial: sitk.Transform
    truth: sitk.Transform | None = None
    points: LandmarkPairs | None = None
    unpaired: tuple[str, ...] = ()

    @property
    def mr_gland(self) -> sitk.Image:
        return self.mr_labels[0]

    @property
    def trus_gland(self) -> sitk.Image:
        return self.trus_labels[0]


def detect_layout(data: Path) -> Layout:
    """The layout that a folder or a CSV file is in; `InputError` where it is none of them."""
    if data.suffix.casefold() == ".csv" or (data / MANIFEST_NAME).is_file():
        return "manifest"
    if (data / f"{SIDES['mrus'][0]}_images").is_dir():
        return "mrus"
    nested = (data, data / "train", data / "val")
    if (data / "nifti_data").is_dir() or any((root / "mr_images").is_dir() for root in nested):
        return "muregpro"
    raise InputError(
        f"{data} is not a data set of a known layout; give a folder with moving_images or mr_images, or a "
        "manifest (CSV)."
    )


def list_cases(data: Path, layout: Layout, *, split_file: Path | None = None) -> list[Case]:
    """Every case of a data set, sorted, files unchecked; a split file overrules the groups of patients.

    `InputError` where there is none.
    """
    cases = _listed(data, layout, split_file)
    if not cases:
        raise InputError(f"No cases were found in {data}; put the images where the layout {layout} has them.")
    return cases


def _listed(data: Path, layout: Layout, split_file: Path | None = None) -> list[Case]:
    if layout == "manifest":
        return manifest_cases(data)
    return folder_cases(data, layout, _patients(data, split_file))


def find_cases(data: Path, layout: Layout, names: list[str] | None = None) -> list[Case]:
    """The cases of a data set, all or those named, sorted.

    `InputError` where a file is missing, or where the data set's own split has a patient in two parts.
    """
    # Where cases are named, the one that is missing says more than that there are none.
    cases = list_cases(data, layout) if names is None else _listed(data, layout)
    check_leaks(own_parts(data, cases), _patients_of(cases), data)
    chosen = cases if names is None else _named(cases, names, data, layout)
    _check_files(chosen)
    return chosen


def find_parts(data: Path, layout: Layout, *, split_file: Path | None = None) -> Parts:
    """Case names by part (train, val, test), from a split file or the data set's own split; may be empty.

    The data set's own split is splits.json, the manifest's column or the folders of the µ-RegPro download.
    `InputError` where a patient is in two parts.
    """
    cases = list_cases(data, layout, split_file=split_file)
    parts = own_parts(data, cases) if split_file is None else read_parts(split_file)
    check_leaks(parts, _patients_of(cases), split_file or data)
    return parts


def find_part(data: Path, layout: Layout, part: str, *, split_file: Path | None = None) -> list[Case]:
    """The cases of one part of a split, see `find_parts`; `InputError` where it is empty."""
    names = find_parts(data, layout, split_file=split_file).get(part)
    if not names:
        raise InputError(
            f"The split of {split_file or data} has no cases in {part!r}; name some or split anew."
        )
    chosen = _named(list_cases(data, layout, split_file=split_file), names, data, layout)
    _check_files(chosen)
    return chosen


def _patients(data: Path, split_file: Path | None = None) -> dict[str, str]:
    """Patient of each case by the groups of the data set's own split, then of the given one."""
    given = {} if split_file is None else read_patients(split_file)
    return read_patients(data / SPLIT_NAME) | given


def _patients_of(cases: Iterable[Case]) -> dict[str, str]:
    return {case.name: case.patient for case in cases}


def _named(cases: list[Case], names: Iterable[str], data: Path, layout: Layout) -> list[Case]:
    known = {case.name: case for case in cases}
    if layout != "manifest":
        return [known.get(name) or absent_case(data, layout, name, _patients_of(cases)) for name in names]
    for name in names:
        if name not in known:
            raise InputError(f"{data} has no case {name}; add it or leave it out of the list.")
    return [known[name] for name in names]


def _check_files(cases: Iterable[Case]) -> None:
    for case in cases:
        for path in case.files:
            if not path.exists():
                raise InputError(f"Case {case.name} lacks the file {path}.")


def load_case(case: Case) -> LoadedCase:
    """Read one case; labels that are empty in either modality are left out (the gland never is)."""
    mr, mr_labels = _read_side(case.mr_path, case.mr_labels_path, "MR", case.layout, case.mr_orientation)
    trus, trus_labels = _read_side(
        case.trus_path, case.trus_labels_path, "TRUS", case.layout, case.trus_orientation
    )
    if len(mr_labels) != len(trus_labels):
        raise InputError(
            f"Case {case.name} has {len(mr_labels)} label channels in MR but {len(trus_labels)} in TRUS."
        )
    if not (_has_voxels(mr_labels[0]) and _has_voxels(trus_labels[0])):
        raise InputError(f"Case {case.name} has an empty gland label.")
    points = _read_points(case, mr, trus, channels=len(mr_labels))
    unpaired = _unpaired(case, mr_labels, trus_labels)
    if points is None:
        names, mr_labels, trus_labels = _paired(mr_labels, trus_labels)
    else:
        names = ("gland", *points.mr.names)
        mr_labels = [mr_labels[0], *_balls(points.mr, mr)]
        trus_labels = [trus_labels[0], *_balls(points.trus, trus)]
    return LoadedCase(
        case.name,
        case.patient,
        mr.image,
        trus.image,
        tuple(mr_labels),
        tuple(trus_labels),
        names,
        centred_initial(mr.grid, trus.grid),
        _read_truth(case.truth_path),
        points,
        unpaired,
    )


def _paired(
    mr_labels: list[sitk.Image], trus_labels: list[sitk.Image]
) -> tuple[tuple[str, ...], list[sitk.Image], list[sitk.Image]]:
    """Names and labels of the gland and of the landmarks that both sides have."""
    kept = [
        k
        for k in range(len(mr_labels))
        if k == 0 or (_has_voxels(mr_labels[k]) and _has_voxels(trus_labels[k]))
    ]
    names = tuple("gland" if k == 0 else f"landmark {k}" for k in kept)
    return names, [mr_labels[k] for k in kept], [trus_labels[k] for k in kept]


def _unpaired(case: Case, mr_labels: list[sitk.Image], trus_labels: list[sitk.Image]) -> tuple[str, ...]:
    """A sentence for each landmark that one side lacks; a channel that is empty on both is none."""
    sides = [(_has_voxels(mr), _has_voxels(trus)) for mr, trus in zip(mr_labels, trus_labels, strict=True)]
    return tuple(
        unpaired_sentence(case.name, channel, in_mr=in_mr)
        for channel, (in_mr, in_trus) in enumerate(sides)
        if in_mr != in_trus
    )


def _read_points(case: Case, mr: LoadedImage, trus: LoadedImage, *, channels: int) -> LandmarkPairs | None:
    """Landmarks from the case's point files; they do not go together with landmark channels."""
    mr_path, trus_path = case.mr_landmarks_path, case.trus_landmarks_path
    if mr_path is None or trus_path is None:
        return None
    if channels > 1:
        raise InputError(
            f"Case {case.name} has landmarks as points and as label channels; give them in one way."
        )
    sides = read_landmarks(mr_path, mr), read_landmarks(trus_path, trus)
    return pair_landmarks(*sides, mr_path.name, trus_path.name)


def _balls(landmarks: Landmarks, loaded: LoadedImage) -> list[sitk.Image]:
    """A binary ball about each point; `InputError` where one has no voxel in the image."""
    grid = loaded.grid
    places_mm = grid.points_mm()
    labels = []
    for name, point_mm in zip(landmarks.names, landmarks.points_mm, strict=True):
        inside = np.linalg.norm(places_mm - point_mm, axis=-1) <= _POINT_RADIUS_MM
        if not inside.any():
            raise InputError(f"The landmark {name} lies outside {loaded.name}; correct or remove it.")
        labels.append(grid.image(inside.astype(np.uint8)))
    return labels


def _read_truth(path: Path | None) -> sitk.Transform | None:
    if path is None:
        return None
    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(f"The transform in {path} cannot be read; simulate the case again.") from error


def centred_initial(mr: Grid, trus: Grid) -> sitk.Transform:
    """TRUS points to MR points such that the middles of both volumes coincide, neither of them turned."""
    return sitk.TranslationTransform(3, (mr.centre_mm - trus.centre_mm).tolist())


def _read_side(
    image_path: Path,
    labels_path: Path,
    role: Literal["MR", "TRUS"],
    layout: Layout,
    orientation: str | None,
) -> tuple[LoadedImage, list[sitk.Image]]:
    """An image and the label channels on its grid."""
    loaded = read_image(image_path, role=role, orientation=orientation)
    # The public files carry no orientation; simulated ones in the same layout do, and so do a user's own.
    known = layout == "manifest" or (loaded.orientation_known and layout == "muregpro")
    if not known:
        loaded = replace(loaded, image=with_orientation(loaded.image, PUBLIC_AXES))
    return loaded, _read_labels(labels_path, loaded.image)


def _read_labels(path: Path, image: sitk.Image) -> list[sitk.Image]:
    """Binary channels on the image's grid; a 3-D file is the gland alone."""
    try:
        labels = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"The labels in {path} cannot be read as an image; copy the file again.") from error
    array = sitk.GetArrayFromImage(labels)
    channels = array[None] if array.ndim == 3 else array
    if channels.shape[1:] != image.GetSize()[::-1]:
        raise InputError(f"The labels in {path} have another size than their image.")
    grid = Grid.of(image)
    return [grid.image((channel > 0.5).astype(np.uint8)) for channel in channels]


def _has_voxels(mask: sitk.Image) -> bool:
    return bool(np.any(sitk.GetArrayViewFromImage(mask)))
