"""Convolutions that keep their weights as 8-bit integers, which halves a file once more."""

import torch
from torch import nn
from torch.nn import functional

_LARGEST = 127


class _EightBit(nn.Module):
    """Weights as integers −127…127 times a scale for each output channel."""

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, convolution: nn.Conv3d | nn.ConvTranspose3d, *, output_axis: int) -> None:
        super().__init__()
        self.stride = [int(n) for n in convolution.stride]
        weight, scale = _as_integers(convolution.weight, output_axis=output_axis)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if convolution.bias is None else convolution.bias.detach().clone())

    def numbers(self) -> torch.Tensor:
        """The weights as the convolution needs them."""
        return self.weight.to(self.scale.dtype) * self.scale


class EightBitConv3d(_EightBit):
    """A 3-D convolution that keeps its weights in eight bits."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__(convolution, output_axis=0)
        self.padding = [int(n) for n in convolution.padding]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv3d(x, self.numbers(), self.bias, self.stride, self.padding)


class EightBitConvTranspose3d(_EightBit):
    """A transposed 3-D convolution that keeps its weights in eight bits."""

    def __init__(self, convolution: nn.ConvTranspose3d) -> None:
        super().__init__(convolution, output_axis=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv_transpose3d(x, self.numbers(), self.bias, self.stride)


def _as_integers(weight: torch.Tensor, *, output_axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers (int8) and scales, whose product is the weight to within half a scale."""
    others = [axis for axis in range(weight.ndim) if axis != output_axis]
    # Rounded to the half precision in which it is stored, before the integers are found for it.
    scale = (weight.detach().abs().amax(others, keepdim=True) / _LARGEST).clamp(min=1e-6).half().float()
    return (weight.detach() / scale).round().clamp(-_LARGEST, _LARGEST).to(torch.int8), scale


def weights_in_full(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state of a network, of which convolutions may be in eight bits, as one without these has it."""
    full = dict(network.state_dict())
    for name, module in network.named_modules():
        scale = full.pop(f"{name}.scale", None)
        if scale is None:
            continue
        full[f"{name}.weight"] = full[f"{name}.weight"].to(scale.dtype) * scale
        # TorchScript counts a tensor that may be missing as an attribute, not as state.
        bias = module.bias
        if torch.is_tensor(bias):
            full[f"{name}.bias"] = bias.to(scale.dtype)
    return full


def in_eight_bits(network: nn.Module) -> nn.Module:
    """The network with its 3-D convolutions replaced, in place; for computing alone, it cannot be trained."""
    for name, module in list(network.named_children()):
        if isinstance(module, nn.Conv3d):
            setattr(network, name, EightBitConv3d(module))
        elif isinstance(module, nn.ConvTranspose3d):
            setattr(network, name, EightBitConvTranspose3d(module))
        else:
            in_eight_bits(module)
    return network
