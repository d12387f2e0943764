"""Backward warping and integration of velocity fields, in voxels, array-axis order, aligned corners."""

import torch
from torch.nn import functional


def identity_grid(size: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """(1, 3, K, J, I) voxel coordinates; component c is the coordinate along array axis c."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in size]
    return torch.stack(torch.meshgrid(axes, indexing="ij"))[None]


def warp(moving: torch.Tensor, displacement_vox: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Sample `moving` (B, C, K, J, I) at identity + displacement (B, 3, K, J, I); zero outside."""
    size = displacement_vox.shape[2:]
    points = identity_grid((size[0], size[1], size[2]), displacement_vox.device) + displacement_vox
    extent = torch.tensor([n - 1 for n in moving.shape[2:]], dtype=torch.float32, device=points.device)
    normalised = 2 * points / extent.view(1, 3, 1, 1, 1) - 1
    # grid_sample wants the fastest axis first.
    locations = normalised.flip(1).permute(0, 2, 3, 4, 1)
    return functional.grid_sample(moving, locations, mode=mode, padding_mode="zeros", align_corners=True)


def _compose_with_self(displacement_vox: torch.Tensor) -> torch.Tensor:
    """u ← u + u∘(id + u); the field continues with its edge value outside, so that edges do not tear."""
    size = displacement_vox.shape[2:]
    points = identity_grid((size[0], size[1], size[2]), displacement_vox.device) + displacement_vox
    extent = torch.tensor([n - 1 for n in size], dtype=torch.float32, device=points.device)
    locations = (2 * points / extent.view(1, 3, 1, 1, 1) - 1).flip(1).permute(0, 2, 3, 4, 1)
    return displacement_vox + functional.grid_sample(
        displacement_vox, locations, mode="bilinear", padding_mode="border", align_corners=True
    )


def integrate(velocity_vox: torch.Tensor, steps: int) -> torch.Tensor:
    """Displacement of a stationary velocity field by scaling and squaring with `steps` squarings."""
    displacement = velocity_vox / 2**steps
    for _ in range(steps):
        displacement = _compose_with_self(displacement)
    return displacement


def integrate_at_half_resolution(velocity_vox: torch.Tensor, steps: int) -> torch.Tensor:
    """Integrate on a grid of half the size, as the official code does; in and out at full resolution."""
    full = [velocity_vox.shape[2], velocity_vox.shape[3], velocity_vox.shape[4]]
    half = [n // 2 for n in full]
    coarse = 0.5 * functional.interpolate(velocity_vox, size=half, mode="trilinear", align_corners=True)
    fine = functional.interpolate(integrate(coarse, steps), size=full, mode="trilinear", align_corners=True)
    return 2 * fine
