"""The measures of a registration in words that a clinician can act on, and the limits between levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from .results import Measures, Registration

Level = Literal["good", "check", "poor", "info"]

# A sphere of 0.5 ml, the smallest lesion usually called clinically significant.
LESION_RADIUS_MM = (3 * 500 / (4 * math.pi)) ** (1 / 3)


@dataclass(frozen=True)
class Limits:
    """Up to `good` a figure is good, beyond `poor` it is poor; `good` > `poor` where more is better."""

    good: float
    poor: float

    def level(self, value: float) -> Level:
        sign = 1 if self.good <= self.poor else -1
        if sign * value <= sign * self.good:
            return "good"
        return "poor" if sign * value > sign * self.poor else "check"


@dataclass(frozen=True)
class Thresholds:
    """Where the level changes; fields are named like the measures they judge."""

    # Good: with isotropic Gaussian error a mean of 2.8 mm puts 95 % of the needles aimed at its centre into a
    # lesion of 0.5 ml (derived in `lesion_hit_percent`). Poor: the mean error exceeds that lesion's radius.
    tre_mean_mm: Limits = Limits(2.8, 4.92)
    # A lost landmark is looked at; all of them lost is poor, see `indicator`.
    landmarks_lost: Limits = Limits(0, math.inf)
    # Good: where the published networks for this task stand (.859, arXiv 2501.03510; µ-RegPro's winner .862).
    # Poor: two standard deviations below what laying the glands' centres together reaches (.838 ± .048).
    dsc: Limits = Limits(0.85, 0.75)
    # Two readers' contours of one gland differ by 0.7–1.9 mm (one SD, Nyholm 2013): twice and four times
    # that for the tail of the distances, once and twice for their mean.
    hd95_mm: Limits = Limits(4.0, 8.0)
    msd_mm: Limits = Limits(2.0, 4.0)
    # Tissue cannot fold; 1 % of a gland of 50 ml is a lesion of 0.5 ml.
    folds_percent: Limits = Limits(0, 1.0)
    # Judged without its sign. Two readers' gland volumes differ by 5–10 % (SD).
    gland_volume_change_percent: Limits = Limits(20.0, 40.0)
    # Half, and the whole, diameter of a lesion of 0.5 ml: a different target.
    displacement_p95_mm: Limits = Limits(5.0, 10.0)


@dataclass(frozen=True)
class MeasureRow:
    """One line of the table of measures: the figures as shown, and what the final one means."""

    key: str
    name: str
    initial: str
    rigid: str
    final: str
    level: Level
    reading: str


@dataclass(frozen=True)
class _Measure:
    """How a figure is called, printed and read; `reading` gets the value and its level."""

    name: str
    unit: str
    digits: int
    reading: Callable[[float, Level], str]


def measure_rows(result: Registration, *, thresholds: Thresholds | None = None) -> tuple[MeasureRow, ...]:
    """The measures that have a plain reading, in reading order; those that no stage has are left out."""
    thresholds = thresholds or Thresholds()
    stages = (result.initial_measures, result.rigid_measures, result.measures)
    known = {key for stage in stages for key in stage.values}
    return tuple(_row(key, stages, thresholds) for key in _measures_of(result.measures) if key in known)


def other_measures(result: Registration) -> tuple[MeasureRow, ...]:
    """The remaining figures, without a reading."""
    stages = (result.initial_measures, result.rigid_measures, result.measures)
    keys = sorted({key for stage in stages for key in stage.values} - set(_MEASURES))
    rows = []
    for key in keys:
        initial, rigid, final = (_plain(stage.values.get(key)) for stage in stages)
        rows.append(MeasureRow(key, measure_title(key), initial, rigid, final, "info", ""))
    return tuple(rows)


def measure_title(key: str) -> str:
    """What a table calls a measure, with its unit; one without plain words keeps its own name."""
    if key not in _MEASURES:
        return _OTHER_TITLES.get(key, key)
    name, unit = _MEASURES[key].name, _MEASURES[key].unit.removesuffix(" ±")
    return f"{name} ({unit})" if unit else name


def measure_text(key: str, value: float | None) -> str:
    """A measure as a table prints it: two digits, counts without; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{0 if key in _COUNTS else 2}f}"


