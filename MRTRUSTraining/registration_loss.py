"""The loss of a registration network: salient region matching (paper A, section 2.2.2) and its relatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .losses import (
    bending_energy,
    code_dice_loss,
    collapsed_classes,
    decayed,
    gradient_l2,
    multi_scale_dice_loss,
    roi_mutual_information,
    weighted_dice_loss,
    whole_volume_mutual_information,
)
from .networks.warp import warp
from .registration_samples import RegistrationSample
from .registration_settings import RegionLoss, Structures


def choose_structures(which: Structures, count: int, rng: np.random.Generator) -> list[int]:
    """Which of `count` label channels, the gland first, enter the Dice of one step."""
    if which == "all":
        return list(range(count))
    return [0] if which == "gland" else [int(rng.integers(count))]


def region_matching_loss(
    sample: RegistrationSample,
    displacement_vox: torch.Tensor,
    weights: RegionLoss,
    *,
    structures: Sequence[int] | None = None,
    progress: float = 0.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of one pair for a displacement (1, 3, K, J, I), and its parts; `structures` defaults to all.

    `progress` is the share 0…1 of the training that is done, on which decaying weights depend. Mutual
    information is taken over the fixed gland, so that the network cannot change its domain, or, where the
    weights say so, over the whole volume.
    """
    chosen = list(range(sample.fixed_labels.shape[1])) if structures is None else list(structures)
    moving = torch.cat([sample.moving_image[:, :1], sample.moving_labels[:, chosen]], dim=1)
    warped = warp(moving, displacement_vox)
    parts = {"dice": _dice(warped[:, 1:], sample, chosen, weights, progress=progress)}
    total = parts["dice"]
    if weights.smoothness > 0:
        parts["gradient"] = gradient_l2(displacement_vox)
        total = total + weights.smoothness * parts["gradient"]
    if weights.bending > 0:
        parts["bending"] = bending_energy(displacement_vox)
        total = total + weights.bending * parts["bending"]
    if weights.mi > 0:
        parts["mi"] = _mutual_information(warped[:, :1], displacement_vox, sample, weights)
        total = total - weights.mi * parts["mi"]
    if weights.dense > 0 and sample.truth_vox is not None:
        parts["dense_mm"] = dense_error_mm(sample, displacement_vox)
        total = total + weights.dense * parts["dense_mm"]
    return total, {key: float(value.detach()) for key, value in parts.items()}


def _dice(
    warped: torch.Tensor,
    sample: RegistrationSample,
    chosen: Sequence[int],
    weights: RegionLoss,
    *,
    progress: float,
) -> torch.Tensor:
    """Of the warped labels of the chosen structures with the fixed ones."""
    fixed = sample.fixed_labels[:, list(chosen)]
    if weights.dice == "classes":
        return code_dice_loss(collapsed_classes(warped), collapsed_classes(fixed), progress=progress)
    scales_vox = [scale / sample.voxel_mm for scale in weights.dice_scales_mm]
    if weights.dice == "per-label":
        return multi_scale_dice_loss(warped, fixed, scales_vox=scales_vox)
    gland = decayed(weights.gland, progress) if weights.gland_decays else weights.gland
    return weighted_dice_loss(
        warped,
        fixed,
        # The function weighs its first channel as the gland, which one structure alone need not be.
        gland_weight=gland if chosen[0] == 0 else weights.landmark,
        landmark_weight=weights.landmark,
        scales_vox=scales_vox,
        squared=weights.dice_squared,
    )


def _mutual_information(
    image: torch.Tensor, displacement_vox: torch.Tensor, sample: RegistrationSample, weights: RegionLoss
) -> torch.Tensor:
    """Of the warped image with the fixed one."""
    gland = sample.fixed_labels[:, :1]
    if weights.mi_domain == "gland":
        return roi_mutual_information(image, sample.fixed_image[:, :1], gland)
    moving_gland = warp(sample.moving_labels[:, :1], displacement_vox)
    return whole_volume_mutual_information(image, sample.fixed_image[:, :1], moving_gland, gland)


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
