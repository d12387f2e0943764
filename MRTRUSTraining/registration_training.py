"""Training of the deformable network with the salient region matching loss (paper A, section 2.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from MRTRUSRegistrationLib.geometry import Grid, resample
from MRTRUSRegistrationLib.models import ModelCard, Preprocessing
from MRTRUSRegistrationLib.regions import region_grid, scaled_image, show_gland
from MRTRUSRegistrationLib.rigid import RigidSettings, align_rigid, gland_initial
from MRTRUSRegistrationLib.transforms import displacement_vox

from .data.augmentation import (
    IntensityRange,
    SpatialRange,
    flip_displacement,
    flip_left_right,
    random_displacement,
    random_intensity,
)
from .data.cache import cached
from .data.cases import Case, LoadedCase, load_case
from .data.fresh import Source, samples_at
from .losses import gradient_l2, roi_mutual_information, weighted_dice_loss
from .networks.cmsa import CMSANet
from .networks.warp import warp
from .trainer import Forward


@dataclass(frozen=True)
class RegionLoss:
    """Weights of the loss: `mi`·L_MI + L_Dice + `smoothness`·L_reg (equation 6 has 1, 1, 0.4).

    `dense` weighs the mean distance (mm) to the true map within the gland, where a case has one.
    """

    mi: float = 1.0
    gland: float = 0.1
    landmark: float = 0.3
    smoothness: float = 0.4
    dice_scales_mm: tuple[float, ...] = (0.0,)
    dense: float = 0.0


@dataclass(frozen=True)
class RegistrationSettings:
    """What a registration network is, its input grid (i, j, k) and how it is trained."""

    preprocessing: Preprocessing = Preprocessing("LPS", (1.5, 1.5, 1.5), smoothing_mm=0.7)
    grid_vox: tuple[int, int, int] = (64, 48, 48)
    intensity_floor: float = 0.5
    context: float = 0.0
    attention: bool = True
    integration_steps: int = 7
    loss: RegionLoss = RegionLoss()
    first_share: float = 0.35
    misalignment: SpatialRange = SpatialRange(
        rotation_deg=6.0, log_scale=0.03, shear=0.02, translation_vox=0.8, elastic_vox=0.4
    )
    # Simulated pairs are turned against each other already, by more than masks can tell.
    simulated_misalignment: SpatialRange = SpatialRange(
        rotation_deg=3.0, log_scale=0.02, shear=0.02, translation_vox=0.5, elastic_vox=0.7
    )
    shared: SpatialRange = SpatialRange(
        rotation_deg=6.0, log_scale=0.06, shear=0.03, translation_vox=1.0, elastic_vox=0.8
    )
    mask_error: SpatialRange = SpatialRange(
        rotation_deg=0.0, log_scale=0.06, translation_vox=1.0, elastic_vox=1.5, elastic_nodes=6
    )
    validation_draws: int = 2
    intensity: IntensityRange = IntensityRange(probability=0.3, noise=0.02)


@dataclass(frozen=True)
class RegistrationSample:
    """One pair on the network's grid after the rigid alignment; tensors are (1, C, K, J, I).

    Images are in 0…1 over the whole volume, unmasked; labels hold the gland first, then landmarks. Where the
    true map is known, the labels are the gland alone, and two fields (1, 3, K, J, I) in voxels say where the
    fixed voxels lie: `truth_vox` in the unchanged moving volume, `change_vox` where augmentation took the
    moving voxels from.
    """

    name: str
    patient: str
    moving_image: torch.Tensor
    fixed_image: torch.Tensor
    moving_labels: torch.Tensor
    fixed_labels: torch.Tensor
    voxel_mm: float
    truth_vox: torch.Tensor | None = None
    change_vox: torch.Tensor | None = None


def draft_card(settings: RegistrationSettings) -> ModelCard:
    """The card of a network in training, as far as pre-processing needs it."""
    return ModelCard(
        name="cmsa",
        title="",
        task="registration",
        modality="MR-TRUS",
        architecture={},
        preprocessing=settings.preprocessing,
        grid_vox=settings.grid_vox,
        settings=region_settings(settings),
        training_data=(),
        figures=(),
        licence="",
        file="",
        sha256="",
    )


def region_settings(settings: RegistrationSettings) -> dict[str, float]:
    """What a card says of how the network is shown the gland."""
    shown = {"intensity_floor": settings.intensity_floor}
    return shown if settings.context == 0 else {**shown, "context": settings.context}


def prepare_sample(case: LoadedCase, settings: RegistrationSettings) -> RegistrationSample:
    """Bring one case on to the network's grid, rigidly aligned by its reference masks as in the pipeline."""
    card = draft_card(settings)
    initial = gland_initial(case.mr_gland, case.trus_gland)
    alignment = align_rigid(case.mr_gland, case.trus_gland, initial).transform
    grid, _ = region_grid(case.trus_gland, card)
    moving = scaled_image(case.mr, grid, alignment, card)
    fixed = scaled_image(case.trus, grid, None, card)
    structures = len(case.mr_labels) if case.truth is None else 1
    return RegistrationSample(
        case.name,
        case.patient,
        _tensor([moving]),
        _tensor([fixed]),
        _tensor([_on_grid(label, grid, alignment) for label in case.mr_labels[:structures]]),
        _tensor([_on_grid(label, grid, None) for label in case.trus_labels[:structures]]),
        settings.preprocessing.spacing_mm[0],
        None if case.truth is None else _true_displacement_vox(case.truth, alignment, grid),
    )


