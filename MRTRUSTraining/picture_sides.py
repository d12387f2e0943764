"""The patient's sides on pictures drawn with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_sides(axis: Axes, letters: tuple[str, str, str, str]) -> None:
    """Write the letters of the sides at left, right, top and bottom of a picture."""
    for x, y, letter in zip((0.03, 0.97, 0.5, 0.5), (0.5, 0.5, 0.96, 0.04), letters, strict=True):
        axis.text(x, y, letter, transform=axis.transAxes, color="white", fontsize=7, ha="center", va="center")
