"""Regions of interest: what the deformable network sees (paper A, section 2.1, step 2).

Both images are masked by their gland and sampled on one grid around the TRUS gland.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .geometry import Grid, mask_points_mm, orientation_code, reordered_direction, resample
from .models import ModelCard, rescale_intensity


@dataclass(frozen=True)
class RegionsOfInterest:
    """Moving (MR) and fixed (TRUS) regions on the same grid, float32, zero outside the glands.

    `clipped` says that the TRUS gland does not fit into the grid.
    """

    moving: sitk.Image
    fixed: sitk.Image
    grid: Grid
    clipped: bool


def region_grid(trus_gland: sitk.Image, card: ModelCard, axes: str = "") -> tuple[Grid, bool]:
    """The model's grid around the middle of the TRUS gland's extent, and whether the gland sticks out of it.

    Its axes are the TRUS volume's own, in the card's order and sense; `axes` says how they lie in the patient
    where the header does not.
    """
    code = axes or orientation_code(trus_gland.GetDirection())
    direction = reordered_direction(trus_gland.GetDirection(), code, card.preprocessing.orientation)
    columns = np.reshape(direction, (3, 3))
    along = mask_points_mm(trus_gland) @ columns
    low, high = along.min(axis=0), along.max(axis=0)
    spacing = card.preprocessing.spacing_mm
    grid = Grid.centred(columns @ ((low + high) / 2), card.grid_vox, spacing, direction)
    extent = (np.array(card.grid_vox) - 1) * np.array(spacing)
    return grid, bool(np.any(high - low > extent))


def masked_region(
    image: sitk.Image, gland: sitk.Image, grid: Grid, transform: sitk.Transform | None, card: ModelCard
) -> sitk.Image:
    """The image multiplied by its gland, on the grid.

    Intensities are mapped to `intensity_floor`…1 inside the gland, so that a dark gland still differs from
    the zero outside it.
    """
    floor = float(card.settings.get("intensity_floor", 0.0))
    scaled = rescale_intensity(image, card.preprocessing.percentiles)
    if card.preprocessing.smoothing_mm > 0:
        scaled = sitk.SmoothingRecursiveGaussian(scaled, card.preprocessing.smoothing_mm)
    inside = resample(sitk.Cast(gland, sitk.sitkFloat32), grid, transform)
    return (resample(scaled, grid, transform) * (1 - floor) + floor) * inside


def regions_of_interest(
    mr: sitk.Image,
    trus: sitk.Image,
    mr_gland: sitk.Image,
    trus_gland: sitk.Image,
    rigid: sitk.Transform,
    card: ModelCard,
    *,
    axes: str = "",
) -> RegionsOfInterest:
    """Both regions of interest; `rigid` maps TRUS points to MR points, `axes` as in `region_grid`."""
    grid, clipped = region_grid(trus_gland, card, axes)
    moving = masked_region(mr, mr_gland, grid, rigid, card)
    fixed = masked_region(trus, trus_gland, grid, None, card)
    return RegionsOfInterest(moving, fixed, grid, clipped)
