"""The registration network of paper B, RERN (method reference, section 5.2).

Stated: a U-Net whose encoder layers are double convolutions with batch norm and ReLU, residual fusion and
max-pooling, and whose decoder layers are a transposed convolution, an additive skip and a residual block;
the output is a displacement field. Reconstructed: where the residual is added, the projection that it needs,
and that the images are concatenated. Unstated, our choice: four levels, the widths of paper A's V-Net, and a
head that starts near zero.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .blocks import Residual, conv_norm_relu
from .flow import flow_head
from .options import five_widths


class EncoderBlock(nn.Module):
    """E = H + P(X): double convolution H, and X projected by 1×1×1 where the channels differ."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            conv_norm_relu(in_channels, channels), conv_norm_relu(channels, channels)
        )
        same = in_channels == channels
        self.projection = nn.Identity() if same else nn.Conv3d(in_channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolutions(x) + self.projection(x)


class DecoderBlock(nn.Module):
    """Transposed convolution to twice the size, additive skip, residual block."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(in_channels, channels, 2, stride=2)
        self.residual = Residual(channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.residual(self.up(x) + skip)


class RERN(nn.Module):
    """Whole moving and fixed images (B, 1, K, J, I) to the displacement (B, 3, K, J, I), as `CMSANet`.

    No rigid stage comes before it and masks are for the loss alone. The field is the head's output itself,
    not an integrated velocity. `widths` are the channels of the four levels and the bottleneck; the default
    has 5,104,627 parameters. Sizes must be divisible by 16.
    """

    def __init__(self, *, widths: Sequence[int] = (16, 32, 64, 128, 256)) -> None:
        super().__init__()
        *levels, bottom = five_widths(widths)
        self.encoder = nn.ModuleList(
            EncoderBlock(n_in, n) for n_in, n in zip([2, *levels[:-1]], levels, strict=True)
        )
        self.bottleneck = EncoderBlock(levels[-1], bottom)
        deeper = [*levels[1:], bottom]
        self.decoder = nn.ModuleList(
            DecoderBlock(n_in, n) for n_in, n in zip(deeper[::-1], levels[::-1], strict=True)
        )
        self.flow = flow_head(levels[0])

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        x = torch.cat([moving, fixed], dim=1)
        skips: list[torch.Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
            x = functional.max_pool3d(x, 2)
        x = self.bottleneck(x)
        for index, block in enumerate(self.decoder):
            x = block(x, skips[len(skips) - 1 - index])
        return self.flow(x).float()
