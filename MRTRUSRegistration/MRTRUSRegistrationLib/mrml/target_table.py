"""The targets of a case where a needle would find them: position, capsule, apex to base, side, confidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .judgement import confidence_of

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

    from ..targets import TargetRow, TrusGland
    from .case_nodes import CaseNodes


def target_rows(case: CaseNodes) -> tuple[TargetRow, ...]:
    """Points, then segments, where they are now; () without targets or without the TRUS gland."""
    from ..targets import TrusGland
    from .readers import gland_mask_of, volume_grid

    if case.trus is None or case.trus_gland is None:
        return ()
    mask = gland_mask_of(case.trus_gland, volume_grid(case.trus), "TRUS")
    gland = TrusGland.of(mask, axes=case.attribute("TRUSAxes"))
    known = confidence_of(case)
    confidence = known.image if known is not None else None
    return (*_point_rows(case, gland, confidence), *_segment_rows(case, gland, confidence))


def target_table_csv(case: CaseNodes) -> str | None:
    """The rows as CSV in LPS and RAS; `None` without any."""
    from ..target_files import targets_csv

    rows = target_rows(case)
    return targets_csv(rows) if rows else None


def _point_rows(case: CaseNodes, gland: TrusGland, confidence: sitk.Image | None) -> list[TargetRow]:
    from ..targets import describe_target
    from .readers import landmarks_of
    from .targets_nodes import nudges_mm, target_points

    points = target_points(case)
    if points is None:
        return []
    source = case.mr_targets
    on_mr: dict[str, Any] = {}
    if source is not None and source.IsA("vtkMRMLMarkupsFiducialNode"):
        marked = landmarks_of(source)
        on_mr = dict(zip(marked.names, marked.points_mm, strict=True))
    return [
        describe_target(name, point, gland, mr_mm=on_mr.get(name), moved_mm=moved_mm, confidence=confidence)
        for name, point, moved_mm in zip(
            points.names, points.points_mm, nudges_mm(case).values(), strict=True
        )
    ]


def _segment_rows(case: CaseNodes, gland: TrusGland, confidence: sitk.Image | None) -> list[TargetRow]:
    from ..geometry import mask_centroid_mm
    from ..segments import voxel_count
    from ..targets import describe_target
    from .targets_nodes import target_masks

    return [
        describe_target(name, mask_centroid_mm(mask), gland, label=mask, confidence=confidence)
        for name, mask in target_masks(case).items()
        if voxel_count(mask)
    ]
