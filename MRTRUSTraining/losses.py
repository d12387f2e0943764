"""Training losses; sources are named by section of paper A and of the method reference."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch.nn import functional

# Of the official code: background, gland, four kinds of landmarks.
_CODE_CLASSES = 6


def soft_dice(
    predicted: torch.Tensor, target: torch.Tensor, *, smooth: float = 1e-5, squared: bool = True
) -> torch.Tensor:
    """Soft Dice per channel of (B, C, K, J, I) tensors, summed jointly over the batch; returns (C,).

    The denominator is squared, as in the official code: Σp² + Σg²; else Σp + Σg, as paper A writes it.
    """
    axes = (0, 2, 3, 4)
    overlap = (predicted * target).sum(axes)
    a, b = (predicted.square(), target.square()) if squared else (predicted, target)
    return (2 * overlap + smooth) / (a.sum(axes) + b.sum(axes) + smooth)


def two_class_dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Segmentation loss: mean soft Dice loss of background and gland; `target` is (B, 1, K, J, I)."""
    probability = torch.softmax(logits.float(), dim=1)
    return 1 - soft_dice(probability, torch.cat([1 - target, target], dim=1)).mean()


def dice_cross_entropy_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Paper B's segmentation loss as we fill it in (method reference, section 5.1): the mean Dice loss of
    both classes plus the mean cross-entropy (nats); `target` (B, 1, K, J, I) in 0…1 may be soft."""
    log_probability = functional.log_softmax(logits.float(), dim=1)
    both = torch.cat([1 - target, target], dim=1)
    return two_class_dice_loss(logits, target) - (both * log_probability).sum(1).mean()


def classes_dice_cross_entropy_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Loss of several exclusive classes: the mean soft Dice loss of those present, plus the mean
    cross-entropy (nats); `logits` and `classes` (one-hot) are (B, C, K, J, I)."""
    log_probability = functional.log_softmax(logits.float(), dim=1)
    present = classes.sum((0, 2, 3, 4)) > 0
    dice = soft_dice(log_probability.exp(), classes)[present]
    return 1 - dice.mean() - (classes * log_probability).sum(1).mean()


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
    squared: bool = True,
) -> torch.Tensor:
    """Equation 4: one minus the mean over structures of weight times Dice.

    Channel 0 is the gland, the others landmarks; K is the number of channels, all present in both volumes.
    More than one of `scales_vox` averages the Dice over Gaussian-smoothed labels (Hu et al. 2018), which
    lets a small landmark attract its counterpart before they overlap. `squared` is as in `soft_dice`.
    """
    weights = torch.full((target.shape[1],), landmark_weight, device=target.device)
    weights[0] = gland_weight
    dice = torch.stack(
        [
            soft_dice(gaussian_smooth(warped, s), gaussian_smooth(target, s), squared=squared)
            for s in scales_vox
        ]
    ).mean(0)
    return 1 - (weights * dice).mean()


def multi_scale_dice_loss(
    warped: torch.Tensor,
    target: torch.Tensor,
    *,
    scales_vox: Sequence[float] = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0),
    smooth: float = 1e-5,
) -> torch.Tensor:
    """The label loss of Hu et al. 2018: one minus soft Dice, the mean over scales, cases and structures.

    Labels (B, C, K, J, I) are smoothed by Gaussians of each scale. Dice is taken per case with the plain
    denominator Σp + Σg, other than `soft_dice`, so that labels that agree still cost something where they
    are smoothed. The authors give it one random pair of labels a step.
    """
    losses = []
    for scale in scales_vox:
        a, b = gaussian_smooth(warped, scale), gaussian_smooth(target, scale)
        overlap, size = (a * b).sum((2, 3, 4)), (a + b).sum((2, 3, 4))
        losses.append(1 - ((2 * overlap + smooth) / (size + smooth)).mean())
    return torch.stack(losses).mean()


