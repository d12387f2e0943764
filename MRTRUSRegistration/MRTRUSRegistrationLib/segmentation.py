"""Gland segmentation with a model and its card (paper A, section 2.1, step 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import binary_dilation
from scipy.special import logit

from .errors import RegistrationError
from .geometry import Grid, mask_points_mm, mask_volume_ml, resample, with_orientation
from .models import (
    BEYOND_GLAND,
    InstalledModel,
    load_network,
    model_to_draw_again,
    prepare_image,
)
from .progress import Reporter
from .results import GlandSegmentation, QualityWarning

if TYPE_CHECKING:
    import torch

_STRIDE_MULTIPLE = 16
# Index axes of the public MR–TRUS volumes, whose headers do not state them: anterior→posterior, across,
# inferior→superior. Which way the second runs is not documented; this way the frame is right-handed.
PUBLIC_AXES = "PRS"
_THRESHOLDS = np.linspace(0.1, 0.95, 86)


def segment_gland(
    image: sitk.Image,
    model: InstalledModel,
    *,
    orientation_known: bool = True,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> GlandSegmentation:
    """Segment the gland; mask (uint8) and probability (float32) lie on the image's own grid.

    Where the orientation is not known, the network sees the image both as the header says and with the axes
    of public data, and the result it is surer of is taken. Where the card names a model for sharp images
    (`models.model_to_draw_again`), that one draws the gland again, in a window about what was found first.
    """
    reporter = reporter or Reporter()
    card = model.card
    reporter.report(f"segment {card.modality}", 0.0, "Loading the model")
    network = load_network(model, device)
    found = []
    for axes in ("",) if orientation_known else ("", PUBLIC_AXES):
        view = _seen_along(image, axes)
        prepared = prepare_image(view, card.preprocessing)
        gland, *_ = class_probabilities(
            prepared,
            network,
            card.grid_vox,
            device=device,
            reporter=reporter,
            stage=f"segment {card.modality}",
        )
        found.append((_on_image(resample(gland, Grid.of(view)), image), axes, prepared))
    probability, axes, prepared = max(found, key=lambda candidate: _certainty(candidate[0]))
    mask = clean_mask(probability, threshold=float(card.settings.get("threshold", 0.5)))
    if not np.any(sitk.GetArrayViewFromImage(mask)):
        raise RegistrationError(
            f"No gland was found in the {card.modality} image; draw it and give it as a mask."
        )
    drawn = GlandSegmentation(mask, probability, card.name, axes)
    finer = model_to_draw_again(model, prepared)
    if finer is not None:
        drawn = _drawn_again(image, drawn, finer, device=device)
    reporter.report(f"segment {card.modality}", 1.0, f"{mask_volume_ml(drawn.mask):.0f} ml")
    return replace(drawn, warnings=(*drawn.warnings, *mask_warnings(drawn.mask, card.modality)))


def _seen_along(image: sitk.Image, axes: str) -> sitk.Image:
    return with_orientation(image, axes) if axes else image


def _drawn_again(
    image: sitk.Image, first: GlandSegmentation, model: InstalledModel, *, device: str
) -> GlandSegmentation:
    """The gland with all that lies in it as a model of structures sees it about where it was found first."""
    window = _window(image, first.mask, model, first.axes)
    seen = _classes_in(window, image, model, axes=first.axes, device=device)
    inner = [name not in BEYOND_GLAND for name in model.card.settings["structures"]]
    # The first class is the gland without its structures.
    parts = [seen[0], *(each for each, inside in zip(seen[1:], inner, strict=False) if inside)]
    total = np.stack([sitk.GetArrayFromImage(part) for part in parts]).sum(axis=0, dtype=np.float32)
    probability = Grid.of(image).image(total)
    mask = clean_mask(probability, threshold=0.5)
    # A gland that it does not see at all stays as it was found first.
    if not np.any(sitk.GetArrayViewFromImage(mask)):
        return first
    warnings = _window_warnings(mask, Grid.of(window), model, first.axes)
    return GlandSegmentation(mask, probability, model.card.name, first.axes, warnings=warnings)


def _window_warnings(
    mask: sitk.Image, window: Grid, model: InstalledModel, axes: str
) -> tuple[QualityWarning, ...]:
    """Warns where the gland ends at the border of a window because the model saw no more of the image."""
    view = Grid.of(_seen_along(mask, axes))
    seen = sitk.GetArrayFromImage(resample(window.blank() + 1, view, nearest=True)) > 0
    if not np.any(binary_dilation(sitk.GetArrayViewFromImage(mask) > 0) & ~seen):
        return ()
    modality = model.card.modality
    message = (
        f"The gland reaches the border of what the model {model.card.name} sees of the {modality} volume, so "
        "a part of it may be missing; check its contour."
    )
    return (QualityWarning(f"{modality.lower()}_gland_at_border", message),)


def seen_classes(
    image: sitk.Image, gland: sitk.Image, model: InstalledModel, *, axes: str = "", device: str = "cpu"
) -> list[sitk.Image]:
    """All that a model of structures tells, on the image's grid, of what its card's grid holds about a gland.

    The classes but the background, the gland without its structures first, and coordinates after them.
    """
    return _classes_in(_window(image, gland, model, axes), image, model, axes=axes, device=device)


def _window(image: sitk.Image, gland: sitk.Image, model: InstalledModel, axes: str) -> sitk.Image:
    """What a model of structures is shown of an image, as its card prepares it."""
    prepared = prepare_image(_seen_along(image, axes), model.card.preprocessing)
    return around_gland(prepared, _seen_along(gland, axes), model.card.grid_vox)


def _classes_in(
    window: sitk.Image, image: sitk.Image, model: InstalledModel, *, axes: str, device: str
) -> list[sitk.Image]:
    seen = class_probabilities(window, load_network(model, device), model.card.grid_vox, device=device)
    view = Grid.of(_seen_along(image, axes))
    return [_on_image(resample(each, view), image) for each in seen]


def _on_image(probability: sitk.Image, image: sitk.Image) -> sitk.Image:
    """The same voxels with the image's own geometry."""
    probability.CopyInformation(image)
    return probability


