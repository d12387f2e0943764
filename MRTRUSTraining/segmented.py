"""The glands of a training case as the pipeline's segmenters draw them, with the errors that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import SimpleITK as sitk  # noqa: N813
import torch

from MRTRUSRegistrationLib.errors import InputError, RegistrationError
from MRTRUSRegistrationLib.geometry import Grid, mask_volume_ml
from MRTRUSRegistrationLib.models import InstalledModel, drawers, find_model
from MRTRUSRegistrationLib.segmentation import agree_on_volume, segment_gland
from MRTRUSRegistrationLib.structures import MODALITIES

from .data.cache import cached
from .data.cases import Case, LoadedCase

# The gland in the MR and in the TRUS, each a mask (uint8) on its image's own grid.
Glands: TypeAlias = "tuple[sitk.Image, sitk.Image]"


def segmenters_named(named: Mapping[str, str]) -> dict[str, InstalledModel]:
    """One segmenter for MR and one for TRUS; none where none are named. `InputError` where one is missing."""
    if not named:
        return {}
    if set(named) != set(MODALITIES):
        raise InputError("The setting `segmenters` names one model for MR and one for TRUS, nothing else.")
    return {
        modality: find_model(task="segmentation", modality=modality, name=name)
        for modality, name in named.items()
    }


def segmented_glands(case: LoadedCase, named: Mapping[str, str]) -> Glands:
    """Both glands as the pipeline has them; the reference where a segmenter finds none."""
    models = segmenters_named(named)
    try:
        mr = segment_gland(case.mr, models["MR"])
        trus = segment_gland(case.trus, models["TRUS"])
    except RegistrationError:
        return case.mr_gland, case.trus_gland
    return mr.mask, agree_on_volume(trus, mask_volume_ml(mr.mask), models["TRUS"]).mask


def drawing(named: Mapping[str, str]) -> tuple[Any, ...]:
    """All of the named segmenters that decides what they draw; for the keys of a cache."""
    return tuple(seeing(each) for model in segmenters_named(named).values() for each in drawers(model))


def seeing(model: InstalledModel) -> tuple[Any, ...]:
    """All of a model that decides what it sees: its weights and what its card says of their use."""
    card = model.card
    return card.sha256, card.preprocessing, card.grid_vox, card.settings


def cached_glands(case: Case, loaded: LoadedCase, named: Mapping[str, str], cache: Path) -> Glands:
    """`segmented_glands`, drawn once for the same case and models."""
    content = cached(
        cache,
        ("glands", case.reading, drawing(named)),
        case.files,
        lambda: _as_tensors(segmented_glands(loaded, named)),
    )
    mr, trus = (content[side].numpy() for side in ("mr", "trus"))
    return Grid.of(loaded.mr).image(mr), Grid.of(loaded.trus).image(trus)


def _as_tensors(glands: Glands) -> dict[str, torch.Tensor]:
    return {
        side: torch.from_numpy(sitk.GetArrayFromImage(mask))
        for side, mask in zip(("mr", "trus"), glands, strict=True)
    }
