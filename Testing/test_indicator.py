"""The alignment indicator: levels, reasons, and that a worse figure never looks better."""

from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from report_fixtures import LANDMARKS, measures, registration

from MRTRUSRegistrationLib.confidence import ConfidenceMap
from MRTRUSRegistrationLib.indicator import (
    Indicator,
    IndicatorLimits,
    alignment_indicator,
    registration_indicator,
)
from MRTRUSRegistrationLib.plain_language import Thresholds, measure_rows
from MRTRUSRegistrationLib.quality import quality_warnings
from MRTRUSRegistrationLib.results import Measures, QualityWarning

SEVERITY = {"good": 1, "check": 2, "poor": 3}
DEFORMED = {
    "jacobian_min": 0.6,
    "folds_percent": 0.0,
    "gland_volume_change_percent": 4.0,
    "displacement_p95_mm": 3.0,
    "displacement_max_mm": 6.0,
}
# From the best to the worst value of every figure that is judged, with the limits themselves.
LADDERS = {
    "tre_mean_mm": (0.0, 2.0, 2.8, 2.81, 4.9, 4.93, 30.0),
    "landmarks_lost": (0, 1, 2),
    "dsc": (1.0, 0.86, 0.85, 0.84, 0.75, 0.74, 0.0),
    "hd95_mm": (0.0, 4.0, 4.1, 8.0, 8.1, 40.0),
    "msd_mm": (0.0, 2.0, 2.1, 4.0, 4.1, 20.0),
    "folds_percent": (0.0, 0.01, 1.0, 1.1, 60.0),
    "jacobian_min": (1.0, 0.34, 0.33, 0.01, 0.0, -0.01, -4.0),
    "gland_volume_change_percent": (0.0, 20.0, 21.0, 40.0, 41.0, 300.0),
    "displacement_p95_mm": (0.0, 5.0, 5.1, 10.0, 10.1, 50.0),
    "displacement_max_mm": (0.0, 14.0, 14.1, 28.0, 28.1, 90.0),
    "spread_mean_mm": (0.0, 2.8, 2.9, 4.9, 5.0, 40.0),
    "spread_p95_mm": (0.0, 4.9, 5.0, 9.8, 9.9, 40.0),
}


def spread(mean_mm: float = 0.5, p95_mm: float = 1.0, *, failed: int = 0) -> ConfidenceMap:
    return ConfidenceMap(sitk.Image(2, 2, 2, sitk.sitkFloat32), mean_mm, p95_mm, 0.4, 6, failed)


def judge(*warnings: QualityWarning, **values: float) -> Indicator:
    """The indicator for good figures with some changed; those of the spread go into a confidence map."""
    known = {key: values.pop(f"spread_{key}") for key in ("mean_mm", "p95_mm") if f"spread_{key}" in values}
    confidence = spread(**known) if known else None
    return alignment_indicator(measures(**(DEFORMED | values)), warnings, confidence)


def test_good_figures_are_good_and_say_what_was_not_measured() -> None:
    found = judge()
    assert found.level == "good"
    assert found.headline.startswith("Good match of the gland outlines")
    assert found.reasons[0] == "Gland overlap 0.91 (Dice): the two outlines cover nearly the same region."
    assert "No landmarks were given" in found.reasons[1]
    assert len(found.reasons) == 2


def test_with_landmarks_the_error_leads() -> None:
    found = judge(**LANDMARKS)
    assert found.level == "good"
    assert found.reasons[0] == "Landmark error 2.0 mm: within the clinical target of 2.8 mm."
    assert not any("No landmarks" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("key", "value", "level", "words"),
    [
        ("dsc", 0.80, "check", "0.80 (Dice): the two outlines agree only roughly"),
        ("dsc", 0.60, "poor", "do not match"),
        ("hd95_mm", 6.0, "check", "6.0 mm: look for the place where they part"),
        ("folds_percent", 0.02, "check", "tissue cannot fold"),
        ("folds_percent", 2.0, "poor", "use the rigid result"),
        ("jacobian_min", 0.2, "check", "0.20: somewhere tissue is stretched more than threefold"),
        ("jacobian_min", -0.2, "poor", "-0.20: somewhere tissue folds"),
        ("gland_volume_change_percent", -30.0, "check", "-30 %: more than contours differ by"),
        ("displacement_max_mm", 20.0, "check", "20.0 mm: more than a probe moves tissue"),
        ("spread_mean_mm", 3.5, "check", "3.5 mm: the result depends on details of the contours"),
        ("spread_mean_mm", 6.0, "poor", "hardly determine the result"),
        ("spread_p95_mm", 6.0, "check", "6.0 mm: a part of the gland is uncertain"),
    ],
)
def test_a_bad_figure_sets_the_level_and_comes_first(key: str, value: float, level: str, words: str) -> None:
    found = judge(**{key: value})
    assert found.level == level
    assert found.findings[0].level == level
    assert words in found.reasons[0]


