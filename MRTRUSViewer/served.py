"""The folder in which visitors may choose files: what lies in it, and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from MRTRUSRegistrationLib.errors import InputError

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
POINTS = (".mrk.json", ".fcsv", ".csv")
_DEEPEST = 4
_MOST = 2000


@dataclass(frozen=True)
class ServedFiles:
    """Names below the served folder, with / between folders, sorted."""

    results: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    points: tuple[str, ...] = ()


class ServedFolder:
    """Names in, paths out: a name that leads out of the folder, by dots or by a link, is refused."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def path(self, name: str) -> Path:
        """The path behind a name; `InputError` for one outside of the folder or one that is gone."""
        path = (self._root / name).resolve()
        if not path.is_relative_to(self._root) or path == self._root:
            raise InputError(f"{Path(name).name} does not lie in the served folder: choose one that does.")
        if not path.exists():
            raise InputError(f"{name} is no longer in the served folder: choose another.")
        return path

    def files(self) -> ServedFiles:
        """What can be opened: results and scenes, volumes, point lists."""
        results, volumes, points = [], [], []
        for folder, names in self._walk():
            if "result.json" in names:
                results.append(folder)
                continue
            for name in names:
                lower, relative = name.lower(), f"{folder}/{name}".lstrip("/")
                if not self._inside(relative):
                    continue
                if lower.endswith(".mrb"):
                    results.append(relative)
                elif lower.endswith(VOLUMES):
                    volumes.append(relative)
                elif lower.endswith(POINTS):
                    points.append(relative)
        return ServedFiles(*(tuple(sorted(found)[:_MOST]) for found in (results, volumes, points)))

    def _inside(self, name: str) -> bool:
        return (self._root / name).resolve().is_relative_to(self._root)

    def _walk(self) -> list[tuple[str, list[str]]]:
        """Folders, by their names below the root, with their files; links to folders are not followed."""
        found = []
        for folder, below, names in os.walk(self._root):
            relative = Path(folder).relative_to(self._root)
            below[:] = sorted(name for name in below if not name.startswith("."))
            if len(relative.parts) >= _DEEPEST:
                below.clear()
            found.append(("" if relative == Path() else relative.as_posix(), sorted(names)))
        return found
