"""The section Review: stages, ways to compare, overlays, tables, and how far the result can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.deformation_view import SCALES, overlays_of
from MRTRUSRegistrationLib.mrml.errors_view import go_to_landmark, go_to_point
from MRTRUSRegistrationLib.mrml.judgement import indicator_of
from MRTRUSRegistrationLib.mrml.review import MODES, Review, ReviewState
from MRTRUSRegistrationLib.mrml.stages import STAGES, stages_of
from MRTRUSRegistrationLib.mrml.versions import versions

from .tables import landmark_rows, measure_rows, target_table_rows
from .throttle import AsyncTimer, Throttle

if TYPE_CHECKING:
    from .app import Viewer

_FRAME_MS = 100
_PREFIX = "review_"
_FIELDS = tuple(entry.name for entry in fields(ReviewState))
_OPACITY_STEP = 0.1


class ReviewSection:
    """Shows the case of the viewer; the state of the review and that of the page follow each other."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._review: Review | None = None
        self._throttle = Throttle(self._change)
        self._timer = AsyncTimer(_FRAME_MS, self._tick)
        viewer.state.update({_PREFIX + name: value for name, value in asdict(ReviewState()).items()})
        viewer.state.update(
            {
                "stages": [],
                "overlays": ["none"],
                "legend": None,
                "indicator": None,
                "landmark_rows": [],
                "measure_rows": [],
                "target_rows": [],
                "versions": [],
                "version": None,
                "dark": True,
                "panel_shown": True,
                "help_shown": False,
            }
        )
        viewer.state.change(*(_PREFIX + name for name in _FIELDS))(self._on_page)
        viewer.state.change("version")(self._on_version)
        viewer.server.trigger("key")(self._on_key)

    def refresh(self, case: CaseNodes | None) -> None:
        """Look at another case or version, or at the same one after its nodes were edited."""
        self._review = None
        state = self._viewer.state
        if case is None:
            self._timer.stop()
            state.update({"stages": [], "indicator": None, "landmark_rows": [], "measure_rows": []})
            state.update({"target_rows": [], "versions": [], "version": None, "legend": None})
            return
        review = Review(case)
        review.start()
        self._review = review
        self._write_page()
        state.stages = list(stages_of(case))
        state.overlays = list(overlays_of(case))
        state.indicator = _indicator(case)
        state.versions = [_version(each) for each in versions(case)]
        state.version = case.version
        self.refresh_tables()
        self._viewer.views.draw()

    def refresh_tables(self) -> None:
        """Read landmarks, measures and targets where they are now."""
        case = self._viewer.case
        if case is None or self._review is None:
            return
        with self._viewer.state as state:
            state.landmark_rows = landmark_rows(case, stages_of(case))
            state.measure_rows = measure_rows(case)
            state.target_rows = target_table_rows(case)

    def suspend(self) -> None:
        """Leave the views to somebody else, until `refresh`."""
        self._timer.stop()
        if self._review is not None:
            self._review.stop()
        self._review = None

    def go_to_landmark(self, name: str) -> None:
        if self._viewer.case is not None:
            go_to_landmark(self._viewer.case, name)
            self._viewer.views.draw()

    def go_to_target(self, point_id: str) -> None:
        targets = self._viewer.case.targets if self._viewer.case is not None else None
        if targets is not None:
            go_to_point(targets, targets.GetControlPointIndexByID(point_id))
            self._viewer.views.draw()

    def _on_page(self, **page: Any) -> None:
        if self._review is None:
            return
        now = asdict(self._review.state)
        wanted = {name: _typed(page[_PREFIX + name], now[name]) for name in _FIELDS}
        changes = {name: value for name, value in wanted.items() if value != now[name]}
        if changes:
            self._throttle.ask(**changes)

    def _change(self, **changes: Any) -> None:
        """Show what the page asks for; where that cannot be shown, the page goes back."""
        if self._review is None:
            return
        with self._viewer.messages.shown_errors():
            self._review.change(**changes)
        self._viewer.views.draw()
        self._write_page()

    def _write_page(self) -> None:
        if self._review is None:
            return
        now = self._review.state
        with self._viewer.state as state:
            state.legend = _legend(now.overlay)
            for name, value in asdict(now).items():
                # A slider that has moved on meanwhile is not pulled back.
                if name not in ("opacity", "position", "overlay_opacity", "squares"):
                    state[_PREFIX + name] = value
        if now.mode in ("flicker", "rock"):
            self._timer.start()
        else:
            self._timer.stop()

    def _tick(self) -> None:
        if self._review is not None and self._review.case.present:
            self._review.tick(time.monotonic())
            self._viewer.views.draw()

    def _on_version(self, version: int | None, **_: Any) -> None:
        case = self._viewer.case
        if case is None or version is None or version == case.version:
            return
        chosen = next((each for each in versions(case) if each.version == version), None)
        if chosen is not None:
            self._viewer.action(self._viewer.select)(chosen)

    def _on_key(self, key: str) -> None:
        """A key that was pressed on the page."""
        with self._viewer.state as state:
            if key == "?":
                state.help_shown = not state.help_shown
            elif key == "t":
                state.dark = not state.dark
            elif key == "p":
                state.panel_shown = not state.panel_shown
            elif self._review is not None and key in _KEYS:
                changes = _KEYS[key](self._review.state)
                if changes.get("stage") in (None, *stages_of(self._review.case)):
                    state.update({_PREFIX + name: value for name, value in changes.items()})


