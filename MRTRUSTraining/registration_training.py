"""Training of a registration network on random pairs, and its validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from MRTRUSRegistrationLib.regions import grown, show_gland

from .data.fresh import Source, samples_at
from .networks.named import build_registration_network
from .networks.warp import warp
from .registration_loss import choose_structures, dense_error_mm, region_matching_loss
from .registration_samples import RegistrationSample, aligned_by_masks, augment, centroid_vox, misdraw
from .registration_settings import RegistrationSettings
from .trainer import Forward

# Moving and fixed volume as the network sees them, (1, C, K, J, I) each, and both glands where it wants them.
NetworkInputs: TypeAlias = "tuple[torch.Tensor, ...]"


class RegistrationTask:
    """Salient region matching, or what the settings make of it, on random pairs.

    The first group of `training` is drawn with `first_share`, one of the others else.
    """

    def __init__(
        self,
        settings: RegistrationSettings,
        training: Sequence[Source[RegistrationSample]],
        validation: Sequence[RegistrationSample],
    ) -> None:
        self.settings = settings
        self.network: torch.nn.Module = build_registration_network(settings.network, **settings.options)
        self.step = 0
        self.progress = 0.0
        self._sources = list(training)
        self._validation = validation

    def loss(
        self, forward: Forward, rngs: Sequence[np.random.Generator]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Mean loss of one random pair a generator, and the means of its parts."""
        pairs = [self._draw(rng) for rng in rngs]
        inputs = [torch.cat(each) for each in zip(*(shown for _, shown in pairs), strict=True)]
        displacement = forward(*inputs)
        losses, parts = [], []
        for n, ((sample, _), rng) in enumerate(zip(pairs, rngs, strict=True)):
            weights = self.settings.loss
            structures = choose_structures(weights.structures, sample.fixed_labels.shape[1], rng)
            loss, part = region_matching_loss(
                sample, displacement[n : n + 1], weights, structures=structures, progress=self.progress
            )
            losses.append(loss)
            parts.append(part)
        return torch.stack(losses).mean(), _means(parts)

    def _draw(self, rng: np.random.Generator) -> tuple[RegistrationSample, NetworkInputs]:
        first = len(self._sources) == 1 or rng.random() < self.settings.first_share
        source = self._sources[0 if first else int(rng.integers(1, len(self._sources)))]
        samples = samples_at(source, self.step)
        sample = samples[int(rng.integers(len(samples)))].to(next(self.network.parameters()).device)
        changed = augment(sample, rng, self.settings, progress=self.progress)
        settings = self.settings
        return self._as_segmented(
            changed, rng, scaling=settings.gland_scaling, drawn_share=settings.segmented_share
        )

    def _as_segmented(
        self,
        sample: RegistrationSample,
        rng: np.random.Generator,
        *,
        scaling: float = 0.0,
        drawn_share: float = 1.0,
    ) -> tuple[RegistrationSample, NetworkInputs]:
        """The network is shown masks as a segmenter draws them and judged by the true ones."""
        fixed_gland, moving_gland = self._drawn_glands(sample, rng, drawn_share)
        if self.settings.alignment != "initial":
            sample, moving_gland = aligned_by_masks(sample, moving_gland, fixed_gland)
        shown: NetworkInputs = (
            self._region(sample.moving_image, moving_gland),
            self._region(sample.fixed_image, fixed_gland),
        )
        if self.settings.inputs == "images+masks":
            shown += tuple(gland * rng.uniform(1 - scaling, 1) for gland in (moving_gland, fixed_gland))
        return sample, shown

    def _drawn_glands(
        self, sample: RegistrationSample, rng: np.random.Generator, drawn_share: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The fixed and the moving gland: the segmenters' own in a share of the draws, where there are any,
        else the reference with random errors."""
        moving, fixed = sample.moving_drawn, sample.fixed_drawn
        if moving is not None and fixed is not None and rng.random() < drawn_share:
            return fixed, moving
        references = sample.fixed_labels[:, :1], sample.moving_labels[:, :1]
        fixed, moving = (misdraw(each, rng, self.settings.mask_error) for each in references)
        return fixed, moving

    def _region(self, image: torch.Tensor, gland: torch.Tensor) -> torch.Tensor:
        """The image with its gland shown, and what is seen in it as it is; the gland before coordinates."""
        shown = show_gland(image[:, :1], self._grown(gland), **self.settings.shown)
        if not self.settings.coordinates:
            return torch.cat([shown, image[:, 1:]], dim=1)
        return torch.cat([shown, image[:, 1:-3], gland, image[:, -3:]], dim=1)

    def _grown(self, gland: torch.Tensor) -> torch.Tensor:
        margin_mm = self.settings.margin_mm
        if margin_mm == 0:
            return gland
        array = gland[0, 0].cpu().numpy()
        spacing_mm = self.settings.preprocessing.spacing_mm
        return torch.from_numpy(grown(array, margin_mm, spacing_mm))[None, None].to(gland.device)

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Misdrawn masks, the same every time: landmark or true error decides, overlap is reported."""
        device = next(self.network.parameters()).device
        rows = []
        for index, sample in enumerate(self._validation):
            for draw in range(self.settings.validation_draws):
                shown, inputs = self._as_segmented(sample.to(device), np.random.default_rng([index, draw]))
                with torch.inference_mode():
                    rows.append(_figures(shown, network(*inputs)))
        means = _means(rows)
        # Pairs without landmarks and without a true map have their overlap alone.
        errors = [means[key] for key in ("tre_rms_mm", "dense_mm") if key in means]
        return {"score": -float(np.mean(errors)) if errors else means["dsc"], **means}


def _figures(sample: RegistrationSample, displacement_vox: torch.Tensor) -> dict[str, float]:
    """Gland DSC, and landmark RMS error or dense error, of one sample on the network's grid.

    All are nan where the field is not finite.
    """
    warped, fixed = warp(sample.moving_labels, displacement_vox)[0], sample.fixed_labels[0]
    gland, reference = warped[0] > 0.5, fixed[0] > 0.5
    figures = {"dsc": float(2 * (gland & reference).sum() / (gland.sum() + reference.sum()))}
    if sample.truth_vox is not None:
        figures["dense_mm"] = float(dense_error_mm(sample, displacement_vox))
    elif distances := _landmark_distances_mm(sample, warped):
        figures["tre_rms_mm"] = float(np.sqrt(np.mean(np.square(distances))))
    if not bool(torch.isfinite(displacement_vox).all()):
        return dict.fromkeys(figures, float("nan"))
    return figures


def _landmark_distances_mm(sample: RegistrationSample, warped: torch.Tensor) -> list[float]:
    """Distances of the landmarks' centroids; one that was moved out of the grid is off by its diagonal.

    Otherwise a field that loses what it moves worst would be the best.
    """
    fixed, moving = sample.fixed_labels[0, 1:], sample.moving_labels[0, 1:]
    widest_mm = float(np.linalg.norm(fixed.shape[1:])) * sample.voxel_mm
    return [
        float((centroid_vox(moved) - centroid_vox(there)).norm()) * sample.voxel_mm
        if float(moved.sum()) > 0
        else widest_mm
        for moved, there, before in zip(warped[1:], fixed, moving, strict=True)
        if float(there.sum()) > 0 and float(before.sum()) > 0
    ]


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of every figure over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
