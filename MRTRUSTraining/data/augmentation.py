"""Random spatial and intensity changes; sampling is apart from applying.

Tensors are (B, C, K, J, I); points and displacements are in voxels, array-axis order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ..losses import gaussian_smooth


@dataclass(frozen=True)
class SpatialRange:
    """How far a random affine and elastic change may go (standard deviations)."""

    rotation_deg: float = 8.0
    log_scale: float = 0.08
    shear: float = 0.0
    translation_vox: float = 4.0
    elastic_vox: float = 1.5
    elastic_nodes: int = 5


@dataclass(frozen=True)
class IntensityRange:
    """How far intensities may change; probabilities are per change."""

    probability: float = 0.5
    log_gamma: float = 0.3
    bias: float = 0.25
    noise: float = 0.04
    blur_vox: tuple[float, float] = (0.3, 1.8)


def random_affine(rng: np.random.Generator, spread: SpatialRange) -> tuple[np.ndarray, np.ndarray]:
    """A random (3, 3) matrix and (3,) translation in voxels, about the middle of a volume."""
    angles = np.deg2rad(rng.normal(0, spread.rotation_deg, 3))
    matrix = np.diag(np.exp(rng.normal(0, spread.log_scale, 3)))
    matrix = matrix + spread.shear * rng.normal(0, 1, (3, 3)) * (1 - np.eye(3))
    for axis, angle in enumerate(angles):
        rotation = np.eye(3)
        u, v = [a for a in range(3) if a != axis]
        rotation[u, u] = rotation[v, v] = np.cos(angle)
        rotation[u, v], rotation[v, u] = -np.sin(angle), np.sin(angle)
        matrix = rotation @ matrix
    return matrix, rng.normal(0, spread.translation_vox, 3)


def affine_displacement(
    matrix: np.ndarray, translation_vox: np.ndarray, size: tuple[int, int, int]
) -> torch.Tensor:
    """(1, 3, K, J, I) displacement of x ↦ M(x − c) + c + t with c the middle of the volume."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in size]
    points = torch.stack(torch.meshgrid(axes, indexing="ij")).reshape(3, -1)
    change = torch.from_numpy((matrix - np.eye(3)).astype(np.float32)) @ points
    change = change + torch.from_numpy(translation_vox.astype(np.float32))[:, None]
    return change.reshape(1, 3, *size)


def elastic_displacement(
    rng: np.random.Generator, amplitude_vox: float, nodes: int, size: tuple[int, int, int]
) -> torch.Tensor:
    """(1, 3, K, J, I) smooth random displacement from normal values on a coarse lattice of nodes."""
    lattice = torch.from_numpy(rng.normal(0, amplitude_vox, (1, 3, nodes, nodes, nodes)).astype(np.float32))
    return functional.interpolate(lattice, size=list(size), mode="trilinear", align_corners=True)


def random_displacement(
    rng: np.random.Generator, spread: SpatialRange, size: tuple[int, int, int]
) -> torch.Tensor:
    matrix, translation = random_affine(rng, spread)
    displacement = affine_displacement(matrix, translation, size)
    if spread.elastic_vox > 0:
        displacement = displacement + elastic_displacement(
            rng, spread.elastic_vox, spread.elastic_nodes, size
        )
    return displacement


def random_fit(volume: torch.Tensor, size: tuple[int, int, int], rng: np.random.Generator) -> torch.Tensor:
    """Crop (B, C, K, J, I) at a random place where it is larger than a size, centre-pad where smaller."""
    pads: list[int] = []
    for have, want in zip(reversed(volume.shape[2:]), reversed(size), strict=True):
        before = (want - have) // 2 if want >= have else -int(rng.integers(have - want + 1))
        pads += [before, want - have - before]
    return functional.pad(volume, pads)


def random_intensity(image: torch.Tensor, rng: np.random.Generator, spread: IntensityRange) -> torch.Tensor:
    """Random blur, bias field, gamma and noise of an image in 0…1; zero stays zero."""
    outside = image <= 0
    if rng.random() < spread.probability:
        image = gaussian_smooth(image, float(rng.uniform(*spread.blur_vox)))
    if rng.random() < spread.probability:
        size = (image.shape[2], image.shape[3], image.shape[4])
        image = image * torch.exp(elastic_displacement(rng, spread.bias, 3, size)[:, :1])
    image = image.clamp(0, 1) ** float(np.exp(rng.normal(0, spread.log_gamma)))
    if rng.random() < spread.probability:
        noise = rng.normal(0, abs(rng.normal(0, spread.noise)), tuple(image.shape)).astype(np.float32)
        image = image + torch.from_numpy(noise)
    return image.clamp(0, 1).masked_fill(outside, 0.0)


def flip_left_right(volume: torch.Tensor) -> torch.Tensor:
    """Mirror along the last axis, which is left–right for arrays in LPS order."""
    return volume.flip(-1)


def flip_displacement(displacement_vox: torch.Tensor) -> torch.Tensor:
    """Mirror a field (B, 3, K, J, I) along the last axis: its places and its component along that axis."""
    sign = displacement_vox.new_tensor([1.0, 1.0, -1.0]).view(1, 3, 1, 1, 1)
    return displacement_vox.flip(-1) * sign
