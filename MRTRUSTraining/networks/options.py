"""Checks of what a network is made with; a row file may hold anything."""

from collections.abc import Sequence


def at_least(least: int, **value: int) -> int:
    """The one whole number given by its name; `ValueError` when it is smaller or none."""
    ((name, number),) = value.items()
    if not isinstance(number, int) or number < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {number!r}")
    return number


def five_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Channels of four levels and a bottleneck; `ValueError` when they are not five positive numbers."""
    if isinstance(widths, str) or not isinstance(widths, Sequence) or len(widths) != 5:
        raise ValueError(f"widths must be five numbers of channels, not {widths!r}")
    return tuple(at_least(1, widths=width) for width in widths)


def one_of(known: Sequence[str], **value: str) -> str:
    """The one text given by its name; `ValueError` when it is not among the known ones."""
    ((name, text),) = value.items()
    if text not in known:
        raise ValueError(f"{name} must be {' or '.join(known)}, not {text!r}")
    return text
