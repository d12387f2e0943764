"""Versions of a case side by side, in the section Correct: their figures, and both in the slice views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from .messages import shown_errors
from .readiness import Situation, why_not_compare
from .section import Section
from .version_table import version_label, version_table_html

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes
    from ..mrml.version_view import VersionView
    from .panel import Panel


class VersionsSection(Section):
    """Two combo boxes, a table, and a switch that lays the two over each other."""

    def __init__(self, ui: Any, panel: Panel) -> None:
        super().__init__(ui, panel)
        self._combos = (ui.firstVersionComboBox, ui.secondVersionComboBox)
        self._versions: list[CaseNodes] = []
        self._chosen: list[str] = ["", ""]
        self._compared: tuple[str, ...] = ()
        self._view: VersionView | None = None
        self._writing = False
        for side, combo in enumerate(self._combos):
            combo.connect("currentIndexChanged(int)", lambda index, side=side: self.on_choice(side, index))
        ui.showVersionsCheckBox.connect("toggled(bool)", self.on_show)
        ui.versionsSlider.connect("valueChanged(double)", self.on_share)

    def refresh(self, now: Situation) -> None:
        from ..mrml.versions import versions

        case = self.panel.case
        self._versions = versions(case) if case is not None else []
        if self._view is not None and not self._view.shown:
            self._stop()
        self._fill()
        pair = self._pair()
        reason = why_not_compare(len(self._versions))
        for name in ("firstVersionComboBox", "secondVersionComboBox"):
            self.allow(name, reason)
        same = "" if pair is not None else _("Choose two different versions.")
        self.allow("showVersionsCheckBox", reason or same)
        unused = "" if self._view is not None else _("The versions are not shown in the slice views.")
        self.allow("versionsSlider", reason or unused)
        self._show_table(pair)

    def _fill(self) -> None:
        """List the versions; where a chosen one is gone, the newest two are chosen."""
        ids = [version.node.GetID() for version in self._versions]
        if not set(self._chosen) <= set(ids):
            self._chosen = ids[-2:] if len(ids) > 1 else ["", ""]
        self._writing = True
        for combo, chosen in zip(self._combos, self._chosen, strict=True):
            combo.clear()
            for version in self._versions if len(ids) > 1 else ():
                combo.addItem(version_label(version))
            combo.currentIndex = ids.index(chosen) if chosen else -1
        self.ui.showVersionsCheckBox.checked = self._view is not None
        self._writing = False

    def _pair(self) -> tuple[CaseNodes, CaseNodes] | None:
        """The two chosen versions, if they are two."""
        known = {version.node.GetID(): version for version in self._versions}
        first, second = (known.get(chosen) for chosen in self._chosen)
        return (first, second) if first is not None and second is not None and first is not second else None

    def _show_table(self, pair: tuple[CaseNodes, CaseNodes] | None) -> None:
        """Make the table anew only where something in it may have changed: the indicator takes a moment."""
        state = () if pair is None else tuple(text for case in pair for text in _state(case))
        if state == self._compared:
            return
        self._compared = state
        self.ui.versionsLabel.text = "" if pair is None else version_table_html(*pair)

    def on_choice(self, side: int, index: int) -> None:
        if self._writing or not 0 <= index < len(self._versions):
            return
        self._chosen[side] = self._versions[index].node.GetID()
        showing = self._view is not None
        self.on_show(showing and self._pair() is not None)

    def on_show(self, on: bool) -> None:
        """Lay the two versions over each other, or show the chosen result again."""
        from ..mrml.version_view import VersionView

        if self._writing:
            return
        pair, shown = self._pair(), self._view is not None
        self._stop()
        if on and pair is not None:
            with shown_errors(_("The versions cannot be compared in the slice views")):
                self._view = VersionView(*pair)
                self._view.show(self.ui.versionsSlider.value)
        if shown and self._view is None:
            self.panel.review.restore()
        self.panel.refresh()

    def on_share(self, share: float) -> None:
        if self._view is not None:
            self._view.show(share)

    def _stop(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            view.stop()

    def scene_closed(self) -> None:
        self._versions, self._chosen, self._compared, self._view = [], ["", ""], (), None


def _state(case: CaseNodes) -> tuple[str, str, str]:
    """What a version's column depends on."""
    table = case.measures
    return case.node.GetID(), case.attribute("Accepted"), str(table.GetMTime() if table is not None else "")