def in_reading_order(keys: Iterable[str]) -> list[str]:
    """Measures as the report lists them: first those with plain words, then the others by title."""
    place = {key: number for number, key in enumerate(_MEASURES)}
    return sorted(keys, key=lambda key: (place.get(key, len(place)), measure_title(key)))


def has_landmarks(measures: Measures) -> bool:
    return measures.values.get("landmarks", len(measures.landmark_rows)) > 0


def lesion_hit_percent(tre_mean_mm: float) -> float:
    """How often a needle aimed at the centre of a 0.5 ml spherical lesion would meet it, in percent.

    For an isotropic Gaussian error of the given mean length: the chi distribution with three degrees of
    freedom, whose mean is 2·sqrt(2/π) standard deviations. Registration error only: the needle's own, and
    the reader's, come on top.
    """
    if tre_mean_mm <= 0:
        return 100.0
    reach = LESION_RADIUS_MM / (tre_mean_mm / (2 * math.sqrt(2 / math.pi)))
    return 100 * (math.erf(reach / math.sqrt(2)) - math.sqrt(2 / math.pi) * reach * math.exp(-(reach**2) / 2))


NO_LANDMARKS = (
    "No landmarks were given, so there is no error figure: only the overlap of the two gland outlines is "
    "known. Overlap is not accuracy inside the gland; compare structures inside it by eye."
)


def _measures_of(measures: Measures) -> dict[str, _Measure]:
    """The measures that apply: without landmarks none can be lost."""
    landmarks = has_landmarks(measures)
    return {key: measure for key, measure in _MEASURES.items() if landmarks or key != "landmarks_lost"}


def _row(key: str, stages: tuple[Measures, Measures, Measures], thresholds: Thresholds) -> MeasureRow:
    measure = _MEASURES[key]
    initial, rigid, final = (_shown(stage.values.get(key), measure) for stage in stages)
    value = stages[2].values.get(key)
    level = _level(key, value, thresholds)
    reading = "Could not be measured." if value is None else _sentence(_read(key, value, level))
    return MeasureRow(key, measure.name, initial, rigid, final, level, reading)


def _level(key: str, value: float | None, thresholds: Thresholds) -> Level:
    limits = getattr(thresholds, key, None)
    if value is None or limits is None:
        return "info"
    return limits.level(abs(value))


def _read(key: str, value: float, level: Level) -> str:
    return _MEASURES[key].reading(value, level)


def _shown(value: float | None, measure: _Measure) -> str:
    if value is None:
        return "–"
    sign = "+" if measure.unit == "% ±" else ""
    unit = measure.unit.removesuffix(" ±")
    return f"{value:{sign}.{measure.digits}f}" + (f" {unit}" if unit else "")


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _read_tre(value: float, level: Level) -> str:
    hit = f"{lesion_hit_percent(value):.0f} in 100"
    target = {
        "good": "within the clinical target of 2.8 mm.",
        "check": "above the clinical target of 2.8 mm.",
        "poor": "more than the radius (4.9 mm) of a 0.5 ml lesion.",
    }[level]
    return (
        f"{target} If errors of this size are typical, about {hit} needles aimed at the centre of a 0.5 ml "
        "lesion (1 cm across) would hit it, the needle's own error not counted."
    )


def _read_rms(value: float, level: Level) -> str:
    return (
        "the same errors with large ones weighing more; the figure that papers report. Two people marking "
        "one point differ by up to 3 mm, so below about 2 mm differences mean little."
    )


def _read_lost(value: float, level: Level) -> str:
    if level == "good":
        return "every landmark could be followed from MR to TRUS."
    return "carried far out of the TRUS image: without an error figure, so the mean looks better than it is."


