"""The section Review: stages, ways to compare, overlays, and how far the result can be trusted.

What is shown is kept by the case (`mrml.review.ReviewState`), so that a saved scene opens as it was left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from .choices import axis_labels, comparison_labels, deformation_labels
from .indicator_text import indicator_html
from .messages import shown_errors
from .readiness import Situation, why_not_show
from .section import Section
from .timers import qt_timer

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes
    from ..mrml.review import Review
    from .panel import Panel

_ANIMATION_MS = 50
_STAGE_BUTTONS = {"before": "beforeButton", "rigid": "rigidButton", "deformable": "deformableButton"}
# Which field of the review a check box holds.
_CHECK_BOXES = {
    "contoursCheckBox": "contours",
    "landmarksCheckBox": "landmarks",
    "errorsCheckBox": "vectors",
    "targetsCheckBox": "targets",
}
# Which way to compare uses a widget.
_USED_BY = {
    "opacitySlider": ("blend",),
    "squaresSpinBox": ("checkerboard",),
    "splitSlider": ("split",),
    "splitAxisComboBox": ("split",),
}


class ReviewSection(Section):
    """Shows the chosen version of the chosen case."""

    def __init__(self, ui: Any, panel: Panel) -> None:
        super().__init__(ui, panel)
        self._cases: list[CaseNodes] = []
        self._review: Review | None = None
        self._opened: Any = None
        self._writing = False
        self._timer = qt_timer(_ANIMATION_MS, self._animate)
        self._fill_choices()
        self._connect()

    def _fill_choices(self) -> None:
        for combo, labels in (
            (self.ui.comparisonComboBox, comparison_labels()),
            (self.ui.splitAxisComboBox, axis_labels()),
            (self.ui.deformationComboBox, deformation_labels()),
        ):
            for label in labels.values():
                combo.addItem(label)

    def _connect(self) -> None:
        ui = self.ui
        ui.resultComboBox.connect("currentIndexChanged(int)", self.on_result)
        for stage, name in _STAGE_BUTTONS.items():
            getattr(ui, name).connect("clicked()", lambda stage=stage: self.on_stage(stage))
        for name, field in _CHECK_BOXES.items():
            getattr(ui, name).connect("toggled(bool)", lambda on, field=field: self.change(**{field: on}))
        ui.opacitySlider.connect("valueChanged(double)", lambda value: self.change(opacity=value))
        ui.splitSlider.connect("valueChanged(double)", lambda value: self.change(position=value))
        ui.squaresSpinBox.connect("valueChanged(int)", lambda value: self.change(squares=value))
        ui.comparisonComboBox.connect("currentIndexChanged(int)", self.on_comparison)
        ui.splitAxisComboBox.connect("currentIndexChanged(int)", self.on_axis)
        ui.deformationComboBox.connect("currentIndexChanged(int)", self.on_deformation)

    def refresh(self, now: Situation) -> None:
        case = self.panel.case
        if case is None or not now.stages:
            self._show_nothing()
        elif self._opened is not case.node:
            # Noted before it is tried: what cannot be shown is said once, not at every refresh.
            self._opened = case.node
            self._open(case)
        self._fill_results(case)
        self._allow(now)
        self._write_widgets()

    def _open(self, case: CaseNodes) -> None:
        """Look at another version: its views, tables and indicator."""
        from ..mrml.review import Review

        self._review = None
        with shown_errors(_("The result cannot be shown")):
            review = Review(case)
            review.start()
            self._review = review
            self.ui.measuresTableView.setMRMLTableNode(case.measures)
            self.ui.landmarkTableView.setMRMLTableNode(case.landmark_errors)
            for view in (self.ui.measuresTableView, self.ui.landmarkTableView):
                view.resizeColumnsToContents()
            if slicer.app.layoutManager() is not None:
                slicer.util.resetSliceViews()
            self._judge(case)
        self._start_or_stop_moving()

    def _judge(self, case: CaseNodes) -> None:
        self.ui.indicatorLabel.text = indicator_html(case)

    def _fill_results(self, case: CaseNodes | None) -> None:
        from ..mrml.case_nodes import find_cases

        self._cases = find_cases(self.panel.scene)
        combo = self.ui.resultComboBox
        blocked = combo.blockSignals(True)
        combo.clear()
        for each in self._cases:
            combo.addItem(_("{name}, version {version}").format(name=each.name, version=each.version))
        ids = [each.node.GetID() for each in self._cases]
        combo.currentIndex = ids.index(case.node.GetID()) if case is not None else -1
        combo.blockSignals(blocked)
        self.allow("resultComboBox", "" if self._cases else why_not_show(Situation(), "before"))

    def _allow(self, now: Situation) -> None:
        for stage, name in _STAGE_BUTTONS.items():
            self.allow(name, why_not_show(now, stage))
        nothing = why_not_show(now, "before")
        for name in ("comparisonComboBox", "deformationComboBox", *_CHECK_BOXES):
            self.allow(name, nothing)
        mode = self._review.state.mode if self._review is not None else ""
        unused = _("The chosen way to compare does not use this.")
        for name, modes in _USED_BY.items():
            self.allow(name, nothing or ("" if mode in modes else unused))

    def _write_widgets(self) -> None:
        """Show the state of the review in the widgets, without taking that for the user's wish."""
        state = self._review.state if self._review is not None else None
        self._writing = True
        for stage, name in _STAGE_BUTTONS.items():
            getattr(self.ui, name).checked = state is not None and state.stage == stage
        if state is not None:
            for name, field in _CHECK_BOXES.items():
                getattr(self.ui, name).checked = getattr(state, field)
            self.ui.opacitySlider.value = state.opacity
            self.ui.splitSlider.value = state.position
            self.ui.squaresSpinBox.value = state.squares
            self.ui.comparisonComboBox.currentIndex = list(comparison_labels()).index(state.mode)
            self.ui.splitAxisComboBox.currentIndex = list(axis_labels()).index(state.axis)
            shown = (state.overlay, "none" if state.overlay != "none" else state.deformation)
            self.ui.deformationComboBox.currentIndex = list(deformation_labels()).index(shown)
        self._writing = False

    def change(self, **fields: Any) -> None:
        """Take up what the user set, and show it."""
        if self._writing or self._review is None:
            return
        with shown_errors(_("This cannot be shown")):
            self._review.change(**fields)
        self._start_or_stop_moving()
        self.panel.refresh()

    def _start_or_stop_moving(self) -> None:
        if self._review is not None and self._review.state.mode in ("flicker", "rock"):
            self._timer.start()
        else:
            self._timer.stop()

    def on_result(self, index: int) -> None:
        if 0 <= index < len(self._cases):
            with shown_errors(_("The result cannot be shown")):
                self.panel.select_case(self._cases[index])

    def on_stage(self, stage: str) -> None:
        """Show a stage; a key pressed where the case has no such stage does nothing."""
        if stage in self.panel.situation().stages:
            self.change(stage=stage)
        else:
            self._write_widgets()

    def on_comparison(self, index: int) -> None:
        self.change(mode=list(comparison_labels())[index])

    def on_axis(self, index: int) -> None:
        self.change(axis=list(axis_labels())[index])

    def on_deformation(self, index: int) -> None:
        overlay, drawing = list(deformation_labels())[index]
        self.change(overlay=overlay, deformation=drawing)

    def show_again(self) -> None:
        """Show everything anew, after nodes were edited, deleted or loaded."""
        self._opened = None
        self.panel.refresh()

    def restore(self) -> None:
        """Fill the slice views again after something else was shown in them."""
        if self._review is not None:
            with shown_errors(_("The result cannot be shown")):
                self._review.refresh()

    def leave(self, gland: Any, volume: Any) -> None:
        """Show one image and its gland alone, as they were before any registration."""
        from ..mrml.review import show_alone

        if self._review is not None:
            self._review.stop()
        self._timer.stop()
        self._review = None
        case = self.panel.case
        if case is not None:
            # Counts as opened: a refresh meanwhile must not put the images under their transforms again.
            self._opened = case.node
            show_alone(case, gland, volume)

    def accept(self, case: CaseNodes, stage: str) -> None:
        """The user decided which result counts for the case: show and judge that one."""
        with shown_errors(_("The result cannot be shown")):
            self._judge(case)
        if stage in self.panel.situation().stages:
            self.change(stage=stage)
            self._write_widgets()

    def _animate(self) -> None:
        if self._review is not None and self._review.case.present:
            self._review.tick(time.monotonic())
        else:
            self._timer.stop()

    def _show_nothing(self) -> None:
        self._timer.stop()
        self._review = self._opened = None
        self.ui.indicatorLabel.text = _("There is no result yet.")
        self.ui.measuresTableView.setMRMLTableNode(None)
        self.ui.landmarkTableView.setMRMLTableNode(None)

    def stop(self) -> None:
        """Stop what moves."""
        self._timer.stop()

    def scene_closed(self) -> None:
        self._cases, self._review, self._opened = [], None, None
        self._timer.stop()
