"""Errors as one sentence in a dialog, without a path of the server; what failed inside goes to the log."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from MRTRUSRegistrationLib.errors import failure_of

_LOG = logging.getLogger(__name__)
# An absolute path up to its last name; the folders before that are the server's own matter.
_PATH = re.compile(r"(?<![\w/.:])(?:[A-Za-z]:)?[/\\](?:[^/\\\n\"';:,()]+[/\\])+(?=[^/\\\s])")


def without_paths(sentence: str) -> str:
    """The sentence with every absolute path cut down to its last name, on one line."""
    return _PATH.sub("", " ".join(sentence.split()))


class Messages:
    """The dialog of the page."""

    def __init__(self, state: Any) -> None:
        self._state = state
        state.update({"error_shown": False, "error_text": ""})

    def show(self, sentence: str) -> None:
        with self._state as state:
            state.error_text, state.error_shown = without_paths(sentence), True

    @contextmanager
    def shown_errors(self) -> Iterator[None]:
        """Show whatever a `with` block raises as one sentence; the block's caller goes on."""
        try:
            yield
        except Exception as error:
            failure = failure_of(error, hint="the log of the server has the details")
            if failure.kind == "failed":
                _LOG.exception("A request of the page failed")
            self.show(failure.message)
