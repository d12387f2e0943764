"""Pairs on a registration network's grid, prepared once and changed at random in every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, mask_centroid_mm, resample
from MRTRUSRegistrationLib.regions import region_grid, scaled_image
from MRTRUSRegistrationLib.rigid import RigidSettings, align_centroids, align_rigid, as_rigid, gland_initial
from MRTRUSRegistrationLib.structures import SeenStructures, seen_structures, structure_models_named
from MRTRUSRegistrationLib.transforms import displacement_vox, displacements_mm

from .data.augmentation import (
    SpatialRange,
    flip_displacement,
    flip_left_right,
    random_displacement,
    random_intensity,
)
from .data.cache import cached
from .data.cases import Case, LoadedCase, load_case
from .networks.warp import warp
from .registration_settings import Alignment, RegistrationSettings, draft_card
from .segmented import Glands, cached_glands, drawing, seeing, segmented_glands


@dataclass(frozen=True)
class RegistrationSample:
    """One pair on the network's grid after the alignment; tensors are (1, C, K, J, I).

    Images are in 0…1 over the whole volume, unmasked, and after them come the probabilities of the structures
    that the network is given, and coordinates in the gland; labels hold the gland first, then landmarks. If
    the true map is known, the labels are the gland alone, and two fields (1, 3, K, J, I) in voxels say where
    the fixed voxels lie: `truth_vox` in the unchanged moving volume, `change_vox` where augmentation took the
    moving voxels from. `moving_drawn` and `fixed_drawn` are the glands as segmenters drew them, one channel
    each. `unpaired` has a sentence for each landmark that was left out because one modality lacks it.
    """

    name: str
    moving_image: torch.Tensor
    fixed_image: torch.Tensor
    moving_labels: torch.Tensor
    fixed_labels: torch.Tensor
    voxel_mm: float
    truth_vox: torch.Tensor | None = None
    change_vox: torch.Tensor | None = None
    moving_drawn: torch.Tensor | None = None
    fixed_drawn: torch.Tensor | None = None
    unpaired: tuple[str, ...] = ()

    def to(self, device: torch.device) -> RegistrationSample:
        """The sample with its tensors on a device."""
        moved: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: each.to(device) if torch.is_tensor(each) else each for name, each in moved.items()}
        return RegistrationSample(**moved)


# --- preparation -----------------------------------------------------------------------------------------


def prepare_sample(
    case: LoadedCase, settings: RegistrationSettings, drawn: Glands | None = None
) -> RegistrationSample:
    """Bring one case on to the network's grid, aligned as in the pipeline.

    `drawn` are the MR and the TRUS gland as segmenters drew them, by which it is aligned; None has them drawn
    where the settings name `segmenters`, and else the reference masks align it.
    """
    if drawn is None and settings.segmenters:
        drawn = segmented_glands(case, settings.segmenters)
    card = draft_card(settings)
    # Centroids are set upon each other at every step (`aligned_by_masks`); ANTs' turn is not.
    alignment = aligned(case, settings.alignment, drawn if settings.alignment == "rigid" else None)
    grid, _ = region_grid(case.trus_gland, card)
    moving = scaled_image(case.mr, grid, alignment, card)
    fixed = scaled_image(case.trus, grid, None, card)
    seen = _seen_structures(case, settings, drawn or (case.mr_gland, case.trus_gland))
    structures = len(case.mr_labels) if case.truth is None else 1
    return RegistrationSample(
        case.name,
        _tensor([moving, *_shown(seen["MR"].on(grid, alignment), settings)]),
        _tensor([fixed, *_shown(seen["TRUS"].on(grid, None), settings)]),
        _tensor([_on_grid(label, grid, alignment) for label in case.mr_labels[:structures]]),
        _tensor([_on_grid(label, grid, None) for label in case.trus_labels[:structures]]),
        settings.preprocessing.spacing_mm[0],
        None if case.truth is None else _true_displacement_vox(case.truth, alignment, grid),
        moving_drawn=None if drawn is None else _tensor([_on_grid(drawn[0], grid, alignment)]),
        fixed_drawn=None if drawn is None else _tensor([_on_grid(drawn[1], grid, None)]),
        # Where the true map is known, no landmark is used.
        unpaired=case.unpaired if case.truth is None else (),
    )


def _seen_structures(
    case: LoadedCase, settings: RegistrationSettings, glands: Glands
) -> dict[str, SeenStructures]:
    """What models see beside each image, given where the glands are; nothing where no models are named."""
    if not settings.structures:
        return {"MR": SeenStructures(), "TRUS": SeenStructures()}
    images = {"MR": (case.mr, glands[0]), "TRUS": (case.trus, glands[1])}
    models = structure_models_named(settings.structures)
    return {
        modality: seen_structures(image, models[modality], gland)
        for modality, (image, gland) in images.items()
    }


def _shown(seen: SeenStructures, settings: RegistrationSettings) -> tuple[sitk.Image, ...]:
    if not settings.coordinates:
        return seen.probabilities
    if not seen.coordinates:
        raise InputError(
            "The row sets `coordinates`, which the models of its `structures` do not tell; name others."
        )
    return (*seen.probabilities, *seen.coordinates)


def aligned(case: LoadedCase, alignment: Alignment, glands: Glands | None = None) -> sitk.Transform:
    """TRUS points to MR points before the network: as the data set has it, by centroids, or by ANTs.

    `glands` are the MR and the TRUS gland to go by; None takes the reference ones.
    """
    mr_gland, trus_gland = glands or (case.mr_gland, case.trus_gland)
    if alignment == "initial":
        return as_rigid(case.initial, mask_centroid_mm(trus_gland))
    align = align_centroids if alignment == "centroid" else align_rigid
    return align(mr_gland, trus_gland, gland_initial(mr_gland, trus_gland)).transform


def _true_displacement_vox(truth: sitk.Transform, alignment: sitk.Transform, grid: Grid) -> torch.Tensor:
    """(1, 3, K, J, I): from each voxel to where the aligned MR shows the same tissue."""
    # The last transform of the list is applied first.
    field_mm = displacements_mm(sitk.CompositeTransform([alignment.GetInverse(), truth]), grid)
    return torch.from_numpy(displacement_vox(field_mm, grid).copy())[None]


def prepare_samples(
    cases: Sequence[Case], settings: RegistrationSettings, cache: Path | None = None
) -> list[RegistrationSample]:
    """Prepared samples of the cases; with a `cache` folder each is prepared once for the same settings."""
    return [_prepared(case, settings, cache) for case in cases]


def _prepared(case: Case, settings: RegistrationSettings, cache: Path | None) -> RegistrationSample:
    if cache is None:
        return prepare_sample(load_case(case), settings)
    how = RigidSettings() if settings.alignment == "rigid" else settings.alignment
    by_drawn = "aligned by what they drew" if settings.segmenters and settings.alignment == "rigid" else ""
    seers = structure_models_named(settings.structures) if settings.structures else {}
    seen = [seeing(each) for each in seers.values()]
    how_seen = (seen, drawing(settings.segmenters), by_drawn, settings.coordinates)
    kept = tuple(field.name for field in fields(RegistrationSample))
    box = () if settings.box == "gland" else (settings.box,)
    content = cached(
        cache,
        ("registration", case.reading, settings.preprocessing, settings.grid_vox, how, how_seen, kept, *box),
        case.files,
        lambda: _prepared_anew(case, settings, cache).__dict__,
    )
    return RegistrationSample(**content)


def _prepared_anew(case: Case, settings: RegistrationSettings, cache: Path) -> RegistrationSample:
    """The masks are kept apart: they take longest, and other settings of a network leave them as they are."""
    loaded = load_case(case)
    drawn = cached_glands(case, loaded, settings.segmenters, cache) if settings.segmenters else None
    return prepare_sample(loaded, settings, drawn)


def _on_grid(label: sitk.Image, grid: Grid, transform: sitk.Transform | None) -> sitk.Image:
    return resample(sitk.Cast(label, sitk.sitkFloat32), grid, transform)


def _tensor(images: list[sitk.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([sitk.GetArrayFromImage(image) for image in images])[None])


# --- random changes --------------------------------------------------------------------------------------


def augment(
    sample: RegistrationSample,
    rng: np.random.Generator,
    settings: RegistrationSettings,
    *,
    progress: float = 0.0,
) -> RegistrationSample:
    """A random change shared by both volumes, a random misalignment of the moving one, random contrast.

    Where the true map is known, the fixed one is turned as well; how far depends on `progress`, the share of
    the training that is done.
    """
    shared = _random_like(sample.fixed_image, rng, settings.shared)
    simulated = sample.truth_vox is not None
    spread = settings.simulated_misalignment if simulated else settings.misalignment
    misalignment = _random_like(sample.fixed_image, rng, spread)
    moving = _stacked(sample.moving_image, sample.moving_labels, sample.moving_drawn)
    fixed = _stacked(sample.fixed_image, sample.fixed_labels, sample.fixed_drawn)
    change = shared + warp(misalignment, shared)
    fixed_change = _turned(shared, rng, settings.simulated_turn_deg, progress) if simulated else shared
    moving, fixed = warp(moving, change), warp(fixed, fixed_change)
    truth = None if sample.truth_vox is None else fixed_change + warp(sample.truth_vox, fixed_change)
    if rng.random() < 0.5:
        moving, fixed = flip_left_right(moving), flip_left_right(fixed)
        change, truth = flip_displacement(change), None if truth is None else flip_displacement(truth)
        if settings.coordinates:
            for volume in (moving, fixed):
                volume[:, sample.fixed_image.shape[1] - 1].neg_()
    moving_image, moving_labels, moving_drawn = _unstacked(moving, sample)
    fixed_image, fixed_labels, fixed_drawn = _unstacked(fixed, sample)
    return replace(
        sample,
        moving_image=_random_contrast(moving_image, rng, settings),
        fixed_image=_random_contrast(fixed_image, rng, settings),
        moving_labels=moving_labels,
        fixed_labels=fixed_labels,
        truth_vox=truth,
        change_vox=change,
        moving_drawn=moving_drawn,
        fixed_drawn=fixed_drawn,
    )


def _stacked(image: torch.Tensor, labels: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
    return torch.cat([image, labels] if drawn is None else [image, labels, drawn], dim=1)


def _unstacked(
    volume: torch.Tensor, sample: RegistrationSample
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The channels of the image, of the labels, and of the drawn gland where the sample has one."""
    channels = [sample.moving_image.shape[1], sample.moving_labels.shape[1]]
    if sample.moving_drawn is None:
        image, labels = volume.split(channels, dim=1)
        return image, labels, None
    image, labels, drawn = volume.split([*channels, 1], dim=1)
    return image, labels, drawn


