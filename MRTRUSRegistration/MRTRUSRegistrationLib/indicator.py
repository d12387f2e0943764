"""The alignment indicator: good, check or poor at a glance, with its reasons in plain words.

It judges figures at the limits of the report's table (`plain_language`), and some more. It never gets better
when a figure gets worse, and never says more than was measured: without landmarks it speaks of the gland's
outline only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .plain_language import NO_LANDMARKS, Level, Limits, Thresholds, has_landmarks
from .results import Measures, QualityWarning, Registration

if TYPE_CHECKING:
    from .confidence import ConfidenceMap

IndicatorLevel = Literal["good", "check", "poor"]
_SEVERITY = {"info": 0, "good": 1, "check": 2, "poor": 3}


@dataclass(frozen=True)
class IndicatorLimits:
    """Where the level changes; fields are named like the figures they judge."""

    # Shared with the report's table, where the reasons for the numbers stand.
    report: Thresholds = field(default_factory=Thresholds)
    # det(dT/dx) of TRUS → MR; tissue takes 1/det of its volume on MR. Soft tissue keeps its volume, but both
    # outlines are uncertain, and near them a mapping squeezes: up to threefold is left alone. At 0 it folds.
    jacobian_min: Limits = Limits(1 / 3, 0.0)
    # A transrectal probe pushed with 30 N moves tissue by up to 14 mm (finite elements, BMC Cancer 2022);
    # twice as much is no deformation by a probe.
    displacement_max_mm: Limits = Limits(14.0, 28.0)
    # The spread under small changes of the input: its mean over the gland is judged like a mean landmark
    # error, its tail by the radius and the diameter of a lesion of 0.5 ml. A choice: it is no measured error.
    spread_mean_mm: Limits = Limits(2.8, 4.92)
    spread_p95_mm: Limits = Limits(4.92, 9.84)

    def of(self, key: str) -> Limits:
        return getattr(self, key) if hasattr(self, key) else getattr(self.report, key)


@dataclass(frozen=True)
class Reason:
    """One finding as a sentence, and how good it is."""

    level: Level
    text: str


@dataclass(frozen=True)
class Indicator:
    """`level` is the worst of the findings'; `headline` is one sentence, `findings` go from worst to best."""

    level: IndicatorLevel
    headline: str
    findings: tuple[Reason, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The findings as sentences."""
        return tuple(finding.text for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """What result.json holds."""
        findings = [{"level": finding.level, "text": finding.text} for finding in self.findings]
        return {"level": self.level, "headline": self.headline, "findings": findings}


@dataclass(frozen=True)
class _Figure:
    """How a figure is printed, and what it means at each level; `leading` ones are named even when good."""

    shown: Callable[[float], str]
    good: str
    check: str
    poor: str
    leading: bool = False

    def sentence(self, value: float, level: Level) -> str:
        return f"{self.shown(value)}: {getattr(self, level)}"


def registration_indicator(result: Registration, confidence: ConfidenceMap | None = None) -> Indicator:
    """Judge the last stage of a finished registration, as its result.json and its report do."""
    rigid = result.rigid_measures if result.deformation is not None else None
    return alignment_indicator(result.measures, result.warnings, confidence, rigid=rigid)


def alignment_indicator(
    measures: Measures,
    warnings: Sequence[QualityWarning] = (),
    confidence: ConfidenceMap | None = None,
    *,
    rigid: Measures | None = None,
    limits: IndicatorLimits | None = None,
) -> Indicator:
    """Judge one stage of a registration from its measures, the warnings and the confidence map, if any.

    `rigid` are the measures before the deformable step, to say when that made the landmarks worse.
    """
    limits = limits or IndicatorLimits()
    values = {key: value for key, value in measures.values.items() if not math.isnan(value)}
    if confidence is not None:
        values |= {"spread_mean_mm": confidence.mean_mm, "spread_p95_mm": confidence.p95_mm}
    levels = _levels(values, limits)
    findings = [
        *_figure_findings(values, levels),
        *_landmark_findings(measures, rigid),
        *_confidence_findings(confidence),
        *[Reason("check", warning.message) for warning in _unsaid(warnings, levels)],
    ]
    if not has_landmarks(measures):
        findings.append(Reason("info", NO_LANDMARKS))
    findings.sort(key=lambda finding: -_SEVERITY[finding.level])
    # The overlap, measured or not, is always among the findings, so that the worst is more than a note.
    level: IndicatorLevel = findings[0].level  # type: ignore[assignment]
    return Indicator(level, _headline(level, landmarks=has_landmarks(measures)), tuple(findings))


def _levels(values: dict[str, float], limits: IndicatorLimits) -> dict[str, Level]:
    """The level of every figure that is judged."""
    return {key: limits.of(key).level(_size(key, values[key])) for key in _FIGURES if key in values}


def _figure_findings(values: dict[str, float], levels: dict[str, Level]) -> list[Reason]:
    found = [
        Reason(level, _FIGURES[key].sentence(values[key], level))
        for key, level in levels.items()
        if level != "good" or _FIGURES[key].leading
    ]
    if "dsc" not in values:
        found.append(Reason("check", "The overlap of the glands could not be measured."))
    return found


def _size(key: str, value: float) -> float:
    """What the limits are about: changes count without their sign, but a Jacobian below 0 is a fold."""
    return value if key == "jacobian_min" else abs(value)


def _landmark_findings(measures: Measures, rigid: Measures | None) -> list[Reason]:
    final = measures.values.get("tre_mean_mm")
    if final is None and has_landmarks(measures):
        return [Reason("poor", "All landmarks were carried far out of the TRUS volume: no error figure.")]
    before = None if rigid is None else rigid.values.get("tre_mean_mm")
    if final is None or before is None or final <= before:
        return []
    text = (
        f"The deformable step made the landmarks worse ({before:.1f} to {final:.1f} mm): compare with rigid."
    )
    return [Reason("check", text)]


def _confidence_findings(confidence: ConfidenceMap | None) -> list[Reason]:
    if confidence is None or confidence.failed == 0:
        return []
    text = (
        f"{confidence.failed} of {confidence.perturbations} repeats with slightly changed input failed: the"
        " result hangs by a thread, and the confidence map looks better than it is."
    )
    return [Reason("check", text)]


def _unsaid(warnings: Sequence[QualityWarning], levels: dict[str, Level]) -> list[QualityWarning]:
    """The warnings, once each, that no finding about a figure stands for."""
    said = {key for key, level in levels.items() if level != "good"}
    return [w for w in dict.fromkeys(warnings) if _SAME_FINDING.get(w.code) not in said]


def _headline(level: IndicatorLevel, *, landmarks: bool) -> str:
    if level == "poor":
        return "Poor: do not rely on this alignment."
    if level == "check":
        return "Check the points below before you use this alignment."
    if landmarks:
        return "Good: the landmark error is within the clinical target, and nothing looks wrong."
    return "Good match of the gland outlines; accuracy inside the gland was not measured."


def _mm(name: str) -> Callable[[float], str]:
    return lambda value: f"{name} {value:.1f} mm"


_FIGURES: dict[str, _Figure] = {
    "tre_mean_mm": _Figure(
        _mm("Landmark error"),
        "within the clinical target of 2.8 mm.",
        "above the clinical target of 2.8 mm; aim with a margin.",
        "more than the radius of a 0.5 ml lesion; a needle is likely to miss it.",
        leading=True,
    ),
    "landmarks_lost": _Figure(
        lambda value: f"Landmarks lost {value:.0f}",
        "all could be followed.",
        "carried far out of the TRUS volume, so the landmark error looks better than it is.",
        "carried far out of the TRUS volume, so the landmark error looks better than it is.",
    ),
    "dsc": _Figure(
        lambda value: f"Gland overlap {value:.2f} (Dice)",
        "the two outlines cover nearly the same region.",
        "the two outlines agree only roughly; check both contours.",
        "the two outlines do not match; correct a contour or the rigid alignment.",
        leading=True,
    ),
    "hd95_mm": _Figure(
        _mm("Largest gap between the outlines (95 %)"),
        "small everywhere.",
        "look for the place where they part, often apex or base.",
        "they part widely somewhere; correct the contour there.",
    ),
    "msd_mm": _Figure(
        _mm("Mean gap between the outlines"),
        "as between two people's contours.",
        "more than between two people's contours.",
        "much more than between two people's contours.",
    ),
    "folds_percent": _Figure(
        lambda value: f"Folds in {value:.2f} % of the gland",
        "none.",
        "tissue cannot fold; do not trust targets near them.",
        "tissue cannot fold; use the rigid result.",
    ),
    "jacobian_min": _Figure(
        lambda value: f"Smallest local volume ratio {value:.2f}",
        "no tissue is stretched much.",
        "somewhere tissue is stretched more than threefold; look at the Jacobian there.",
        "somewhere tissue folds; use the rigid result.",
    ),
    "gland_volume_change_percent": _Figure(
        lambda value: f"Gland volume changed by {value:+.0f} %",
        "within what contours differ by.",
        "more than contours differ by; compare both contours.",
        "far more than contours differ by; correct a contour.",
    ),
    "displacement_p95_mm": _Figure(
        _mm("Shift by the deformation (95 % of the gland)"),
        "rigid and deformable result point to about the same places.",
        "rigid and deformable result point to different targets; compare both.",
        "rigid and deformable result disagree strongly; compare both before use.",
    ),
    "displacement_max_mm": _Figure(
        _mm("Largest shift by the deformation"),
        "within what a probe can move tissue.",
        "more than a probe moves tissue; look at the place.",
        "far more than a probe moves tissue; use the rigid result.",
    ),
    "spread_mean_mm": _Figure(
        _mm("Spread under small changes of contours and start, mean"),
        "the result is stable (this is no measure of its error).",
        "the result depends on details of the contours; see the confidence map at the target.",
        "the images hardly determine the result; see the confidence map at the target.",
        leading=True,
    ),
    "spread_p95_mm": _Figure(
        _mm("Spread under small changes of contours and start, 95 % of the gland"),
        "stable everywhere.",
        "a part of the gland is uncertain; see the confidence map at the target.",
        "a part of the gland is not determined at all; see the confidence map at the target.",
    ),
}

# Warnings that say in words what a figure says.
_SAME_FINDING = {
    "low_overlap": "dsc",
    "folds": "folds_percent",
    "gland_volume_changed": "gland_volume_change_percent",
    "elastic_rigid_disagree": "displacement_p95_mm",
    "landmark_lost": "landmarks_lost",
}