def _true_displacement_vox(truth: sitk.Transform, alignment: sitk.Transform, grid: Grid) -> torch.Tensor:
    """(1, 3, K, J, I): from each voxel to where the rigidly aligned MR shows the same tissue."""
    to_field = sitk.TransformToDisplacementFieldFilter()
    to_field.SetReferenceImage(grid.blank())
    # The last transform of the list is applied first.
    field = to_field.Execute(sitk.CompositeTransform([alignment.GetInverse(), truth]))
    return torch.from_numpy(displacement_vox(sitk.GetArrayFromImage(field), grid).copy())[None]


def prepare_samples(
    cases: Sequence[Case], settings: RegistrationSettings, cache: Path | None = None
) -> list[RegistrationSample]:
    """Prepared samples of the cases; with a `cache` folder each is prepared once for the same settings."""
    return [_prepared(case, settings, cache) for case in cases]


def _prepared(case: Case, settings: RegistrationSettings, cache: Path | None) -> RegistrationSample:
    if cache is None:
        return prepare_sample(load_case(case), settings)
    files = [case.mr_path, case.trus_path, case.mr_labels_path, case.trus_labels_path]
    content = cached(
        cache,
        (case.name, settings.preprocessing, settings.grid_vox, RigidSettings()),
        files if case.truth_path is None else [*files, case.truth_path],
        lambda: prepare_sample(load_case(case), settings).__dict__,
    )
    return RegistrationSample(**content)


def _on_grid(label: sitk.Image, grid: Grid, transform: sitk.Transform | None) -> sitk.Image:
    return resample(sitk.Cast(label, sitk.sitkFloat32), grid, transform)


