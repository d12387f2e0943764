"""Structures inside the gland, such as its zones, that a registration network is shown beside the images.

A registration card names in its setting `structures` one model for each modality; such a model gives a
probability for each of the structures that its own card lists, in the same order for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .geometry import Grid, resample, with_orientation
from .models import InstalledModel, find_model, load_network, prepare_image
from .segmentation import class_probabilities

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


def structure_probabilities(
    image: sitk.Image, model: InstalledModel, *, axes: str = "", device: str = "cpu"
) -> tuple[sitk.Image, ...]:
    """Probability of each structure (float32, 0…1) on the image's own grid.

    `axes` says how the image's axes lie in the patient where its header does not.
    """
    view = with_orientation(image, axes) if axes else image
    prepared = prepare_image(view, model.card.preprocessing)
    network = load_network(model, device)
    # The first class is the gland without its structures.
    seen = class_probabilities(prepared, network, model.card.grid_vox, device=device)[1:]
    found = tuple(resample(probability, Grid.of(view)) for probability in seen)
    for probability in found:
        probability.CopyInformation(image)
    return found