@pytest.mark.parametrize("key", LADDERS)
def test_a_worse_figure_never_gives_a_better_level(key: str) -> None:
    """Alone, and whatever the other figures are."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        others = {name: rng.choice(ladder) for name, ladder in LADDERS.items() if name != key}
        others = {name: value for name, value in others.items() if rng.random() < 0.3}
        levels = [SEVERITY[judge(**(others | {"landmarks": 3, key: v})).level] for v in LADDERS[key]]
        assert levels == sorted(levels)


@pytest.mark.parametrize("key", [key for key in LADDERS if key != "landmarks_lost"])
def test_every_figure_alone_runs_from_good_to_poor(key: str) -> None:
    known = {"landmarks": 3, "tre_mean_mm": 1.0}
    levels = [judge(**(known | {key: value})).level for value in LADDERS[key]]
    assert (levels[0], levels[-1]) == ("good", "poor")
    assert "check" in levels


def test_every_limit_is_of_a_figure_with_words() -> None:
    named = {f.name for part in (IndicatorLimits, Thresholds) for f in fields(part)} - {"report"}
    assert named == set(LADDERS)


def test_a_warning_is_at_least_a_check_and_is_said_once() -> None:
    warning = QualityWarning("rotation_limited", "The rotation was limited.")
    found = judge(warning, warning)
    assert found.level == "check"
    assert found.reasons.count("The rotation was limited.") == 1
    assert judge(warning, dsc=0.5).level == "poor"


def test_a_warning_about_a_judged_figure_is_not_said_twice() -> None:
    bad = measures(
        **(DEFORMED | {"dsc": 0.7, "gland_volume_change_percent": 33.0, "displacement_p95_mm": 8.0})
    )
    warnings = quality_warnings(bad, deformable=True)
    assert {w.code for w in warnings} == {"low_overlap", "gland_volume_changed", "elastic_rigid_disagree"}
    found = alignment_indicator(bad, warnings)
    assert len(found.findings) == 4  # three figures and the note on landmarks
    assert not any(w.message in found.reasons for w in warnings)


def test_a_warning_about_a_good_figure_still_counts() -> None:
    warning = QualityWarning("folds", "Folds somewhere else.")
    assert judge(warning).level == "check"
    assert "Folds somewhere else." in judge(warning).reasons


def test_without_an_overlap_nothing_is_good() -> None:
    found = alignment_indicator(Measures({"hd95_mm": 1.0}))
    assert found.level == "check"
    assert found.reasons[0] == "The overlap of the glands could not be measured."
    assert alignment_indicator(Measures({"dsc": float("nan")})).reasons[0] == found.reasons[0]


def test_all_landmarks_lost_is_poor() -> None:
    assert judge(landmarks=3, landmarks_lost=3).level == "poor"


def test_landmarks_made_worse_by_the_deformation_are_a_check() -> None:
    final, before = measures(**LANDMARKS), measures(**(LANDMARKS | {"tre_mean_mm": 1.1}))
    found = alignment_indicator(final, rigid=before)
    assert found.level == "check"
    assert "made the landmarks worse (1.1 to 2.0 mm)" in found.reasons[0]
    assert alignment_indicator(before, rigid=final).level == "good"


def test_repeats_that_failed_are_named() -> None:
    found = alignment_indicator(measures(), (), spread(failed=2))
    assert found.level == "check"
    assert found.reasons[0].startswith("2 of 6 repeats")


def test_never_milder_than_the_table_of_the_report() -> None:
    base = registration()
    chosen = ("dsc", "tre_mean_mm", "hd95_mm", "folds_percent", "displacement_p95_mm")
    for values in product(*[LADDERS[key][::2] for key in chosen]):
        final = measures(**(DEFORMED | {"landmarks": 3} | dict(zip(chosen, values, strict=True))))
        result = replace(base, measures=final)
        worst = max(SEVERITY.get(row.level, 0) for row in measure_rows(result))
        assert SEVERITY[registration_indicator(result).level] >= worst


def test_a_rigid_result_is_not_compared_with_itself() -> None:
    worse = {"measures": measures(landmarks=2, tre_mean_mm=2.5)}
    better = {"rigid_measures": measures(landmarks=2, tre_mean_mm=2.1)}
    assert registration_indicator(registration(**worse, **better)).level == "check"
    assert registration_indicator(registration(deformed=False, **worse, **better)).level == "good"


def test_json_keeps_everything() -> None:
    content = judge(dsc=0.8).as_json()
    assert content["level"] == "check"
    assert content["findings"][0] == {
        "level": "check",
        "text": "Gland overlap 0.80 (Dice): the two outlines agree only roughly; check both contours.",
    }
