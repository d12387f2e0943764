"""Processes that make simulated cases beside this one, and end with it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, resource_tracker
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

from MRTRUSRegistrationLib.errors import RegistrationError

Result = TypeVar("Result")


class Workers:
    """`count` processes; Ctrl+C, which a terminal sends to them too, is for this process alone.

    To be used from the main thread.
    """

    def __init__(self, count: int) -> None:
        self._started: set[BaseProcess] = set()
        deaf = (signal.SIGINT, signal.SIG_IGN)
        spawn = get_context("spawn")
        self._pool = ProcessPoolExecutor(count, spawn, initializer=signal.signal, initargs=deaf)

    def submit(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> Future[Result]:
        """Begin, in another process, as soon as one is free; arguments must be picklable."""
        with ctrl_c_held(), _ended_from_outside():
            others = set(active_children())
            future = self._pool.submit(function, *arguments, **named)
            self._started |= set(active_children()) - others
            return future

    def result(self, future: Future[Result]) -> Result:
        """What the function gave; `RegistrationError` where the process ended before."""
        with _ended_from_outside():
            return future.result()

    def close(self) -> None:
        """End the processes now; what they have begun is lost."""
        with ctrl_c_held():
            for worker in self._started:
                worker.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _ended_from_outside() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise RegistrationError(
            "A process that made cases was ended from outside, perhaps for want of memory; use fewer."
        ) from error


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
