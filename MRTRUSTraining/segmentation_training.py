"""Training of the segmenters of the gland (paper A, section 2.1; schedule and loss of the official code), and
of the structures inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask
from MRTRUSRegistrationLib.measures import dsc
from MRTRUSRegistrationLib.models import BEYOND_GLAND, Preprocessing, Sharper, prepare_image
from MRTRUSRegistrationLib.segmentation import class_probabilities, clean_mask, window_about

from .data.augmentation import (
    IntensityRange,
    SpatialRange,
    flip_displacement,
    flip_left_right,
    random_displacement,
    random_fit,
    random_intensity,
)
from .data.cache import cached
from .data.cases import Case, LoadedCase, load_case
from .data.fresh import Source, samples_at
from .gland_coordinates import GlandChart
from .losses import (
    classes_dice_cross_entropy_loss,
    collapsed_classes,
    dice_cross_entropy_loss,
    gaussian_smooth,
    two_class_dice_loss,
)
from .networks.named import build_segmenter
from .networks.vnet import GlandProbability
from .networks.warp import warp
from .trainer import Forward

Modality = Literal["MR", "TRUS"]
SegmentationLoss = Literal["dice", "dice+cross-entropy"]


@dataclass(frozen=True)
class VolumeAgreement:
    """How this modality's gland relates to the other's: see `segmentation.agree_on_volume`."""

    ratio: float
    ratio_log_sd: float
    logit_sd: float


@dataclass(frozen=True)
class SegmentationSettings:
    """What a segmenter is: its network, its input and the window it is trained on (i, j, k).

    `network` and `options` are those of `networks.named`. `structures` are what the network is to tell apart
    inside the gland, each with its label channel; where they overlap the later one counts. Without any it
    segments the gland alone.
    """

    modality: Modality
    network: str = "vnet"
    options: Mapping[str, Any] = field(
        default_factory=lambda: {"widths": (8, 16, 32, 64, 96), "dropout": 0.1}
    )
    preprocessing: Preprocessing = Preprocessing("LPS", (1.5, 1.5, 1.5), smoothing_mm=0.7)
    training_vox: tuple[int, int, int] = (80, 80, 64)
    window_vox: tuple[int, int, int] = (112, 112, 96)
    mirror_averaged: bool = True
    loss: SegmentationLoss = "dice"
    structures: Mapping[str, int] = field(default_factory=dict)
    # Weight of the error of where in the gland each voxel lies, see `gland_coordinates`; 0: it is not told.
    coordinates: float = 0.0
    # Whether what is exported keeps its weights as 8-bit integers, see `networks.eight_bit`.
    eight_bit: bool = False
    # Standard deviation of what is added to a training image's intensity inside each structure.
    structure_contrast: float = 0.0
    threshold: float = 0.5
    volume_agreement: VolumeAgreement | None = None
    # The model of structures that draws the gland again in sharp images, see `models.model_to_draw_again`.
    sharper: Sharper | None = None
    # Between the blurred public volumes (detail 0.02 to 0.03) and simulated sharp ones (0.08 to 0.16).
    detail_middle: float = 0.055
    detail_width: float = 0.005
    first_share: float = 0.5
    spatial: SpatialRange = SpatialRange()
    intensity: IntensityRange = IntensityRange(probability=0.4, blur_vox=(0.3, 2.5))
    kind: Literal["segmentation"] = "segmentation"


@dataclass(frozen=True)
class SegmentationSample:
    """One prepared volume: network input and label map, both on the card's grid, and the original label map.

    In a label map (uint8) 0 is background, 1 the gland, 2 and on its structures. `coordinates` (vectors, see
    `gland_coordinates`) lie on the card's grid too.
    """

    name: str
    source: str
    prepared: sitk.Image
    labels: sitk.Image
    reference: sitk.Image
    coordinates: sitk.Image | None = None


def prepare_sample(case: LoadedCase, settings: SegmentationSettings) -> SegmentationSample:
    image, labels = (case.mr, case.mr_labels) if settings.modality == "MR" else (case.trus, case.trus_labels)
    wanted = [labels[_place(case, name, channel)] for name, channel in settings.structures.items()]
    masks = [labels[0], *wanted]
    prepared = prepare_image(image, settings.preprocessing)
    source = "real" if case.truth is None else "simulated"
    grid = Grid.of(prepared)
    coarse = [resample_mask(mask, grid) for mask in masks]
    coordinates = _coordinates(case, grid, settings) if settings.coordinates else None
    return SegmentationSample(case.name, source, prepared, _label_map(coarse), _label_map(masks), coordinates)


def _coordinates(case: LoadedCase, grid: Grid, settings: SegmentationSettings) -> sitk.Image:
    if case.truth is None:
        raise InputError(
            f"Case {case.name} has no true map, by which coordinates in the gland are known; train on "
            "simulated cases alone (--simulated) or set `coordinates` to 0."
        )
    chart = GlandChart.of(case.mr_gland)
    return chart.on(grid, None if settings.modality == "MR" else case.truth)


def _place(case: LoadedCase, structure: str, channel: int) -> int:
    """Where the structure is among the case's labels: by its name, else by its channel in the files."""
    for name in (structure, f"landmark {channel}"):
        if name in case.label_names:
            return case.label_names.index(name)
    raise InputError(
        f"Case {case.name} has no label of {structure} (channel {channel}) in both modalities; leave the "
        "case out or use a row without it."
    )


