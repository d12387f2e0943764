"""What a batch tells at its end: one row a case, as a table (CSV) and as one HTML page."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .geometry import mask_volume_ml
from .page_template import page_template
from .plain_language import Level, Thresholds
from .results import QualityWarning

Status = Literal["done", "failed", "pending"]

_THUMBNAIL_PX = 160
_MARGIN_MM = 10.0
_TRUS_COLOUR = (53, 208, 230)
_MR_COLOUR = (255, 176, 46)
_MAX_BARS = 24


@dataclass(frozen=True)
class CaseRow:
    """How one case stands; a figure that it does not have is None. Volumes are those of the two glands."""

    case: str
    status: Status = "pending"
    dsc: float | None = None
    hd95_mm: float | None = None
    tre_rms_mm: float | None = None
    landmarks: int | None = None
    folds_percent: float | None = None
    mr_gland_ml: float | None = None
    trus_gland_ml: float | None = None
    indicator: str = ""
    warnings: tuple[QualityWarning, ...] = ()
    seconds: float | None = None
    message: str = ""

    @property
    def warning_codes(self) -> tuple[str, ...]:
        """Each kind once: both images may have the same."""
        return tuple(dict.fromkeys(warning.code for warning in self.warnings))

    def columns(self) -> dict[str, str]:
        """The row as text, by column; warnings by their codes."""
        values = {name: _text(value) for name, value in vars(self).items() if name != "warnings"}
        values["warnings"] = " ".join(self.warning_codes)
        return {name: values[name] for name in CaseRow.__dataclass_fields__}


def done_row(case: str, folder: Path, *, seconds: float | None) -> CaseRow:
    """The row of a result folder; `InputError` where it holds no complete result."""
    try:
        content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        measures = content["measures"]["final"]
        count = measures.get("landmarks")
        return CaseRow(
            case,
            "done",
            **{name: measures.get(name) for name in ("dsc", "hd95_mm", "tre_rms_mm", "folds_percent")},
            landmarks=None if count is None else int(count),
            indicator=str((content.get("indicator") or {}).get("level", "")),
            warnings=tuple(QualityWarning(entry["code"], entry["message"]) for entry in content["warnings"]),
            mr_gland_ml=_volume_ml(folder / "mr_mask.nii.gz"),
            trus_gland_ml=_volume_ml(folder / "trus_mask.nii.gz"),
            seconds=seconds,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"The result in {folder} is not complete; run the case again.") from error


def _volume_ml(path: Path) -> float:
    return round(mask_volume_ml(sitk.ReadImage(str(path))), 2)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else " ".join(str(value).split())


def batch_csv(rows: Sequence[CaseRow]) -> str:
    """One line a case under a header; empty cells for figures that a case does not have."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(CaseRow.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.columns() for row in rows)
    return stream.getvalue()


def thumbnail(folder: Path) -> bytes:
    """A small JPEG of the registered MR across the middle of the TRUS gland, with both glands' outlines.

    Cyan is the gland on TRUS, dashed orange the gland on MR, moved, as in the case's report. Raises
    `InputError` where the result cannot be read.
    """
    from PIL import Image

    names = ("registered_mr", "trus_mask", "registered_mr_mask")
    try:
        images = [sitk.DICOMOrient(sitk.ReadImage(str(folder / f"{name}.nii.gz")), "LPS") for name in names]
    except RuntimeError as error:
        raise InputError(f"The images in {folder} cannot be read; run the case again.") from error
    mr, trus_gland, mr_gland = (sitk.GetArrayFromImage(image) for image in images)
    k = int(np.argmax(trus_gland.sum(axis=(1, 2))))
    box = _around(trus_gland[k] | mr_gland[k], images[0].GetSpacing())
    grey = _enlarged(_grey(mr[k])[box], images[0].GetSpacing())
    picture = np.stack([grey] * 3, axis=-1)
    edges = [
        _edge(_enlarged(255 * (gland[k][box] > 0), images[0].GetSpacing()) > 127)
        for gland in (trus_gland, mr_gland)
    ]
    picture[edges[0]] = _TRUS_COLOUR
    # Dashed, so that neither hides the other.
    picture[edges[1] & (np.indices(grey.shape).sum(axis=0) % 14 < 7)] = _MR_COLOUR
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=80, subsampling=0)
    return stream.getvalue()


