"""Processes that make simulated cases beside this one, and end with it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


class Workers:
    """`count` processes; Ctrl+C, which a terminal sends to them too, is for this process alone.

    To be used from the main thread.
    """

    def __init__(self, count: int) -> None:
        self._others: set[BaseProcess] = set(active_children())
        deaf = (signal.SIGINT, signal.SIG_IGN)
        spawn = get_context("spawn")
        self._pool = ProcessPoolExecutor(count, spawn, initializer=signal.signal, initargs=deaf)

    def submit(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> Future[Result]:
        """Begin, in another process, as soon as one is free; arguments must be picklable."""
        with ctrl_c_held():
            return self._pool.submit(function, *arguments, **named)

    def close(self) -> None:
        """End the processes now; what they have begun is lost."""
        with ctrl_c_held():
            for worker in set(active_children()) - self._others:
                worker.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def ctrl_c_held() -> Iterator[None]:
    """Ctrl+C takes effect only at the end; processes started meanwhile never hear it.

    They inherit that it is blocked, where the system knows this (not on Windows): from their first moment,
    long before they could say themselves that they ignore it. To be used from the main thread.
    """
    pressed: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        pressed.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        with _ctrl_c_blocked():
            yield
    finally:
        signal.signal(signal.SIGINT, before)
        if pressed:
            signal.raise_signal(signal.SIGINT)


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It would be started with the first process, and lift the block when it is.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
