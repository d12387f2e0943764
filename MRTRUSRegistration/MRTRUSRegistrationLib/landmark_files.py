"""Point lists in files: 3D Slicer's .mrk.json and .fcsv, and CSV tables with a stated frame.

All readers return LPS millimetres in the world of the file.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Literal

import numpy as np

from .errors import InputError
from .volume_files import file_name

Frame = Literal["LPS", "RAS"]

# What Slicer's files may call the frame, the numbers being those of older versions.
_FRAMES: dict[str, Frame] = {"LPS": "LPS", "RAS": "RAS", "0": "RAS", "1": "LPS"}
_NAME_COLUMNS = ("name", "label", "landmark", "id")
_FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
# Behind its named columns a .fcsv row has the state of the point; 2 means that it was placed.
_FCSV_STATE_COLUMN = 14
_FCSV_PLACED = "2"


@dataclass(frozen=True)
class NamedPoints:
    """The points of one file: `points_mm` is (n, 3), LPS."""

    names: tuple[str, ...]
    points_mm: np.ndarray


def read_points(path: Path, *, frame: Frame | None = None) -> NamedPoints | None:
    """The points of a .mrk.json, .json, .fcsv, .csv or .tsv file; None for any other file type.

    In a table a line that begins with # is a comment, but for one whose first cell is # and digits alone and
    whose coordinates are numbers, as of a landmark called #1. Other names that begin with # stand in quotes.

    `frame` says LPS or RAS where the file does not; `InputError` if it contradicts the file, if neither
    says it, or if the file cannot be understood.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _read_markups(path, frame)
    if suffix == ".fcsv":
        return _read_fcsv(path, frame)
    if suffix in (".csv", ".tsv"):
        return _read_csv(path, frame)
    return None


def write_points(points: NamedPoints, path: Path) -> None:
    """Write LPS points as Slicer markups (.mrk.json) or as CSV with columns name, x_lps, y_lps, z_lps."""
    rows = list(zip(points.names, np.asarray(points.points_mm, float).tolist(), strict=True))
    if path.suffix.lower() == ".json":
        path.write_text(json.dumps(_markups(rows), indent=1), encoding="utf-8")
        return
    # Quotes keep a name that begins with # from being read as a comment.
    quoted = any(_is_comment(name) for name in points.names)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(
            stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC if quoted else csv.QUOTE_MINIMAL
        )
        writer.writerow(["name", "x_lps", "y_lps", "z_lps"])
        writer.writerows([name, *position] for name, position in rows)


def _markups(rows: list[tuple[str, list[float]]]) -> dict[str, object]:
    schema = (
        "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema"
    )
    control_points = [
        {"id": str(number), "label": name, "position": position, "positionStatus": "defined"}
        for number, (name, position) in enumerate(rows, start=1)
    ]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "controlPoints": control_points,
    }
    return {"@schema": f"{schema}/markups-schema-v1.0.3.json#", "markups": [markup]}


def _read_markups(path: Path, frame: Frame | None) -> NamedPoints:
    name = file_name(path)
    try:
        content = json.loads(_text(path))
        lists = [m for m in content["markups"] if m["type"] == "Fiducial"]
        rows = [row for markup in lists for row in _markup_rows(markup, frame, name)]
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name} is not a markups file of 3D Slicer: save the points again.") from error
    return _as_points(rows, name)


def _markup_rows(markup: dict, frame: Frame | None, name: str) -> list[tuple[str, list]]:
    """(name, LPS position) of the placed points of one list."""
    units = markup.get("coordinateUnits", "mm")
    if units not in ("mm", ["mm", "mm", "mm"]):
        raise InputError(f"{name} has points in {units}, not in mm: save them in mm.")
    # The schema's default is LPS.
    signs = _signs(_stated_frame(markup.get("coordinateSystem", frame or "LPS"), frame, name))
    placed = [p for p in markup["controlPoints"] if p.get("positionStatus", "defined") == "defined"]
    return [
        (p.get("label") or p["id"], _signed(p["position"], signs, name))
        for p in placed
        if p.get("position") not in (None, "", [])
    ]


def _read_fcsv(path: Path, frame: Frame | None) -> NamedPoints:
    name, lines = file_name(path), _text(path).splitlines()
    stated = _commented(lines, "CoordinateSystem")
    signs = _signs(_stated_frame(stated or frame, frame, name))
    columns = (_commented(lines, "columns") or _FCSV_COLUMNS).split(",")
    rows = []
    for values in csv.reader(line for line in _filled(lines) if not _is_comment(line)):
        entry = dict(zip(columns, values, strict=False))
        state = values[_FCSV_STATE_COLUMN : _FCSV_STATE_COLUMN + 1]
        if state and state[0].strip() not in ("", _FCSV_PLACED):
            continue
        position = [entry.get(axis, "") for axis in "xyz"]
        rows.append((entry.get("label") or entry.get("id", ""), _signed(position, signs, name)))
    return _as_points(rows, name)


