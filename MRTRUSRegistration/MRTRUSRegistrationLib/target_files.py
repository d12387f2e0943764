"""Targets in files: what a person drew or marked on the MR, and the table of where it lies in the TRUS.

The table gives every position in both frames, in columns that name theirs (x_lps_mm …, r_ras_mm …), and
holds nothing of the images' headers. `landmark_files.read_points` reads it as points of the TRUS.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .geometry import Grid, mask_centroid_mm
from .images import LoadedImage
from .landmark_files import Frame, NamedPoints, write_points
from .landmarks import read_landmarks
from .masks import on_image_grid, open_label_file
from .results import QualityWarning
from .segments import Segment, has_segments, read_segments, voxel_count
from .targets import Point, Target, TargetRow
from .volume_files import VolumeFile, check_present, file_name, suffix_of

_POINT_FILES = (".json", ".fcsv", ".csv", ".tsv")
_MAX_TARGETS = 200
# Names of the files of a result.
TABLE, POINTS, SEGMENTS = "targets.csv", "targets.mrk.json", "targets.seg.nrrd"

_LPS = ("x_lps_mm", "y_lps_mm", "z_lps_mm")
_RAS = ("r_ras_mm", "a_ras_mm", "s_ras_mm")
_MR_LPS = ("mr_x_lps_mm", "mr_y_lps_mm", "mr_z_lps_mm")
_FIGURES = {
    "capsule_distance_mm": "capsule_mm",
    "apex_to_base": "apex_to_base",
    "mr_volume_ml": "mr_ml",
    "trus_volume_ml": "trus_ml",
    "spread_mm": "spread_mm",
    "moved_by_hand_mm": "moved_mm",
}
_COLUMNS = ("name", "space", *_LPS, *_RAS, "side", "third", *_FIGURES, *_MR_LPS, "warnings")
_SPACE = "TRUS"
_BETWEEN_WARNINGS = " | "
# Slicer shows a segment in its own colour; a reddish purple is none of those of the glands.
_COLOR = "0.80 0.47 0.65"


def read_targets(path: str | Path, loaded: LoadedImage, *, frame: Frame | None = None) -> tuple[Target, ...]:
    """Read the targets of the MR `loaded`, as points or as labels.

    Points: .mrk.json, .fcsv or CSV, as for landmarks, with `frame` (LPS or RAS) where a CSV file does not say
    it. Labels: .seg.nrrd (every segment but the gland), or a label map whose values are the targets. Raises
    `InputError` for a file that cannot be used.
    """
    path = Path(path)
    check_present(path)
    if path.is_file() and suffix_of(path) in _POINT_FILES:
        _check_not_a_table(path)
        points = read_landmarks(path, loaded, frame=frame)
        return tuple(Target(name, p) for name, p in zip(points.names, points.points_mm, strict=True))
    volume = open_label_file(path)
    labels = read_segments(volume) if has_segments(volume) else _label_map(volume)
    labels = [label for label in labels if voxel_count(label.mask) and not label.is_gland]
    if not labels:
        raise InputError(f"{volume.name} holds no targets: draw at least one.")
    return tuple(_label_target(label, loaded, volume.name) for label in labels)


def write_targets(rows: Sequence[TargetRow], folder: Path) -> tuple[Path, ...]:
    """Write the table, the points (.mrk.json) and the segments where there are labels; gives the paths."""
    written = [folder / TABLE, folder / POINTS]
    written[0].write_text(targets_csv(rows), encoding="utf-8")
    points_mm = np.array([row.trus_mm for row in rows], float).reshape(-1, 3)
    write_points(NamedPoints(tuple(row.name for row in rows), points_mm), written[1])
    if any(row.label is not None and voxel_count(row.label) for row in rows):
        written.append(folder / SEGMENTS)
        write_target_segments(rows, written[2])
    return tuple(written)


def targets_csv(rows: Sequence[TargetRow]) -> str:
    """The table as CSV text: positions are of the TRUS, in mm to a micrometre; empty where unknown."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_record(row) for row in rows)
    return text.getvalue()


def read_targets_csv(path: str | Path) -> tuple[TargetRow, ...]:
    """The rows of a table that `targets_csv` made, without their labels; `InputError` for any other file."""
    path = Path(path)
    check_present(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                raise ValueError("columns")
            return tuple(_row(record) for record in reader)
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"{file_name(path)} is not a table of targets of this software: export the targets again."
        ) from error


def targets_json(rows: Sequence[TargetRow]) -> list[dict[str, Any]]:
    """The rows for result.json, figures named like the table's columns; positions are LPS mm, by space."""
    return [
        {
            "name": row.name,
            "trus_mm": _rounded(row.trus_mm),
            "mr_mm": None if row.mr_mm is None else _rounded(row.mr_mm),
            "side": row.side,
            "third": row.third,
            **{column: _rounded_figure(getattr(row, name)) for column, name in _FIGURES.items()},
            "warnings": [asdict(warning) for warning in row.warnings],
        }
        for row in rows
    ]


def write_target_segments(rows: Sequence[TargetRow], path: Path) -> None:
    """Write the labels of the rows as a Slicer segmentation on the TRUS grid; see `write_segments`."""
    write_segments([(row.name, row.label) for row in rows if row.label is not None], path)


