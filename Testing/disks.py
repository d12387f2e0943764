"""Disks that are soon full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def mounted_disk(folder: Path, *, size_mb: int) -> Iterator[Path]:
    """A disk of its own in memory, mounted on `folder`; the test is skipped where that is not allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, *, leave_bytes: int) -> Path:
    """Fill a disk but for `leave_bytes`, while others write to it too; returns the file that does it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        for block in (b"0" * 2**20, b"0" * 2**12):
            with suppress(OSError):
                while stream.write(block) == len(block):
                    pass
        stream.truncate(stream.tell() - leave_bytes)
    return filler
