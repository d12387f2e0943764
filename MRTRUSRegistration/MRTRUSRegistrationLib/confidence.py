"""How much a deformable registration depends on what cannot be known: its spread under small changes.

The whole deformable stage is repeated with slightly different gland outlines, rigid alignments and grey
values; where the results part, the image does not determine the answer. This is a spread, not an error: it
is not calibrated against landmarks, and what all repeats get wrong alike does not show in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import gaussian_filter

from .deformable import deform_with_network
from .errors import InputError, RegistrationError
from .geometry import Grid, mask_centroid_mm, mask_points_mm, resample
from .gland_surface import GlandSurface
from .models import InstalledModel, rescale_intensity
from .progress import Reporter
from .results import Deformation
from .transforms import compose, displacements_mm

STAGE = "confidence"
_LEAST_REPEATS = 2
# The maps are smooth, so that finer sampling than this adds only time; a field is stored at 1 mm.
_SAMPLING_MM = 1.5
_OUTLINE_SAMPLING_MM = 2.0
# Room around a gland for its outline to move, in standard deviations.
_ROOM = 4.0
_COARSE_PER_LENGTH = 2.5


@dataclass(frozen=True)
class ConfidenceSettings:
    """How often and how much the input is changed; every amount is one standard deviation.

    Outline: readers' contours of one gland differ by 0.7–1.7 mm (Nyholm 2013), over stretches of a
    centimetre. Rotation and translation: half of the 4° that a gland's shape may leave open (`rigid`), and
    the outline's own uncertainty; about each axis. Grey values: gamma (of its logarithm) and blur as in
    SynthMorph's augmentation. Six repeats know a spread to about a third of itself.
    """

    perturbations: int = 6
    outline_mm: float = 1.0
    outline_length_mm: float = 10.0
    rotation_deg: float = 2.0
    translation_mm: float = 1.0
    log_gamma: float = 0.25
    blur_mm: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.perturbations < _LEAST_REPEATS:
            raise InputError(
                f"A confidence map from {self.perturbations} perturbations is not possible; use"
                f" {_LEAST_REPEATS} or more, or 0 for none."
            )


@dataclass(frozen=True)
class ConfidenceMap:
    """Spread of the point that each TRUS voxel corresponds to, in mm.

    `image` is float32 on the TRUS grid and zero outside the gland, where nothing is said. `mean_mm` and
    `p95_mm` are over the gland. `offset_p95_mm` (95 % of the gland lies below it) is how far the delivered
    result is from the repeats' mean; `failed` counts repeats without a result, which the spread leaves out.
    """

    image: sitk.Image = field(repr=False)
    mean_mm: float
    p95_mm: float
    offset_p95_mm: float | None = None
    perturbations: int | None = None
    failed: int = 0


def confidence_map(
    mr: sitk.Image,
    trus: sitk.Image,
    mr_gland: sitk.Image,
    trus_gland: sitk.Image,
    rigid: sitk.Transform,
    model: InstalledModel,
    *,
    reference: Deformation,
    settings: ConfidenceSettings | None = None,
    axes: str = "",
    mr_axes: str = "",
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> ConfidenceMap:
    """The spread of x ↦ rigid(x + u(x)) over repeats of a network's registration with changed input.

    At each point it is the root of the summed variances (n − 1) of the three MR coordinates over the repeats.
    Arguments are those of `deformable.deform_with_network`, whose result is `reference`; where that network
    found `rigid` itself, every repeat starts from what it was given. Each repeat takes as long as that. The
    same seed gives the same map, and more perturbations begin with the same ones. Raises `RegistrationError`
    where fewer than two repeats have a result, `Cancelled` between repeats.
    """
    settings = settings or ConfidenceSettings()
    start = rigid if reference.start is None else reference.start
    case, grid = _Case(mr, trus, mr_gland, trus_gland, start), _sampling_grid(trus_gland)
    outer = reporter or Reporter()
    inner = _RepeatReporter(outer, settings.perturbations)
    options = {"axes": axes, "mr_axes": mr_axes, "device": device, "reporter": inner}
    samples = _Moments()
    for changed in inner.counted(_repeats(case, model, settings)):
        # A repeat without a result is counted, not hidden.
        with suppress(RegistrationError):
            found = deform_with_network(*changed.arguments, model, **options)  # type: ignore[arg-type]
            samples.add(_mapped_mm(changed.rigid, found, grid))
    if samples.count < _LEAST_REPEATS:
        raise RegistrationError("The registration failed under small changes, so there is no confidence map.")
    offset_mm = np.linalg.norm(_mapped_mm(rigid, reference, grid) - samples.mean, axis=-1)
    spread, offset = (_on_gland(grid.image(values), trus_gland) for values in (samples.spread, offset_mm))
    outer.report(STAGE, 1.0)
    return replace(
        confidence_of_image(spread, trus_gland),
        offset_p95_mm=confidence_of_image(offset, trus_gland).p95_mm,
        perturbations=settings.perturbations,
        failed=settings.perturbations - samples.count,
    )


def confidence_of_image(image: sitk.Image, trus_gland: sitk.Image) -> ConfidenceMap:
    """A map that was written to a file, with its figures over the gland; `ValueError` for another grid."""
    if not Grid.of(image).same_as(Grid.of(trus_gland)):
        raise ValueError("The confidence map and the gland must lie on the same grid.")
    values = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(trus_gland) > 0]
    if values.size == 0:
        raise ValueError("The gland is empty, so the confidence map has no figures.")
    return ConfidenceMap(image, float(values.mean()), float(np.percentile(values, 95)))


@dataclass(frozen=True)
class _Case:
    """What a repeat changes."""

    mr: sitk.Image
    trus: sitk.Image
    mr_gland: sitk.Image
    trus_gland: sitk.Image
    rigid: sitk.Transform

    @property
    def arguments(self) -> tuple[sitk.Image, sitk.Image, sitk.Image, sitk.Image, sitk.Transform]:
        return self.mr, self.trus, self.mr_gland, self.trus_gland, self.rigid


class _RepeatReporter(Reporter):
    """Reports the inside of each repeat as a part of the whole stage."""

    def __init__(self, outer: Reporter, count: int) -> None:
        super().__init__()
        self._outer = outer
        self._count = count
        self._done = 0

    def counted(self, repeats: Iterable[_Case]) -> Iterator[_Case]:
        self.report(STAGE, 0.0)
        for repeat in repeats:
            yield repeat
            self._done += 1

    def report(self, stage: str, fraction: float, message: str = "") -> None:
        place = f"Repeat {self._done + 1} of {self._count}"
        self._outer.report(STAGE, (self._done + fraction) / self._count, place)


class _Moments:
    """Mean and spread of arrays (…, 3) that come one by one (Welford), so that none has to be kept."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: np.ndarray = np.zeros(3)
        self._squares: np.ndarray = np.zeros(())

    def add(self, values: np.ndarray) -> None:
        self.count += 1
        step = values - self.mean
        self.mean = self.mean + step / self.count
        self._squares = self._squares + np.sum(step * (values - self.mean), axis=-1)

    @property
    def spread(self) -> np.ndarray:
        """(…) root of the summed variances."""
        return np.sqrt(self._squares / (self.count - 1))