def _around(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[slice, slice]:
    """The part of a slice (j, i) that holds the glands and a margin."""
    sides = []
    for axis, step_mm in ((0, spacing_mm[1]), (1, spacing_mm[0])):
        where = np.flatnonzero(mask.any(axis=1 - axis))
        margin = math.ceil(_MARGIN_MM / step_mm)
        sides.append(slice(max(int(where[0]) - margin, 0), int(where[-1]) + margin + 1))
    return sides[0], sides[1]


def _grey(plane: np.ndarray) -> np.ndarray:
    low, high = np.percentile(plane, (1, 99))
    return (255 * np.clip((plane - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)


def _enlarged(plane: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """A slice with square pixels whose longer side has the thumbnail's length (uint8)."""
    from PIL import Image

    sides_mm = plane.shape[1] * spacing_mm[0], plane.shape[0] * spacing_mm[1]
    size_px = [max(1, round(_THUMBNAIL_PX * side / max(sides_mm))) for side in sides_mm]
    image = Image.fromarray(plane.astype(np.uint8))
    return np.array(image.resize((size_px[0], size_px[1]), Image.Resampling.BILINEAR))


def _edge(mask: np.ndarray) -> np.ndarray:
    """An outline two pixels wide, inside the mask."""
    inside = mask
    for _ in range(2):
        around = np.pad(inside, 1)
        inside = inside & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside


@dataclass(frozen=True)
class Bar:
    """Cases between two values of a figure."""

    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Distribution:
    """A figure over the cases that have it; `sd` is None for a single case."""

    title: str
    unit: str
    digits: int
    values: tuple[float, ...]
    bars: tuple[Bar, ...]

    @property
    def summary(self) -> str:
        """Mean, spread, median and range in words."""
        shown = [self._shown(statistics.fmean(self.values))]
        if len(self.values) > 1:
            shown.append(f"± {self._shown(statistics.stdev(self.values))}")
        middle, low, high = statistics.median(self.values), min(self.values), max(self.values)
        count = f"{len(self.values)} case{'s' if len(self.values) > 1 else ''}"
        return (
            f"{' '.join(shown)}{self.unit} (mean ± SD of {count}), median {self._shown(middle)}, range "
            f"{self._shown(low)} to {self._shown(high)}"
        )

    def _shown(self, value: float) -> str:
        return f"{value:.{self.digits}f}"


def distribution(
    title: str, values: Sequence[float | None], *, unit: str, digits: int, width: float
) -> Distribution | None:
    """How a figure is spread, in bars of `width` (or a multiple, where many); None if no case has it."""
    known = sorted(value for value in values if value is not None and math.isfinite(value))
    if not known:
        return None
    # Without the small addition, a value on the border between two bars falls below it by rounding.
    first, last = (math.floor(value / width + 1e-9) for value in (known[0], known[-1]))
    step = math.ceil((last - first + 1) / _MAX_BARS)
    counts = [0] * ((last - first) // step + 1)
    for value in known:
        counts[(math.floor(value / width + 1e-9) - first) // step] += 1
    bars = tuple(
        Bar((first + n * step) * width, (first + (n + 1) * step) * width, count)
        for n, count in enumerate(counts)
    )
    return Distribution(title, unit, digits, tuple(known), bars)


@dataclass(frozen=True)
class Cell:
    """A cell of the page's table: what is shown, what it is sorted by, and how good it is."""

    text: str
    key: float | str | None
    level: Level | str = ""


def cohort_html(
    rows: Sequence[CaseRow],
    *,
    title: str,
    thumbnails: Mapping[str, bytes],
    reports: Mapping[str, str],
    settings: Mapping[str, str],
) -> str:
    """The page about all cases, which needs no other file; `reports` are paths relative to it, by case."""
    return page_template("batch_report.html.j2").render(
        title=title,
        counts={state: sum(row.status == state for row in rows) for state in ("done", "failed", "pending")},
        distributions=_distributions(rows),
        columns=("Case", "Status", *_SHOWN.values(), "Indicator", "Warnings", "Seconds"),
        lines=[_line(row, thumbnails, reports) for row in rows],
        failed=[row for row in rows if row.status == "failed"],
        warnings=_warning_lines(rows),
        settings=settings,
    )


_SHOWN = {
    "dsc": "Gland overlap (DSC)",
    "hd95_mm": "HD95, mm",
    "tre_rms_mm": "Landmark error (RMS), mm",
    "landmarks": "Landmarks",
    "folds_percent": "Folds, %",
    "mr_gland_ml": "Gland on MR, ml",
    "trus_gland_ml": "Gland on TRUS, ml",
}
_DIGITS = {"dsc": 3, "landmarks": 0, "mr_gland_ml": 0, "trus_gland_ml": 0}


def _distributions(rows: Sequence[CaseRow]) -> list[Distribution]:
    found = (
        distribution("Gland overlap (DSC)", [row.dsc for row in rows], unit="", digits=3, width=0.02),
        distribution(
            "Landmark error (RMS)", [row.tre_rms_mm for row in rows], unit=" mm", digits=2, width=0.5
        ),
    )
    return [entry for entry in found if entry is not None]


def _line(row: CaseRow, thumbnails: Mapping[str, bytes], reports: Mapping[str, str]) -> dict[str, Any]:
    """What the template needs to know of a case."""
    picture = thumbnails.get(row.case)
    codes = row.warning_codes
    return {
        "case": row.case,
        "status": row.status,
        "report": quote(reports[row.case]) if row.case in reports else None,
        "picture": f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}" if picture else None,
        "cells": [
            *(_figure(name, getattr(row, name)) for name in _SHOWN),
            Cell(row.indicator, row.indicator, row.indicator),
            Cell(", ".join(codes), len(codes)),
            Cell("" if row.seconds is None else f"{row.seconds:.1f}", row.seconds),
        ],
    }


def _figure(name: str, value: float | None) -> Cell:
    if value is None:
        return Cell("", None)
    limits = getattr(Thresholds(), name, None)
    return Cell(f"{value:.{_DIGITS.get(name, 2)}f}", value, limits.level(value) if limits else "")


@dataclass(frozen=True)
class WarningLine:
    """A kind of warning over the cases: an example of its sentence, and who has it."""

    code: str
    message: str
    cases: tuple[str, ...]


def _warning_lines(rows: Sequence[CaseRow]) -> list[WarningLine]:
    """The kinds of warnings, the most frequent first."""
    cases: dict[str, list[str]] = {}
    messages: dict[str, str] = {}
    for row in rows:
        for warning in row.warnings:
            messages.setdefault(warning.code, warning.message)
            if row.case not in cases.setdefault(warning.code, []):
                cases[warning.code].append(row.case)
    lines = [WarningLine(code, messages[code], tuple(names)) for code, names in cases.items()]
    return sorted(lines, key=lambda line: -len(line.cases))
