"""Data sets listed in a CSV table: the layout `manifest`.

One row a case. Needed columns: case, patient, mr, trus, mr_labels, trus_labels. Optional ones: split (train,
val or test), mr_landmarks and trus_landmarks (lists of points, where the labels hold the gland alone), truth
(a transform from TRUS points to MR points), mr_orientation and trus_orientation (codes such as LPS, where the
header does not say how the axes lie). Paths are relative to the table.
"""

from __future__ import annotations

import csv
from difflib import get_close_matches
from pathlib import Path

from MRTRUSRegistrationLib.batch_cases import check_folder_name
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.text_table import filled_rows

from .case_files import Case
from .splits import PARTS

MANIFEST_NAME = "manifest.csv"
_POINT_SUFFIXES = (".json", ".fcsv", ".csv", ".tsv")
_NEEDED = ("case", "patient", "mr", "trus", "mr_labels", "trus_labels")
_OPTIONAL = ("split", "mr_landmarks", "trus_landmarks", "truth", "mr_orientation", "trus_orientation")


def manifest_path(data: Path) -> Path:
    """The table itself, or manifest.csv in a folder; `InputError` where there is none."""
    path = data / MANIFEST_NAME if data.is_dir() else data
    if not path.is_file():
        raise InputError(f"The manifest {path} does not exist; give a CSV file or a folder that holds one.")
    return path


def manifest_cases(data: Path) -> list[Case]:
    """Every case of the table in `data`, sorted by name; `InputError` for what cannot be understood."""
    path = manifest_path(data)
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path} lists no cases; add a row for each, below its header.")
    cases = [_case(row, number, path) for number, row in enumerate(rows, start=2)]
    names = [case.name for case in cases]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path} lists the case {twice} twice; give each case its own name.")
    return sorted(cases, key=lambda case: case.name)


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows by column, cells without surrounding blanks; empty rows are left out."""
    try:
        filled = filled_rows(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table ({error}); save it as CSV in UTF-8.") from error
    header = [title.casefold() for title in filled[0]] if filled else []
    _check_header(header, path)
    return [dict(zip(header, cells, strict=False)) for cells in filled[1:]]


def _check_header(header: list[str], path: Path) -> None:
    """Columns of one's own are welcome, unless they look like a misspelt one of ours."""
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; it needs {', '.join(_NEEDED)}.")
    known = (*_NEEDED, *_OPTIONAL)
    for title in header:
        if header.count(title) > 1:
            raise InputError(f"{path} has the column {title} twice; remove one.")
        near = get_close_matches(title, known, n=1, cutoff=0.8)
        if near and title not in known:
            raise InputError(f"{path} has a column {title!r}; rename it, to {near[0]!r} if that is meant.")


def _case(row: dict[str, str], number: int, path: Path) -> Case:
    where = f"{path}, line {number}"
    for name in _NEEDED:
        if not row.get(name):
            raise InputError(f"{where} has no {name}; fill it in.")
    check_folder_name(row["case"], path)
    part = row.get("split", "").casefold()
    if part and part not in PARTS:
        raise InputError(f"{where} has the split {part!r}; use {', '.join(PARTS)} or leave it empty.")
    landmarks = _landmark_paths(row, where, path.parent)
    needed = [path.parent / row[name] for name in _NEEDED[2:]]
    return Case(
        row["case"],
        row["patient"],
        needed[0],
        needed[1],
        needed[2],
        needed[3],
        "manifest",
        path.parent / row["truth"] if row.get("truth") else None,
        *landmarks,
        row.get("mr_orientation") or None,
        row.get("trus_orientation") or None,
        part,
    )


def _landmark_paths(row: dict[str, str], where: str, folder: Path) -> tuple[Path | None, Path | None]:
    """Point files of both sides, or of none."""
    given = [row.get(f"{side}_landmarks", "") for side in ("mr", "trus")]
    if not any(given):
        return None, None
    if not all(given):
        raise InputError(f"{where} has landmarks in one modality only; give those of the other or none.")
    for name in given:
        if not name.casefold().endswith(_POINT_SUFFIXES):
            raise InputError(
                f"{where} names the landmarks {name}, which are not points; give one of "
                f"{', '.join(_POINT_SUFFIXES)}, or put landmarks into the label channels."
            )
    return folder / given[0], folder / given[1]
