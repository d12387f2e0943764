"""The section Correct: paint and erase on a gland, move a target, register again, undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trame_slicer.segmentation import (
    BrushDiameterMode,
    SegmentationEffectErase,
    SegmentationEffectNoTool,
    SegmentationEffectPaint,
)
from undo_stack import UndoStack

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.models import set_visible
from MRTRUSRegistrationLib.mrml.review import show_alone
from MRTRUSRegistrationLib.mrml.stale import GlandWatch
from MRTRUSRegistrationLib.mrml.targets_nodes import reset_target

if TYPE_CHECKING:
    from .app import Viewer

_TOOLS = {
    "paint": SegmentationEffectPaint,
    "erase": SegmentationEffectErase,
    "none": SegmentationEffectNoTool,
}
_STEPS_BACK = 20


class CorrectSection:
    """What the user can mend; registering again takes it up."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._glands = GlandWatch()
        self._steps = UndoStack(undo_limit=_STEPS_BACK)
        self._watched: tuple[Any, int] | None = None
        viewer.slicer.segmentation_editor.set_undo_stack(self._steps)
        viewer.state.update(
            {
                "editing": "",
                "tool": "paint",
                "brush_mm": 8,
                "brush_sphere": True,
                "edited": [],
                "move_targets": False,
            }
        )
        viewer.state.change("tool", "brush_mm", "brush_sphere")(self._on_tool)
        viewer.state.change("move_targets")(self._on_move_targets)

    def edit(self, image: str) -> None:
        """Edit the gland of the MR or of the TRUS over its image alone."""
        case = self._viewer.case
        if case is None:
            raise InputError("There is no result yet: register first.")
        self._viewer.registering.check_idle()
        gland, volume = (case.mr_gland, case.mr) if image == "mr" else (case.trus_gland, case.trus)
        if gland is None or volume is None:
            raise InputError("This gland or its image is no longer in the scene: open the case again.")
        self._viewer.review.suspend()
        for other in (case.mr_gland, case.trus_gland, case.mr_landmarks, case.trus_landmarks):
            set_visible(other, other is gland)
        show_alone(case, gland, volume)
        self._viewer.slicer.segmentation_editor.set_active_segmentation(gland, volume)
        self._viewer.state.update({"editing": image, "tool": "paint"})
        self._use_tool()
        self._viewer.views.fit()

    def undo_stroke(self) -> None:
        if self._steps.can_undo():
            self._steps.undo()
            self._viewer.views.draw()

    def done(self) -> None:
        """Back to the review, with the gland as it was drawn."""
        if self.leave():
            self._viewer.refresh()
            self._viewer.views.fit()

    def leave(self) -> bool:
        """Put the tools away; whether a gland was being edited."""
        if not self._viewer.state.editing:
            return False
        self._viewer.slicer.segmentation_editor.deactivate_effect()
        self._viewer.state.editing = ""
        return True

    def reset_target(self, point_id: str) -> None:
        """Put a target back to where the registration puts it."""
        if self._viewer.case is not None:
            reset_target(self._viewer.case, point_id)
            self._viewer.review.refresh_tables()
            self._viewer.views.draw()

    def refresh(self, case: CaseNodes | None) -> None:
        self.leave()
        state = self._viewer.state
        state.edited = list(self._glands.edited(case)) if case is not None else []
        self._watch(case.targets if case is not None else None)
        self._lock()

    def _on_tool(self, **_: Any) -> None:
        if self._viewer.state.editing:
            self._use_tool()

    def _use_tool(self) -> None:
        state, editor = self._viewer.state, self._viewer.slicer.segmentation_editor
        effect = editor.set_active_effect_type(_TOOLS[state.tool])
        if state.tool != "none" and effect is not None:
            effect.set_brush_diameter(float(state.brush_mm), BrushDiameterMode.Absolute)
            effect.set_use_sphere_brush(bool(state.brush_sphere))

    def _on_move_targets(self, **_: Any) -> None:
        self._lock()

    def _lock(self) -> None:
        case = self._viewer.case
        if case is not None and case.targets is not None:
            case.targets.SetLocked(not self._viewer.state.move_targets)

    def _watch(self, targets: Any) -> None:
        """Follow the table when a dragged target is let go."""
        if self._watched is not None:
            self._watched[0].RemoveObserver(self._watched[1])
        self._watched = None
        if targets is not None:
            tag = targets.AddObserver(
                targets.PointEndInteractionEvent, lambda *_: self._viewer.review.refresh_tables()
            )
            self._watched = (targets, tag)