def _certainty(probability: sitk.Image) -> float:
    """How far from undecided a network is where it sees gland, 0…1."""
    values = sitk.GetArrayViewFromImage(probability)
    inside = values[values > 0.5]
    return float((2 * inside - 1).mean()) if inside.size else 0.0


def class_probabilities(
    prepared: sitk.Image,
    network: torch.nn.Module,
    window_vox: tuple[int, int, int],
    *,
    device: str = "cpu",
    reporter: Reporter | None = None,
    stage: str = "segment",
) -> list[sitk.Image]:
    """Probability of each class that the network tells from the background, on the prepared image's grid.

    Window by window where the image is larger; of a segmenter of the gland the gland is the only class.
    """
    import torch

    volume = sitk.GetArrayFromImage(prepared)
    window = window_vox[::-1]
    padded, offset = _pad(volume, window)
    total: np.ndarray | None = None
    weight = np.zeros_like(padded)
    places = list(_windows(padded.shape, window))
    for index, place in enumerate(places):
        if reporter is not None:
            reporter.report(stage, index / len(places))
        tensor = torch.from_numpy(np.ascontiguousarray(padded[place]))[None, None].to(device)
        with torch.inference_mode():
            patch = network(tensor)[0].float().cpu().numpy()
        importance = _importance(patch.shape[1:])
        if total is None:
            total = np.zeros((len(patch), *padded.shape), np.float32)
        total[(slice(None), *place)] += patch * importance
        weight[place] += importance
    start = tuple(slice(o, o + n) for o, n in zip(offset, volume.shape, strict=True))
    if total is None:
        raise ValueError("A volume without voxels has no window.")
    return [Grid.of(prepared).image((each / weight)[start]) for each in total]


def around_gland(prepared: sitk.Image, gland: sitk.Image, window_vox: tuple[int, int, int]) -> sitk.Image:
    """The part of a prepared image, `window_vox` (i, j, k) at most, about the middle of a gland's extent.

    The gland's mask may lie on another grid. An empty one leaves the image whole.
    """
    size, start = window_about(Grid.of(prepared), gland, window_vox)
    return sitk.RegionOfInterest(prepared, size, start)


def window_about(
    grid: Grid, gland: sitk.Image, window_vox: tuple[int, int, int]
) -> tuple[list[int], list[int]]:
    """Size and first index (i, j, k) of `around_gland`'s part of a grid."""
    size, points = np.array(grid.size_vox), mask_points_mm(gland)
    if len(points) == 0:
        return size.tolist(), [0, 0, 0]
    places = np.linalg.solve(grid.index_to_point[:3, :3], (points - np.array(grid.origin_mm)).T)
    middle = (places.min(axis=1) + places.max(axis=1)) / 2
    kept = np.minimum(size, window_vox)
    start = np.clip(np.round(middle - (kept - 1) / 2), 0, size - kept).astype(int)
    return kept.tolist(), start.tolist()