def _label_map(masks: Sequence[sitk.Image]) -> sitk.Image:
    """1 inside the first mask, 2 inside the second and so on; the later one counts."""
    arrays = [sitk.GetArrayViewFromImage(mask) > 0 for mask in masks]
    found = np.zeros(arrays[0].shape, np.uint8)
    for value, array in enumerate(arrays, start=1):
        found[array] = value
    return Grid.of(masks[0]).image(found)


def prepare_samples(
    cases: Sequence[Case], settings: SegmentationSettings, cache: Path | None = None
) -> list[SegmentationSample]:
    """Prepared samples of the cases; with a `cache` folder each is prepared once for the same settings."""
    return [_prepared(case, settings, cache) for case in cases]


def _prepared(case: Case, settings: SegmentationSettings, cache: Path | None) -> SegmentationSample:
    if cache is None:
        return prepare_sample(load_case(case), settings)
    mr = settings.modality == "MR"
    files = [case.mr_path, case.mr_labels_path] if mr else [case.trus_path, case.trus_labels_path]
    if settings.coordinates:
        files = list(case.files)
    content = cached(
        cache,
        (
            "segmentation",
            case.reading,
            settings.modality,
            settings.preprocessing,
            case.truth_path,
            *settings.structures.items(),
            *(("coordinates",) if settings.coordinates else ()),
        ),
        files,
        lambda: _as_content(prepare_sample(load_case(case), settings)),
    )
    return SegmentationSample(**{name: _from_content(value) for name, value in content.items()})


def _as_content(sample: SegmentationSample) -> dict[str, Any]:
    """The sample for the cache, which keeps tensors, numbers and strings: an image is tensor and grid."""
    return {name: _flat(value) for name, value in sample.__dict__.items() if value is not None}


def _flat(value: str | sitk.Image) -> Any:
    if isinstance(value, str):
        return value
    return {"tensor": torch.from_numpy(sitk.GetArrayFromImage(value)), "grid": asdict(Grid.of(value))}


def _from_content(value: Any) -> Any:
    if isinstance(value, str):
        return value
    array = value["tensor"].numpy()
    return Grid(**value["grid"]).image(array, vector=array.ndim == 4)