def _toggled(name: str) -> Callable[[ReviewState], dict[str, Any]]:
    return lambda now: {name: not getattr(now, name)}


def _chosen(name: str, value: str, otherwise: str) -> Callable[[ReviewState], dict[str, Any]]:
    """Choose a value; the same key goes back."""
    return lambda now: {name: otherwise if getattr(now, name) == value else value}


def _stage(stage: str) -> Callable[[ReviewState], dict[str, Any]]:
    return lambda now: {"stage": stage}


def _opacity(step: float) -> Callable[[ReviewState], dict[str, Any]]:
    return lambda now: {"opacity": round(min(max(now.opacity + step, 0.0), 1.0), 2)}


_KEYS: dict[str, Callable[[ReviewState], dict[str, Any]]] = {
    **{str(number): _stage(stage) for number, stage in enumerate(STAGES, start=1)},
    **{mode[0]: _chosen("mode", mode, "blend") for mode in MODES if mode != "blend"},
    "b": lambda now: {"mode": "blend"},
    "o": _toggled("contours"),
    "l": _toggled("landmarks"),
    "v": _toggled("vectors"),
    "g": _chosen("deformation", "grid", "none"),
    "a": _chosen("deformation", "arrows", "none"),
    "d": _chosen("overlay", "displacement", "none"),
    "j": _chosen("overlay", "jacobian", "none"),
    "[": _opacity(-_OPACITY_STEP),
    "]": _opacity(_OPACITY_STEP),
}


def _typed(value: Any, like: Any) -> Any:
    """What a page sends as the type that the review holds: sliders send whole numbers and text."""
    return type(like)(value) if isinstance(like, (int, float)) and not isinstance(like, bool) else value


def _indicator(case: CaseNodes) -> dict[str, Any]:
    indicator = indicator_of(case)
    found = [{"level": finding.level, "text": finding.text} for finding in indicator.findings]
    return {"level": indicator.level, "headline": indicator.headline, "findings": found}


def _version(case: CaseNodes) -> dict[str, Any]:
    return {"value": case.version, "title": f"Version {case.version}: {case.attribute('Method')}"}


def _legend(overlay: str) -> dict[str, Any] | None:
    """The colours of an overlay for the page, `None` without one."""
    if overlay == "none":
        return None
    scale = SCALES[overlay]
    stops = [f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in 255 * scale.colors()[1::17]]
    ends = [f"{end:g} {scale.unit}".strip() for end in (scale.low, scale.high)]
    return {"title": scale.title, "low": ends[0], "high": ends[1], "colors": ", ".join(stops)}