def _read_dsc(value: float, level: Level) -> str:
    how = {
        "good": "the two outlines cover nearly the same region",
        "check": "the two outlines agree only roughly",
        "poor": "the two outlines do not match; laying the gland centres together usually does better",
    }[level]
    return f"{how} (1 is perfect). This says nothing about structures inside the gland."


def _read_hd95(value: float, level: Level) -> str:
    where = {
        "good": "also the worst places of the outlines lie close",
        "check": "look for the place where the outlines part, often apex or base",
        "poor": "the outlines part widely somewhere",
    }[level]
    return f"95 % of the two outlines are closer than this; {where}."


def _read_msd(value: float, level: Level) -> str:
    how = {
        "good": "about as far as two people's contours",
        "check": "further than two people's contours",
        "poor": "much further than two people's contours",
    }[level]
    return f"the outlines are this far apart on average, {how}."


def _read_centroid(value: float, level: Level) -> str:
    return "how far apart the centres of the two glands lie."


def _read_folds(value: float, level: Level) -> str:
    if level == "good":
        return "no tissue is folded onto itself."
    return "here tissue is folded onto itself, which cannot happen: do not trust targets near it."


def _read_jacobian_min(value: float, level: Level) -> str:
    if value <= 0:
        return "somewhere in the gland tissue folds (a physical deformation stays above 0)."
    if value >= 1:
        return "nowhere in the gland is MR tissue stretched (1 is unchanged)."
    return f"the most stretched piece of the gland takes {1 / value:.1f} times its volume on MR."


def _read_log_std(value: float, level: Level) -> str:
    return (
        f"how unevenly tissue is stretched: volumes typically change by {100 * (math.exp(value) - 1):.0f} % "
        "from place to place (0 is a rigid move)."
    )


def _read_volume(value: float, level: Level) -> str:
    how = {
        "good": "within what contours differ by",
        "check": "more than contours differ by",
        "poor": "far more than contours differ by",
    }[level]
    return f"how much the deformation grows (+) or shrinks (−) the MR gland, {how}."


def _read_displacement(value: float, level: Level) -> str:
    how = {
        "good": "the deformable and the rigid result point to about the same places",
        "check": "the deformable and the rigid result point to different targets: compare both",
        "poor": "the deformable and the rigid result disagree strongly: compare both before use",
    }[level]
    return f"95 % of the gland was shifted by less than this beyond the rigid move; {how}."


# In reading order. A unit that ends with ± is printed with its sign.
_MEASURES: dict[str, _Measure] = {
    "tre_mean_mm": _Measure("Landmark error, mean", "mm", 1, _read_tre),
    "tre_rms_mm": _Measure("Landmark error, RMS", "mm", 1, _read_rms),
    "landmarks_lost": _Measure("Landmarks lost", "", 0, _read_lost),
    "dsc": _Measure("Gland overlap (Dice)", "", 2, _read_dsc),
    "hd95_mm": _Measure("Gland surface distance, 95 %", "mm", 1, _read_hd95),
    "msd_mm": _Measure("Gland surface distance, mean", "mm", 1, _read_msd),
    "gland_centroid_mm": _Measure("Gland centre distance", "mm", 1, _read_centroid),
    "folds_percent": _Measure("Folds in the gland", "%", 2, _read_folds),
    "jacobian_min": _Measure("Smallest local volume ratio", "", 2, _read_jacobian_min),
    "jacobian_log_std": _Measure("Unevenness of stretch", "", 2, _read_log_std),
    "gland_volume_change_percent": _Measure("Gland volume change", "% ±", 1, _read_volume),
    "displacement_p95_mm": _Measure("Shift by deformation, 95 %", "mm", 1, _read_displacement),
}
_OTHER_TITLES = {
    "landmarks": "Number of landmarks",
    "displacement_mean_mm": "Shift by deformation, mean (mm)",
    "displacement_max_mm": "Shift by deformation, largest (mm)",
}
_COUNTS = ("landmarks", "landmarks_lost")
