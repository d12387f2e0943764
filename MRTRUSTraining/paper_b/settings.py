"""What paper B does to its images before a network sees them; what its text leaves open is ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Modality = Literal["MR", "TRUS"]


@dataclass(frozen=True)
class SideSettings:
    """How the images of one modality are trimmed and brought to one size.

    `first_share` and `last_share` of the slices are removed at the two ends of `frame_axis`, an index axis
    (i = 0, j = 1, k = 2). `pixels` is the size of a slice, the longer side first: the slice's longer side in
    mm gets the first number.
    """

    first_share: float
    last_share: float
    pixels: tuple[int, int]
    frame_axis: int = 2


@dataclass(frozen=True)
class HarmonisationSettings:
    """Clinical images are brought nearer to the public ones; the paper gives no parameters, these are ours.

    Intensities between the `percentiles` become 0 to 1, are equalised over `bins` bins, raised to the power
    `gamma`, and sharpened by `sharpening` times the Laplacian of each slice.
    """

    percentiles: tuple[float, float] = (0.5, 99.5)
    bins: int = 256
    gamma: float = 1.2
    sharpening: float = 0.2


@dataclass(frozen=True)
class PaperBSettings:
    """The whole preparation. The paper: "10 %", "25 % and 12.5 % respectively", 160 × 160, 118 × 88.

    Our reading: the first quarter and the last eighth of the TRUS frames. How it crops before resampling is
    not said: here the largest rectangle of the wanted shape about the middle is kept, so that pixels are
    square.
    """

    mr: SideSettings = field(default_factory=lambda: SideSettings(0.10, 0.10, (160, 160)))
    trus: SideSettings = field(default_factory=lambda: SideSettings(0.25, 0.125, (118, 88)))
    harmonisation: HarmonisationSettings | None = None
