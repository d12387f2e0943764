"""From the TRUS anatomical frame to the undeformed gland: rotation, probe dent and smooth residual.

A TRUS point p corresponds to the gland-frame point R (p + d(p)). `d` is a diffeomorphism's displacement,
sampled on a grid and interpolated linearly, exactly as ITK's displacement field transform evaluates it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from .noise import smooth_noise, trilinear
from .parameters import DeformationParameters

_SQUARINGS = 6
_MARGIN_MM = 20.0


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums are rounded by how threads share them, so that bits would depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class FieldGrid:
    """The displacement field's grid: size and first point in index order x, y, z of the TRUS frame, in mm."""

    size_vox: tuple[int, int, int]
    start_mm: tuple[float, float, float]
    spacing_mm: float

    @classmethod
    def around(
        cls, centre_mm: tuple[float, float, float], extent_mm: tuple[float, float, float], spacing_mm: float
    ) -> FieldGrid:
        """A grid that covers a box with a margin on all sides; extents are along x, y, z."""
        size = [int(np.ceil((extent + 2 * _MARGIN_MM) / spacing_mm)) + 1 for extent in extent_mm]
        start = [c - (n - 1) / 2 * spacing_mm for c, n in zip(centre_mm, size, strict=True)]
        return cls((size[0], size[1], size[2]), (start[0], start[1], start[2]), spacing_mm)

    def points_mm(self, device: torch.device) -> torch.Tensor:
        """(z, y, x, 3) positions of the nodes."""
        axes = [
            start + self.spacing_mm * torch.arange(n, device=device, dtype=torch.float32)
            for start, n in zip(self.start_mm, self.size_vox, strict=True)
        ]
        z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
        return torch.stack([x, y, z], dim=-1)

    def index(self, points_mm: torch.Tensor) -> torch.Tensor:
        """(N, 3) node indices (x, y, z), not rounded."""
        return (points_mm - points_mm.new_tensor(self.start_mm)) / self.spacing_mm


def rotation_matrix(rotation_deg: tuple[float, float, float]) -> np.ndarray:
    """3×3 rotation about x, then y, then z (ITK's Euler3DTransform with ComputeZYX off is Rz Rx Ry)."""
    ax, ay, az = np.deg2rad(rotation_deg)
    rx = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
    ry = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
    rz = np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
    return rz @ rx @ ry


def dent_velocity(points_mm: torch.Tensor, parameters: DeformationParameters) -> torch.Tensor:
    """(..., 3) velocity whose flow undoes the probe's dent; free of divergence, so volume is conserved.

    In every plane across the probe it is the curl of the stream function h(x) g(y), with
    h = x exp(-x²/2w²), which presses in the middle and lets tissue bulge beside it, and g Gaussian in depth.
    """
    x, y, z = points_mm.unbind(-1)
    width, decay = parameters.dent_width_mm, parameters.dent_decay_mm
    depth = (y - parameters.dent_position_mm) / decay
    bell = torch.exp(-0.5 * (x / width) ** 2)
    reach = torch.exp(-0.5 * depth**2)
    amount = parameters.dent_mm * (1 + parameters.dent_slope * z / 30).clamp(0, 2)
    along_y = amount * (1 - (x / width) ** 2) * bell * reach
    along_x = amount * x * bell * reach * depth / decay
    return torch.stack([along_x, along_y, torch.zeros_like(x)], dim=-1)


