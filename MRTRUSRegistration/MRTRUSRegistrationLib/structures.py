"""Structures inside the gland, such as its zones, that a registration network is shown beside the images.

A registration card names in its setting `structures` one model for each modality; such a model gives a
probability for each of the structures that its own card lists, in the same order for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .geometry import Grid, resample
from .models import InstalledModel, find_model
from .segmentation import seen_classes

MODALITIES = ("MR", "TRUS")


def structure_models(model: InstalledModel) -> dict[str, InstalledModel]:
    """The models that a registration model's card names, by modality; empty where it names none.

    They are looked for beside the card first. `InputError` where one is missing.
    """
    named = model.card.settings.get("structures")
    return {} if named is None else structure_models_named(named, model.card_path.parent)


def structure_models_named(named: Mapping[str, str], extra: Path | None = None) -> dict[str, InstalledModel]:
    """One model for MR and one for TRUS, which tell the same structures apart; `extra` is searched first."""
    if set(named) != set(MODALITIES):
        raise InputError("The setting `structures` names one model for MR and one for TRUS, nothing else.")
    found = {
        modality: find_model(task="structures", modality=modality, name=named[modality], extra=extra)
        for modality in MODALITIES
    }
    mr, trus = (list(found[modality].card.settings.get("structures", ())) for modality in MODALITIES)
    if mr != trus or not mr:
        raise InputError(
            f"The models {named['MR']} and {named['TRUS']} do not tell the same structures apart; export "
            "both from rows that do."
        )
    return found


@dataclass(frozen=True)
class SeenStructures:
    """What a model sees in one image, on the image's own grid (float32), zero where it did not look.

    `probabilities` are those of each structure, 0…1. `coordinates` say where in the gland a voxel lies: along
    the axes z, y and x of the MR in which the model learnt them, from the middle of the gland, about ±1 at
    its surface, and the same for the same tissue in both images. Empty of a model that does not tell them.
    """

    probabilities: tuple[sitk.Image, ...] = ()
    coordinates: tuple[sitk.Image, ...] = ()

    def on(self, grid: Grid, transform: sitk.Transform | None) -> SeenStructures:
        """The same on another grid, whose points the transform takes to those of the image."""
        return SeenStructures(
            tuple(resample(each, grid, transform) for each in self.probabilities),
            tuple(resample(each, grid, transform) for each in self.coordinates),
        )


def seen_structures(
    image: sitk.Image, model: InstalledModel, gland: sitk.Image, *, axes: str = "", device: str = "cpu"
) -> SeenStructures:
    """What the model sees in an image, of which it is shown what its card's grid holds about the gland.

    `gland` is a mask on the image's grid; `axes` says how the image's axes lie in the patient where its
    header does not.
    """
    found = seen_classes(image, gland, model, axes=axes, device=device)
    # The first class is the gland without its structures.
    first_coordinate = 1 + len(model.card.settings["structures"])
    return SeenStructures(tuple(found[1:first_coordinate]), tuple(found[first_coordinate:]))
