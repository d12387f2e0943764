"""Where the command `mrtrus-train` begins."""

from __future__ import annotations

from MRTRUSRegistrationLib.entry import start


def main() -> None:
    """Entry point of `mrtrus-train`."""
    start("MRTRUSTraining.cli")