def _repeats(case: _Case, model: InstalledModel, settings: ConfidenceSettings) -> Iterator[_Case]:
    percentiles = model.card.preprocessing.percentiles
    for number in range(settings.perturbations):
        rng = np.random.default_rng([settings.seed, number])
        yield _Case(
            perturbed_image(case.mr, percentiles, settings, rng),
            perturbed_image(case.trus, percentiles, settings, rng),
            perturbed_mask(case.mr_gland, settings, rng),
            perturbed_mask(case.trus_gland, settings, rng),
            perturbed_rigid(case.rigid, mask_centroid_mm(case.trus_gland), settings, rng),
        )


def perturbed_image(
    image: sitk.Image,
    percentiles: tuple[float, float],
    settings: ConfidenceSettings,
    rng: np.random.Generator,
) -> sitk.Image:
    """The image in 0…1 with another gamma and slightly blurred; the order of grey values stays."""
    gamma = float(np.exp(settings.log_gamma * rng.standard_normal()))
    sigma_mm = settings.blur_mm * abs(rng.standard_normal())
    changed = sitk.Cast(sitk.Pow(rescale_intensity(image, percentiles), gamma), sitk.sitkFloat32)
    # ITK's recursive filter is unstable for widths far below a voxel, where it would do nothing anyway.
    if sigma_mm < 0.2 * max(image.GetSpacing()):
        return changed
    return sitk.SmoothingRecursiveGaussian(changed, sigma_mm)


