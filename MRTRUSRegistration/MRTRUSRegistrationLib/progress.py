"""Progress reports and cancellation, shared by the command line, Slicer and the browser."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from .errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """Where a run stands: the stage, its completed fraction (0 to 1) and a short message."""

    stage: str
    fraction: float
    message: str = ""


ProgressCallback = Callable[[Progress], None]


class CancelToken:
    """Lets another thread stop a run; the run looks at it between and inside stages."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()


class Reporter:
    """What a stage is given: `report` tells the progress and raises `Cancelled` when asked to stop."""

    def __init__(self, callback: ProgressCallback | None = None, token: CancelToken | None = None) -> None:
        self._callback = callback
        self._token = token

    def report(self, stage: str, fraction: float, message: str = "") -> None:
        if self._token is not None and self._token.cancelled:
            raise Cancelled
        if self._callback is not None:
            self._callback(Progress(stage, fraction, message))
