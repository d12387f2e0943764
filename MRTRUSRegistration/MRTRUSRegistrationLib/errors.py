"""Errors that reach a user, each with the exit code of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class MrtrusError(Exception):
    """Base of the errors whose one-sentence message is meant for the user."""

    exit_code = 3


class InputError(MrtrusError):
    """Something given by the user cannot be used; says what, in which file, and what to do."""

    exit_code = 2


class RegistrationError(MrtrusError):
    """The input was fine, but a stage failed."""

    exit_code = 3


class Cancelled(MrtrusError):
    """The user asked to stop."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Cancelled.")


@dataclass(frozen=True)
class Failure:
    """How a run ended that did not end well: what kind of end, one sentence, the exit code."""

    kind: Literal["input", "failed", "cancelled"]
    message: str
    exit_code: int


def failure_of(error: BaseException, *, hint: str) -> Failure:
    """What to tell a user about any exception; `hint` says where to look when it is a defect."""
    if isinstance(error, (Cancelled, KeyboardInterrupt)):
        return Failure("cancelled", str(Cancelled()), Cancelled.exit_code)
    if isinstance(error, InputError):
        return Failure("input", str(error), error.exit_code)
    if isinstance(error, MrtrusError):
        return Failure("failed", str(error), error.exit_code)
    if isinstance(error, OSError):
        return Failure("input", _about_system(error), InputError.exit_code)
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return Failure("failed", f"Something failed that should not ({reason}); {hint}.", MrtrusError.exit_code)


def _about_system(error: OSError) -> str:
    name = f"{error.filename} cannot be used" if error.filename else "A file cannot be used"
    return f"{name} ({error.strerror or error}); check that it is there and that you may read and write it."
