"""Where the commands begin: Ctrl+C ends them with one sentence even while their modules are imported."""

from __future__ import annotations

import sys
from importlib import import_module


def start(module: str) -> None:
    """Import the module of a command and run its `main`; ends the process with exit code 130 by Ctrl+C."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        # As `cli_support.fail` has it, which may not be imported yet.
        print("Error: Interrupted.", file=sys.stderr)
        sys.exit(130)


def main() -> None:
    """Entry point of `mrtrus`."""
    start("MRTRUSRegistrationLib.cli")
