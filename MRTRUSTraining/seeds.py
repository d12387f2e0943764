"""Whether a seed can be used."""

from __future__ import annotations

from MRTRUSRegistrationLib.errors import InputError


def check_seed(seed: int) -> None:
    """`InputError` for a seed below zero, which random generators do not take."""
    if seed < 0:
        raise InputError(f"The seed {seed} cannot be used; give 0 or more.")
