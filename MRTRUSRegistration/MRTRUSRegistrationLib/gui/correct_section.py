"""The section Correct: edit a mask, give landmark pairs, move a target, register again, undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from ..mrml.stale import GlandWatch
from ..mrml.target_carrying import carry_again, moved_mm
from .job_inputs import inputs_again
from .messages import shown_errors
from .readiness import Situation, why_not_accept, why_not_edit, why_not_register_again, why_not_undo
from .section import Section

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes
    from .panel import Panel


class CorrectSection(Section):
    """What the user can mend, and the run that takes it up."""

    def __init__(self, ui: Any, panel: Panel) -> None:
        super().__init__(ui, panel)
        self._glands = GlandWatch()
        ui.editMrGlandButton.connect("clicked()", lambda: self.on_edit("mr"))
        ui.editTrusGlandButton.connect("clicked()", lambda: self.on_edit("trus"))
        ui.registerAgainButton.connect("clicked()", self.on_register_again)
        ui.undoButton.connect("clicked()", self.on_undo)
        self._moved: dict[str, float] = {}
        self._watched: Any = None
        self._tag = 0
        ui.resetTargetButton.connect("clicked()", self.on_reset_target)

    def refresh(self, now: Situation) -> None:
        for name in ("editMrGlandButton", "editTrusGlandButton"):
            self.allow(name, why_not_edit(now))
        self.allow("acceptedComboBox", why_not_accept(now))
        self.allow("registerAgainButton", why_not_register_again(now))
        self.allow("undoButton", why_not_undo(now))
        case = self.panel.case
        # Before the targets are looked at, because it carries them again.
        self._keep_choice(case)
        self._refresh_targets(case)
        self.ui.staleLabel.text = stale_text(self._glands.edited(case) if case is not None else ())

    def _refresh_targets(self, case: CaseNodes | None) -> None:
        """Whether they may be moved, and which were."""
        targets = case.targets if case is not None else None
        reason = "" if targets is not None else _("The result has no target points.")
        self.allow("moveTargetsCheckBox", reason)
        if targets is not None:
            targets.SetLocked(not self.panel.parameters.moveTargets)
        self._watch(targets)
        self._moved = moved_mm(case) if case is not None else {}
        self._fill_moved(targets)
        for name in ("movedTargetComboBox", "resetTargetButton"):
            self.allow(name, reason or ("" if self._moved else _("No target was moved.")))

    def _fill_moved(self, targets: Any) -> None:
        combo = self.ui.movedTargetComboBox
        chosen = combo.currentIndex
        combo.clear()
        for point_id, distance_mm in self._moved.items():
            name = targets.GetNthControlPointLabel(targets.GetControlPointIndexByID(point_id))
            combo.addItem(_("{name}, by {distance:.1f} mm").format(name=name, distance=distance_mm))
        combo.currentIndex = min(max(chosen, 0), len(self._moved) - 1)

    def _watch(self, targets: Any) -> None:
        """Refresh when the user lets a dragged target go."""
        if targets is self._watched:
            return
        if self._watched is not None:
            self._watched.RemoveObserver(self._tag)
        self._watched = targets
        if targets is not None:
            event = slicer.vtkMRMLMarkupsNode.PointEndInteractionEvent
            self._tag = targets.AddObserver(event, lambda caller, name: self.panel.refresh())

    def scene_closed(self) -> None:
        self._watch(None)

    def on_reset_target(self) -> None:
        from ..mrml.targets_nodes import reset_target

        case, index = self.panel.case, self.ui.movedTargetComboBox.currentIndex
        if case is not None and 0 <= index < len(self._moved):
            with shown_errors(_("The target cannot be put back")):
                reset_target(case, list(self._moved)[index])
            self.panel.refresh()

    def _keep_choice(self, case: CaseNodes | None) -> None:
        accepted = self.panel.parameters.accepted
        if case is None or case.attribute("Accepted") == accepted.name:
            return
        case.set_attribute("Accepted", accepted.name)
        self.panel.review.accept(case, accepted.value)
        with shown_errors(_("The targets cannot be carried to the TRUS")):
            carry_again(case)

    def on_edit(self, image: str) -> None:
        """Open a gland in Slicer's Segment Editor, over its image.

        An MR and its gland are taken from under their transforms, because one cannot draw under a
        deformation; coming back to the module puts them under again.
        """
        case = self.panel.case
        if case is None:
            return
        with shown_errors(_("The Segment Editor cannot be opened")):
            gland, volume = (case.mr_gland, case.mr) if image == "mr" else (case.trus_gland, case.trus)
            self.panel.review.leave(gland, volume)
            slicer.util.selectModule("SegmentEditor")
            editor = slicer.modules.SegmentEditorWidget.editor
            editor.setSegmentationNode(gland)
            editor.setSourceVolumeNode(volume)

    def on_register_again(self) -> None:
        case = self.panel.case
        if case is None:
            return
        with shown_errors(_("The registration cannot start")):
            self.panel.registration.start(inputs_again(self.panel.parameters, case), previous=case)

    def on_undo(self) -> None:
        from ..mrml.versions import undo

        case = self.panel.case
        if case is None:
            return
        with shown_errors(_("The version before cannot be shown")):
            self.panel.select_case(undo(case) or case)


def stale_text(edited: tuple[str, ...]) -> str:
    """What was edited since the result was made from it."""
    names = {"MR": _("the MR gland"), "TRUS": _("the TRUS gland")}
    if not edited:
        return ""
    text = _("Changed after this result was made: {what}. Press Register again.")
    return text.format(what=", ".join(names[image] for image in edited))