def perturbed_mask(mask: sitk.Image, settings: ConfidenceSettings, rng: np.random.Generator) -> sitk.Image:
    """The mask with its outline moved in and out smoothly, by `outline_mm` (one standard deviation)."""
    grid = _box(mask, spacing_mm=(_OUTLINE_SAMPLING_MM,) * 3, margin_mm=_ROOM * settings.outline_mm + 2)
    distance = GlandSurface.of(mask).distance_mm(grid.points_mm().reshape(-1, 3)).reshape(grid.size_vox[::-1])
    shift = resample(_smooth_noise(grid, settings.outline_length_mm, rng), grid)
    # Positive inside, so that what is added moves the outline outwards.
    level = distance + settings.outline_mm * sitk.GetArrayFromImage(shift)
    return resample(grid.image(level.astype(np.float32)), Grid.of(mask), outside=-1.0) > 0


def perturbed_rigid(
    rigid: sitk.Transform, centre_mm: np.ndarray, settings: ConfidenceSettings, rng: np.random.Generator
) -> sitk.Transform:
    """The rigid transform after a small turn about `centre_mm` and a small shift, both in TRUS space."""
    angles = np.deg2rad(settings.rotation_deg) * rng.standard_normal(3)
    shift_mm = settings.translation_mm * rng.standard_normal(3)
    change = sitk.Euler3DTransform(np.asarray(centre_mm, float).tolist(), *angles.tolist(), shift_mm.tolist())
    return sitk.CompositeTransform([rigid, change])


def _box(mask: sitk.Image, *, spacing_mm: tuple[float, ...], margin_mm: float) -> Grid:
    """A grid along the mask's axes that covers its voxels and a margin, also beyond the image."""
    axes = Grid.of(mask).axes
    along = mask_points_mm(mask) @ axes
    if not len(along):
        raise InputError("The mask of the gland is empty; draw the prostate gland in it.")
    low, high = along.min(axis=0) - margin_mm, along.max(axis=0) + margin_mm
    size = tuple(int(n) + 1 for n in np.ceil((high - low) / spacing_mm))
    return Grid.centred(axes @ ((low + high) / 2), size, spacing_mm, mask.GetDirection())  # type: ignore[arg-type]


def _smooth_noise(grid: Grid, length_mm: float, rng: np.random.Generator) -> sitk.Image:
    """Gaussian noise of unit variance on a coarse grid that covers `grid`, smooth over `length_mm`.

    It is white noise after a Gaussian of width length/√2, whose autocorrelation has the width `length_mm`.
    """
    step_mm = length_mm / _COARSE_PER_LENGTH
    coarse = grid.with_spacing((step_mm,) * 3).padded(1)
    sigma_vox = length_mm / np.sqrt(2) / step_mm
    white = rng.standard_normal(coarse.size_vox[::-1])
    smooth = gaussian_filter(white, sigma_vox, mode="wrap")
    impulse = np.zeros_like(white)
    impulse.flat[0] = 1.0
    scale = np.sqrt(np.sum(gaussian_filter(impulse, sigma_vox, mode="wrap") ** 2))
    return coarse.image((smooth / scale).astype(np.float32))


def _sampling_grid(trus_gland: sitk.Image) -> Grid:
    spacing_mm = tuple(max(_SAMPLING_MM, s) for s in trus_gland.GetSpacing())
    return _box(trus_gland, spacing_mm=spacing_mm, margin_mm=max(spacing_mm))


def _mapped_mm(rigid: sitk.Transform, deformation: Deformation, grid: Grid) -> np.ndarray:
    """(k, j, i, 3) displacements of the whole map TRUS → MR, in LPS mm.

    They differ from the mapped points by the points themselves, which are the same in every repeat.
    """
    return displacements_mm(compose(rigid, deformation.transform), grid)


def _on_gland(image: sitk.Image, gland: sitk.Image) -> sitk.Image:
    """The values on the gland's grid, float32, zero outside the gland."""
    values = sitk.GetArrayFromImage(resample(image, Grid.of(gland)))
    inside = sitk.GetArrayViewFromImage(gland) > 0
    return Grid.of(gland).image(np.where(inside, values, 0).astype(np.float32))
