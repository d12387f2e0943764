"""What a case in a scene is made from: a registration in memory, or a finished result folder."""

from __future__ import annotations

from dataclasses import dataclass

import SimpleITK as sitk  # noqa: N813

from ..results import LandmarkRow, Landmarks, Measures, QualityWarning, Registration


@dataclass(frozen=True)
class CaseContent:
    """Everything of a case but its two images. LPS mm; transforms map TRUS points to MR points.

    `measures` has one entry a stage (initial, rigid, deformable). `trus` is there only where the run
    re-labelled the axes of the TRUS image; `trus_axes` are those of `GlandSegmentation` for the TRUS.
    """

    mr_mask: sitk.Image
    trus_mask: sitk.Image
    initial: sitk.Transform
    rigid: sitk.Transform
    deformation: sitk.DisplacementFieldTransform | None
    mr_landmarks: Landmarks | None
    trus_landmarks: Landmarks | None
    measures: dict[str, Measures]
    rows: tuple[LandmarkRow, ...]
    warnings: tuple[QualityWarning, ...]
    provenance: dict[str, object]
    method: str
    confidence_mm: sitk.Image | None = None
    report_html: str = ""
    trus: sitk.Image | None = None
    trus_axes: str = ""


def content_of(result: Registration) -> CaseContent:
    """The content of a registration."""
    measures = {"initial": result.initial_measures, "rigid": result.rigid_measures}
    if result.deformation is not None:
        measures["deformable"] = result.measures
    return CaseContent(
        mr_mask=result.mr_gland.mask,
        trus_mask=result.trus_gland.mask,
        initial=result.initial,
        rigid=result.rigid.transform,
        deformation=result.deformation.transform if result.deformation else None,
        mr_landmarks=result.mr_landmarks,
        trus_landmarks=result.trus_landmarks,
        measures=measures,
        rows=result.measures.landmark_rows,
        warnings=result.warnings,
        provenance=result.provenance,
        method=result.method,
        trus_axes=result.trus_gland.axes,
    )
