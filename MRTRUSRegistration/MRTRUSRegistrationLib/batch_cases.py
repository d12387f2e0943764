"""The cases of a batch, from a table (CSV) or from a folder, each as a job."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import InputError
from .job import Job
from .text_table import filled_rows
from .volume_files import IMAGE_SUFFIXES, open_volume, suffix_of

_NEEDED_COLUMNS = ("case", "mr", "trus")
_PATH_COLUMNS = (
    *("mr_mask", "trus_mask", "mr_landmarks", "trus_landmarks"),
    *("rigid", "initial", "targets", "lesions"),
)
_TEXT_COLUMNS = ("landmark_frame", "mr_orientation", "trus_orientation")
_COLUMNS = (*_NEEDED_COLUMNS, *_PATH_COLUMNS, *_TEXT_COLUMNS)
_INITIAL_WORDS = ("gland", "world")
# Data sets whose images and labels lie in folders by modality: (MR, TRUS).
_LAYOUTS = (("moving", "fixed"), ("mr", "us"))
_LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".seg.nrrd")
_POINT_SUFFIXES = (".mrk.json", ".json", ".fcsv", ".csv", ".tsv", *_LABEL_SUFFIXES)
# What a case's folder may hold, by the files' names without their suffixes.
_CASE_FILES = {
    "mr": IMAGE_SUFFIXES,
    "trus": IMAGE_SUFFIXES,
    "mr_mask": _LABEL_SUFFIXES,
    "trus_mask": _LABEL_SUFFIXES,
    "mr_landmarks": _POINT_SUFFIXES,
    "trus_landmarks": _POINT_SUFFIXES,
    "targets": _POINT_SUFFIXES,
    "lesions": _LABEL_SUFFIXES,
}
_MAX_NAME = 100
# What one of the usual systems does not take as the name of a folder.
_UNSAFE = re.compile(r'[\x00-\x1f/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class BatchCase:
    """A case by its name, which is also that of its result's folder."""

    name: str
    job: Job


def read_cases(source: Path, results: Path, common: Job) -> tuple[BatchCase, ...]:
    """The cases of a table or a folder, with results in folders of `results` and the settings of `common`.

    Table: the columns case, mr and trus, and any of those in `_COLUMNS`; paths are relative to the table.
    Folder: one folder a case with mr.* and trus.* and, where known, mr_mask.*, trus_mask.*, mr_landmarks.*,
    trus_landmarks.*, targets.* and lesions.*; or the layout of the public sets, moving_images and
    fixed_images or mr_images and us_images, whose labels serve as landmarks. That files exist is for each
    case's own run to check, so that a missing one does not stop the others. Raises `InputError` for what
    cannot be understood.
    """
    if not source.exists():
        raise InputError(f"{source} does not exist; give a CSV file or a folder of cases.")
    rows = _from_folder(source) if source.is_dir() else _from_table(source)
    if not rows:
        raise InputError(f"{source} holds no cases; see `mrtrus batch --help` for what is expected.")
    _check_names([row["case"] for row in rows], source)
    return tuple(BatchCase(row["case"], _job(row, results, common)) for row in rows)


def _job(row: dict[str, str], results: Path, common: Job) -> Job:
    values = {name: value for name, value in row.items() if name != "case"}
    paths = {name: Path(value) for name, value in values.items() if name not in (*_TEXT_COLUMNS, "initial")}
    texts = {name: value for name, value in values.items() if name not in paths}
    return replace(common, output=results / row["case"], **paths, **texts)  # type: ignore[arg-type]


def check_folder_name(name: str, source: Path) -> None:
    """`InputError` for a case's name in `source` that some usual system does not take as a folder's."""
    if _UNSAFE.search(name) or _RESERVED.fullmatch(name) or name[:1] == "." or name[-1:] in ". ":
        raise InputError(
            f"The case name {name!r} in {source.name} cannot be the name of a folder; use letters, "
            "digits, - and _."
        )
    if len(name.encode()) > _MAX_NAME:
        raise InputError(f"The case name {name[:20]}… in {source.name} is too long; shorten it.")


def _check_names(names: list[str], source: Path) -> None:
    seen: set[str] = set()
    for name in names:
        check_folder_name(name, source)
        # Some file systems do not tell capitals from small letters.
        if name.casefold() in seen:
            raise InputError(f"The case {name} stands twice in {source.name}; give each its own name.")
        seen.add(name.casefold())


