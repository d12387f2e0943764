"""Prepared samples on disk, so that a training that resumes need not align every pair again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from MRTRUSRegistrationLib import __version__
from MRTRUSRegistrationLib.errors import InputError


def cached(
    folder: Path, settings: object, files: Sequence[Path], make: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """What `make` gives for these settings and files: tensors, numbers, strings and tuples, by name.

    An entry is named by the settings and by the size and time of each file, so a changed file or setting is
    prepared anew. `InputError` when the folder cannot be written.
    """
    path = folder / f"{_key(settings, files)}.pt"
    found = _read(path)
    if found is not None:
        return found
    content = dict(make())
    temporary = path.with_suffix(f".tmp{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(content, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise InputError(f"The cache {folder} cannot be written ({error}); name another.") from error
    finally:
        _discard(temporary)
    return content


def _discard(temporary: Path) -> None:
    """Remove what an interrupted writing left, where there is anything."""
    with suppress(OSError):
        temporary.unlink()


def _key(settings: object, files: Sequence[Path]) -> str:
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr((__version__, settings, states)).encode()).hexdigest()[:24]


def _read(path: Path) -> dict[str, Any] | None:
    """The entry, or None where there is none or a damaged one, which is then made again."""
    try:
        return torch.load(path, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception:  # torch raises many kinds for a damaged file
        return None
