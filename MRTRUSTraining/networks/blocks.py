"""Convolutions with batch norm, for two and three dimensions, and the residual block of two of them."""

import torch
from torch import nn


def convolution(
    in_channels: int, channels: int, kernel: int = 3, *, dimensions: int = 3, bias: bool = True
) -> nn.Module:
    """A convolution that keeps the size."""
    kind = nn.Conv2d if dimensions == 2 else nn.Conv3d
    return kind(in_channels, channels, kernel, padding=kernel // 2, bias=bias)


def batch_norm(channels: int, *, dimensions: int = 3) -> nn.Module:
    """Batch norm of volumes or of slices."""
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm3d(channels)


def conv_norm(in_channels: int, channels: int, kernel: int = 3, *, dimensions: int = 3) -> nn.Sequential:
    """Convolution and batch norm; the norm's shift makes a bias needless."""
    return nn.Sequential(
        convolution(in_channels, channels, kernel, dimensions=dimensions, bias=False),
        batch_norm(channels, dimensions=dimensions),
    )


def conv_norm_relu(in_channels: int, channels: int, kernel: int = 3, *, dimensions: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return conv_norm(in_channels, channels, kernel, dimensions=dimensions).append(nn.ReLU(inplace=True))


class Residual(nn.Module):
    """ReLU(x + BN(conv(ReLU(BN(conv x))))) of as many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm_relu(channels, channels), conv_norm(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + x)