def _turned(
    change: torch.Tensor, rng: np.random.Generator, range_deg: tuple[float, float], progress: float
) -> torch.Tensor:
    """A displacement (1, 3, K, J, I) after a random turn about the middle of the volume."""
    first, last = range_deg
    if first == last == 0:
        return change
    angle = first + (last - first) * progress
    turn = _random_like(change, rng, SpatialRange(angle, 0.0, 0.0, 0.0, 0.0))
    return turn + warp(change, turn)


def _random_like(volume: torch.Tensor, rng: np.random.Generator, spread: SpatialRange) -> torch.Tensor:
    """A random displacement (1, 3, K, J, I) on the grid and the device of a volume."""
    size = (volume.shape[2], volume.shape[3], volume.shape[4])
    return random_displacement(rng, spread, size).to(volume.device)


def _random_contrast(
    image: torch.Tensor, rng: np.random.Generator, settings: RegistrationSettings
) -> torch.Tensor:
    """Of the image alone; drawn by numpy, so on the processor, and taken back to its device."""
    changed = random_intensity(image[:, :1].cpu(), rng, settings.intensity).to(image.device)
    return torch.cat([changed, image[:, 1:]], dim=1)


def misdraw(gland: torch.Tensor, rng: np.random.Generator, error: SpatialRange) -> torch.Tensor:
    """A gland (1, 1, K, J, I) as a segmenter might have drawn it."""
    return warp(gland, _random_like(gland, rng, error))


