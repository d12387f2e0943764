"""What the sections of the panel have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .panel import Panel
    from .readiness import Situation


class Section:
    """One section: connects its widgets once, and is refreshed whenever something changed."""

    def __init__(self, ui: Any, panel: Panel) -> None:
        self.ui = ui
        self.panel = panel
        self._hints: dict[str, str] = {}

    def refresh(self, now: Situation) -> None:
        """Bring the widgets up to date; overridden by the sections."""

    def scene_closed(self) -> None:
        """Let go of nodes; overridden by the sections that keep any."""

    def allow(self, name: str, reason: str) -> None:
        """Enable the widget, or disable it and let its tooltip say why."""
        widget = getattr(self.ui, name)
        hint = self._hints.setdefault(name, widget.toolTip)
        widget.enabled = not reason
        widget.toolTip = f"{reason} {hint}" if reason else hint
