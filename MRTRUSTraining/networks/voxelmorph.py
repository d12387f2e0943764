"""VoxelMorph (Balakrishnan et al. 2019), of the width of the network with cross-modal attention.

The difference to `CMSANet` is the encoder alone: one stream over the concatenated images, no attention.
"""

import torch
from torch import nn
from torch.nn import functional

from .flow import ConvBlock, FlowNetwork, is_kept

_WIDTHS = (16, 32, 32, 32)
# VoxelMorph's own slope; the network with attention has 0.01.
_SLOPE = 0.2


class SingleStream(FlowNetwork):
    """Encoder of one convolution and one max-pooling a level over all inputs together, and the decoder."""

    def __init__(self, in_channels: int, integration_steps: int, initialisation: str) -> None:
        super().__init__(integration_steps)
        inputs = (in_channels, *_WIDTHS[:-1])
        self.encoder = nn.ModuleList(
            ConvBlock(n_in, n, slope=_SLOPE) for n_in, n in zip(inputs, _WIDTHS, strict=True)
        )
        self.add_decoder(_WIDTHS, slope=_SLOPE)
        if is_kept(initialisation):
            self.keep_signal()

    def velocity(self, x: torch.Tensor) -> torch.Tensor:
        """Concatenated inputs (B, C, K, J, I) to the head's output (B, 3, K, J, I)."""
        skips: list[torch.Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = functional.max_pool3d(x, 2)
        return self.decode(x, skips)


class VoxelMorph(SingleStream):
    """Moving and fixed image (B, 1, K, J, I) to the displacement (B, 3, K, J, I) in voxels, as `CMSANet`.

    Encoder 16-32-32-32, 327,331 parameters. Sizes must be divisible by 16. Options as there.
    """

    def __init__(self, *, integration_steps: int = 7, initialisation: str = "default") -> None:
        super().__init__(2, integration_steps, initialisation)

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        return self.displacement(self.velocity(torch.cat([moving, fixed], dim=1)))
