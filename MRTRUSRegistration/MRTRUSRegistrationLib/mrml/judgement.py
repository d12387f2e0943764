"""How far a version of a case can be trusted, from what its nodes hold."""

from __future__ import annotations

from ..confidence import ConfidenceMap, confidence_of_image
from ..indicator import Indicator, alignment_indicator
from ..results import Measures, QualityWarning
from .case_nodes import CaseNodes
from .readers import gland_mask_of, image_of, volume_grid
from .stages import accepted_stage
from .versions import accepted_measures, measures_of


def indicator_of(case: CaseNodes) -> Indicator:
    """The indicator of a version from what its nodes hold."""
    warnings = tuple(QualityWarning(entry["code"], entry["message"]) for entry in case.warnings)
    before = measures_of(case).get("rigid") if accepted_stage(case) == "deformable" else None
    rigid = Measures(before) if before else None
    measures = Measures(accepted_measures(case))
    return alignment_indicator(measures, warnings, confidence_of(case), rigid=rigid)


def confidence_of(case: CaseNodes) -> ConfidenceMap | None:
    """The confidence map of a version; `None` where it has none or its images are gone."""
    if case.confidence is None or case.trus is None or case.trus_gland is None:
        return None
    gland = gland_mask_of(case.trus_gland, volume_grid(case.trus), "TRUS")
    return confidence_of_image(image_of(case.confidence), gland)