def aligned_by_masks(
    sample: RegistrationSample, moving_gland: torch.Tensor, fixed_gland: torch.Tensor
) -> tuple[RegistrationSample, torch.Tensor]:
    """The pair after its moving side was shifted until the centroids of the drawn masks agree.

    That is where the rigid alignment leaves a pair: what a mask has wrong moves the image, and a network that
    never saw this would take two outlines that lie upon each other for two glands that do.
    """
    apart = centroid_vox(moving_gland[0, 0]) - centroid_vox(fixed_gland[0, 0])
    shift = apart.view(1, 3, 1, 1, 1).expand(-1, -1, *fixed_gland.shape[2:])
    moved = warp(torch.cat([sample.moving_image, sample.moving_labels, moving_gland], dim=1), shift)
    change = shift if sample.change_vox is None else shift + warp(sample.change_vox, shift)
    n = sample.moving_image.shape[1]
    shifted = replace(sample, moving_image=moved[:, :n], moving_labels=moved[:, n:-1], change_vox=change)
    return shifted, moved[:, -1:]


def centroid_vox(label: torch.Tensor) -> torch.Tensor:
    """(3,) intensity-weighted centroid of (K, J, I) in voxels, array-axis order; nan where it is empty."""
    weights = label.double()
    total = weights.sum()
    parts = []
    for axis, size in enumerate(label.shape):
        others = [a for a in range(3) if a != axis]
        places = torch.arange(size, dtype=torch.float64, device=label.device)
        parts.append((weights.sum(others) * places).sum() / total)
    return torch.stack(parts).float()
