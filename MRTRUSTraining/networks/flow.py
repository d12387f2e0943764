"""What registration networks share: the plain convolution block, the decoder and the head of small flow."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .options import at_least, one_of
from .warp import integrate_at_half_resolution


class ConvBlock(nn.Module):
    """A 3-D convolution that keeps the size, instance norm where asked for, and a LeakyReLU of the slope."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        slope: float = 0.01,
        *,
        normalised: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(in_channels, channels, kernel, padding=kernel // 2)
        self.norm = nn.InstanceNorm3d(channels, affine=True) if normalised else nn.Identity()
        self.slope = slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(self.norm(self.convolution(x)), self.slope)


def flow_head(in_channels: int) -> nn.Conv3d:
    """A linear convolution to three maps that starts near zero, N(0, 1e-5) without bias (VoxelMorph)."""
    head = nn.Conv3d(in_channels, 3, 3, padding=1)
    nn.init.normal_(head.weight, std=1e-5)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return head


def is_kept(initialisation: str) -> bool:
    """Whether weights begin so that the signal keeps its size ("kept") or as torch has them ("default").

    With torch's, what differs between two pairs has shrunk at the bottleneck to 0.004 in VoxelMorph and to
    0.0001 with attention, for nothing normalises: training begins with a network that hardly sees its input.
    """
    return one_of(("default", "kept"), initialisation=initialisation) == "kept"


class FlowNetwork(nn.Module):
    """Base of the VoxelMorph-like networks: concatenating decoder, flow head and integration.

    The decoder is 4 × [convolution (32) → nearest ×2 → concatenation of a skip], then full-resolution
    convolutions of 32, 16 and 16 channels and the head (method reference, section 1.5).
    `integration_steps` > 0 reads the head's output as a stationary velocity field and integrates it at half
    resolution by scaling and squaring; 0 takes it as the displacement. With `half_resolution` the decoder
    ends there too, with the same layers: those of the full resolution take most of a step's time, and what
    they add is smoothed away by the integration.
    """

    def __init__(self, integration_steps: int, *, half_resolution: bool = False) -> None:
        super().__init__()
        self.integration_steps = at_least(0, integration_steps=integration_steps)
        if not isinstance(half_resolution, bool):
            raise ValueError(f"half_resolution must be true or false, not {half_resolution!r}")
        self.half_resolution = half_resolution

    def add_decoder(
        self, skip_widths: Sequence[int], *, slope: float = 0.01, normalised: bool = False
    ) -> None:
        """Make the layers that `decode` uses; `skip_widths` are the channels of its skips, finest first."""
        skips = skip_widths[::-1]
        inputs = (32, *(32 + n for n in skips[:-1]))
        self.decoder = nn.ModuleList(ConvBlock(n, 32, slope=slope, normalised=normalised) for n in inputs)
        self.final = nn.Sequential(
            ConvBlock(32 + skips[-1], 32, slope=slope, normalised=normalised),
            ConvBlock(32, 16, slope=slope, normalised=normalised),
            ConvBlock(16, 16, slope=slope, normalised=normalised),
        )
        self.flow = flow_head(16)

    def keep_signal(self) -> None:
        """Weights that leave the features of every layer as large as they were (He et al. 2015)."""
        slopes = {block.convolution: block.slope for block in self.modules() if isinstance(block, ConvBlock)}
        for module in self.modules():
            if isinstance(module, nn.Conv3d) and module is not self.flow:
                nn.init.kaiming_normal_(module.weight, a=slopes.get(module, 0.01))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def decode(self, x: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        """From the deepest features (B, 32, …) and the skips, finest first, to the flow (B, 3, K, J, I)."""
        for index, block in enumerate(self.decoder):
            skip = skips[len(skips) - 1 - index]
            x = block(x)
            if self.half_resolution and index == len(skips) - 1:
                skip = functional.avg_pool3d(skip, 2)
            else:
                x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = torch.cat([x, skip], dim=1)
        flow = self.flow(self.final(x))
        if not self.half_resolution:
            return flow
        size = [skips[0].shape[2], skips[0].shape[3], skips[0].shape[4]]
        return functional.interpolate(flow.float(), size=size, mode="trilinear", align_corners=True)

    def displacement(self, velocity: torch.Tensor) -> torch.Tensor:
        """The displacement (B, 3, K, J, I) in voxels that the head's output stands for."""
        # Mixed precision ends here: displacements need all their digits.
        velocity = velocity.float()
        if self.integration_steps == 0:
            return velocity
        return integrate_at_half_resolution(velocity, self.integration_steps)
