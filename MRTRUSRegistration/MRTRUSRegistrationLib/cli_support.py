"""What both commands share: one sentence for an error, and the exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from .errors import MrtrusError, failure_of

EXIT_INTERRUPTED = 130
_HINT = "run again with MRTRUS_TRACEBACK=1 set to see where"


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run a command line app; returns its exit code: 0 done, 2 bad input, 3 failed, 130 interrupted."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        return fail("Interrupted.", EXIT_INTERRUPTED)
    except TyperException as error:
        return _usage_error(error)
    except Exception as error:
        if os.environ.get("MRTRUS_TRACEBACK") and not isinstance(error, (MrtrusError, OSError)):
            traceback.print_exc()
        failure = failure_of(error, hint=_HINT)
        return fail(failure.message, failure.exit_code)
    if result == EXIT_INTERRUPTED:
        # Typer ends on Ctrl+C with this code and without a word.
        return fail("Interrupted.", EXIT_INTERRUPTED)
    return result if isinstance(result, int) else 0


def fail(message: str, code: int) -> int:
    """Print the one line that a user reads, whatever line breaks a library's message had."""
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _usage_error(error: TyperException) -> int:
    """A wrong option; the message is empty where the help was printed instead."""
    message = error.format_message().strip().rstrip(".")
    if not message:
        return error.exit_code
    context = getattr(error, "ctx", None)
    help_hint = f"; see `{context.command_path} --help`." if context is not None else "."
    return fail(message + help_hint, error.exit_code)