def _tensor(images: list[sitk.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([sitk.GetArrayFromImage(image) for image in images])[None])


class RegistrationTask:
    """Salient region matching on random pairs of one group of samples."""

    def __init__(
        self,
        settings: RegistrationSettings,
        training: Sequence[Source[RegistrationSample]],
        validation: Sequence[RegistrationSample],
    ) -> None:
        self.settings = settings
        self.network: torch.nn.Module = CMSANet(
            attention=settings.attention, integration_steps=settings.integration_steps
        )
        self.step = 0
        self._sources = list(training)
        self._validation = validation

    def loss(self, forward: Forward, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        first = len(self._sources) == 1 or rng.random() < self.settings.first_share
        source = self._sources[0 if first else int(rng.integers(1, len(self._sources)))]
        samples = samples_at(source, self.step)
        sample = augment(samples[int(rng.integers(len(samples)))], rng, self.settings)
        sample, regions = self._as_segmented(sample, rng)
        return region_matching_loss(sample, forward(*regions), self.settings.loss)

    def _as_segmented(
        self, sample: RegistrationSample, rng: np.random.Generator
    ) -> tuple[RegistrationSample, tuple[torch.Tensor, torch.Tensor]]:
        """The network is shown masks as a segmenter draws them and judged by the true ones."""
        fixed_gland = misdraw(sample.fixed_labels[:, :1], rng, self.settings.mask_error)
        moving_gland = misdraw(sample.moving_labels[:, :1], rng, self.settings.mask_error)
        sample, moving_gland = aligned_by_masks(sample, moving_gland, fixed_gland)
        return sample, self._regions(sample, moving_gland, fixed_gland)

    def _regions(
        self, sample: RegistrationSample, moving_gland: torch.Tensor, fixed_gland: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shown = {"floor": self.settings.intensity_floor, "context": self.settings.context}
        return (
            show_gland(sample.moving_image, moving_gland, **shown),
            show_gland(sample.fixed_image, fixed_gland, **shown),
        )

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Misdrawn masks, the same every time: landmark or true error decides, overlap is reported."""
        rows = []
        for index, sample in enumerate(self._validation):
            for draw in range(self.settings.validation_draws):
                shown, regions = self._as_segmented(sample, np.random.default_rng([index, draw]))
                with torch.inference_mode():
                    rows.append(_figures(shown, network(*regions)))
        means = {key: _mean([row[key] for row in rows]) for key in rows[0]}
        known = {key: value for key, value in means.items() if np.isfinite(value)}
        errors = [known[key] for key in ("tre_rms_mm", "dense_mm") if key in known]
        return {"score": -float(np.mean(errors)), **known}


def augment(
    sample: RegistrationSample, rng: np.random.Generator, settings: RegistrationSettings
) -> RegistrationSample:
    """A random change shared by both volumes, a random misalignment of the moving one, random contrast."""
    size = settings.grid_vox[::-1]
    shared = random_displacement(rng, settings.shared, size)
    simulated = sample.truth_vox is not None
    spread = settings.simulated_misalignment if simulated else settings.misalignment
    misalignment = random_displacement(rng, spread, size)
    moving = torch.cat([sample.moving_image, sample.moving_labels], dim=1)
    fixed = torch.cat([sample.fixed_image, sample.fixed_labels], dim=1)
    change = shared + warp(misalignment, shared)
    moving, fixed = warp(moving, change), warp(fixed, shared)
    truth = None if sample.truth_vox is None else shared + warp(sample.truth_vox, shared)
    if rng.random() < 0.5:
        moving, fixed = flip_left_right(moving), flip_left_right(fixed)
        change, truth = flip_displacement(change), None if truth is None else flip_displacement(truth)
    return RegistrationSample(
        sample.name,
        sample.patient,
        random_intensity(moving[:, :1], rng, settings.intensity),
        random_intensity(fixed[:, :1], rng, settings.intensity),
        moving[:, 1:],
        fixed[:, 1:],
        sample.voxel_mm,
        truth,
        change,
    )


def misdraw(gland: torch.Tensor, rng: np.random.Generator, error: SpatialRange) -> torch.Tensor:
    """A gland (1, 1, K, J, I) as a segmenter might have drawn it."""
    size = (gland.shape[2], gland.shape[3], gland.shape[4])
    return warp(gland, random_displacement(rng, error, size))


def aligned_by_masks(
    sample: RegistrationSample, moving_gland: torch.Tensor, fixed_gland: torch.Tensor
) -> tuple[RegistrationSample, torch.Tensor]:
    """The pair after its moving side was shifted until the centroids of the drawn masks agree.

    That is where the rigid alignment leaves a pair: what a mask has wrong moves the image, and a network that
    never saw this would take two outlines that lie upon each other for two glands that do.
    """
    apart = _centroid(moving_gland[0, 0].numpy()) - _centroid(fixed_gland[0, 0].numpy())
    shift = (
        torch.from_numpy(apart.astype(np.float32)).view(1, 3, 1, 1, 1).expand(-1, -1, *fixed_gland.shape[2:])
    )
    moved = warp(torch.cat([sample.moving_image, sample.moving_labels, moving_gland], dim=1), shift)
    change = shift if sample.change_vox is None else shift + warp(sample.change_vox, shift)
    shifted = replace(sample, moving_image=moved[:, :1], moving_labels=moved[:, 1:-1], change_vox=change)
    return shifted, moved[:, -1:]


def region_matching_loss(
    sample: RegistrationSample, displacement_vox: torch.Tensor, weights: RegionLoss
) -> tuple[torch.Tensor, dict[str, float]]:
    """Equation 6. Mutual information is taken over the fixed gland, so that the network cannot change it."""
    warped = warp(torch.cat([sample.moving_image, sample.moving_labels], dim=1), displacement_vox)
    dice = weighted_dice_loss(
        warped[:, 1:],
        sample.fixed_labels,
        gland_weight=weights.gland,
        landmark_weight=weights.landmark,
        scales_vox=[scale / sample.voxel_mm for scale in weights.dice_scales_mm],
    )
    smooth = gradient_l2(displacement_vox)
    information = displacement_vox.new_zeros(())
    if weights.mi > 0:
        information = roi_mutual_information(warped[:, :1], sample.fixed_image, sample.fixed_labels[:, :1])
    total = dice - weights.mi * information + weights.smoothness * smooth
    parts = {"dice": dice, "mi": information, "gradient": smooth}
    if weights.dense > 0 and sample.truth_vox is not None:
        parts["dense_mm"] = dense_error_mm(sample, displacement_vox)
        total = total + weights.dense * parts["dense_mm"]
    return total, {key: float(value.detach()) for key, value in parts.items()}


def dense_error_mm(sample: RegistrationSample, displacement_vox: torch.Tensor) -> torch.Tensor:
    """Mean distance in the unchanged moving volume between where the field and the truth take the gland."""
    if sample.truth_vox is None:
        raise ValueError("A sample without a true map has no dense error.")
    reached = displacement_vox
    if sample.change_vox is not None:
        reached = reached + warp(sample.change_vox, displacement_vox)
    distance = (reached - sample.truth_vox).square().sum(dim=1, keepdim=True).add(1e-6).sqrt()
    inside = sample.fixed_labels[:, :1] > 0.5
    return sample.voxel_mm * distance[inside].mean()


def _figures(sample: RegistrationSample, displacement_vox: torch.Tensor) -> dict[str, float]:
    """Gland DSC and landmark RMS error of one sample on the network's grid."""
    warped = warp(sample.moving_labels, displacement_vox)[0].numpy()
    fixed = sample.fixed_labels[0].numpy()
    gland, reference = warped[0] > 0.5, fixed[0] > 0.5
    overlap = 2 * (gland & reference).sum() / (gland.sum() + reference.sum())
    if sample.truth_vox is not None:
        error = float(dense_error_mm(sample, displacement_vox))
        return {"dense_mm": error, "tre_rms_mm": float("nan"), "dsc": float(overlap)}
    distances = [
        np.linalg.norm(_centroid(a) - _centroid(b)) * sample.voxel_mm
        for a, b in zip(warped[1:], fixed[1:], strict=True)
        if a.sum() > 0 and b.sum() > 0
    ]
    rms = float(np.sqrt(np.mean(np.square(distances)))) if distances else float("nan")
    return {"dense_mm": float("nan"), "tre_rms_mm": rms, "dsc": float(overlap)}


def _mean(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _centroid(label: np.ndarray) -> np.ndarray:
    """Intensity-weighted centroid in voxels."""
    points = np.stack(np.meshgrid(*(np.arange(n) for n in label.shape), indexing="ij"), axis=-1)
    return (points * label[..., None]).sum((0, 1, 2)) / label.sum()
