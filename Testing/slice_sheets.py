"""Pictures of slice views for the documentation: three planes side by side, letters, caption and scale.

Slicer itself writes the letters and scales beside its views; here they are painted on what the views show.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from offscreen import ORIENTATIONS, SliceViews
from PIL import Image, ImageDraw, ImageFont

from MRTRUSRegistrationLib.mrml.colors import ColorScale

_GAP_PX = 4
_BAR_PX = 24
_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_LETTER = (235, 235, 235)
# The two ends of the axes R, A and S, the positive one first.
_ENDS = (("R", "L"), ("A", "P"), ("S", "I"))
# A palette of even greys, and of colours as the picture has them: a third of the size of a full-colour file.
_GREYS = 32
_COLORS = 64
_COLORED = 14


def sheet(views: SliceViews, caption: str, *, scale: ColorScale | None = None) -> Image.Image:
    """The axial, sagittal and coronal picture over a line with the caption and, for an overlay, its scale."""
    panes = [_pane(views, name) for name in ORIENTATIONS]
    width = sum(pane.width for pane in panes) + _GAP_PX * (len(panes) - 1)
    whole = Image.new("RGB", (width, panes[0].height + _BAR_PX), _PAPER)
    for number, pane in enumerate(panes):
        whole.paste(pane, (number * (pane.width + _GAP_PX), 0))
    draw = ImageDraw.Draw(whole)
    draw.text((2, panes[0].height + 4), caption, fill=_INK, font=_font(14))
    if scale is not None:
        _paint_scale(whole, scale)
    return whole


def save_small(picture: Image.Image, path: Path) -> None:
    """Write a PNG with a palette, which the documentation can carry."""
    picture = picture.convert("RGB")
    reduced = picture.quantize(palette=_palette(picture), dither=Image.Dither.NONE)
    path.parent.mkdir(parents=True, exist_ok=True)
    reduced.save(path, optimize=True)


def _palette(picture: Image.Image) -> Image.Image:
    pixels = np.asarray(picture)
    colored = pixels[np.ptp(pixels.astype(int), axis=2) > _COLORED]
    greys = np.rint(np.linspace(0, 255, _GREYS)).astype(np.uint8)
    entries = [np.repeat(greys[:, None], 3, axis=1)]
    if len(colored):
        # A line of few pixels counts as much as an area.
        found = Image.fromarray(colored[None]).quantize(_COLORS, method=Image.Quantize.MAXCOVERAGE)
        entries.append(np.array(found.getpalette(), np.uint8).reshape(-1, 3))
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate(entries).tobytes())
    return palette


def _pane(views: SliceViews, name: str) -> Image.Image:
    view = views.views[name]
    picture = Image.fromarray(view.picture())
    draw, size = ImageDraw.Draw(picture), picture.width
    middle = size / 2
    right, up = (_column(view.node, number) for number in (0, 1))
    places = ((size - 10, middle, right), (10, middle, -right), (middle, 10, up), (middle, size - 10, -up))
    for x, y, direction in places:
        _outlined(draw, (x, y), side_of(direction), anchor="mm")
    _outlined(draw, (8, size - 12), ORIENTATIONS[name], anchor="lm")
    return picture


def side_of(direction_ras: np.ndarray) -> str:
    """The side of the patient that a direction (3,) RAS points to most, as one letter."""
    axis = int(np.argmax(np.abs(direction_ras)))
    return _ENDS[axis][0 if direction_ras[axis] > 0 else 1]


def _column(slice_node: object, number: int) -> np.ndarray:
    matrix = slice_node.GetSliceToRAS()  # type: ignore[attr-defined]
    return np.array([matrix.GetElement(row, number) for row in range(3)])


def _outlined(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, *, anchor: str) -> None:
    font = _font(13)
    draw.text(place, text, fill=_LETTER, font=font, anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _paint_scale(whole: Image.Image, scale: ColorScale) -> None:
    """The colours from low to high at the right end of the caption's line, with their numbers."""
    draw, top = ImageDraw.Draw(whole), whole.height - _BAR_PX + 6
    high = f"{scale.high:g} {scale.unit}".strip()
    right = whole.width - 4 - round(draw.textlength(high, font=_font(13)))
    draw.text((right, top - 2), high, fill=_INK, font=_font(13))
    colors = np.rint(scale.colors() * 255).astype(np.uint8)[None]
    bar = Image.fromarray(np.repeat(colors, 12, axis=0)).resize((140, 12))
    whole.paste(bar, (right - 146, top))
    draw.text((right - 152, top - 2), f"{scale.low:g}", fill=_INK, font=_font(13), anchor="ra")


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
