"""Data sets of paired cases with reference labels, in the layouts `mrus` and `muregpro`.

In both, labels are 4-D files whose last axis is the channel: channel 0 is the gland, the others are
landmarks in the same order in both modalities, an empty channel standing for a missing one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, with_orientation
from MRTRUSRegistrationLib.images import read_image
from MRTRUSRegistrationLib.segmentation import PUBLIC_AXES

Layout = Literal["mrus", "muregpro"]

_FOLDERS = {"mrus": ("moving", "fixed"), "muregpro": ("mr", "us")}


@dataclass(frozen=True)
class Case:
    """Where the files of one case are."""

    name: str
    patient: str
    mr_path: Path
    trus_path: Path
    mr_labels_path: Path
    trus_labels_path: Path
    layout: Layout
    truth_path: Path | None = None


@dataclass(frozen=True)
class LoadedCase:
    """One case in memory: images (float32) and binary labels (uint8) in LPS millimetres.

    `mr_labels` and `trus_labels` correspond index by index; index 0 is the gland. `initial` maps TRUS points
    to MR points so that the middles and the axes of both volumes coincide: all that the files know. `truth`,
    which simulated cases have, maps TRUS points to MR points exactly.
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

    @property
    def mr_gland(self) -> sitk.Image:
        return self.mr_labels[0]

    @property
    def trus_gland(self) -> sitk.Image:
        return self.trus_labels[0]


def find_cases(data: Path, layout: Layout, names: list[str] | None = None) -> list[Case]:
    """The cases of a data set, all or those named, sorted; `InputError` where a file is missing."""
    if not data.is_dir():
        raise InputError(f"The data folder {data} does not exist.")
    images = data / f"{_FOLDERS[layout][0]}_images"
    if not images.is_dir():
        raise InputError(f"{data} has no folder {images.name}, so it is not in the layout {layout}.")
    present = sorted(path.name.removesuffix(".nii.gz") for path in images.glob("*.nii.gz"))
    wanted = present if names is None else names
    if not wanted:
        raise InputError(f"No cases were found in {images}.")
    patients = _patients(data)
    return [_case(data, layout, name, patients.get(name, name)) for name in wanted]


def _case(data: Path, layout: Layout, name: str, patient: str) -> Case:
    moving, fixed = _FOLDERS[layout]
    folders = (f"{moving}_images", f"{fixed}_images", f"{moving}_labels", f"{fixed}_labels")
    paths = [data / folder / f"{name}.nii.gz" for folder in folders]
    for path in paths:
        if not path.is_file():
            raise InputError(f"Case {name} lacks the file {path}.")
    truth = data / "transforms" / f"{name}.h5"
    return Case(
        name,
        patient,
        paths[0],
        paths[1],
        paths[2],
        paths[3],
        layout,
        truth if truth.is_file() else None,
    )


def _patients(data: Path) -> dict[str, str]:
    """Patient of each case, from the groups in splits.json; cases that no group names stand alone."""
    path = data / "splits.json"
    if not path.is_file():
        return {}
    try:
        groups = json.loads(path.read_text(encoding="utf-8")).get("patients", [])
        return {name: group[0] for group in groups for name in group}
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} is not a split: give a JSON object whose 'patients' is a list of lists of case names."
        ) from error


def read_case_names(path: Path, part: str | None = None) -> list[str]:
    """Case names from a JSON file: a list, or an object of lists of which `part` names one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"The case list {path} does not exist.") from error
    except ValueError as error:
        raise InputError(f"The case list {path} is not valid JSON ({error}).") from error
    if isinstance(content, dict):
        if part is None and "val" in content:
            part = "val"
        content = content.get(part or "cases")
    if not isinstance(content, list) or not content or not all(isinstance(n, str) for n in content):
        raise InputError(f"{path} holds no list of case names{f' under {part!r}' if part else ''}.")
    return content


def load_case(case: Case) -> LoadedCase:
    """Read one case; labels that are empty in either modality are left out (the gland never is)."""
    mr, mr_labels = _read_pair(case.mr_path, case.mr_labels_path, "MR", case.layout)
    trus, trus_labels = _read_pair(case.trus_path, case.trus_labels_path, "TRUS", case.layout)
    if len(mr_labels) != len(trus_labels):
        raise InputError(
            f"Case {case.name} has {len(mr_labels)} label channels in MR but {len(trus_labels)} in TRUS."
        )
    kept = [
        k
        for k in range(len(mr_labels))
        if k == 0 or (_has_voxels(mr_labels[k]) and _has_voxels(trus_labels[k]))
    ]
    if not (_has_voxels(mr_labels[0]) and _has_voxels(trus_labels[0])):
        raise InputError(f"Case {case.name} has an empty gland label.")
    return LoadedCase(
        case.name,
        case.patient,
        mr,
        trus,
        tuple(mr_labels[k] for k in kept),
        tuple(trus_labels[k] for k in kept),
        tuple("gland" if k == 0 else f"landmark {k}" for k in kept),
        centred_initial(Grid.of(mr), Grid.of(trus)),
        _read_truth(case.truth_path),
    )


def _read_truth(path: Path | None) -> sitk.Transform | None:
    if path is None:
        return None
    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(f"The transform in {path} cannot be read; simulate the case again.") from error


def centred_initial(mr: Grid, trus: Grid) -> sitk.Transform:
    """TRUS points to MR points such that the middles and the index axes of both grids coincide."""
    transform = sitk.AffineTransform(3)
    transform.SetCenter(trus.centre_mm.tolist())
    transform.SetMatrix((mr.axes @ trus.axes.T).ravel().tolist())
    transform.SetTranslation((mr.centre_mm - trus.centre_mm).tolist())
    return transform


def _read_pair(
    image_path: Path, labels_path: Path, role: Literal["MR", "TRUS"], layout: Layout
) -> tuple[sitk.Image, list[sitk.Image]]:
    loaded = read_image(image_path, role=role)
    # The public files carry no orientation; simulated ones in the same layout do.
    known = loaded.orientation_known and layout == "muregpro"
    image = loaded.image if known else with_orientation(loaded.image, PUBLIC_AXES)
    return image, _read_labels(labels_path, image)


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