def _read_csv(path: Path, frame: Frame | None) -> NamedPoints:
    name, lines = file_name(path), _text(path).splitlines()
    titles, *others = _table(lines, name)
    delimiter = _delimiter(titles)
    header = [title.strip().casefold() for title in _cells(titles, delimiter)]
    axes, in_header = _axis_columns(header, name)
    stated = in_header or _commented(lines, "frame") or _commented(lines, "CoordinateSystem")
    signs = _signs(_stated_frame(stated or frame, frame, name))
    label = next((header.index(title) for title in _NAME_COLUMNS if title in header), None)
    rows = []
    for number, record in enumerate(_records(others, delimiter, axes), start=1):
        title = "".join(record[label : label + 1]) if label is not None else f"landmark {number}"
        rows.append((title, _signed(_position(record, axes), signs, name)))
    return _as_points(rows, name)


def _table(lines: list[str], name: str) -> list[str]:
    """The lines that hold anything, from that of the column titles on."""
    table = list(dropwhile(_is_comment, _filled(lines)))
    if not table:
        raise InputError(
            f"{name} holds no landmarks: give a table with the columns name, x_lps, y_lps, z_lps."
        )
    return table


def _delimiter(titles: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", titles)
    return next((sign for sign in ";\t" if sign in unquoted), ",")


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter))


def _records(lines: list[str], delimiter: str, axes: list[int]) -> list[list[str]]:
    """The cells of the rows that are no comments."""
    kept = [line for line in lines if not _is_comment(line) or _is_numbered(line, delimiter, axes)]
    # Spreadsheets put quotes around a comment with a comma, and leave the other cells empty.
    rows = csv.reader(kept, delimiter=delimiter)
    return [row for row in rows if "".join(row[1:]).strip() or not _is_comment(row[0])]


def _position(record: list[str], axes: list[int]) -> list[str]:
    """What stands in the columns of the coordinates, which a row that is too short lacks."""
    # Spreadsheets that separate columns by semicolons write decimal commas.
    return [record[n].replace(",", ".") for n in axes if n < len(record)]


def _is_numbered(line: str, delimiter: str, axes: list[int]) -> bool:
    """Whether a line that begins with # is of a landmark that is called #1, or by another number."""
    record = _cells(line, delimiter)
    try:
        position = [float(value) for value in _position(record, axes)]
    except ValueError:
        return False
    return len(position) == 3 and re.fullmatch(r"#\d+", record[0].strip()) is not None


def _axis_columns(header: list[str], name: str) -> tuple[list[int], Frame | None]:
    """Where the three coordinates stand, and the frame if the titles say it."""
    for titles, frame in ((("x", "y", "z"), None), (("l", "p", "s"), "LPS"), (("r", "a", "s"), "RAS")):
        if all(title in header for title in titles):
            return [header.index(title) for title in titles], frame  # type: ignore[return-value]
    for frame in ("LPS", "RAS"):
        pattern = f"([xyz])_{frame.casefold()}(_mm)?"
        found = {m[1]: n for n, title in enumerate(header) if (m := re.fullmatch(pattern, title))}
        if len(found) == 3:
            return [found[axis] for axis in "xyz"], frame  # type: ignore[return-value]
    raise InputError(f"{name} has no columns x_lps, y_lps, z_lps (or x_ras, …): add a header line with them.")


def _stated_frame(stated: object, frame: Frame | None, name: str) -> Frame:
    found = _FRAMES.get(str(stated).strip().upper()) if stated is not None else None
    if stated is None:
        raise InputError(
            f"{name} does not say whether its points are LPS or RAS: name the columns x_lps, y_lps, z_lps (or"
            ' x_ras, …), or add a line "# frame: LPS".'
        )
    if found is None:
        raise InputError(f"{name} has points in the frame {stated!s}: save them in LPS or RAS.")
    if frame is not None and found != frame:
        raise InputError(
            f"{name} says that its points are {found}, but {frame} was asked for: give one of them."
        )
    return found


def _signs(frame: Frame) -> tuple[int, int, int]:
    return (1, 1, 1) if frame == "LPS" else (-1, -1, 1)


def _signed(position: Iterable, signs: tuple[int, int, int], name: str) -> list[float]:
    try:
        return [sign * float(value) for sign, value in zip(signs, position, strict=True)]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} has a landmark whose position is not three numbers: correct or remove it."
        ) from error


def _as_points(rows: list[tuple[str, list[float]]], name: str) -> NamedPoints:
    if not rows:
        raise InputError(f"{name} holds no landmarks: give a file with at least one placed point.")
    names = tuple(str(title).strip() or f"landmark {n}" for n, (title, _) in enumerate(rows, start=1))
    return NamedPoints(names, np.array([position for _, position in rows], float))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file_name(path)} cannot be read as text: save the landmarks again.") from error


def _commented(lines: list[str], key: str) -> str | None:
    """The value of a comment line such as "# frame: LPS" or "# CoordinateSystem = LPS"."""
    for line in lines:
        found = re.match(rf"\s*#\s*{key}\s*[:=]\s*(.+?)[\s,;]*$", line, re.IGNORECASE)
        if found:
            return found[1]
    return None


def _filled(lines: list[str]) -> Iterable[str]:
    return (line for line in lines if line.strip(" ,;\t\r"))


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")
