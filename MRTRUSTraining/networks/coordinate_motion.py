"""The rigid motion that coordinates in the gland, seen in both images, agree on."""

import torch

from .warp import identity_grid


def voxel_places(like: torch.Tensor) -> torch.Tensor:
    """(3, K, J, I): the place of each voxel of a volume (…, K, J, I), in voxels from its middle."""
    places = identity_grid((like.shape[2], like.shape[3], like.shape[4]), like.device)[0]
    return places - places[:, -1:, -1:, -1:] / 2


def quadratic(coordinates: torch.Tensor) -> torch.Tensor:
    """(B, 10, N): the monomials of (B, 3, N) coordinates up to the second degree."""
    z, y, x = coordinates[:, :1], coordinates[:, 1:2], coordinates[:, 2:]
    return torch.cat([torch.ones_like(x), coordinates, z * z, y * y, x * x, z * y, z * x, y * x], dim=1)


def coordinate_motion(moving: torch.Tensor, fixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotation (B, 3, 3) and shift (B, 3, 1) of fixed voxels to moving ones, about the volume's middle.

    The last four channels of both inputs (B, C, K, J, I) are the gland (0…1) and its coordinates
    (`structures.SeenStructures`). Over the moving gland the voxels' places are fitted as quadratic functions
    of the coordinates; by them each voxel of the fixed gland gets its place in the moving volume, and the
    rigid map nearest to these pairs (Kabsch 1976) is returned, in double precision. Where either gland is
    empty that is the identity.
    """
    # In mixed precision only double precision is left as it is.
    places = voxel_places(moving).flatten(1).double()
    moving_gland, fixed_gland = moving[:, -4:-3].flatten(2).double(), fixed[:, -4:-3].flatten(2).double()
    terms = quadratic(moving[:, -3:].flatten(2).double())
    weighted = (terms * moving_gland).transpose(1, 2)
    # A little of the unit matrix, so that coordinates without spread, as of blank images, do no harm.
    least = 1e-6 * (1.0 + moving_gland.sum(2, keepdim=True)) * torch.eye(10, device=moving.device).double()
    fit = torch.linalg.solve(terms @ weighted + least, weighted.transpose(1, 2) @ places.t())
    reached = fit.transpose(1, 2) @ quadratic(fixed[:, -3:].flatten(2).double().clamp(-1.5, 1.5))
    rotation, shift = nearest_rigid(places, reached, fixed_gland)
    # Nothing is fitted to an empty moving gland, and its middle for every voxel is no place to shift them to.
    return rotation, shift * (moving_gland.amax(2, keepdim=True) > 0)


def nearest_rigid(
    places: torch.Tensor, reached: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotation (B, 3, 3) and shift (B, 3, 1) from places (3, N) nearest to (B, 3, N) by weights (B, 1, N)."""
    total = weight.sum(2, keepdim=True).clamp(min=1e-6)
    middle, goal = (
        (places * weight).sum(2, keepdim=True) / total,
        (reached * weight).sum(2, keepdim=True) / total,
    )
    spread = ((reached - goal) * weight) @ (places - middle).transpose(1, 2)
    left, _, right = torch.linalg.svd(spread + 1e-6 * torch.eye(3, device=places.device).double())
    ends = torch.ones_like(goal)
    # No mirror image: the least certain axis is turned round where it would be one.
    ends[:, 2, 0] = torch.sign(torch.linalg.det(left @ right))
    rotation = (left * ends.transpose(1, 2)) @ right
    return rotation, goal - rotation @ middle