def _pad(volume: np.ndarray, window: tuple[int, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Centre-pad with zeros to a multiple of 16 along every axis that one window covers."""
    target = [
        -(-n // _STRIDE_MULTIPLE) * _STRIDE_MULTIPLE if n <= w else n
        for n, w in zip(volume.shape, window, strict=True)
    ]
    before = tuple((t - n) // 2 for t, n in zip(target, volume.shape, strict=True))
    widths = [(b, t - n - b) for b, t, n in zip(before, target, volume.shape, strict=True)]
    return np.pad(volume, widths), before


def _windows(shape: tuple[int, ...], window: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Windows that cover the volume with at least half of each overlapping its neighbours."""
    axes = []
    for n, w in zip(shape, window, strict=True):
        size = min(n, w)
        count = 1 if n <= w else int(np.ceil((n - w) / (w / 2))) + 1
        starts = np.linspace(0, n - size, count).round().astype(int)
        axes.append([slice(int(s), int(s) + size) for s in starts])
    return product(*axes)


def _importance(shape: tuple[int, ...]) -> np.ndarray:
    """Weights that fall off towards a window's border, where a network sees least context."""
    axes = [np.exp(-0.5 * (np.linspace(-1, 1, n) / 0.5) ** 2) for n in shape]
    return (axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]).astype(np.float32)


def clean_mask(probability: sitk.Image, *, threshold: float) -> sitk.Image:
    """Threshold, keep the largest connected component, fill its holes (uint8)."""
    components = sitk.RelabelComponent(sitk.ConnectedComponent(probability > threshold))
    return sitk.Cast(sitk.BinaryFillhole(components == 1), sitk.sitkUInt8)


def agree_on_volume(gland: GlandSegmentation, volume_ml: float, model: InstalledModel) -> GlandSegmentation:
    """Draw the mask anew at the threshold where it agrees best with the volume seen in the other image.

    A gland has one volume, and MR shows it more surely than TRUS. The card's `volume_agreement` holds the
    expected `ratio` of this volume to the other, the standard deviation `ratio_log_sd` of its logarithm, and
    `logit_sd`, how far the threshold's logit may stray; the threshold chosen is the likeliest under both. A
    card without it leaves the mask as it is; so does the card of another model than the one that drew it.
    """
    card = model.card
    expected = card.settings.get("volume_agreement")
    if expected is None or gland.probability is None or gland.model != card.name:
        return gland
    start = float(card.settings.get("threshold", 0.5))
    probability = sitk.GetArrayFromImage(gland.probability)
    widest = sitk.GetArrayFromImage(clean_mask(gland.probability, threshold=float(_THRESHOLDS[0]))) > 0
    values = np.sort(probability[widest])
    voxel_ml = float(np.prod(gland.mask.GetSpacing())) / 1000
    volumes_ml = voxel_ml * (values.size - np.searchsorted(values, _THRESHOLDS, side="right"))
    with np.errstate(divide="ignore"):  # a threshold that leaves nothing is infinitely unlikely
        ratio_off = np.log(volumes_ml / (volume_ml * expected["ratio"])) / expected["ratio_log_sd"]
    threshold_off = (logit(_THRESHOLDS) - logit(start)) / expected["logit_sd"]
    threshold = float(_THRESHOLDS[np.argmin(ratio_off**2 + threshold_off**2)])
    mask = clean_mask(gland.probability, threshold=threshold)
    return replace(gland, mask=mask, warnings=mask_warnings(mask, card.modality))


def mask_warnings(mask: sitk.Image, modality: str) -> tuple[QualityWarning, ...]:
    """Warnings about a mask: gland at the border of the field of view, unusual volume."""
    warnings = []
    array = sitk.GetArrayViewFromImage(mask) > 0
    faces = sum(int(np.take(array, end, axis).sum()) for axis in range(3) for end in (0, -1))
    if faces > 0:
        warnings.append(
            QualityWarning(
                f"{modality.lower()}_gland_at_border",
                f"The gland reaches the border of the {modality} volume, so a part of it may be missing.",
            )
        )
    volume_ml = mask_volume_ml(mask)
    if not 10 <= volume_ml <= 200:
        warnings.append(
            QualityWarning(
                f"{modality.lower()}_gland_volume",
                f"The gland in the {modality} image measures {volume_ml:.0f} ml, outside the usual "
                "10–200 ml; check its contour.",
            )
        )
    return tuple(warnings)