class SegmentationTask:
    """Dice, or Dice and cross-entropy, on random volumes.

    The first group of `training` is drawn with `first_share`.
    """

    def __init__(
        self,
        settings: SegmentationSettings,
        training: Sequence[Source[SegmentationSample]],
        validation: Sequence[SegmentationSample],
    ) -> None:
        self.settings = settings
        self.network: torch.nn.Module = build_segmenter(settings.network, **network_options(settings))
        self.step = 0
        self.progress = 0.0
        self._validation = validation
        self._sources = list(training)

    @property
    def _within(self) -> list[int]:
        """The numbers of the structures that lie in the gland."""
        return [n for n, name in enumerate(self.settings.structures) if name not in BEYOND_GLAND]

    def loss(
        self, forward: Forward, rngs: Sequence[np.random.Generator]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        pairs = [self._draw(rng) for rng in rngs]
        images, classes = (torch.cat(each) for each in zip(*pairs, strict=True))
        logits = forward(images)
        classes = classes.to(logits.device)
        if self.settings.coordinates:
            return self._loss_with_coordinates(logits, classes)
        if self.settings.structures:
            return classes_dice_cross_entropy_loss(logits, classes), {}
        glands = classes[:, 1:]
        if self.settings.loss == "dice":
            return two_class_dice_loss(logits, glands), {}
        loss = dice_cross_entropy_loss(logits, glands)
        dice = float(two_class_dice_loss(logits.detach(), glands))
        return loss, {"dice": dice, "cross_entropy": float(loss.detach()) - dice}

    def _loss_with_coordinates(
        self, output: torch.Tensor, drawn: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The last three channels of both are coordinates."""
        logits, classes = output[:, :-3], drawn[:, :-3]
        gland = classes[:, [1, *(2 + n for n in self._within)]].sum(dim=1)
        error = coordinate_error(output[:, -3:], drawn[:, -3:], gland)
        loss = classes_dice_cross_entropy_loss(logits, classes)
        figures = {"classes": float(loss.detach()), "coordinates": float(error.detach())}
        return loss + self.settings.coordinates * error, figures

    def _draw(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        first = len(self._sources) == 1 or rng.random() < self.settings.first_share
        source = self._sources[0 if first else int(rng.integers(1, len(self._sources)))]
        samples = samples_at(source, self.step)
        sample = samples[int(rng.integers(len(samples)))]
        if self.settings.structures:
            # Structures are looked for about a gland that is known.
            sample = _about_the_gland(sample, self.settings.training_vox, self._within)
        image, masks = _tensors(sample, len(self.settings.structures))
        both = torch.cat([image, masks, *_coordinate_tensors(sample)], dim=1)
        size = self.settings.training_vox[::-1]
        both = random_fit(both, size, rng)
        both = warp(both, random_displacement(rng, self.settings.spatial, size))
        image, masks, places = both.tensor_split([1, 1 + masks.shape[1]], dim=1)
        if rng.random() < 0.5:
            image, masks = flip_left_right(image), flip_left_right(masks)
            # They are vectors along the array's axes, as displacements are.
            places = flip_displacement(places) if places.shape[1] else places
        classes = collapsed_classes((masks > 0.5).float())
        image = self._with_other_contrast(image, classes, rng)
        return random_intensity(image, rng, self.settings.intensity), torch.cat([classes, places], dim=1)

    def _with_other_contrast(
        self, image: torch.Tensor, classes: torch.Tensor, rng: np.random.Generator
    ) -> torch.Tensor:
        """The image with another intensity inside each structure, as if its tissue were another.

        A TRUS image is log-compressed: a sum there is a gain of the echo. Beyond the fan nothing is shown.
        """
        if self.settings.structure_contrast == 0:
            return image
        # Edges as wide as the image's own.
        inside = gaussian_smooth(classes[:, 2:], 0.5)
        shifts = rng.normal(0, self.settings.structure_contrast, inside.shape[1])
        offset = (torch.from_numpy(shifts).float().view(1, -1, 1, 1, 1) * inside).sum(1, keepdim=True)
        return (image + offset * (image > 0)).clamp(0, 1)

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Mean DSC of the cleaned mask, or of the structures, on the image's own grid.

        Every source of cases counts alike in the score, however many cases it has.
        """
        figures = {}
        for source in sorted({sample.source for sample in self._validation}):
            samples = [sample for sample in self._validation if sample.source == source]
            overlaps = [self._validation_figures(network, sample) for sample in samples]
            for name in overlaps[0]:
                figures[f"{name}_{source}"] = float(np.mean([overlap[name] for overlap in overlaps]))
        # An error of coordinates counts against the overlaps, in units of the gland's half-extent.
        signed = [-value if name.startswith("coordinates") else value for name, value in figures.items()]
        return {"score": float(np.mean(signed)), **figures}

    def _validation_figures(self, network: torch.nn.Module, sample: SegmentationSample) -> dict[str, float]:
        window = self.settings.window_vox
        if self.settings.structures:
            sample = _about_the_gland(sample, window, self._within)
        seer = GlandProbability(network, coordinates=3 if self.settings.coordinates else 0)
        device = str(next(network.parameters()).device)
        seen = class_probabilities(sample.prepared, seer, window, device=device)
        if sample.coordinates is None:
            return self._overlaps(seen, sample.reference)
        inside = _stacked([_gland(sample.labels, self._within)])[:, 0]
        error = float(coordinate_error(_stacked(seen[-3:]), _coordinate_tensors(sample)[0], inside))
        return {**self._overlaps(seen[:-3], sample.reference), "coordinates_error": error}

    def _overlaps(self, classes: Sequence[sitk.Image], reference: sitk.Image) -> dict[str, float]:
        """DSC of the gland's mask, or of each structure, with the label map."""
        grid = Grid.of(reference)
        found = [resample(probability, grid) for probability in classes]
        if not self.settings.structures:
            return {"dsc": dsc(clean_mask(found[0], threshold=self.settings.threshold), reference)}
        seen = np.stack([sitk.GetArrayFromImage(probability) for probability in found])
        likeliest = np.concatenate([1 - seen.sum(axis=0, keepdims=True), seen]).argmax(axis=0)
        return {
            f"dsc_{name}": dsc(grid.image((likeliest == value).astype(np.uint8)), reference == value)
            for value, name in enumerate(self.settings.structures, start=2)
        }


def coordinate_error(found: torch.Tensor, truth: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean distance of coordinates (B, 3, K, J, I) over the voxels weighed by `inside` (B, K, J, I)."""
    distance = (found - truth).square().sum(dim=1).add(1e-6).sqrt()
    return (distance * inside).sum() / inside.sum().clamp(min=1.0)


def network_options(settings: SegmentationSettings) -> dict[str, Any]:
    """The options that the segmenter is built with: the row's, and as many classes as it has structures."""
    extra: dict[str, Any] = {"classes": 2 + len(settings.structures)} if settings.structures else {}
    if settings.coordinates:
        extra["coordinates"] = True
    return {**settings.options, **extra}


def _gland(labels: sitk.Image, within: Sequence[int]) -> sitk.Image:
    """The gland in a label map, with the structures `within` it and without those beyond."""
    mask = labels == 1
    for number in within:
        mask = mask | (labels == 2 + number)
    return mask


def _about_the_gland(
    sample: SegmentationSample, window_vox: tuple[int, int, int], within: Sequence[int]
) -> SegmentationSample:
    """What the pipeline shows of a sample: the window about its gland."""
    window = window_about(Grid.of(sample.labels), _gland(sample.labels, within), window_vox)
    images = {"prepared": sample.prepared, "labels": sample.labels, "coordinates": sample.coordinates}
    return replace(
        sample,
        **{name: sitk.RegionOfInterest(each, *window) for name, each in images.items() if each is not None},
    )


def _stacked(images: Sequence[sitk.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([sitk.GetArrayFromImage(image) for image in images])[None]).float()


def _coordinate_tensors(sample: SegmentationSample) -> list[torch.Tensor]:
    """Coordinates (1, 3, K, J, I) in array-axis order, where the sample has them."""
    if sample.coordinates is None:
        return []
    return [torch.from_numpy(sitk.GetArrayFromImage(sample.coordinates)).movedim(-1, 0)[None]]


def _tensors(sample: SegmentationSample, structures: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The image, and the masks of the gland and its structures, (1, 1 + structures, K, J, I)."""
    image = torch.from_numpy(sitk.GetArrayFromImage(sample.prepared))[None, None]
    labels = torch.from_numpy(sitk.GetArrayFromImage(sample.labels))[None]
    masks = [labels >= 1, *(labels == value for value in range(2, 2 + structures))]
    return image, torch.stack(masks, dim=1).float()
