"""The section Correct: edit a mask, give landmark pairs, move a target, register again, undo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from .job_inputs import Inputs
from .messages import shown_errors
from .readiness import Situation, why_not_accept, why_not_edit, why_not_register_again, why_not_undo
from .section import Section
from .stale import GlandWatch
from .target_carrying import carry_again

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

    def refresh(self, now: Situation) -> None:
        for name in ("editMrGlandButton", "editTrusGlandButton"):
            self.allow(name, why_not_edit(now))
        self.allow("acceptedComboBox", why_not_accept(now))
        self.allow("registerAgainButton", why_not_register_again(now))
        self.allow("undoButton", why_not_undo(now))
        case = self.panel.case
        targets = case.targets if case is not None else None
        self.allow(
            "moveTargetsCheckBox", "" if targets is not None else _("The result has no target points.")
        )
        if targets is not None:
            targets.SetLocked(not self.panel.parameters.moveTargets)
        self._keep_choice(case)
        self.ui.staleLabel.text = stale_text(self._glands.edited(case) if case is not None else ())

    def _keep_choice(self, case: CaseNodes | None) -> None:
        accepted = self.panel.parameters.accepted
        if case is None or case.attribute("Accepted") == accepted.name:
            return
        case.set_attribute("Accepted", accepted.name)
        self.panel.review.accept(case, accepted.value)
        with shown_errors(_("The targets cannot be carried to the TRUS")):
            carry_again(case, self.panel.parameters)

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
            self.panel.registration.start(Inputs.again(self.panel.parameters, case), previous=case)

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
