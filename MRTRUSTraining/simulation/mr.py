"""The MR side: T2-weighted contrast, texture, bias field, thick slices and Rician noise."""

from __future__ import annotations

import math

import torch

from .anatomy import Anatomy, paint
from .noise import Texture, blur_axis, generator, smooth_trend
from .parameters import MrParameters


def signal(t2_ms: float, proton_density: float, echo_time_ms: float) -> float:
    """Spin-echo signal with full recovery: proton density × exp(−TE/T2)."""
    return proton_density * math.exp(-echo_time_ms / t2_ms)


def _table(parameters: MrParameters) -> dict[str, tuple[float, float, float]]:
    """Tissue to (signal, fine texture, coarse texture)."""
    table = {}
    for tissue, (t2_ms, density, fine, coarse) in parameters.tissues.items():
        level = signal(t2_ms, density, parameters.echo_time_ms)
        if parameters.random_contrast:
            level = parameters.random_signals[tissue]
        table[tissue] = (level, fine, coarse)
    return table


def render_mr(
    anatomy: Anatomy, points_mm: torch.Tensor, parameters: MrParameters, spacing_mm: float
) -> torch.Tensor:
    """(k, j, i) image, 0 to 255, from the (k, j, i, 3) gland-frame positions of the voxels."""
    device, shape = points_mm.device, points_mm.shape[:3]
    flat = points_mm.reshape(-1, 3)
    values, _ = paint(anatomy, flat, _table(parameters), rectum=True)
    fine = Texture(parameters.seed, 2.5, device)(flat)
    coarse = Texture(parameters.seed + 1, 7.0, device)(flat)
    level = values[:, 0] * torch.exp(values[:, 1] * fine + values[:, 2] * coarse)
    volume = _in_plane(level.reshape(shape), parameters, spacing_mm)
    sigma = parameters.bias_scale_mm / spacing_mm
    bias = smooth_trend(tuple(shape), sigma, parameters.seed + 2, device)
    volume = volume * torch.exp(parameters.bias_log_sd * bias)
    return _windowed(_through_slices(volume, parameters, spacing_mm), parameters)


def _in_plane(volume: torch.Tensor, parameters: MrParameters, spacing_mm: float) -> torch.Tensor:
    sigma = parameters.in_plane_mm / 2.355 / spacing_mm
    return blur_axis(blur_axis(volume, 2, sigma), 1, sigma)


def _through_slices(volume: torch.Tensor, parameters: MrParameters, spacing_mm: float) -> torch.Tensor:
    """Acquire thick slices along k with Rician noise, then interpolate them back to the grid.

    Voxels beyond the slab stay zero, as in a resampled acquisition.
    """
    count = volume.shape[0]
    place = (torch.arange(count, device=volume.device) - (count - 1) / 2) * spacing_mm
    slices = max(2, round(parameters.coverage_mm / parameters.slice_spacing_mm))
    centre = torch.arange(slices, device=volume.device) - (slices - 1) / 2
    centre = centre * parameters.slice_spacing_mm
    # A box as wide as the slice with soft edges, as a real excitation profile has.
    half = parameters.slice_thickness_mm / 2
    profile = torch.sigmoid((half - (place - centre[:, None]).abs()) / 0.35)
    profile = profile / profile.sum(dim=1, keepdim=True)
    native = torch.einsum("sk,kji->sji", profile, volume)
    scale = float(volume[volume > 0].median())
    native = _rician(native, scale / parameters.snr, parameters.seed + 3)
    weight = (1 - (place[:, None] - centre).abs() / parameters.slice_spacing_mm).clamp_min(0)
    inside = weight.sum(dim=1, keepdim=True)
    weight = torch.where(inside > 0.5, weight / inside.clamp_min(0.5), torch.zeros_like(weight))
    return torch.einsum("ks,sji->kji", weight, native)


def _rician(volume: torch.Tensor, sigma: float, seed: int) -> torch.Tensor:
    noise = sigma * torch.randn((2, *volume.shape), generator=generator(seed)).to(volume.device)
    return torch.hypot(volume + noise[0], noise[1])


def _windowed(volume: torch.Tensor, parameters: MrParameters) -> torch.Tensor:
    """Scaled so that the brightest two hundredths saturate, with gamma."""
    covered = volume[volume > 0]
    step = max(1, covered.numel() // 100_000)
    top = torch.quantile(covered[::step], 0.98)
    return (volume / top).clamp(0, 1) ** parameters.gamma * 255
