"""An exported segmenter, or the sharp half of one, stored with 8-bit weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import InstalledModel, ModelCard, load_network, read_card

from .export import write_model
from .networks.eight_bit import in_eight_bits
from .networks.named import build_segmenter
from .networks.vnet import ByDetail, GlandProbability

Part = Literal["all", "sharp"]
PARTS: tuple[Part, ...] = ("all", "sharp")
_OPTIONS = ("widths", "dropout", "classes", "coordinates")


def shrink(card_path: Path, output: Path, *, part: Part = "all") -> Path:
    """Write the model of a V-Net's card into another folder, its weights as 8-bit integers.

    `part` "sharp" keeps the network for blurred volumes as it is. Returns the new card's path; `InputError`
    for a card of another kind, for a folder that holds the model already, or where there is no sharp part.
    """
    card = read_card(card_path)
    if card_path.resolve().parent == output.resolve():
        raise InputError(f"{output} holds the model itself; give another folder.")
    network = _rebuilt(card, part)
    network.load_state_dict(load_network(InstalledModel(card, card_path), "cpu").state_dict())
    smaller = network.sharp if isinstance(network, ByDetail) and part == "sharp" else network
    in_eight_bits(smaller)
    said = "8-bit integers" if part == "all" else "8-bit integers in the sharp part"
    changed = replace(card, architecture={**card.architecture, "weights": said})
    return write_model(network.eval(), (torch.zeros(1, 1, 64, 64, 64),), changed, output)


def _rebuilt(card: ModelCard, part: Part) -> torch.nn.Module:
    """The exported network as the card tells it, with random weights."""
    told = card.architecture
    if told.get("name") != "VNet" or "weights" in told:
        raise InputError(f"{card.name} is no V-Net with weights in half precision; it stays as it is.")
    options = {name: told[name] for name in _OPTIONS if name in told}
    mirror, coordinates = bool(told.get("mirror_averaged")), 3 if told.get("coordinates") else 0
    parts = [
        GlandProbability(build_segmenter("vnet", **options), mirror=mirror, coordinates=coordinates)
        for _ in range(int(told.get("networks", 1)))
    ]
    if len(parts) == 2:
        return ByDetail(parts[0], parts[1], **told["mixed_by_detail"])
    if part == "sharp":
        raise InputError(f"{card.name} is one network, without a part for sharp volumes; leave --part out.")
    return parts[0]
