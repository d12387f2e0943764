"""Draw the icon of the extension and of the module: python Resources/make_icon.py"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

SIDE_PX = 128
# Drawn larger and reduced, because pillow's ellipses have no smooth edges of their own.
SCALE = 8
BACKGROUND = (38, 50, 64)
MR = (230, 158, 0)
TRUS = (87, 181, 232)
ROOT = Path(__file__).resolve().parent.parent
FILES = (
    ROOT / "Resources" / "Icons" / "MRTRUSRegistration.png",
    ROOT / "MRTRUSRegistration" / "Resources" / "Icons" / "MRTRUSRegistration.png",
)


def draw_icon() -> Image.Image:
    """Two glands that are nearly brought together over the fan of an ultrasound probe."""
    side = SIDE_PX * SCALE
    icon = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = ImageDraw.Draw(icon)
    pen.rounded_rectangle((0, 0, side - 1, side - 1), radius=side // 6, fill=BACKGROUND)
    _fan(pen, side)
    _gland(pen, side, centre=(0.46, 0.40), radii=(0.30, 0.23), color=MR)
    _gland(pen, side, centre=(0.54, 0.46), radii=(0.30, 0.23), color=TRUS)
    return icon.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def _fan(pen: ImageDraw.ImageDraw, side: int) -> None:
    for radius in (0.52, 0.66, 0.80):
        box = [side * (0.5 - radius), side * (0.98 - radius), side * (0.5 + radius), side * (0.98 + radius)]
        pen.arc(box, start=225, end=315, fill=(110, 128, 148), width=side // 60)
    pen.ellipse([side * 0.41, side * 0.89, side * 0.59, side * 1.07], fill=(150, 166, 184))


def _gland(
    pen: ImageDraw.ImageDraw,
    side: int,
    *,
    centre: tuple[float, float],
    radii: tuple[float, float],
    color: tuple[int, int, int],
) -> None:
    x, y = centre
    width, height = radii
    box = [side * (x - width), side * (y - height), side * (x + width), side * (y + height)]
    pen.ellipse(box, outline=color, width=side // 18)


def main() -> None:
    icon = draw_icon()
    for path in FILES:
        path.parent.mkdir(parents=True, exist_ok=True)
        icon.save(path, optimize=True)


if __name__ == "__main__":
    main()
