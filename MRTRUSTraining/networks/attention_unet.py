"""The segmentation network of paper B (method reference, section 5.1), for volumes or for slices.

Stated: spatial attention after each encoder stage, channel attention on each decoder stage's input,
progressive upsampling, additive skips. Reconstructed: the attentions' forms, which are those of CBAM.
Unstated, our choice: two convolutions with batch norm and ReLU a stage, four levels, the widths of paper A's
V-Net, upsampling by transposed convolutions, attended features going both down and across.
"""

from collections.abc import Sequence

import torch
from torch import nn

from .blocks import conv_norm_relu, convolution
from .options import at_least, five_widths


class SpatialAttention(nn.Module):
    """F' = σ(conv₇[mean over channels; maximum over channels]) ⊙ F."""

    def __init__(self, *, dimensions: int = 3) -> None:
        super().__init__()
        self.to_map = convolution(2, 1, 7, dimensions=dimensions)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.to_map(summary)) * x


class ChannelAttention(nn.Module):
    """F' = σ(MLP(mean over space) + MLP(maximum over space)) ⊙ F with one shared MLP, C → C/16 → C.

    The hidden layer has at least four channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(4, channels // 16)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(2)
        weights = torch.sigmoid(self.mlp(flat.mean(2)) + self.mlp(flat.amax(2)))
        return (flat * weights[:, :, None]).view_as(x)


def _double_convolution(in_channels: int, channels: int, dimensions: int) -> nn.Sequential:
    return nn.Sequential(
        conv_norm_relu(in_channels, channels, dimensions=dimensions),
        conv_norm_relu(channels, channels, dimensions=dimensions),
    )


class EncoderStage(nn.Module):
    """Two convolutions and spatial attention; returns the features at half the size, and at full size."""

    def __init__(self, in_channels: int, channels: int, dimensions: int) -> None:
        super().__init__()
        self.convolutions = _double_convolution(in_channels, channels, dimensions)
        self.attention = SpatialAttention(dimensions=dimensions)
        self.pool = nn.MaxPool2d(2) if dimensions == 2 else nn.MaxPool3d(2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skip = self.attention(self.convolutions(x))
        return self.pool(skip), skip


class DecoderStage(nn.Module):
    """Two convolutions of Up(CA(x)) + skip."""

    def __init__(self, in_channels: int, channels: int, dimensions: int) -> None:
        super().__init__()
        transposed = nn.ConvTranspose2d if dimensions == 2 else nn.ConvTranspose3d
        self.attention = ChannelAttention(in_channels)
        self.up = transposed(in_channels, channels, 2, stride=2)
        self.convolutions = _double_convolution(channels, channels, dimensions)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.convolutions(self.up(self.attention(x)) + skip)


class AttentionUNet(nn.Module):
    """Images (B, 1, …) to two logits (B, 2, …), with two or three spatial `dimensions`.

    `widths` are the channels of the four levels and the bottleneck. Every spatial size must be divisible
    by 16. Parameters of the default: 1,758,382 in two dimensions, 5,073,150 in three.
    """

    def __init__(self, *, dimensions: int = 3, widths: Sequence[int] = (16, 32, 64, 128, 256)) -> None:
        super().__init__()
        if dimensions not in (2, 3):
            raise ValueError(f"dimensions must be 2 or 3, not {dimensions}")
        *levels, bottom = five_widths(widths)
        self.encoder = nn.ModuleList(
            EncoderStage(n_in, n, dimensions) for n_in, n in zip([1, *levels[:-1]], levels, strict=True)
        )
        self.bottleneck = _double_convolution(levels[-1], bottom, dimensions)
        deeper = [*levels[1:], bottom]
        self.decoder = nn.ModuleList(
            DecoderStage(n_in, n, dimensions) for n_in, n in zip(deeper[::-1], levels[::-1], strict=True)
        )
        self.head = convolution(levels[0], 2, 1, dimensions=dimensions)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image
        skips: list[torch.Tensor] = []
        for stage in self.encoder:
            x, skip = stage(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for index, stage in enumerate(self.decoder):
            x = stage(x, skips[len(skips) - 1 - index])
        return self.head(x)


class SliceWise(nn.Module):
    """A two-dimensional network applied to every slice along the first array axis of a volume.

    (B, C, K, J, I) to (B, classes, K, J, I), `slices_per_pass` slices at a time, which bounds the memory of
    inference. In training, batch norm sees the slices of one pass together.
    """

    def __init__(self, network: nn.Module, *, slices_per_pass: int = 16) -> None:
        super().__init__()
        self.network = network
        self.slices_per_pass = at_least(1, slices_per_pass=slices_per_pass)

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        slices = volume.transpose(1, 2).flatten(0, 1)
        parts = [self.network(part) for part in slices.split(self.slices_per_pass)]
        return torch.cat(parts).unflatten(0, (volume.shape[0], volume.shape[2])).transpose(1, 2)
