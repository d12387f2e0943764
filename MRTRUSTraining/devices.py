"""Whether torch can compute on the device that was asked for."""

from __future__ import annotations

from MRTRUSRegistrationLib.errors import InputError


def check_device(device: str) -> None:
    """`InputError` unless a tensor can be made and read there, which not every device of torch's allows."""
    import torch

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {device!r} cannot be used here: choose cpu or cuda.") from error
