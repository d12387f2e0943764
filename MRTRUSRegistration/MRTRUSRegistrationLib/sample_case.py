"""Where the simulated sample case lies."""

from __future__ import annotations

from pathlib import Path


def sample_folder() -> Path:
    """The module's Resources where it was installed, else those of the source tree."""
    module = Path(__file__).resolve().parents[1]
    installed = module / "Resources" / "SampleCase"
    return installed if installed.is_dir() else module.parent / "Resources" / "SampleCase"