def _from_table(path: Path) -> list[dict[str, str]]:
    table = _table(path)
    if not table:
        raise InputError(f"{path.name} is empty; give a table with the columns case, mr and trus.")
    header = [title.strip().casefold() for title in table[0]]
    _check_header(header, path)
    rows = []
    for number, cells in enumerate(table[1:], start=1):
        if len(cells) > len(header):
            raise InputError(f"{path.name} has more cells than columns in case {number}; correct the row.")
        row = {title: cell for title, cell in zip(header, cells, strict=False) if cell}
        missing = [name for name in _NEEDED_COLUMNS if name not in row]
        if missing:
            raise InputError(f"{path.name} has no {missing[0]} in case {number}; fill it in.")
        rows.append({name: _located(name, value, path.absolute().parent) for name, value in row.items()})
    return rows


def _table(path: Path) -> list[list[str]]:
    """The rows that hold anything, header first; separated by commas, semicolons or tabs."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} cannot be read as text; save it as CSV in UTF-8.") from error
    try:
        return filled_rows(text)
    except csv.Error as error:
        raise InputError(f"{path.name} is not a CSV table ({error}); save it again.") from error


def _check_header(header: list[str], path: Path) -> None:
    for title in header:
        if title not in _COLUMNS:
            raise InputError(
                f"{path.name} has a column {title!r} that is not known; use {', '.join(_COLUMNS)}."
            )
        if header.count(title) > 1:
            raise InputError(f"{path.name} has the column {title} twice; remove one.")
    missing = [name for name in _NEEDED_COLUMNS if name not in header]
    if missing:
        raise InputError(f"{path.name} has no column {missing[0]}; add it.")


def _located(column: str, value: str, folder: Path) -> str:
    """A cell as it is, or as an absolute path."""
    if column == "case" or column in _TEXT_COLUMNS or (column == "initial" and value in _INITIAL_WORDS):
        return value
    return os.path.normpath(folder / value)


def _from_folder(folder: Path) -> list[dict[str, str]]:
    folder = folder.absolute()
    for mr, trus in _LAYOUTS:
        if (folder / f"{mr}_images").is_dir() and (folder / f"{trus}_images").is_dir():
            return list(_from_layout(folder, mr, trus))
    cases = [_from_case_folder(path) for path in sorted(folder.iterdir()) if path.is_dir()]
    return [row for row in cases if row]


def _from_layout(folder: Path, mr: str, trus: str) -> Iterator[dict[str, str]]:
    for path in sorted((folder / f"{mr}_images").iterdir()):
        suffix = suffix_of(path)
        if suffix not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        row = {"case": path.name[: -len(suffix)], "mr": str(path)}
        row["trus"] = str(folder / f"{trus}_images" / path.name)
        labels = [folder / f"{side}_labels" / path.name for side in (mr, trus)]
        if all(label.is_file() and _has_landmarks(label) for label in labels):
            row |= {"mr_landmarks": str(labels[0]), "trus_landmarks": str(labels[1])}
        yield row


def _has_landmarks(labels: Path) -> bool:
    """Whether there are labels besides the first channel, which is the gland."""
    try:
        volume = open_volume(labels)
    except InputError:
        # The run of the case says what is wrong with the file.
        return True
    return len(volume.size_vox) > 3 or volume.components > 1


def _from_case_folder(folder: Path) -> dict[str, str]:
    """The files of one case; nothing for a folder that has neither image."""
    found = {name: _only(folder, name) for name in _CASE_FILES}
    row = {name: str(path) for name, path in found.items() if path is not None}
    if "mr" not in row and "trus" not in row:
        return {}
    # The run of a case with one image says that the other does not exist.
    absent = {name: str(folder / name) for name in ("mr", "trus")}
    return {"case": folder.name, **absent, **row}


def _only(folder: Path, name: str) -> Path | None:
    """The file of that name, or the folder of DICOM slices."""
    names = {f"{name}{suffix}" for suffix in _CASE_FILES[name]}
    found = sorted(
        path
        for path in folder.iterdir()
        if path.name.casefold() in names or (path.name == name and path.is_dir())
    )
    if len(found) > 1:
        raise InputError(
            f"The case {folder.name} has both {found[0].name} and {found[1].name}; keep one of them."
        )
    return found[0] if found else None