def collapsed_classes(labels: torch.Tensor) -> torch.Tensor:
    """Separate labels (B, C, K, J, I), the gland first, as the exclusive classes (B, C + 1, K, J, I) of the
    official code: background, gland without its landmarks, landmarks.

    Where landmarks overlap the later one counts. The classes add up to one also where labels are soft.
    """
    free = torch.ones_like(labels[:, :1])
    classes = []
    for label in reversed(labels.split(1, dim=1)):
        classes.append(free * label)
        free = free * (1 - label)
    return torch.cat([free, *reversed(classes)], dim=1)


def decayed(weight: float, progress: float) -> float:
    """A weight of the official code that falls to zero; `progress` is the share 0…1 of the epochs done."""
    return weight * (1 - progress) ** 0.9


def code_dice_loss(warped: torch.Tensor, target: torch.Tensor, *, progress: float) -> torch.Tensor:
    """The Dice term of the official code (method reference, sections 1.6 and 3): Σ w·(1 − Dice) / 6 over the
    classes of `collapsed_classes`, background included.

    Landmarks weigh 0.3; background and gland 0.1·(1 − progress)^0.9, where `progress` is the share 0…1 of
    the epochs that are done. The code always divides by its six classes: one that a pair lacks costs nothing.
    """
    weights = torch.full((target.shape[1],), 0.3, device=target.device)
    weights[:2] = decayed(0.1, progress)
    return (weights * (1 - soft_dice(warped, target))).sum() / _CODE_CLASSES


def roi_mutual_information(
    moving: torch.Tensor, fixed: torch.Tensor, roi: torch.Tensor, *, bins: int = 32
) -> torch.Tensor:
    """Mutual information (nats) of two images in 0…1 over the gathered voxels of `roi` only (equation 3).

    Gaussian Parzen windows with a standard deviation of one bin; memberships sum to one in each voxel.
    """
    inside = roi > 0.5
    return _mutual_information(moving[inside], fixed[inside], bins)


def whole_volume_mutual_information(
    moving: torch.Tensor,
    fixed: torch.Tensor,
    moving_region: torch.Tensor,
    fixed_region: torch.Tensor,
    *,
    bins: int = 32,
) -> torch.Tensor:
    """Mutual information (nats) as the official code has it: each image is multiplied by its own region, and
    every voxel counts, zeros included (method reference, section 1.6; its weight there is 0.4).

    All are (B, 1, K, J, I), images in 0…1; the moving ones are warped. Most voxels share the bin of zero, so
    that the value says more about how the regions overlap than about what is in them.
    """
    a, b = (moving * moving_region).flatten(), (fixed * fixed_region).flatten()
    # The many voxels that are zero in both have the same memberships, so they are counted, not computed.
    shown = (a != 0) | (b != 0)
    return _mutual_information(a[shown], b[shown], bins, both_zero=int((~shown).sum()))


def _mutual_information(
    moving: torch.Tensor, fixed: torch.Tensor, bins: int, *, both_zero: int = 0
) -> torch.Tensor:
    """Of two samples (n,) of paired intensities, and of as many more pairs of zeros as `both_zero` says."""
    a, b = _memberships(moving, bins), _memberships(fixed, bins)
    zero = _memberships(moving.new_zeros(1), bins)
    joint = (a.T @ b + both_zero * zero.T @ zero) / (a.shape[0] + both_zero)
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
    """Mean squared second derivatives of (B, 3, K, J, I), per component: zero for any affine map.

    As Hu et al. 2018 have it: central differences of central differences, mixed ones counted twice, over the
    voxels that have two neighbours on every side; every size must be at least five.
    """
    gradients = [_central_difference(displacement_vox, axis) for axis in range(3)]
    total = displacement_vox.new_zeros(())
    for first in range(3):
        for second in range(first, 3):
            curvature = _central_difference(gradients[first], second).square().mean()
            total = total + (1.0 if first == second else 2.0) * curvature
    return total


def _central_difference(field: torch.Tensor, axis: int) -> torch.Tensor:
    """Derivative along one of the three spatial axes of (B, C, K, J, I), one voxel less on every side."""
    length = field.shape[axis + 2] - 2
    difference = field.narrow(axis + 2, 2, length) - field.narrow(axis + 2, 0, length)
    for other in range(3):
        if other != axis:
            difference = difference.narrow(other + 2, 1, field.shape[other + 2] - 2)
    return difference / 2
