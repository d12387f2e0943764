"""Errors as one sentence in a dialog; what went wrong inside goes to the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import slicer
from slicer.i18n import tr as _

from ..errors import MrtrusError

_LOG = logging.getLogger(__name__)


@contextmanager
def shown_errors(what_failed: str) -> Iterator[None]:
    """Show whatever a `with` block raises as one sentence; the block's caller goes on.

    `what_failed` is a sentence such as "The result cannot be shown"; it is used where the error has none.
    """
    try:
        yield
    except MrtrusError as error:
        show_error(str(error))
    except OSError as error:
        name = error.filename or _("a file")
        reason = error.strerror or str(error)
        show_error(
            _("{what}: {name} cannot be used ({reason}).").format(what=what_failed, name=name, reason=reason)
        )
    except Exception as error:
        _LOG.exception("%s", what_failed)
        text = _("{what} ({reason}); the log has the details.")
        show_error(text.format(what=what_failed, reason=f"{type(error).__name__}: {error}"))


def show_error(sentence: str) -> None:
    """One sentence, whatever line breaks a library's message had."""
    slicer.util.errorDisplay(" ".join(sentence.split()), windowTitle=_("MRTRUS Registration"))
