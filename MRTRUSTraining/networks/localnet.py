"""LocalNet, weakly supervised registration (Hu et al. 2018, comparator [11] of paper A).

From the method reference, section 6.1, which reads the authors' public implementations: five levels of
32·2^i channels, the first convolution 7³ and the others 3³, additive upsampling, additive skips from the
first convolution of a level, and a displacement that is summed over the levels. Trilinear resizing keeps
voxel centres where max-pooling put them; the original used its framework's own convention.
"""

import torch
from torch import nn
from torch.nn import functional

from .blocks import Residual, batch_norm, conv_norm, conv_norm_relu
from .options import at_least


class EncoderLevel(nn.Module):
    """A convolution and a residual block; returns the residual's output at half the size, and the skip,
    which is the first convolution's output."""

    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.convolution = conv_norm_relu(in_channels, channels, kernel)
        self.residual = Residual(channels)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skip = self.convolution(x)
        return functional.max_pool3d(self.residual(skip), 2), skip


def _summand(channels: int) -> nn.Conv3d:
    """Features of a level to its share of the displacement; starts at zero."""
    head = nn.Conv3d(channels, 3, 3, padding=1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return head


class DecoderLevel(nn.Module):
    """Features (B, 2C, K/2, J/2, I/2) and a skip (B, C, K, J, I) to features (B, C, K, J, I) and their share
    (B, 3, K, J, I) of the displacement.

    A transposed convolution plus the trilinearly enlarged input, whose halves of channels are summed; the
    skip joins after the two convolutions of the residual, as in the authors' code.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose3d(2 * channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False),
            batch_norm(channels),
            nn.ReLU(inplace=True),
        )
        self.body = nn.Sequential(conv_norm_relu(channels, channels), conv_norm(channels, channels))
        self.summand = _summand(channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        enlarged = functional.interpolate(x, scale_factor=2.0, mode="trilinear", align_corners=False)
        halves = enlarged.chunk(2, dim=1)
        up = self.up(x) + halves[0] + halves[1]
        features = torch.relu(self.body(up) + up + skip)
        return features, self.summand(features)


class LocalNet(nn.Module):
    """Moving and fixed image (B, 1, K, J, I) to the displacement (B, 3, K, J, I) in voxels, as `CMSANet`.

    `width` channels at the finest level, twice as many at each of the `depth` coarser ones; 32 and 4 are the
    paper's (18,909,743 parameters), 16 and 3 those of DeepReg's MR–ultrasound demo. The field is direct,
    not an integrated velocity. Sizes must be divisible by 2 to the power of `depth`.
    """

    def __init__(self, *, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        finest, depth = at_least(1, width=width), at_least(1, depth=depth)
        widths = [finest * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            EncoderLevel(2 if level == 0 else widths[level - 1], widths[level], 7 if level == 0 else 3)
            for level in range(depth)
        )
        self.bottom = conv_norm_relu(widths[-2], widths[-1])
        self.decoder = nn.ModuleList(DecoderLevel(n) for n in widths[-2::-1])
        self.summand = _summand(widths[-1])

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        x = torch.cat([moving, fixed], dim=1)
        skips: list[torch.Tensor] = []
        for level in self.encoder:
            x, skip = level(x)
            skips.append(skip)
        x = self.bottom(x)
        maps = [self.summand(x)]
        for index, block in enumerate(self.decoder):
            x, share = block(x, skips[len(skips) - 1 - index])
            maps.append(share)
        return _sum_enlarged(maps)


def _sum_enlarged(maps: list[torch.Tensor]) -> torch.Tensor:
    """The sum of (B, 3, …) maps of every level, each enlarged to the size of the last."""
    total = maps[-1].float()
    size = [total.shape[2], total.shape[3], total.shape[4]]
    for coarse in maps[:-1]:
        total = total + functional.interpolate(
            coarse.float(), size=size, mode="trilinear", align_corners=False
        )
    return total
