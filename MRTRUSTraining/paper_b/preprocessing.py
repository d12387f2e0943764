"""Trimming, one size, the harmonisation of clinical images. World positions stay as they are (LPS, mm)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import correlate1d

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_points_mm, resample, resample_mask

from .settings import HarmonisationSettings, SideSettings

_FEWEST_SLICES = 8
# The centroid of a ball of 3 mm radius of which as much is left has moved by 0.3 mm.
_LEAST_KEPT = 0.9


@dataclass(frozen=True)
class Prepared:
    """A prepared image and its labels on the same grid, with the first and last slice that were kept.

    `kept` is the share of each label that lies in the image, None of an empty one. A landmark that lies there
    in part is empty: what is left of it would be another place. The gland stays as it is.
    """

    image: sitk.Image
    labels: tuple[sitk.Image, ...]
    slices: tuple[int, int]
    kept: tuple[float | None, ...]

    @property
    def left_out(self) -> tuple[int, ...]:
        """The channels of the landmarks that were emptied."""
        return tuple(
            n for n, share in enumerate(self.kept) if n > 0 and share is not None and share < _LEAST_KEPT
        )


def prepare(
    image: sitk.Image,
    labels: tuple[sitk.Image, ...],
    settings: SideSettings,
    *,
    name: str,
    harmonisation: HarmonisationSettings | None = None,
) -> Prepared:
    """Trim, bring to one size, harmonise; `labels` are binary masks on the image's grid, the gland first.

    `name` is what an `InputError` calls the image, where too few slices would be left.
    """
    axis = settings.frame_axis
    first, last = kept_slices(image.GetSize()[axis], settings)
    if last - first + 1 < _FEWEST_SLICES:
        raise InputError(
            f"{name} has {image.GetSize()[axis]} slices, of which trimming leaves fewer than "
            f"{_FEWEST_SLICES}; leave it out or say along which axis its slices lie."
        )
    grid = standard_grid(Grid.of(trimmed(image, axis, first, last)), settings)
    resized = resized_image(trimmed(image, axis, first, last), grid)
    if harmonisation is not None:
        resized = harmonised(resized, harmonisation, frame_axis=axis)
    masks = tuple(resample_mask(trimmed(label, axis, first, last), grid) for label in labels)
    prepared = Prepared(resized, masks, (first, last), tuple(kept_share(label, grid) for label in labels))
    whole = tuple(grid.blank() if n in prepared.left_out else mask for n, mask in enumerate(masks))
    return replace(prepared, labels=whole)


def kept_share(label: sitk.Image, grid: Grid) -> float | None:
    """Share of a binary mask's voxels whose centres lie in the volume of a grid; None of an empty one."""
    points_mm = mask_points_mm(label)
    if not len(points_mm):
        return None
    index = (points_mm - np.array(grid.origin_mm)) @ grid.axes / np.array(grid.spacing_mm)
    inside = np.abs(index - (np.array(grid.size_vox) - 1) / 2) <= np.array(grid.size_vox) / 2
    return float(inside.all(axis=1).mean())


def kept_slices(count: int, settings: SideSettings) -> tuple[int, int]:
    """Index of the first and of the last slice kept; shares are cut to whole slices."""
    # A share such as 0.1 · 30 must not lose a slice to rounding.
    first, last = (
        int(np.floor(count * share + 1e-9)) for share in (settings.first_share, settings.last_share)
    )
    return first, count - last - 1


def trimmed(image: sitk.Image, axis: int, first: int, last: int) -> sitk.Image:
    """The slices `first` to `last` along an index axis, where they were."""
    cut = [slice(None)] * 3
    cut[axis] = slice(first, last + 1)
    return image[tuple(cut)]


def standard_grid(grid: Grid, settings: SideSettings) -> Grid:
    """The grid of slices of the wanted size, with square pixels, in the middle of the given one.

    Its slices are those of `grid`; they show the largest rectangle of the wanted shape.
    """
    plane = [axis for axis in range(3) if axis != settings.frame_axis]
    extent_mm = np.array(grid.size_vox) * np.array(grid.spacing_mm)
    longer, shorter = sorted(plane, key=lambda axis: -extent_mm[axis])
    size, spacing_mm = list(grid.size_vox), list(grid.spacing_mm)
    size[longer], size[shorter] = settings.pixels
    pixel_mm = float(min(extent_mm[axis] / size[axis] for axis in plane))
    spacing_mm[longer] = spacing_mm[shorter] = pixel_mm
    return Grid.centred(grid.centre_mm, tuple(size), tuple(spacing_mm), grid.direction)  # type: ignore[arg-type]


def resized_image(image: sitk.Image, grid: Grid) -> sitk.Image:
    """The image on another grid, linearly, smoothed first where pixels grow, so that nothing aliases."""
    growth = np.maximum(np.divide(grid.spacing_mm, image.GetSpacing()), 1.0)
    variance_vox = (growth**2 - 1) / 12  # that of a mean over a new pixel
    soft = sitk.DiscreteGaussian(
        sitk.Cast(image, sitk.sitkFloat32), variance_vox.tolist(), 32, 0.01, useImageSpacing=False
    )
    edge = float(sitk.GetArrayViewFromImage(image).min())
    return resample(soft, grid, outside=edge)


def harmonised(image: sitk.Image, settings: HarmonisationSettings, *, frame_axis: int = 2) -> sitk.Image:
    """Histogram equalisation, gamma and Laplacian sharpening, in this order; 0 to 1, float32.

    Black voxels, such as those around a sweep, stay black and have no part in the histogram.
    """
    values = sitk.GetArrayFromImage(image).astype(float)
    low, high = np.percentile(values, settings.percentiles)
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    changed = equalised(scaled, settings.bins) ** settings.gamma
    plane = [axis for axis in range(3) if axis != 2 - frame_axis]  # array axes run (k, j, i)
    laplacian = sum(correlate1d(changed, [1.0, -2.0, 1.0], axis=axis, mode="nearest") for axis in plane)
    sharp = changed - settings.sharpening * laplacian
    sharp[scaled <= 0] = 0
    return Grid.of(image).image(np.clip(sharp, 0, 1).astype(np.float32))


def equalised(scaled: np.ndarray, bins: int) -> np.ndarray:
    """Values in 0…1 replaced by the share of positive values that lie below them; 0 stays 0."""
    positive = scaled > 0
    if not positive.any():
        return scaled
    counts, edges = np.histogram(scaled[positive], bins=bins, range=(0, 1))
    shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    return np.where(positive, np.interp(scaled, edges, shares), 0.0)
