"""The deformable registration network with cross-modal spatial attention (paper A, section 2.2)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .coordinate_motion import coordinate_motion, voxel_places
from .flow import ConvBlock, FlowNetwork, is_kept
from .options import at_least, one_of
from .warp import warp


class CrossModalSpatialAttention(nn.Module):
    """Equation 1: weights the features of one modality by where both modalities agree to look.

    `own` and `other` are (B, C, K, J, I); returns `own` times an attention map (B, 1, K, J, I) in 0…1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.from_other = nn.Conv3d(channels, channels // 2, 1)
        self.from_own = nn.Conv3d(channels, channels // 2, 1)
        self.to_map = nn.Conv3d(channels // 2, 1, 1)

    def forward(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.from_other(other) + self.from_own(own))
        return torch.sigmoid(self.to_map(hidden)) * own


class NoAttention(nn.Module):
    """Stands in for the attention in the ablation without it; has no parameters."""

    def forward(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return own


class EncoderLevel(nn.Module):
    """One level of both streams: convolution, cross-modal attention, and the fused skip."""

    def __init__(self, in_channels: int, channels: int, attention: bool, *, normalised: bool = False) -> None:
        super().__init__()
        self.moving_block = ConvBlock(in_channels, channels, normalised=normalised)
        self.fixed_block = ConvBlock(in_channels, channels, normalised=normalised)
        self.moving_attention = CrossModalSpatialAttention(channels) if attention else NoAttention()
        self.fixed_attention = CrossModalSpatialAttention(channels) if attention else NoAttention()
        self.fusion = ConvBlock(2 * channels, channels, kernel=1, normalised=normalised)

    def forward(
        self, moving: torch.Tensor, fixed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        moving, fixed = self.moving_block(moving), self.fixed_block(fixed)
        # Both streams read the other's features as they were before attention.
        moving, fixed = self.moving_attention(moving, fixed), self.fixed_attention(fixed, moving)
        return moving, fixed, self.fusion(torch.cat([moving, fixed], dim=1))


class AffineMotion(nn.Module):
    """The motion of the whole gland, read from where learnt features lie in either volume.

    From the features (B, C, K, J, I) of each level, one stream a modality, come maps whose centres of mass
    are the features' places (spatial soft-argmax, Levine et al. 2016); a perceptron turns all places into an
    affine velocity (B, 3, K, J, I) in voxels about the middle of the volume. Convolutions alone find a
    rotation hard: what they add at a voxel depends on what is near, not on where it is. It begins at rest.
    """

    def __init__(self, channels: Sequence[int], points: int = 24, hidden: int = 96) -> None:
        super().__init__()
        self.moving_maps = nn.ModuleList(nn.Conv3d(n, points, 1) for n in channels)
        self.fixed_maps = nn.ModuleList(nn.Conv3d(n, points, 1) for n in channels)
        for maps in (*self.moving_maps, *self.fixed_maps):
            # Wide enough for maps with a peak: even ones all have their centre in the middle.
            nn.init.normal_(maps.weight, std=0.7)
        self.hidden = nn.Linear(6 * points * len(channels), hidden)
        self.parameters_of = nn.Linear(hidden, 12)
        nn.init.zeros_(self.parameters_of.weight)
        nn.init.zeros_(self.parameters_of.bias)

    def forward(
        self, moving: list[torch.Tensor], fixed: list[torch.Tensor], like: torch.Tensor
    ) -> torch.Tensor:
        places: list[torch.Tensor] = []
        for level, maps in enumerate(self.moving_maps):
            places.append(centres(maps(moving[level])))
        for level, maps in enumerate(self.fixed_maps):
            places.append(centres(maps(fixed[level])))
        hidden = functional.leaky_relu(self.hidden(torch.cat(places, dim=1).flatten(1)), 0.01)
        parameters = self.parameters_of(hidden).float()
        # In units in which all parameters of usual motions are of one order.
        matrix, shift = 0.1 * parameters[:, :9].view(-1, 3, 3), parameters[:, 9:]
        places_vox = voxel_places(like).flatten(1)
        velocity = matrix @ places_vox + shift[:, :, None]
        return velocity.view(-1, 3, like.shape[2], like.shape[3], like.shape[4])


def centres(maps: torch.Tensor) -> torch.Tensor:
    """(B, P, 3): centres of mass of the softmax over the voxels of (B, P, K, J, I), −1…1 along each axis."""
    weights = torch.softmax(maps.float().flatten(2), dim=2)
    size = torch.tensor([maps.shape[2], maps.shape[3], maps.shape[4]], device=maps.device).view(3, 1) / 2
    return weights @ (voxel_places(maps).flatten(1) / size).transpose(0, 1)


class CMSANet(FlowNetwork):
    """Dual-stream encoder, four levels of attention, fused skips, concatenating decoder, flow head.

    Inputs are the moving (rigidly aligned MR) and fixed (TRUS) regions of interest, (B, 1, K, J, I), zero
    outside the gland. Returns the displacement (B, 3, K, J, I) in voxels of the fixed grid, array-axis
    order, from fixed to moving: `moving(x + u(x))` lies on the fixed image. Sizes must be divisible by 16.
    With attention it has 412,411 parameters, without 405,411.

    `integration_steps` > 0 reads the network's output as a stationary velocity field and integrates it at
    half resolution by scaling and squaring; 0 takes it as the displacement, as the paper's text says.

    `initialisation` is that of `flow.is_kept`. The published network has no norm (`normalisation` "none");
    with "instance", an instance norm after every convolution but the head, it learns to see how a gland is
    turned, and has 1,120 parameters more. `channels` are those of each region: the image, and what is known
    of the structures inside it; each beyond the first has 864 parameters. With `affine` an `AffineMotion`
    that reads the second and the third level is added to the velocity. With `coordinates` the last four
    channels are the gland and its coordinates; the moving volume is first moved rigidly as they say
    (`coordinate_motion`), and the displacement is that of both. `half_resolution` is that of `FlowNetwork`.
    """

    widths = (16, 32, 32, 32)

    def __init__(
        self,
        *,
        attention: bool = True,
        integration_steps: int = 7,
        initialisation: str = "default",
        normalisation: str = "none",
        channels: int = 1,
        affine: bool = False,
        coordinates: bool = False,
        half_resolution: bool = False,
    ) -> None:
        super().__init__(integration_steps, half_resolution=half_resolution)
        normalised = one_of(("none", "instance"), normalisation=normalisation) == "instance"
        if not isinstance(attention, bool):
            raise ValueError(f"attention must be true or false, not {attention!r}")
        if not isinstance(affine, bool):
            raise ValueError(f"affine must be true or false, not {affine!r}")
        if not isinstance(coordinates, bool):
            raise ValueError(f"coordinates must be true or false, not {coordinates!r}")
        self.coordinates = coordinates
        inputs = (at_least(5 if coordinates else 1, channels=channels), *self.widths[:-1])
        self.encoder = nn.ModuleList(
            EncoderLevel(n_in, n, attention, normalised=normalised)
            for n_in, n in zip(inputs, self.widths, strict=True)
        )
        self.bottleneck = ConvBlock(2 * self.widths[-1], 32, kernel=1, normalised=normalised)
        self.add_decoder(self.widths, normalised=normalised)
        self.affine = AffineMotion(self.widths[1:3]) if affine else None
        if is_kept(initialisation):
            self._keep_signal(2.0 if attention else 1.0)

    def _keep_signal(self, gain_after_attention: float) -> None:
        """As the base; an attention map starts near one half, which the convolutions after it make up for."""
        self.keep_signal()
        for name, module in self.named_modules():
            deeper_block = "_block" in name and not name.startswith("encoder.0.")
            follows = deeper_block or "fusion" in name or "bottleneck" in name
            if follows and isinstance(module, nn.Conv3d):
                with torch.no_grad():
                    module.weight.mul_(gain_after_attention)

    def velocity(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        both: list[list[torch.Tensor]] = [[], []]
        for level in self.encoder:
            moving, fixed, skip = level(moving, fixed)
            skips.append(skip)
            both[0].append(moving)
            both[1].append(fixed)
            moving, fixed = functional.max_pool3d(moving, 2), functional.max_pool3d(fixed, 2)
        velocity = self.decode(self.bottleneck(torch.cat([moving, fixed], dim=1)), skips)
        if self.affine is None:
            return velocity
        return velocity.float() + self.affine(both[0][1:3], both[1][1:3], velocity)

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        if not self.coordinates:
            return self.displacement(self.velocity(moving, fixed))
        rotation, shift = coordinate_motion(moving, fixed)
        places = voxel_places(fixed)[None]
        moved = warp(moving, moved_rigidly(places, rotation, shift) - places)
        rest = self.displacement(self.velocity(within_gland(moved), within_gland(fixed)))
        return moved_rigidly(places + rest, rotation, shift) - places


def moved_rigidly(places: torch.Tensor, rotation: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Rotation (B, 3, 3) and shift (B, 3, 1) of places (B, 3, K, J, I) as float32."""
    moved = rotation @ places.flatten(2).double() + shift
    return moved.float().view(-1, 3, places.shape[2], places.shape[3], places.shape[4])


def within_gland(volume: torch.Tensor) -> torch.Tensor:
    """(B, C, K, J, I) whose last three channels, coordinates, are zero outside the gland, the one before."""
    return torch.cat([volume[:, :-3], volume[:, -3:] * volume[:, -4:-3]], dim=1)


class MirrorAveraged(nn.Module):
    """What is exported: a registration network averaged over a pair and its mirror image.

    The mirror is along the last axis (left–right in LPS order); the mirrored field is mirrored back, which
    changes the sign of its component along that axis. With `coordinates` the last channel of the inputs is
    such a component too.
    """

    def __init__(self, network: nn.Module, *, coordinates: bool = False) -> None:
        super().__init__()
        self.network = network
        self.coordinates = coordinates

    def mirror_image(self, volume: torch.Tensor) -> torch.Tensor:
        mirrored = volume.flip([4])
        if not self.coordinates:
            return mirrored
        return torch.cat([mirrored[:, :-1], -mirrored[:, -1:]], dim=1)

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        straight = self.network(moving, fixed)
        mirrored = self.network(self.mirror_image(moving), self.mirror_image(fixed)).flip([4])
        sign = torch.ones(1, 3, 1, 1, 1, dtype=mirrored.dtype, device=mirrored.device)
        sign[:, 2] = -1.0
        return (straight + mirrored * sign) / 2
