"""Images that occur twice in a data set, by correlation whatever their names, axes, places and contrasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.fft import irfftn, rfftn
from scipy.ndimage import binary_erosion, gaussian_filter, shift

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
# Quantiles of the band, in standard deviations: of different patients they are 0.03 apart and more.
_QUANTILES = np.linspace(0.03, 0.97, 31)
_SAME_LEVELS = 0.01


@dataclass(frozen=True)
class Fingerprint:
    """What of an image is compared: `values` (k, j, i) at 3 mm, of which those `inside` are content."""

    values: np.ndarray
    inside: np.ndarray

    @classmethod
    def of(cls, image: sitk.Image) -> Fingerprint:
        """The middle 96 mm of a 3-D image, along its own axes in the order and direction L, P, S."""
        oriented = sitk.DICOMOrient(sitk.Cast(image, sitk.sitkFloat32), "LPS")
        # Black is where the darkest voxel is, which need not be zero.
        oriented -= float(sitk.GetArrayViewFromImage(oriented).min())
        whole = Grid.of(oriented)
        grid = Grid.centred(whole.centre_mm, (_SIDE_VOX,) * 3, (_SPACING_MM,) * 3, whole.direction)
        seen = resample(whole.blank() + 1, grid)
        values = sitk.GetArrayFromImage(resample(oriented, grid))
        # The black around a sweep, or where a copy was padded, is no content.
        return cls(values, (sitk.GetArrayFromImage(seen) > 0) & (values > _BLACK * np.percentile(values, 99)))

    @property
    def band(self) -> np.ndarray:
        """(k, j, i) structures of the sizes that are compared, of unit length."""
        band = _band(self.values, self.inside)
        return (band / (np.linalg.norm(band) or 1.0)).astype(np.float32)

    def turned(self) -> Iterator[Fingerprint]:
        """The image as it would be with every other order and direction of its axes, mirrored or not."""
        for order in permutations(range(3)):
            for steps in product((1, -1), repeat=3):
                cut = tuple(slice(None, None, step) for step in steps)
                if (order, steps) != ((0, 1, 2), (1, 1, 1)):
                    yield Fingerprint(self.values.transpose(order)[cut], self.inside.transpose(order)[cut])


@dataclass(frozen=True)
class _Searched:
    """A fingerprint with the spectrum of its band, and the quantiles of the band, which no turn changes."""

    fingerprint: Fingerprint
    spectrum: np.ndarray
    levels: np.ndarray

    @classmethod
    def of(cls, found: Fingerprint) -> _Searched:
        band = found.band
        inside = band[found.inside]
        # An image without content is like no other.
        levels = np.quantile(inside, _QUANTILES) if inside.size else np.full(_QUANTILES.shape, np.nan)
        # To the scale of standard deviations, as the band has unit length and zero mean.
        return cls(found, rfftn(band, (_PADDED_VOX,) * 3), levels * np.sqrt(inside.size))


def duplicates(
    fingerprints: Mapping[str, Fingerprint], *, threshold: float
) -> Iterator[tuple[str, str, float]]:
    """Pairs of names whose images correlate above `threshold` at the best shift, with that correlation.

    Copies that show less than about two thirds of the image along each axis may be missed. A copy whose
    header no longer says how its axes lie is found where it is whole and its contrast is that of the other
    but for factor and offset; one that has lost its spacing, too, is not found.
    """
    searched = {name: _Searched.of(found) for name, found in fingerprints.items()}
    for first, second in combinations(fingerprints, 2):
        a, b = searched[first], searched[second]
        found = _best_correlation(a, b)
        # All turns of all pairs would take hours; of different patients no pair comes as far as this.
        if found <= threshold and np.abs(a.levels - b.levels).max() < _SAME_LEVELS:
            found = max(_best_correlation(a, _Searched.of(turned)) for turned in b.fingerprint.turned())
        if found > threshold:
            yield first, second, found


def _best_correlation(first: _Searched, second: _Searched) -> float:
    """Of two images at the shift that fits best; 0 where none is worth a look."""
    surface = irfftn(first.spectrum * second.spectrum.conj(), (_PADDED_VOX,) * 3)
    if surface.max() < _WORTH_A_LOOK:
        return 0.0
    return _overlap_correlation(first.fingerprint, second.fingerprint, _best_shift_vox(surface))


def _band(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(k, j, i) smoothed values without the large-scale shading, zero mean inside and zero outside."""
    band = _smoothed(values, inside, _FINE_MM) - _smoothed(values, inside, _COARSE_MM)
    return np.where(inside, band - band[inside].mean(), 0.0) if inside.any() else np.zeros_like(values)


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
    """Pearson correlation over the voxels that both images show once the second is shifted.

    Both bands are taken of the common voxels alone: near the border of a copy that was cut off they would
    differ, as one image has values beyond it.
    """
    moved = shift(second.values, shift_vox, order=1, mode="nearest")
    both = first.inside & (shift(second.inside.astype(np.float32), shift_vox, order=1) > 0.99)
    if both.sum() < _SMALLEST_OVERLAP * min(first.inside.sum(), second.inside.sum()):
        return 0.0
    # All smoothed images are alike at their border, so that of different patients' would correlate.
    inner = binary_erosion(both, np.ones((3, 3, 3), bool))
    a, b = (_band(values, both)[inner] for values in (first.values, moved))
    if not inner.any() or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
