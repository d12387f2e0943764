"""Images that occur twice in a data set, found by correlation whatever their names, shifts and contrasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.fft import irfftn, rfftn
from scipy.ndimage import gaussian_filter, shift

from MRTRUSRegistrationLib.geometry import Grid, resample

_SIDE_VOX = 32
_SPACING_MM = 3.0
# Structures of this size tell one prostate from another; finer ones are lost by resampling, coarser ones
# are alike in all patients.
_FINE_MM, _COARSE_MM = 2.5, 6.0
# Zero padding, so that shifts up to half of the side do not wrap around.
_PADDED_VOX = 48
_WORTH_A_LOOK = 0.55
_SMALLEST_OVERLAP = 0.3
_BLACK = 0.02


@dataclass(frozen=True)
class Fingerprint:
    """What of an image is compared: `band` (k, j, i) within `inside`, at 3 mm, zero mean and unit length."""

    band: np.ndarray
    inside: np.ndarray

    @classmethod
    def of(cls, image: sitk.Image) -> Fingerprint:
        """The middle 96 mm of a 3-D image along its own axes, smoothed, without the large-scale shading."""
        whole = Grid.of(image)
        grid = Grid.centred(whole.centre_mm, (_SIDE_VOX,) * 3, (_SPACING_MM,) * 3, whole.direction)
        seen = resample(whole.blank() + 1, grid)
        values = sitk.GetArrayFromImage(resample(sitk.Cast(image, sitk.sitkFloat32), grid))
        # The black around a sweep, or where a copy was padded, is no content.
        inside = (sitk.GetArrayFromImage(seen) > 0) & (values > _BLACK * np.percentile(values, 99))
        band = _smoothed(values, inside, _FINE_MM) - _smoothed(values, inside, _COARSE_MM)
        band = np.where(inside, band - band[inside].mean(), 0.0)
        length = np.linalg.norm(band)
        return cls((band / (length or 1.0)).astype(np.float32), inside)


def duplicates(
    fingerprints: Mapping[str, Fingerprint], *, threshold: float
) -> Iterator[tuple[str, str, float]]:
    """Pairs of names whose images correlate above `threshold` at the best shift, with that correlation."""
    spectra = {name: rfftn(found.band, (_PADDED_VOX,) * 3) for name, found in fingerprints.items()}
    for first, second in combinations(fingerprints, 2):
        surface = irfftn(spectra[first] * spectra[second].conj(), (_PADDED_VOX,) * 3)
        if surface.max() < _WORTH_A_LOOK:
            continue
        found = _overlap_correlation(fingerprints[first], fingerprints[second], _best_shift_vox(surface))
        if found > threshold:
            yield first, second, found


def _smoothed(values: np.ndarray, inside: np.ndarray, sigma_mm: float) -> np.ndarray:
    """Gaussian mean over the voxels inside, so that the border of the image is no structure."""
    sigma = sigma_mm / _SPACING_MM
    weights = gaussian_filter(inside.astype(np.float32), sigma)
    return gaussian_filter(np.where(inside, values, 0.0), sigma) / np.maximum(weights, 1e-6)


def _best_shift_vox(surface: np.ndarray) -> np.ndarray:
    """(3,) shift that carries the second image on to the first, to a fraction of a voxel, by parabolas."""
    peak = np.array(np.unravel_index(np.argmax(surface), surface.shape))
    offset = np.zeros(3)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        before, at, after = (surface[tuple((peak + n * step) % _PADDED_VOX)] for n in (-1, 0, 1))
        curvature = before - 2 * at + after
        offset[axis] = (before - after) / (2 * curvature) if curvature < 0 else 0.0
    wrapped = (peak + _PADDED_VOX // 2) % _PADDED_VOX - _PADDED_VOX // 2
    return wrapped + offset


def _overlap_correlation(first: Fingerprint, second: Fingerprint, shift_vox: np.ndarray) -> float:
    """Pearson correlation over the voxels that both images show once the second is shifted."""
    moved = shift(second.band, shift_vox, order=3, mode="constant")
    both = first.inside & (shift(second.inside.astype(np.float32), shift_vox, order=1) > 0.99)
    if both.sum() < _SMALLEST_OVERLAP * min(first.inside.sum(), second.inside.sum()):
        return 0.0
    a, b = first.band[both], moved[both]
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
