"""Sliders send more values than can be drawn: only the newest of them is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

_INTERVAL_S = 0.03


class Throttle:
    """Collects changes by name and applies the newest values together, again only after a pause.

    What arrives meanwhile replaces what waits, so that no queue builds up.
    """

    def __init__(self, apply: Callable[..., None], *, interval_s: float = _INTERVAL_S) -> None:
        self._apply, self._interval_s = apply, interval_s
        self._waiting: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    def ask(self, **changes: Any) -> None:
        self._waiting |= changes
        if self._task is None or self._task.done():
            self._task = asyncio.get_event_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._waiting:
            changes, self._waiting = self._waiting, {}
            self._apply(**changes)
            await asyncio.sleep(self._interval_s)


class AsyncTimer:
    """Calls back again and again between `start` and `stop`, on the event loop."""

    def __init__(self, interval_ms: int, callback: Callable[[], None]) -> None:
        self._interval_s, self._callback = interval_ms / 1000, callback
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_event_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = None

    async def _run(self) -> None:
        while self._task is asyncio.current_task():
            self._callback()
            await asyncio.sleep(self._interval_s)
