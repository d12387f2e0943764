"""Data sets in folders by modality: the layouts `mrus` and `muregpro`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from MRTRUSRegistrationLib.errors import InputError

from .case_files import Case, Layout

SIDES = {"mrus": ("moving", "fixed"), "muregpro": ("mr", "us")}
_SUFFIX = ".nii.gz"
# The µ-RegPro download has a folder for each part of its split.
_PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Root:
    """A folder with the four folders of a layout; `part` is the part of the split that it stands for."""

    folder: Path
    layout: Layout
    part: str = ""

    @property
    def folders(self) -> tuple[Path, Path, Path, Path]:
        """MR images, TRUS images, MR labels, TRUS labels."""
        mr, trus = SIDES[self.layout]
        names = (f"{mr}_images", f"{trus}_images", f"{mr}_labels", f"{trus}_labels")
        return tuple(self.folder / name for name in names)  # type: ignore[return-value]

    def names(self) -> list[str]:
        """Names of the cases whose MR image is there, sorted."""
        return sorted(path.name.removesuffix(_SUFFIX) for path in self.folders[0].glob(f"*{_SUFFIX}"))

    def case(self, name: str, patient: str) -> Case:
        """The case of that name, whether its files are there or not."""
        mr, trus, mr_labels, trus_labels = (folder / f"{name}{_SUFFIX}" for folder in self.folders)
        truth = self.folder / "transforms" / f"{name}.h5"
        known = truth if truth.is_file() else None
        return Case(name, patient, mr, trus, mr_labels, trus_labels, self.layout, known, part=self.part)


def roots(data: Path, layout: Layout) -> list[Root]:
    """Where the folders of a layout are below `data`; `InputError` where they are not."""
    if not data.is_dir():
        raise InputError(f"The data folder {data} does not exist.")
    flat = Root(data, layout)
    if flat.folders[0].is_dir():
        return [flat]
    nested = [Root(base / part, layout, part) for base in (data / "nifti_data", data) for part in _PARTS]
    found = [root for root in nested if root.folders[0].is_dir()]
    if not found:
        raise InputError(f"{data} has no folder {flat.folders[0].name}, so it is not in the layout {layout}.")
    return found


def folder_cases(data: Path, layout: Layout, patients: Mapping[str, str]) -> list[Case]:
    """Every case with an MR image, sorted by name; `patients` gives a case's patient, else it is its own."""
    found = roots(data, layout)
    cases = [root.case(name, patients.get(name, name)) for root in found for name in root.names()]
    return sorted(cases, key=lambda case: case.name)


def absent_case(data: Path, layout: Layout, name: str, patients: Mapping[str, str]) -> Case:
    """A case without an MR image: where its files would be."""
    return roots(data, layout)[0].case(name, patients.get(name, name))
