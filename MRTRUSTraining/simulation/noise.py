"""Random fields that are functions of position: the same point gets the same value on every grid."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional


def generator(seed: int) -> torch.Generator:
    """A CPU generator; random numbers are drawn on the CPU so that every device gets the same."""
    return torch.Generator().manual_seed(seed)


def blur_axis(
    volume: torch.Tensor, axis: int, sigma_vox: float, *, circular: bool = False, normalised: bool = True
) -> torch.Tensor:
    """Gaussian blur of a (D, H, W) tensor along one axis.

    The kernel sums to one, or has unit energy when not `normalised`: that keeps white noise's variance.
    """
    if sigma_vox < 0.05:
        return volume
    radius = max(1, int(3.5 * sigma_vox + 0.5))
    offsets = torch.arange(-radius, radius + 1, device=volume.device, dtype=volume.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma_vox) ** 2)
    kernel = kernel / (kernel.sum() if normalised else kernel.square().sum().sqrt())
    moved = volume.movedim(axis, -1)
    flat = moved.reshape(-1, 1, moved.shape[-1])
    mode = "circular" if circular else "replicate"
    padded = functional.pad(flat, (radius, radius), mode=mode)
    blurred = functional.conv1d(padded, kernel[None, None])
    return blurred.reshape(moved.shape).movedim(-1, axis)


def smooth_noise(
    shape: tuple[int, ...], sigma_vox: float, seed: int, device: torch.device, *, circular: bool = False
) -> torch.Tensor:
    """Gaussian random field of the given (D, H, W) shape, blurred and scaled to unit standard deviation.

    The blur reaches no further than a fourth of a periodic volume, an eighth of another; for smoother fields
    there is `smooth_trend`.
    """
    field = torch.randn(shape, generator=generator(seed)).to(device)
    for axis in range(3):
        reach = min(sigma_vox, shape[axis] / (4 if circular else 8))
        field = blur_axis(field, axis, reach, circular=circular)
    return _standardised(field)


def smooth_trend(shape: tuple[int, ...], sigma_vox: float, seed: int, device: torch.device) -> torch.Tensor:
    """As `smooth_noise`, however smooth: drawn on a lattice that reaches beyond the volume."""
    # Nodes a third of the blur apart, so that linear interpolation between them is smooth.
    nodes = [max(2, math.ceil(3 * (n - 1) / sigma_vox) + 1) for n in shape]
    # An axis of one voxel has nothing to vary along.
    sigmas = [sigma_vox * (count - 1) / max(n - 1, 1) for n, count in zip(shape, nodes, strict=True)]
    margins = [math.ceil(3.5 * sigma) for sigma in sigmas]
    size = [count + 2 * margin for count, margin in zip(nodes, margins, strict=True)]
    field = torch.randn(size, generator=generator(seed)).to(device)
    for axis, sigma in enumerate(sigmas):
        field = blur_axis(field, axis, sigma)
        field = field.narrow(axis, margins[axis], nodes[axis])
    fine = functional.interpolate(field[None, None], size=shape, mode="trilinear", align_corners=True)
    return _standardised(fine[0, 0])


def _standardised(field: torch.Tensor) -> torch.Tensor:
    return (field - field.mean()) / field.std()


def trilinear(volume: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Sample a (C, D, H, W) tensor at (N, 3) voxel indices (w, h, d): (N, C); beyond the edge, its value."""
    size = torch.tensor(volume.shape[:0:-1], device=index.device, dtype=index.dtype)
    unit = 2 * index / (size - 1) - 1
    sampled = functional.grid_sample(
        volume[None], unit[None, :, None, None], align_corners=True, padding_mode="border"
    )
    return sampled[0, :, :, 0, 0].T


class Texture:
    """A periodic smooth random field: unit standard deviation, correlated over about `scale_mm`."""

    def __init__(self, seed: int, scale_mm: float, device: torch.device, nodes: int = 48) -> None:
        self._spacing_mm = scale_mm / 1.5
        self._nodes = nodes
        field = smooth_noise((nodes,) * 3, 1.0, seed, device, circular=True)
        self._lattice = functional.pad(field[None, None], (0, 1) * 3, mode="circular")[0]

    def __call__(self, points_mm: torch.Tensor) -> torch.Tensor:
        """(N,) values at (N, 3) points."""
        index = torch.remainder(points_mm / self._spacing_mm, self._nodes)
        return trilinear(self._lattice, index)[:, 0]
