"""When a result should not be trusted: named warnings from the measures of one registration."""

from __future__ import annotations

from dataclasses import dataclass

from .results import Measures, QualityWarning


@dataclass(frozen=True)
class QualityLimits:
    """Where each warning starts.

    Overlap: most published rigid results on this task lie above a DSC of 0.75 and deformable ones above 0.8.
    Volume: contours of one gland by two readers differ by 5–10 %, so 20 % is more than drawing error.
    Disagreement: half the radius of a 0.5 ml lesion (4.9 mm) is a different target.
    """

    rigid_dsc: float = 0.75
    deformable_dsc: float = 0.80
    volume_change_percent: float = 20.0
    disagreement_mm: float = 5.0


def quality_warnings(
    measures: Measures, *, deformable: bool, limits: QualityLimits | None = None
) -> tuple[QualityWarning, ...]:
    """Warnings about overlap, folds, volume change, disagreement with the rigid result, lost landmarks."""
    limits = limits or QualityLimits()
    values = measures.values
    least = limits.deformable_dsc if deformable else limits.rigid_dsc
    found = []
    if values["dsc"] < least:
        found.append(
            QualityWarning(
                "low_overlap",
                f"The glands overlap by only {values['dsc']:.2f} (Dice) after registration, less than the "
                f"{least:.2f} expected; check both contours.",
            )
        )
    if deformable:
        found += _deformation_warnings(values, limits)
    if values.get("landmarks_lost", 0) > 0:
        lost = int(values["landmarks_lost"])
        found.append(
            QualityWarning(
                "landmark_lost",
                f"{lost} landmark(s) were carried far out of the TRUS volume and have no error figure.",
            )
        )
    return tuple(found)


def _deformation_warnings(values: dict[str, float], limits: QualityLimits) -> list[QualityWarning]:
    found = []
    if values["folds_percent"] > 0:
        found.append(
            QualityWarning(
                "folds",
                f"The deformation folds in {values['folds_percent']:.2f} % of the gland; do not use it.",
            )
        )
    change = values["gland_volume_change_percent"]
    if abs(change) > limits.volume_change_percent:
        found.append(
            QualityWarning(
                "gland_volume_changed",
                f"The deformation changes the gland's volume by {change:+.0f} %, more than contours differ.",
            )
        )
    if values["displacement_p95_mm"] > limits.disagreement_mm:
        found.append(
            QualityWarning(
                "elastic_rigid_disagree",
                f"The elastic and the rigid result differ by up to {values['displacement_p95_mm']:.1f} mm in "
                "the gland; compare both before choosing a target.",
            )
        )
    return found
