"""Regions of interest: what the deformable network sees (paper A, section 2.1, step 2).

Both images are masked by their gland and sampled on one grid around the TRUS gland. A model whose card sets
`context` also sees what surrounds the gland, so that it need not believe an outline that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import distance_transform_edt

from .geometry import Grid, mask_points_mm, orientation_code, reordered_direction, resample
from .models import ModelCard, rescale_intensity
from .structures import SeenStructures

_NOTHING_SEEN = SeenStructures()


@dataclass(frozen=True)
class RegionsOfInterest:
    """Moving (MR) and fixed (TRUS) regions and both glands (0…1) on the same grid, float32.

    `clipped` says that the TRUS gland does not fit into the grid. What is seen of structures is on the grid
    too, for models that want it.
    """

    moving: sitk.Image
    fixed: sitk.Image
    moving_gland: sitk.Image
    fixed_gland: sitk.Image
    grid: Grid
    clipped: bool
    moving_structures: SeenStructures = _NOTHING_SEEN
    fixed_structures: SeenStructures = _NOTHING_SEEN


def region_grid(trus_gland: sitk.Image, card: ModelCard, axes: str = "") -> tuple[Grid, bool]:
    """The model's grid around the middle of the TRUS gland's extent, and whether the gland sticks out of it.

    A card whose `box` is `volume` has it around the middle of the TRUS volume, wherever the gland is.
    Its axes are the TRUS volume's own, in the card's order and sense; `axes` says how they lie in the patient
    where the header does not.
    """
    code = axes or orientation_code(trus_gland.GetDirection())
    direction = reordered_direction(trus_gland.GetDirection(), code, card.preprocessing.orientation)
    columns = np.reshape(direction, (3, 3))
    along = mask_points_mm(trus_gland) @ columns
    low, high = along.min(axis=0), along.max(axis=0)
    spacing = card.preprocessing.spacing_mm
    about = columns @ ((low + high) / 2)
    if card.settings.get("box", "gland") == "volume":
        about = Grid.of(trus_gland).centre_mm
    grid = Grid.centred(about, card.grid_vox, spacing, direction)
    half_extent = (np.array(card.grid_vox) - 1) * np.array(spacing) / 2
    middle = about @ columns
    return grid, bool(np.any(high > middle + half_extent) or np.any(low < middle - half_extent))


def show_gland(image: Any, gland: Any, *, floor: float, context: float) -> Any:
    """An image (0…1) in which its gland (0…1) stands out; both are SimpleITK images or both tensors.

    Inside the gland intensities are mapped to `floor`…1, so that a dark gland still differs from what is
    outside; outside they are mapped to 0…(1 − floor) times `context`. The paper's masking is context 0.
    """
    return image * (1 - floor) * (gland * (1 - context) + context) + gland * floor


def grown(gland: np.ndarray, margin_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """A gland (k, j, i; 0…1) with all that lies within `margin_mm` of it; `spacing_mm` is that of i, j, k.

    Paper A's code has a script that grows the masks by 8 mm, and does not use it: the margin is 0 there.
    """
    inside = gland > 0.5
    if not inside.any():
        return gland
    near = distance_transform_edt(~inside, sampling=list(spacing_mm)[::-1]) <= margin_mm
    return np.maximum(gland, near.astype(gland.dtype))


def region(
    image: sitk.Image, gland: sitk.Image, grid: Grid, transform: sitk.Transform | None, card: ModelCard
) -> sitk.Image:
    """The image with its gland (0…1, on the grid) shown as the card's `margin_mm`, `intensity_floor` and
    `context` say."""
    if margin_mm := float(card.settings.get("margin_mm", 0.0)):
        gland = grid.image(grown(sitk.GetArrayFromImage(gland), margin_mm, grid.spacing_mm))
    return show_gland(
        scaled_image(image, grid, transform, card),
        gland,
        floor=float(card.settings.get("intensity_floor", 0.0)),
        context=float(card.settings.get("context", 0.0)),
    )


def scaled_image(
    image: sitk.Image, grid: Grid, transform: sitk.Transform | None, card: ModelCard
) -> sitk.Image:
    """The whole image in 0…1, smoothed as the card says, on the grid; zero beyond the image."""
    scaled = rescale_intensity(image, card.preprocessing.percentiles)
    if card.preprocessing.smoothing_mm > 0:
        scaled = sitk.SmoothingRecursiveGaussian(scaled, card.preprocessing.smoothing_mm)
    return resample(scaled, grid, transform)


def regions_of_interest(
    mr: sitk.Image,
    trus: sitk.Image,
    mr_gland: sitk.Image,
    trus_gland: sitk.Image,
    rigid: sitk.Transform,
    card: ModelCard,
    *,
    axes: str = "",
    mr_structures: SeenStructures = _NOTHING_SEEN,
    trus_structures: SeenStructures = _NOTHING_SEEN,
) -> RegionsOfInterest:
    """Both regions of interest; `rigid` maps TRUS points to MR points, `axes` as in `region_grid`.

    What is seen of structures is on the grids of the images.
    """
    grid, clipped = region_grid(trus_gland, card, axes)
    moving_gland = resample(sitk.Cast(mr_gland, sitk.sitkFloat32), grid, rigid)
    fixed_gland = resample(sitk.Cast(trus_gland, sitk.sitkFloat32), grid, None)
    moving = region(mr, moving_gland, grid, rigid, card)
    fixed = region(trus, fixed_gland, grid, None, card)
    return RegionsOfInterest(
        moving,
        fixed,
        moving_gland,
        fixed_gland,
        grid,
        clipped,
        mr_structures.on(grid, rigid),
        trus_structures.on(grid, None),
    )
