"""One self-contained HTML page about a registration, for the clinician first and the engineer after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .confidence import ConfidenceMap
from .indicator import registration_indicator
from .page_template import page_template
from .plain_language import NO_LANDMARKS, Thresholds, has_landmarks, measure_rows, other_measures
from .report_pictures import PIXEL_MM, report_pictures
from .results import LandmarkRow, Registration
from .targets import Point, TargetRow


@dataclass(frozen=True)
class _LandmarkLine:
    """A landmark as printed: errors in mm, and their places on the bar in percent of its length."""

    name: str
    initial: str
    rigid: str
    final: str
    lost: bool
    worse: bool
    dots: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class _TargetLine:
    """A target as printed: where it lies in words, then in figures; positions are mm in TRUS space."""

    name: str
    place: str
    capsule: str
    apex_to_base: str
    volume: str
    spread: str
    lps: str
    ras: str
    remarks: tuple[str, ...]


def write_report(
    result: Registration,
    path: Path,
    *,
    case_name: str,
    confidence: ConfidenceMap | None = None,
    targets: Sequence[TargetRow] = (),
) -> None:
    """Write the report of a registration as one HTML file that needs nothing else.

    `targets` are those that were carried to the TRUS. Raises `OSError` where `path` cannot be written.
    """
    text = report_html(result, case_name=case_name, confidence=confidence, targets=targets)
    path.write_text(text, encoding="utf-8")


def report_html(
    result: Registration,
    *,
    case_name: str,
    confidence: ConfidenceMap | None = None,
    targets: Sequence[TargetRow] = (),
) -> str:
    """The report as HTML text; the same result gives the same text."""
    target_mm = Thresholds().tre_mean_mm.good
    scale_mm = _scale_mm(result.measures.landmark_rows, target_mm)
    return page_template("report.html.j2").render(
        case_name=case_name,
        method=result.method,
        date=result.provenance.get("date"),
        indicator=registration_indicator(result, confidence),
        warnings=tuple(dict.fromkeys(result.warnings)),
        pictures=report_pictures(result),
        pixels_per_cm=10 / PIXEL_MM,
        measures=measure_rows(result),
        others=other_measures(result),
        landmarks=[_landmark_line(row, scale_mm) for row in result.measures.landmark_rows],
        no_landmarks=None if has_landmarks(result.measures) else NO_LANDMARKS,
        targets=[_target_line(row) for row in targets],
        target_mm=target_mm,
        target_percent=100 * target_mm / scale_mm,
        deformed=result.deformation is not None,
        timings=_timings(result.timings_s),
        provenance=_provenance(result.provenance),
    )


def _landmark_line(row: LandmarkRow, scale_mm: float) -> _LandmarkLine:
    errors = {"initial": row.initial_error_mm, "rigid": row.rigid_error_mm, "final": row.error_mm}
    known = {name: error for name, error in errors.items() if error is not None and math.isfinite(error)}
    shown = {name: f"{known[name]:.1f}" if name in known else "–" for name in errors}
    return _LandmarkLine(
        name=row.name,
        lost=row.lost,
        worse="final" in known and "rigid" in known and known["final"] > known["rigid"] + 0.05,
        dots=tuple((name, 100 * error / scale_mm) for name, error in known.items()),
        **shown,
    )


def _target_line(row: TargetRow) -> _TargetLine:
    where = "inside" if row.capsule_mm >= 0 else "outside"
    return _TargetLine(
        name=row.name,
        place=f"{row.third}, {row.side}",
        capsule=f"{abs(row.capsule_mm):.1f} mm {where}",
        apex_to_base=f"{100 * row.apex_to_base:.0f} %",
        volume=_volume(row),
        spread="–" if row.spread_mm is None else f"{row.spread_mm:.1f}",
        lps=_position(row.trus_mm),
        ras=_position(row.trus_ras_mm),
        remarks=tuple(warning.message for warning in row.warnings),
    )


def _volume(row: TargetRow) -> str:
    """On the MR and, carried, on the TRUS; points have none."""
    known = [volume for volume in (row.mr_ml, row.trus_ml) if volume is not None]
    return " → ".join(f"{volume:.2f}" for volume in known) or "–"


def _position(point_mm: Point) -> str:
    # Without the sum, small negative numbers would read as -0.0.
    return ", ".join(f"{round(value, 1) + 0.0:.1f}" for value in point_mm)


def _scale_mm(rows: tuple[LandmarkRow, ...], least_mm: float) -> float:
    """The length of the landmarks' bars: the largest error, and some more."""
    errors = [error for row in rows for error in (row.initial_error_mm, row.rigid_error_mm, row.error_mm)]
    known = [error for error in errors if error is not None and math.isfinite(error)]
    return 1.05 * max([2 * least_mm, *known])


def _timings(timings_s: dict[str, float]) -> list[tuple[str, str, float]]:
    """(stage, seconds as printed, percent of the total)."""
    total = sum(timings_s.values())
    return [(name, f"{s:.1f} s", 100 * s / total if total > 0 else 0.0) for name, s in timings_s.items()]


def _provenance(provenance: dict[str, object]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of (name, value); values that stand alone come first, in a section without a name."""
    alone = [(name, str(value)) for name, value in provenance.items() if not isinstance(value, dict)]
    nested = [(name, _flat(value)) for name, value in provenance.items() if isinstance(value, dict)]
    return ([("", alone)] if alone else []) + nested


def _flat(values: dict[object, object], prefix: str = "") -> list[tuple[str, str]]:
    """(name, value) of a nested dictionary, with dotted names."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", str(value)))
    return lines