def residual_velocity(
    grid: FieldGrid, parameters: DeformationParameters, device: torch.device
) -> torch.Tensor:
    """(z, y, x, 3) smooth random velocity: the curl of random potentials plus a share that compresses."""
    shape = grid.size_vox[::-1]
    total = torch.zeros((*shape, 3), device=device)
    for level, (amount_mm, scale_mm) in enumerate(
        zip(parameters.residual_mm, parameters.residual_scales_mm, strict=True)
    ):
        sigma = scale_mm / 2 / grid.spacing_mm
        seeds = [parameters.seed + 10 * level + number for number in range(6)]
        # Periodic noise varies as much in the middle, where the gland is, as at the edges.
        noise = [smooth_noise(shape, sigma, seed, device, circular=True) for seed in seeds]
        potential, free = torch.stack(noise[:3], dim=-1), torch.stack(noise[3:], dim=-1)
        swirl = _curl(potential)
        swirl = swirl / swirl.std()
        total += amount_mm * ((1 - parameters.compressibility) * swirl + parameters.compressibility * free)
    return total


def _curl(potential: torch.Tensor) -> torch.Tensor:
    """Curl of a (z, y, x, 3) field in voxel units."""
    # gradients[axis] holds the derivatives of all components along x, y, z.
    gradients = torch.gradient(potential, dim=(2, 1, 0))
    return torch.stack(
        [
            gradients[1][..., 2] - gradients[2][..., 1],
            gradients[2][..., 0] - gradients[0][..., 2],
            gradients[0][..., 1] - gradients[1][..., 0],
        ],
        dim=-1,
    )


def _fade(grid: FieldGrid, device: torch.device) -> torch.Tensor:
    """(z, y, x, 1) weight: one inside the box, zero on the rim of the grid."""
    weight = torch.ones((), device=device)
    for axis, n in enumerate(grid.size_vox[::-1]):
        place = torch.arange(n, device=device, dtype=torch.float32)
        rim = torch.minimum(place, n - 1 - place) * grid.spacing_mm / _MARGIN_MM
        ramp = torch.sin(rim.clamp(0, 1) * torch.pi / 2) ** 2
        weight = weight * ramp.reshape([-1 if each == axis else 1 for each in range(3)])
    return weight[..., None]


def displacement_field(
    grid: FieldGrid, parameters: DeformationParameters, device: torch.device
) -> torch.Tensor:
    """(z, y, x, 3) displacement d in mm on the grid, zero on its rim: the exponential of the velocity."""
    points = grid.points_mm(device)
    velocity = dent_velocity(points, parameters) + residual_velocity(grid, parameters, device)
    velocity = velocity * (parameters.strength * _fade(grid, device))
    field = velocity / 2**_SQUARINGS
    for _ in range(_SQUARINGS):
        moved = (points + field).reshape(-1, 3)
        field = field + sample_field(field, grid, moved).reshape(field.shape)
    return field


def sample_field(field: torch.Tensor, grid: FieldGrid, points_mm: torch.Tensor) -> torch.Tensor:
    """(N, 3) displacement at (N, 3) points of the TRUS frame."""
    return trilinear(field.movedim(-1, 0).contiguous(), grid.index(points_mm))


@dataclass(frozen=True)
class Deformed:
    """The map from the TRUS anatomical frame to the gland frame."""

    grid: FieldGrid
    field: torch.Tensor
    rotation: torch.Tensor

    @classmethod
    def of(cls, grid: FieldGrid, parameters: DeformationParameters, device: torch.device) -> Deformed:
        rotation = torch.tensor(rotation_matrix(parameters.rotation_deg), dtype=torch.float32, device=device)
        return cls(grid, displacement_field(grid, parameters, device), rotation)

    def __call__(self, points_mm: torch.Tensor) -> torch.Tensor:
        """(N, 3) gland-frame points for (N, 3) points of the TRUS frame."""
        return (points_mm + sample_field(self.field, self.grid, points_mm)) @ self.rotation.T

    def jacobian(self) -> torch.Tensor:
        """(z, y, x) determinant of the map's Jacobian at the nodes, by central differences."""
        gradients = torch.gradient(self.field, spacing=self.grid.spacing_mm, dim=(2, 1, 0))
        matrix = torch.stack(gradients, dim=-1)
        return torch.linalg.det(matrix + torch.eye(3, device=matrix.device))
