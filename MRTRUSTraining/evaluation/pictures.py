"""A page of pictures a case: outlines beside the reference ones, and what every method made of the MR.

They are of the kinds of paper B's figures 3 (human outlines red, a model's blue) and 4 (registered MR, TRUS,
original MR). Frame: LPS, millimetres.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.outputs import write_bytes_atomically
from MRTRUSRegistrationLib.report_pictures import Plane, gland_planes, slice_image
from MRTRUSRegistrationLib.results import GlandSegmentation, Registration

from ..data.cases import LoadedCase
from ..picture_sides import write_sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REFERENCE, _USED, _MOVED = "red", "deepskyblue", "yellow"
_NOTE = "Red: reference outline. Blue: outline that the registration used. Yellow: the MR's reference, moved."
_TILE_INCHES = 2.6


@dataclass(frozen=True)
class _Side:
    """One image of a case with its reference outline and the planes through that gland's middle.

    The planes are axial (seen from the feet), sagittal (from the left) and coronal (from the front).
    """

    name: str
    image: sitk.Image
    gland: sitk.Image
    planes: tuple[Plane, ...]

    @staticmethod
    def of(name: str, image: sitk.Image, gland: sitk.Image, axes: str) -> _Side:
        return _Side(name, image, gland, gland_planes(image, GlandSegmentation(gland, axes=axes)))


def draw_page(case: LoadedCase, results: Mapping[str, Registration], path: Path) -> None:
    """Write the page (PNG) of a case from its methods' results, of which there is at least one.

    Its first row has the outlines on MR and TRUS, in three planes each, and then every method a row: axial
    and sagittal, each with the registered MR, the TRUS and the original MR.
    """
    from matplotlib.figure import Figure

    some = next(iter(results.values()))
    mr = _Side.of("MR", case.mr, case.mr_gland, some.mr_gland.axes)
    trus = _Side.of("TRUS", case.trus, case.trus_gland, some.trus_gland.axes)
    height = (1 + len(results)) * _TILE_INCHES
    figure = Figure(figsize=(6 * _TILE_INCHES, height), facecolor="white")
    rows = figure.subplots(1 + len(results), 6, squeeze=False)
    _draw_outlines(rows[0], mr, some.mr_gland.mask)
    _draw_outlines(rows[0][3:], trus, some.trus_gland.mask)
    for axes, (method, result) in zip(rows[1:], results.items(), strict=True):
        for first, plane in ((0, 0), (3, 1)):
            _draw_triplet(axes[first : first + 3], plane, mr, trus, method, result)
    # The font has no letters of every script; the file's name says the case.
    figure.suptitle(_NOTE, fontsize=9, x=0.01, ha="left")
    # Room for the line above, and between the rows.
    figure.tight_layout(pad=0.5, h_pad=0.9, rect=(0, 0, 1, 1 - 0.2 / height))
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(drawn.getbuffer(), path)


def _draw_outlines(axes: np.ndarray, side: _Side, used: sitk.Image) -> None:
    for axis, plane in zip(axes, side.planes, strict=False):
        _draw(axis, plane, side.image, f"{side.name}, {plane.name}")
        _outline(axis, plane, used, _USED, width=3.0)
        _outline(axis, plane, side.gland, _REFERENCE)


def _draw_triplet(
    axes: np.ndarray, number: int, mr: _Side, trus: _Side, method: str, result: Registration
) -> None:
    registered, fixed, original = axes
    plane = trus.planes[number]
    _draw(registered, plane, mr.image, f"{method}: registered MR, {plane.name}", result.transform)
    _draw(fixed, plane, trus.image, "TRUS")
    for axis in (registered, fixed):
        _outline(axis, plane, trus.gland, _REFERENCE)
        _outline(axis, plane, mr.gland, _MOVED, result.transform)
    _draw(original, mr.planes[number], mr.image, "original MR")
    _outline(original, mr.planes[number], mr.gland, _MOVED)


def _draw(
    axis: Axes, plane: Plane, image: sitk.Image, title: str, transform: sitk.Transform | None = None
) -> None:
    """One slice in grey, black where there is no image, with the patient's sides at its edges."""
    values = slice_image(image, plane, transform)
    seen = values[np.isfinite(values)]
    low, high = np.percentile(seen, (1, 99.5)) if seen.size else (0.0, 1.0)
    axis.imshow(np.nan_to_num(values, nan=low), cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    axis.set_axis_off()
    axis.set_title(title, fontsize=8)
    write_sides(axis, plane.markers)


def _outline(
    axis: Axes,
    plane: Plane,
    mask: sitk.Image,
    colour: str,
    transform: sitk.Transform | None = None,
    *,
    width: float = 1.0,
) -> None:
    inside = np.nan_to_num(slice_image(mask, plane, transform))
    if inside.min() < 0.5 < inside.max():
        axis.contour(inside, [0.5], colors=colour, linewidths=width)
