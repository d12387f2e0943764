"""Outlines of both glands in TRUS space, drawn from surfaces that are moved once a stage.

Slicer can draw a segmentation under a deformation, but inverts the deformation for every frame.
"""

from __future__ import annotations

import vtk

from .case import MR_COLOR, TRUS_COLOR
from .case_nodes import CaseNodes
from .models import moved, set_visible, show_model, surface_of
from .readers import gland_mask_of, times_drawn, volume_grid
from .stages import Stage, mr_to_trus, stage_transforms

_Known = dict[str, tuple[tuple, vtk.vtkPolyData]]


class Contours:
    """The outlines of the glands of a case; a surface is made anew only after its gland has changed."""

    def __init__(self, case: CaseNodes) -> None:
        self._case = case
        self._known: _Known = {}

    def show(self, stage: Stage) -> None:
        """Outline both glands as they lie at a stage; a gland that was deleted has none."""
        case = self._case
        if case.trus is None:
            return
        if case.trus_gland is not None:
            show_model(case, "trusOutline", self._surface("TRUS"), "TRUS gland outline", color=TRUS_COLOR)
        if case.mr_gland is not None and case.mr is not None:
            show_model(case, "mrOutline", self._mr(stage), "MR gland outline", color=MR_COLOR)
        for role in ("trusOutline", "mrOutline"):
            node = case.get(role)
            if node is not None:
                node.GetDisplayNode().SetOpacity(0.4)
                node.GetDisplayNode().SetSliceIntersectionOpacity(1.0)

    def set_visible(self, visible: bool) -> None:
        """Show or hide the outlines; the segmentations themselves are hidden, as both would be too much."""
        for role in ("trusOutline", "mrOutline"):
            set_visible(self._case.get(role), visible)
        for gland in (self._case.mr_gland, self._case.trus_gland):
            set_visible(gland, False)

    def _mr(self, stage: Stage) -> vtk.vtkPolyData:
        surface = self._surface("MR")
        transforms = stage_transforms(self._case, stage)
        state = (
            surface.GetMTime(),
            *((node.GetID(), node.GetTransformFromParent().GetMTime()) for node in transforms),
        )
        return self._once(f"MR {stage}", state, lambda: moved(surface, mr_to_trus(self._case, stage)))

    def _surface(self, what: str) -> vtk.vtkPolyData:
        gland, volume = (
            (self._case.mr_gland, self._case.mr) if what == "MR" else (self._case.trus_gland, self._case.trus)
        )
        return self._once(
            what,
            (gland.GetID(), *times_drawn(gland)),
            lambda: surface_of(gland_mask_of(gland, volume_grid(volume), what)),
        )

    def _once(self, key: str, state: tuple, make) -> vtk.vtkPolyData:  # type: ignore[no-untyped-def]
        known = self._known.get(key)
        if known is None or known[0] != state:
            known = (state, make())
            self._known[key] = known
        return known[1]
