"""The segmentation V-Net (paper A, section 2.1; details from the method reference, section 1.2)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .options import five_widths


def _norm(channels: int) -> nn.Module:
    return nn.InstanceNorm3d(channels, affine=False, track_running_stats=False)


class ResidualStage(nn.Module):
    """A stack of 3×3×3 convolutions with instance norm and an identity residual around the stack.

    The last convolution has no ReLU of its own; the ReLU follows the sum. A one-channel input broadcasts
    onto all channels of the first stage.
    """

    def __init__(self, in_channels: int, channels: int, convolutions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(convolutions):
            layers += [nn.Conv3d(in_channels if index == 0 else channels, channels, 3, padding=1)]
            layers += [_norm(channels), nn.ReLU(inplace=True)]
        self.stack = nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.stack(x) + x)


def _down(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, channels, 2, stride=2), _norm(channels), nn.ReLU(inplace=True)
    )


def _up(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose3d(in_channels, channels, 2, stride=2), _norm(channels), nn.ReLU(inplace=True)
    )


class VNet(nn.Module):
    """Residual encoder–decoder with additive skips; (B, 1, K, J, I) to logits (B, `classes`, K, J, I).

    `widths` are the channels of the four levels and the bottleneck; the paper's official widths have
    9,443,266 parameters. Every spatial size must be divisible by 16. The first class is the background.

    With `coordinates` three channels follow the logits: where in the gland each voxel lies, see
    `gland_coordinates`. They are smooth, so they are read from the features at a quarter of the resolution.
    """

    paper_widths = (16, 32, 64, 128, 256)

    def __init__(
        self,
        widths: Sequence[int] = paper_widths,
        dropout: float = 0.5,
        classes: int = 2,
        coordinates: bool = False,
    ) -> None:
        super().__init__()
        w1, w2, w3, w4, w5 = five_widths(widths)
        self.encode1 = ResidualStage(1, w1, 1)
        self.encode2 = ResidualStage(w2, w2, 2)
        self.encode3 = ResidualStage(w3, w3, 3)
        self.encode4 = ResidualStage(w4, w4, 3)
        self.bottleneck = ResidualStage(w5, w5, 3)
        self.down1, self.down2 = _down(w1, w2), _down(w2, w3)
        self.down3, self.down4 = _down(w3, w4), _down(w4, w5)
        self.up4, self.up3 = _up(w5, w4), _up(w4, w3)
        self.up2, self.up1 = _up(w3, w2), _up(w2, w1)
        self.decode4 = ResidualStage(w4, w4, 3)
        self.decode3 = ResidualStage(w3, w3, 3)
        self.decode2 = ResidualStage(w2, w2, 2)
        self.decode1 = ResidualStage(w1, w1, 1)
        self.dropout = nn.Dropout3d(dropout)
        self.head = nn.Conv3d(w1, classes, 1)
        self.coordinates = (
            nn.Sequential(nn.Conv3d(w3, w3, 3, padding=1), nn.ReLU(), nn.Conv3d(w3, 3, 1))
            if coordinates
            else None
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x1 = self.encode1(image)
        x2 = self.encode2(self.down1(x1))
        x3 = self.encode3(self.down2(x2))
        x4 = self.encode4(self.down3(x3))
        x = self.dropout(self.bottleneck(self.down4(x4)))
        x = self.decode4(self.up4(x) + x4)
        x = self.decode3(self.up3(x) + x3)
        found: list[torch.Tensor] = []
        if self.coordinates is not None:
            coarse = self.coordinates(x)
            found.append(functional.interpolate(coarse, scale_factor=4.0, mode="trilinear"))
        x = self.decode2(self.up2(x) + x2)
        x = self.decode1(self.up1(x) + x1)
        found.insert(0, self.head(self.dropout(x)))
        return torch.cat(found, dim=1)


class GlandProbability(nn.Module):
    """What is exported: a segmentation network followed by softmax; returns (B, C, K, J, I) probabilities of
    every class but the background, which for a gland segmenter is one.

    With `mirror` the mean over the image and its mirror image along the last axis (left–right in LPS order)
    is returned, for the gland may be either way round. The last `coordinates` channels of the network are no
    logits but coordinates in array-axis order, and follow as they are.
    """

    def __init__(self, network: nn.Module, *, mirror: bool = False, coordinates: int = 0) -> None:
        super().__init__()
        self.network = network
        self.mirror = mirror
        self.coordinates = coordinates

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.seen(image)
        if self.mirror:
            mirrored = self.seen(image.flip([4])).flip([4])
            if self.coordinates > 0:
                # Left is right in the mirror.
                mirrored = torch.cat([mirrored[:, :-1], -mirrored[:, -1:]], dim=1)
            found = (found + mirrored) / 2
        return found

    def seen(self, image: torch.Tensor) -> torch.Tensor:
        """Probabilities and coordinates of the image as it is."""
        output = self.network(image)
        classes = output.shape[1] - self.coordinates
        probability = torch.softmax(output[:, :classes], dim=1)[:, 1:]
        return torch.cat([probability, output[:, classes:]], dim=1)


def detail(image: torch.Tensor) -> torch.Tensor:
    """How sharp each volume of (B, 1, K, J, I) is, (B, 1, 1, 1, 1): what a mean over 3³ voxels takes away,
    as a share of the standard deviation; only where the image is not zero."""
    inside = (image > 0).to(image.dtype)
    axes = [1, 2, 3, 4]
    count = inside.sum(axes, keepdim=True).clamp(min=1.0)
    mean = (image * inside).sum(axes, keepdim=True) / count
    spread = ((image - mean) * inside).square().sum(axes, keepdim=True) / count
    lost = image - functional.avg_pool3d(image, 3, stride=1, padding=1, count_include_pad=False)
    return (lost.abs() * inside).sum(axes, keepdim=True) / count / spread.clamp(min=1e-8).sqrt()


class ByDetail(nn.Module):
    """Two probability networks, one for blurred and one for sharp volumes, mixed by the volume's detail.

    Public volumes are blurred to 1.5 mm; those of a scanner are not. Half of each is taken at `middle`,
    nearly all of one a few `width` away.
    """

    def __init__(self, blurred: nn.Module, sharp: nn.Module, *, middle: float, width: float) -> None:
        super().__init__()
        self.blurred = blurred
        self.sharp = sharp
        self.middle = middle
        self.width = width

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        share = torch.sigmoid((detail(image) - self.middle) / self.width)
        return (1 - share) * self.blurred(image) + share * self.sharp(image)
