"""Networks by the names that training rows and model cards use."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from MRTRUSRegistrationLib.errors import InputError

from .attention_unet import AttentionUNet, SliceWise
from .cmsa import CMSANet
from .localnet import LocalNet
from .rern import RERN
from .segmentation_based import SegmentationBasedNet
from .vnet import VNet
from .voxelmorph import VoxelMorph

Constructor = Callable[..., nn.Module]

_ATTENTION_WIDTHS = (16, 32, 64, 128, 256)


def _attention_unet_3d(*, widths: Sequence[int] = _ATTENTION_WIDTHS) -> nn.Module:
    return AttentionUNet(dimensions=3, widths=widths)


def _attention_unet_2d(*, widths: Sequence[int] = _ATTENTION_WIDTHS, slices_per_pass: int = 16) -> nn.Module:
    return SliceWise(AttentionUNet(dimensions=2, widths=widths), slices_per_pass=slices_per_pass)


SEGMENTERS: Mapping[str, Constructor] = MappingProxyType(
    {"vnet": VNet, "attention-unet-2d": _attention_unet_2d, "attention-unet-3d": _attention_unet_3d}
)
"""Each takes volumes (B, 1, K, J, I) to logits of background and gland (B, 2, K, J, I)."""

REGISTRATION_NETWORKS: Mapping[str, Constructor] = MappingProxyType(
    {
        "cmsa": CMSANet,
        "localnet": LocalNet,
        "segmentation-based": SegmentationBasedNet,
        "voxelmorph": VoxelMorph,
        "rern": RERN,
    }
)
"""Each takes moving and fixed volumes (B, 1, K, J, I) to a displacement (B, 3, K, J, I) in voxels, as
`CMSANet`; "segmentation-based" takes the moving and the fixed gland probability after them."""


def build_segmenter(name: str, **options: Any) -> nn.Module:
    """The segmentation network of that name; raises `InputError` for a name or an option it does not know."""
    return _build(SEGMENTERS, "segmentation", name, options)


def build_registration_network(name: str, **options: Any) -> nn.Module:
    """The registration network of that name; raises `InputError` for a name or an option it does not know."""
    return _build(REGISTRATION_NETWORKS, "registration", name, options)


def _build(known: Mapping[str, Constructor], task: str, name: str, options: Mapping[str, Any]) -> nn.Module:
    if name not in known:
        raise InputError(f"There is no {task} network '{name}'; choose one of {', '.join(known)}.")
    accepted = tuple(inspect.signature(known[name]).parameters)
    for option in options:
        if option not in accepted:
            raise InputError(
                f"The network '{name}' has no option '{option}'; its options are {', '.join(accepted)}."
            )
    try:
        return known[name](**options)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise InputError(f"The network '{name}' cannot be built with {given} ({error}).") from error
