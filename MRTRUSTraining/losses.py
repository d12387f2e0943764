"""Training losses; sources are named by section of paper A and of the method reference."""

from collections.abc import Sequence
from functools import lru_cache

import torch


def soft_dice(predicted: torch.Tensor, target: torch.Tensor, *, smooth: float = 1e-5) -> torch.Tensor:
    """Soft Dice per channel of (B, C, K, J, I) tensors, summed jointly over the batch; returns (C,).

    The denominator is squared, as in the official code: Σp² + Σg².
    """
    axes = (0, 2, 3, 4)
    overlap = (predicted * target).sum(axes)
    size = (predicted * predicted).sum(axes) + (target * target).sum(axes)
    return (2 * overlap + smooth) / (size + smooth)


def two_class_dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Segmentation loss: mean soft Dice loss of background and gland; `target` is (B, 1, K, J, I)."""
    probability = torch.softmax(logits.float(), dim=1)
    return 1 - soft_dice(probability, torch.cat([1 - target, target], dim=1)).mean()


def gaussian_smooth(volumes: torch.Tensor, sigma_vox: float) -> torch.Tensor:
    """Smooth (B, C, K, J, I) with a separable Gaussian cut at three standard deviations; zero outside.

    Each axis is one product with a banded matrix, which on a processor is far faster than a convolution
    of a few channels.
    """
    if sigma_vox <= 0:
        return volumes
    k, j, i = (_smoothing_matrix(n, sigma_vox).to(volumes) for n in volumes.shape[2:])
    volumes = volumes @ i
    volumes = (volumes.transpose(3, 4) @ j).transpose(3, 4)
    return (volumes.transpose(2, 4) @ k).transpose(2, 4)


@lru_cache(maxsize=64)
def _smoothing_matrix(size: int, sigma_vox: float) -> torch.Tensor:
    """Symmetric (size, size) matrix that smooths along an axis."""
    radius = max(1, int(3 * sigma_vox + 0.5))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    total = torch.exp(-0.5 * (offsets / sigma_vox) ** 2).sum()
    distance = (torch.arange(size)[:, None] - torch.arange(size)[None]).abs().float()
    weights = torch.exp(-0.5 * (distance / sigma_vox) ** 2) / total
    return weights * (distance <= radius)


def weighted_dice_loss(
    warped: torch.Tensor,
    target: torch.Tensor,
    *,
    gland_weight: float,
    landmark_weight: float,
    scales_vox: Sequence[float] = (0.0,),
) -> torch.Tensor:
    """Equation 4: one minus the mean over structures of weight times Dice.

    Channel 0 is the gland, the others landmarks; K is the number of channels, all present in both volumes.
    More than one of `scales_vox` averages the Dice over Gaussian-smoothed labels (Hu et al. 2018), which
    lets a small landmark attract its counterpart before they overlap.
    """
    weights = torch.full((target.shape[1],), landmark_weight, device=target.device)
    weights[0] = gland_weight
    dice = torch.stack(
        [soft_dice(gaussian_smooth(warped, s), gaussian_smooth(target, s)) for s in scales_vox]
    ).mean(0)
    return 1 - (weights * dice).mean()


def roi_mutual_information(
    moving: torch.Tensor, fixed: torch.Tensor, roi: torch.Tensor, *, bins: int = 32
) -> torch.Tensor:
    """Mutual information (nats) of two images in 0…1 over the gathered voxels of `roi` only (equation 3).

    Gaussian Parzen windows with a standard deviation of one bin; memberships sum to one in each voxel.
    """
    inside = roi > 0.5
    a, b = _memberships(moving[inside], bins), _memberships(fixed[inside], bins)
    joint = a.T @ b / a.shape[0]
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    epsilon = 1e-6
    return (joint * torch.log(joint / (independent + epsilon) + epsilon)).sum()


def _memberships(values: torch.Tensor, bins: int) -> torch.Tensor:
    """(n,) intensities to (n, bins) Parzen memberships."""
    centres = torch.linspace(0, 1, bins, dtype=values.dtype, device=values.device)
    sigma = 1 / (bins - 1)
    weights = torch.exp(-0.5 * ((values.clamp(0, 1)[:, None] - centres) / sigma) ** 2)
    return weights / weights.sum(1, keepdim=True)


def gradient_l2(displacement_vox: torch.Tensor) -> torch.Tensor:
    """Equation 5 in its mean form: squared forward differences of (B, 3, K, J, I), averaged over voxels and
    components, then over the three axes."""
    terms = [torch.diff(displacement_vox, dim=axis).square().mean() for axis in (2, 3, 4)]
    return torch.stack(terms).mean()


def bending_energy(displacement_vox: torch.Tensor) -> torch.Tensor:
    """Mean squared second derivatives of (B, 3, K, J, I): zero for any affine map."""
    total = displacement_vox.new_zeros(())
    for first in (2, 3, 4):
        for second in range(first, 5):
            derivative = torch.diff(torch.diff(displacement_vox, dim=first), dim=second)
            total = total + (1.0 if first == second else 2.0) * derivative.square().mean()
    return total
