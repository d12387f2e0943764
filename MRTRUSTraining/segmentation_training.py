"""Training of the gland segmenters (paper A, section 2.1; schedule and loss of the official code)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask
from MRTRUSRegistrationLib.measures import dsc
from MRTRUSRegistrationLib.models import Preprocessing, prepare_image
from MRTRUSRegistrationLib.segmentation import clean_mask, gland_probability

from .data.augmentation import (
    IntensityRange,
    SpatialRange,
    flip_left_right,
    random_displacement,
    random_fit,
    random_intensity,
)
from .data.cache import cached
from .data.cases import Case, LoadedCase, load_case
from .data.fresh import Source, samples_at
from .losses import dice_cross_entropy_loss, two_class_dice_loss
from .networks.named import build_segmenter
from .networks.vnet import GlandProbability
from .networks.warp import warp
from .trainer import Forward

Modality = Literal["MR", "TRUS"]
SegmentationLoss = Literal["dice", "dice+cross-entropy"]


@dataclass(frozen=True)
class VolumeAgreement:
    """How this modality's gland relates to the other's: see `segmentation.agree_on_volume`."""

    ratio: float
    ratio_log_sd: float
    logit_sd: float


@dataclass(frozen=True)
class SegmentationSettings:
    """What a segmenter is: its network, its input and the window it is trained on (i, j, k).

    `network` and `options` are those of `networks.named`.
    """

    modality: Modality
    network: str = "vnet"
    options: Mapping[str, Any] = field(
        default_factory=lambda: {"widths": (8, 16, 32, 64, 96), "dropout": 0.1}
    )
    preprocessing: Preprocessing = Preprocessing("LPS", (1.5, 1.5, 1.5), smoothing_mm=0.7)
    training_vox: tuple[int, int, int] = (80, 80, 64)
    window_vox: tuple[int, int, int] = (112, 112, 96)
    mirror_averaged: bool = True
    loss: SegmentationLoss = "dice"
    threshold: float = 0.5
    volume_agreement: VolumeAgreement | None = None
    # Between the blurred public volumes (detail 0.02 to 0.03) and simulated sharp ones (0.08 to 0.16).
    detail_middle: float = 0.055
    detail_width: float = 0.005
    first_share: float = 0.5
    spatial: SpatialRange = SpatialRange()
    intensity: IntensityRange = IntensityRange(probability=0.4, blur_vox=(0.3, 2.5))
    kind: Literal["segmentation"] = "segmentation"


@dataclass(frozen=True)
class SegmentationSample:
    """One prepared volume: network input and gland, both on the card's grid, and the original."""

    name: str
    source: str
    prepared: sitk.Image
    gland: sitk.Image
    reference: sitk.Image


def prepare_sample(case: LoadedCase, settings: SegmentationSettings) -> SegmentationSample:
    image, gland = (case.mr, case.mr_gland) if settings.modality == "MR" else (case.trus, case.trus_gland)
    prepared = prepare_image(image, settings.preprocessing)
    source = "real" if case.truth is None else "simulated"
    return SegmentationSample(case.name, source, prepared, resample_mask(gland, Grid.of(prepared)), gland)


def prepare_samples(
    cases: Sequence[Case], settings: SegmentationSettings, cache: Path | None = None
) -> list[SegmentationSample]:
    """Prepared samples of the cases; with a `cache` folder each is prepared once for the same settings."""
    return [_prepared(case, settings, cache) for case in cases]


def _prepared(case: Case, settings: SegmentationSettings, cache: Path | None) -> SegmentationSample:
    if cache is None:
        return prepare_sample(load_case(case), settings)
    mr = settings.modality == "MR"
    files = [case.mr_path, case.mr_labels_path] if mr else [case.trus_path, case.trus_labels_path]
    content = cached(
        cache,
        ("segmentation", case.name, case.layout, settings.modality, settings.preprocessing, case.truth_path),
        files,
        lambda: _as_content(prepare_sample(load_case(case), settings)),
    )
    return SegmentationSample(**{name: _from_content(value) for name, value in content.items()})


def _as_content(sample: SegmentationSample) -> dict[str, Any]:
    """The sample for the cache, which keeps tensors, numbers and strings: an image is tensor and grid."""
    return {name: _flat(value) for name, value in sample.__dict__.items()}


def _flat(value: str | sitk.Image) -> Any:
    if isinstance(value, str):
        return value
    return {"tensor": torch.from_numpy(sitk.GetArrayFromImage(value)), "grid": asdict(Grid.of(value))}


def _from_content(value: Any) -> Any:
    return value if isinstance(value, str) else Grid(**value["grid"]).image(value["tensor"].numpy())


class SegmentationTask:
    """Dice, or Dice and cross-entropy, on random volumes.

    The first group of `training` is drawn with `first_share`.
    """

    def __init__(
        self,
        settings: SegmentationSettings,
        training: Sequence[Source[SegmentationSample]],
        validation: Sequence[SegmentationSample],
    ) -> None:
        self.settings = settings
        self.network: torch.nn.Module = build_segmenter(settings.network, **settings.options)
        self.step = 0
        self.progress = 0.0
        self._validation = validation
        self._sources = list(training)

    def loss(
        self, forward: Forward, rngs: Sequence[np.random.Generator]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        pairs = [self._draw(rng) for rng in rngs]
        images, glands = (torch.cat(each) for each in zip(*pairs, strict=True))
        logits = forward(images)
        glands = glands.to(logits.device)
        if self.settings.loss == "dice":
            return two_class_dice_loss(logits, glands), {}
        loss = dice_cross_entropy_loss(logits, glands)
        dice = float(two_class_dice_loss(logits.detach(), glands))
        return loss, {"dice": dice, "cross_entropy": float(loss.detach()) - dice}

    def _draw(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        first = len(self._sources) == 1 or rng.random() < self.settings.first_share
        source = self._sources[0 if first else int(rng.integers(1, len(self._sources)))]
        samples = samples_at(source, self.step)
        image, gland = _tensors(samples[int(rng.integers(len(samples)))])
        size = self.settings.training_vox[::-1]
        both = random_fit(torch.cat([image, gland], dim=1), size, rng)
        both = warp(both, random_displacement(rng, self.settings.spatial, size))
        if rng.random() < 0.5:
            both = flip_left_right(both)
        image, gland = both[:, :1], (both[:, 1:] > 0.5).float()
        return random_intensity(image, rng, self.settings.intensity), gland

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Mean DSC of the cleaned mask on the image's own grid, as the pipeline makes it.

        Every source of cases counts alike in the score, however many cases it has.
        """
        figures = {}
        for source in sorted({sample.source for sample in self._validation}):
            samples = [sample for sample in self._validation if sample.source == source]
            figures[f"dsc_{source}"] = float(np.mean([self._validation_dsc(network, s) for s in samples]))
        return {"score": float(np.mean(list(figures.values()))), **figures}

    def _validation_dsc(self, network: torch.nn.Module, sample: SegmentationSample) -> float:
        probability = gland_probability(sample.prepared, GlandProbability(network), self.settings.window_vox)
        mask = clean_mask(resample(probability, Grid.of(sample.reference)), threshold=self.settings.threshold)
        return dsc(mask, sample.reference)


def _tensors(sample: SegmentationSample) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.from_numpy(sitk.GetArrayFromImage(sample.prepared))[None, None]
    gland = torch.from_numpy(sitk.GetArrayFromImage(sample.gland).astype(np.float32))[None, None]
    return image, gland
