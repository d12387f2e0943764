"""What both commands share: one sentence for an error, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from .errors import MrtrusError

EXIT_FAILED = 3
EXIT_INTERRUPTED = 130


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run a command line app; returns its exit code: 0 done, 2 bad input, 3 failed, 130 interrupted."""
    command = typer.main.get_command(app)
    try:
        result = command.main(args=None if arguments is None else list(arguments), standalone_mode=False)
    except MrtrusError as error:
        return fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return fail("Interrupted.", EXIT_INTERRUPTED)
    except TyperException as error:
        return fail(error.format_message(), error.exit_code)
    return result if isinstance(result, int) else 0


def fail(message: str, code: int) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return code