def write_segments(masks: Sequence[tuple[str, sitk.Image]], path: Path) -> None:
    """Write named binary masks of one grid as a Slicer segmentation (.seg.nrrd); overlaps stay whole.

    Empty masks are left out. `ValueError` if none has voxels.
    """
    named = [(name, mask) for name, mask in masks if voxel_count(mask)]
    if not named:
        raise ValueError("No mask has voxels.")
    layers, places = _layers([sitk.GetArrayFromImage(label) > 0 for _, label in named])
    grid = Grid.of(named[0][1])
    images = [grid.image(layer) for layer in layers]
    image = images[0] if len(images) == 1 else sitk.Compose(images)
    for number, ((name, label), (layer, value)) in enumerate(zip(named, places, strict=True)):
        for key, text in _segment_header(number, name, label, layer, value).items():
            image.SetMetaData(f"Segment{number}_{key}", text)
    image.SetMetaData("Segmentation_ContainedRepresentationNames", "Binary labelmap|")
    image.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    image.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")
    sitk.WriteImage(image, str(path), useCompression=True)


def _check_not_a_table(path: Path) -> None:
    """Raise `InputError` for the table of a result: its points lie in the TRUS already."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        if stream.readline().strip().split(",")[:2] == list(_COLUMNS[:2]):
            raise InputError(
                f"{file_name(path)} is the table of a result, with positions in the TRUS: give the targets as"
                " they were marked on the MR."
            )


def _label_map(volume: VolumeFile) -> list[Segment]:
    """Every positive value as a target of its own; whole numbers may be stored as floating-point ones."""
    image = volume.read()
    if image.GetDimension() > 3 or image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(
            f"{volume.name} holds several volumes: give the targets as one label map or as a Slicer"
            " segmentation (.seg.nrrd)."
        )
    values = np.unique(sitk.GetArrayViewFromImage(image))
    values = values[values > 0]
    if not np.array_equal(values, np.round(values)) or len(values) > _MAX_TARGETS:
        raise InputError(
            f"{volume.name} is no label map: give one whole number to the voxels of each target."
        )
    return [Segment(f"target {value:.0f}", image == value) for value in values.tolist()]


def _label_target(segment: Segment, loaded: LoadedImage, file: str) -> Target:
    mask = on_image_grid(segment.mask, loaded, name=f"Target {segment.name} of {file}")
    if not voxel_count(mask):
        raise InputError(
            f"Target {segment.name} of {file} is too small for the voxels of {loaded.name}: give it as a"
            " point."
        )
    return Target(segment.name, mask_centroid_mm(mask), mask)


def _record(row: TargetRow) -> dict[str, str]:
    record = {"name": row.name, "space": _SPACE, "side": row.side, "third": row.third}
    record |= {column: _number(getattr(row, name)) for column, name in _FIGURES.items()}
    for columns, position in ((_LPS, row.trus_mm), (_RAS, row.trus_ras_mm), (_MR_LPS, row.mr_mm)):
        record |= dict(zip(columns, map(_number, position or (None,) * 3), strict=True))
    record["warnings"] = _BETWEEN_WARNINGS.join(f"{w.code}: {w.message}" for w in row.warnings)
    return record


def _number(value: float | None) -> str:
    # Without the sum, small negative numbers would read as -0.000.
    return "" if value is None else f"{round(value, 3) + 0.0:.3f}"


def _rounded(position: Point) -> list[float]:
    """To a micrometre, like the table."""
    return [round(value, 3) for value in position]


def _rounded_figure(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _row(record: dict[str, str]) -> TargetRow:
    figures = {name: float(record[column]) if record[column] else None for column, name in _FIGURES.items()}
    texts = [text for text in record["warnings"].split(_BETWEEN_WARNINGS) if text]
    parts = [text.partition(": ") for text in texts]
    return TargetRow(
        name=record["name"],
        mr_mm=_position(record, _MR_LPS) if record[_MR_LPS[0]] else None,
        trus_mm=_position(record, _LPS),
        side=record["side"],  # type: ignore[arg-type]
        third=record["third"],  # type: ignore[arg-type]
        warnings=tuple(QualityWarning(code, message) for code, _, message in parts),
        **figures,  # type: ignore[arg-type]
    )


def _position(record: dict[str, str], columns: tuple[str, str, str]) -> Point:
    x, y, z = (float(record[column]) for column in columns)
    return x, y, z


def _layers(masks: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Label maps in which no mask covers another, and each mask's layer and value in it."""
    layers: list[np.ndarray] = []
    places = []
    for mask in masks:
        free = next((n for n, layer in enumerate(layers) if not layer[mask].any()), len(layers))
        if free == len(layers):
            layers.append(np.zeros(mask.shape, np.uint8))
        value = int(layers[free].max()) + 1
        layers[free][mask] = value
        places.append((free, value))
    return layers, places


def _segment_header(number: int, name: str, label: sitk.Image, layer: int, value: int) -> dict[str, str]:
    index = np.argwhere(sitk.GetArrayViewFromImage(label) > 0)[:, ::-1]
    extent = np.column_stack([index.min(axis=0), index.max(axis=0)]).ravel()
    return {
        "ID": f"Target_{number + 1}",
        "Name": name,
        "NameAutoGenerated": "0",
        "Color": _COLOR,
        "ColorAutoGenerated": "0",
        "Extent": " ".join(map(str, extent.tolist())),
        "LabelValue": str(value),
        "Layer": str(layer),
        "Tags": "|",
    }
