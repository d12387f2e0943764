"""Where the files of one case are: what every layout of a data set comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Layout = Literal["mrus", "muregpro", "manifest"]
LAYOUTS: tuple[Layout, ...] = ("mrus", "muregpro", "manifest")


@dataclass(frozen=True)
class Case:
    """Where the files of one case are.

    `part` is the part of the split that the data set itself puts the case in, empty where it does not say.
    Landmark files are lists of points; without them the label channels hold the landmarks.
    """

    name: str
    patient: str
    mr_path: Path
    trus_path: Path
    mr_labels_path: Path
    trus_labels_path: Path
    layout: Layout
    truth_path: Path | None = None
    mr_landmarks_path: Path | None = None
    trus_landmarks_path: Path | None = None
    mr_orientation: str | None = None
    trus_orientation: str | None = None
    part: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that `load_case` reads."""
        optional = (self.truth_path, self.mr_landmarks_path, self.trus_landmarks_path)
        needed = (self.mr_path, self.trus_path, self.mr_labels_path, self.trus_labels_path)
        return (*needed, *(path for path in optional if path is not None))

    @property
    def reading(self) -> tuple[str | None, ...]:
        """All but the files that decides what `load_case` makes of them; for the keys of a cache."""
        return self.name, self.layout, self.mr_orientation, self.trus_orientation
