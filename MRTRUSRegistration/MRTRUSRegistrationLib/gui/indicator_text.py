"""The alignment indicator in words and a colour."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..confidence import ConfidenceMap
    from ..indicator import Indicator
    from ..mrml.case_nodes import CaseNodes

# Told apart without colour by their words; the colours are dark enough to read on a light panel.
_COLORS = {"good": "#2e7d32", "check": "#b26a00", "poor": "#c62828"}


def indicator_of(case: CaseNodes) -> Indicator:
    """The indicator of a version from what its nodes hold."""
    from ..indicator import alignment_indicator
    from ..mrml.versions import measures_of
    from ..results import Measures, QualityWarning

    stages = measures_of(case)
    wanted = ("rigid",) if case.attribute("Accepted") == "RIGID" else ("deformable", "rigid", "initial")
    final = next((name for name in wanted if name in stages), "")
    warnings = tuple(QualityWarning(entry["code"], entry["message"]) for entry in case.warnings)
    rigid = Measures(stages["rigid"]) if final == "deformable" and "rigid" in stages else None
    measures = Measures(stages.get(final, {}))
    return alignment_indicator(measures, warnings, confidence_of(case), rigid=rigid)


def confidence_of(case: CaseNodes) -> ConfidenceMap | None:
    """The confidence map of a version; `None` where it has none or its images are gone."""
    from ..confidence import confidence_of_image
    from ..mrml.readers import gland_mask_of, image_of, volume_grid

    if case.confidence is None or case.trus is None or case.trus_gland is None:
        return None
    gland = gland_mask_of(case.trus_gland, volume_grid(case.trus), "TRUS")
    return confidence_of_image(image_of(case.confidence), gland)


def indicator_html(case: CaseNodes) -> str:
    """The headline and the reasons from worst to best, as HTML."""
    indicator = indicator_of(case)
    items = "".join(f"<li>{escape(reason)}</li>" for reason in indicator.reasons)
    color = _COLORS[indicator.level]
    title = f'<b style="color:{color}">{escape(indicator.headline)}</b>'
    return f'{title}<ul style="margin-left:-20px">{items}</ul>'
