"""Qt's timer behind a plain function, so that what polls needs no Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def qt_timer(interval_ms: int, callback: Callable[[], None]) -> Any:
    """A stopped QTimer."""
    import qt

    timer = qt.QTimer()
    timer.setInterval(interval_ms)
    timer.connect("timeout()", callback)
    return timer
