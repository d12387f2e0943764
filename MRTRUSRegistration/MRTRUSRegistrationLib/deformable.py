"""Deformable registration after the rigid one: the network with its card, or ANTs on the masks.

Both give the same kind of result: a displacement field in TRUS space, in LPS mm, that folds nowhere and fades
to zero at the border of the region it was computed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from .ants_masks import mask_pair, run_ants
from .errors import InputError, RegistrationError
from .geometry import Grid
from .jacobian import jacobian_determinant, jacobian_statistics
from .models import BEYOND_GLAND, InstalledModel, ModelCard, load_network
from .progress import Reporter
from .regions import RegionsOfInterest, regions_of_interest
from .results import Deformation, QualityWarning, RigidAlignment
from .rigid import as_rigid, linear_parts, nearest_rigid, rotation_deg
from .structures import SeenStructures, seen_structures, structure_models
from .transforms import displacement_mm, displacements_mm, edge_fade, field_transform

_LEAST_FADE_VOX = 5
_LEAST_JACOBIAN = 0.05
_WIDEST_SMOOTHING_VOX = 20
# The simulator draws turns of 6° (one standard deviation) about each axis, 20° at most.
_LARGEST_ROTATION_DEG = 20.0
# In 120 simulated pairs, random contrasts among them, what is seen of a structure of the gland, added up over
# the whole region, differs by a factor of 1.59 at most (MRTRUSTraining.evaluation.structure_ratio).
_MOST_VOLUME_RATIO = 2.5
_LEAST_STRUCTURE_ML = 0.05
# Where the gland's weight is less, an extended field fades to zero.
_LEAST_WEIGHT = 1e-4
_STORED_SPACING_MM = 1.0
_STORED_SMOOTHING_MM = 1.0
_STAGE = "deform"


@dataclass(frozen=True)
class SynSettings:
    """ANTs affine and SyN on the two masks, the recipe that won the µ-RegPro challenge."""

    spacing_mm: float = 1.5
    margin_mm: float = 18.0
    affine_iterations: tuple[int, ...] = (500, 300, 100)
    affine_shrink_factors: tuple[int, ...] = (4, 2, 1)
    affine_smoothing_vox: tuple[float, ...] = (2, 1, 0)
    syn_iterations: tuple[int, ...] = (60, 40, 20)


def deform_with_network(
    mr: sitk.Image,
    trus: sitk.Image,
    mr_gland: sitk.Image,
    trus_gland: sitk.Image,
    rigid: sitk.Transform,
    model: InstalledModel,
    *,
    axes: str = "",
    mr_axes: str = "",
    device: str = "cpu",
    split_rigid: bool = False,
    reporter: Reporter | None = None,
) -> Deformation:
    """Run a registration network on the regions of interest.

    `rigid` maps TRUS points to MR points; `axes` says how the TRUS axes lie where the header does not,
    `mr_axes` those of the MR. A card that names `structures` has them found in both images first; one with
    `extend_mm` has the field beyond the gland replaced, see `extended`. With
    `split_rigid` the rigid part of the field within the gland goes into the result's `alignment`, and the
    field keeps the rest: a turn of the whole gland need not fade out next to it.
    """
    import torch

    reporter = reporter or Reporter()
    reporter.report(_STAGE, 0.0, "Loading the model")
    network = load_network(model, device)
    seers = structure_models(model)
    structures: dict[str, Any] = {}
    glands = mr_gland, trus_gland
    for modality, each in seers.items():
        image, gland, lie = (mr, mr_gland, mr_axes) if modality == "MR" else (trus, trus_gland, axes)
        found = seen_structures(image, each, gland, axes=lie, device=device)
        structures[f"{modality.lower()}_structures"] = found
    regions = regions_of_interest(mr, trus, *glands, rigid, model.card, axes=axes, **structures)
    reporter.report(_STAGE, 0.3, "Computing the deformation")
    inputs = (
        torch.from_numpy(np.stack([sitk.GetArrayFromImage(image) for image in images]))[None].to(device)
        for images in _network_inputs(regions, model.card)
    )
    with torch.inference_mode():
        displacement_vox = network(*inputs)[0].cpu().numpy()
    if not np.isfinite(displacement_vox).all():
        raise RegistrationError(f"The model {model.card.name} gave a field with undefined values.")
    reporter.report(_STAGE, 0.7, "Checking the field")
    field_mm = displacement_mm(displacement_vox, regions.grid)
    extra: dict[str, Any] = {}
    if split_rigid:
        alignment, field_mm = _without_rigid_part(field_mm, regions, rigid)
        extra = {"alignment": alignment, "start": rigid}
    extend_mm = float(model.card.settings.get("extend_mm", 0.0))
    if extend_mm > 0:
        field_mm = extended(
            field_mm, sitk.GetArrayViewFromImage(regions.fixed_gland) > 0.5, regions.grid, extend_mm
        )
    # A box about the volume was set without a mask, so none decides how its field fades.
    about_gland = model.card.settings.get("box", "gland") == "gland"
    fade_vox = _margin_vox(regions.fixed_gland) if about_gland else _LEAST_FADE_VOX
    transform, warnings = finish_field(field_mm, regions.grid, fade_vox=fade_vox)
    own_folds = _folds_percent(field_mm, regions.grid, regions.fixed_gland)
    if seers:
        warnings += _structure_warnings(regions, seers["MR"].card.settings["structures"])
    if regions.clipped:
        warnings += (
            QualityWarning(
                "gland_larger_than_model",
                "The gland is larger than the region that the model sees; its outer parts move rigidly.",
            ),
        )
    return Deformation(transform, model.card.name, model.card.name, warnings, own_folds, **extra)


def extended(field_mm: np.ndarray, gland: np.ndarray, grid: Grid, width_mm: float) -> np.ndarray:
    """The field (k, j, i, 3) within the gland (k, j, i), and beyond it what the gland's border suggests.

    A network that is trained on the gland alone says nothing sensible outside, and its field may fold there.
    Beyond the gland each voxel gets the mean of the gland's displacements, weighted by a Gaussian of
    `width_mm` (standard deviation); both parts are blended over about a voxel.
    """
    inside = gland.astype(float)
    spread = [width_mm / spacing for spacing in grid.spacing_mm[::-1]]
    weight = np.maximum(gaussian_filter(inside, spread), _LEAST_WEIGHT)
    parts = [gaussian_filter(field_mm[..., c] * inside, spread) / weight for c in range(3)]
    # One within the gland, falling to zero outside it.
    share = np.clip(2 * gaussian_filter(inside, 1.0), 0, 1)[..., None]
    return field_mm * share + np.stack(parts, axis=-1) * (1 - share)


def _structure_warnings(regions: RegionsOfInterest, names: Sequence[str]) -> tuple[QualityWarning, ...]:
    """A structure of which one image shows far more in the region than the other, or neither shows any."""
    warnings = []
    both_seen = (regions.moving_structures.probabilities, regions.fixed_structures.probabilities)
    pairs = zip(names, *both_seen, strict=True)
    for name, *both in pairs:
        # A TRUS volume may end within them.
        if name in BEYOND_GLAND:
            continue
        seen_ml = [
            float(sitk.GetArrayViewFromImage(each).sum()) * regions.grid.voxel_volume_mm3 / 1000
            for each in both
        ]
        if max(_LEAST_STRUCTURE_ML, max(seen_ml) / _MOST_VOLUME_RATIO) <= min(seen_ml):
            continue
        message = (
            f"The model sees {seen_ml[0]:.1f} ml of {name.replace('_', ' ')} in the MR and "
            f"{seen_ml[1]:.1f} ml in the TRUS, so one of them misled it; compare with the method rigid."
        )
        warnings.append(QualityWarning("structures_differ", message))
    return tuple(warnings)


def _without_rigid_part(
    field_mm: np.ndarray, regions: RegionsOfInterest, rigid: sitk.Transform
) -> tuple[RigidAlignment, np.ndarray]:
    """`rigid` after the rigid map R that is nearest to x + u(x) in the gland, and R⁻¹(x + u(x)) − x."""
    points = regions.grid.points_mm()
    inside = sitk.GetArrayViewFromImage(regions.fixed_gland) > 0.5
    found = nearest_rigid(points[inside], (points + field_mm)[inside])
    centre = points[inside].mean(axis=0)
    total = as_rigid(sitk.CompositeTransform([rigid, found]), centre)
    matrix, offset = linear_parts(found)
    # For a rotation matrix, row vectors times the matrix are the inverse rotation of column vectors.
    rest = (points + field_mm - offset) @ matrix - points
    return RigidAlignment(total, "network", rotation_deg(found), _turn_warnings(rotation_deg(found))), rest


def _turn_warnings(angle_deg: float) -> tuple[QualityWarning, ...]:
    if angle_deg <= _LARGEST_ROTATION_DEG:
        return ()
    message = (
        f"The model turns the gland by {angle_deg:.0f}°, more than patients and probes are known to; compare "
        "with the methods rigid and centroid."
    )
    return (QualityWarning("rotation_large", message),)


def _network_inputs(regions: RegionsOfInterest, card: ModelCard) -> tuple[tuple[sitk.Image, ...], ...]:
    """The channels of each input, as the card's `inputs` says: the two regions (the default) with what is
    seen in them, or the two glands after them."""
    wanted = bool(card.settings.get("coordinates", False))
    moving = (regions.moving, *_channels(regions.moving_structures, regions.moving_gland, wanted))
    fixed = (regions.fixed, *_channels(regions.fixed_structures, regions.fixed_gland, wanted))
    if card.settings.get("inputs", "regions") == "regions":
        return moving, fixed
    if card.settings["inputs"] == "images+masks":
        return moving, fixed, (regions.moving_gland,), (regions.fixed_gland,)
    raise InputError(
        f"The card of {card.name} asks for the inputs {card.settings['inputs']!r}, which this version does "
        "not know; export the model again."
    )


def _channels(seen: SeenStructures, gland: sitk.Image, coordinates: bool) -> tuple[sitk.Image, ...]:
    """The structures, and where the network wants coordinates the gland that they hold in, then these."""
    if not coordinates:
        return seen.probabilities
    if not seen.coordinates:
        raise InputError(
            "The registration model wants coordinates in the gland, which the models of its structures do "
            "not tell; install the models that it was exported with."
        )
    return (*seen.probabilities, gland, *seen.coordinates)


def deform_with_syn(
    mr_gland: sitk.Image,
    trus_gland: sitk.Image,
    rigid: sitk.Transform,
    *,
    settings: SynSettings | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Deformation:
    """ANTs affine, then SyN, on the masks after the rigid alignment, as one field."""
    settings = settings or SynSettings()
    reporter = reporter or Reporter()
    pair = mask_pair(
        mr_gland, trus_gland, rigid, spacing_mm=settings.spacing_mm, margin_mm=settings.margin_mm
    )
    reporter.report(_STAGE, 0.1, "Affine and SyN on the masks")
    found = run_ants(
        pair,
        kind="SyN",
        seed=seed,
        initial_transform="Identity",
        aff_metric="meansquares",
        aff_random_sampling_rate=0.5,
        aff_iterations=settings.affine_iterations,
        aff_shrink_factors=settings.affine_shrink_factors,
        aff_smoothing_sigmas=settings.affine_smoothing_vox,
        syn_metric="meansquares",
        reg_iterations=settings.syn_iterations,
    )
    reporter.report(_STAGE, 0.8, "Checking the field")
    field_mm = _as_field_mm(found, pair.grid)
    transform, warnings = finish_field(field_mm, pair.grid, fade_vox=_margin_vox(pair.fixed))
    own_folds = _folds_percent(field_mm, pair.grid, pair.fixed)
    return Deformation(transform, "syn", None, warnings, own_folds)


def _folds_percent(field_mm: np.ndarray, grid: Grid, gland: sitk.Image) -> float:
    """The percentage of the gland's voxels (more than one half) in which a field (k, j, i, 3) folds."""
    return jacobian_statistics(field_transform(field_mm, grid), gland > 0.5).folds_percent


def _as_field_mm(found: list[sitk.Transform], grid: Grid) -> np.ndarray:
    """Displacements (k, j, i, 3) in LPS mm of transforms, in the order that points pass them."""
    return displacements_mm(sitk.CompositeTransform(list(reversed(found))), grid)


def _margin_vox(gland: sitk.Image) -> int:
    """Over how many voxels to fade a field: what lies between the gland and the border of its grid.

    A steep fade folds where the field is not small, such as the affine part of SyN beyond the gland.
    """
    inside = np.argwhere(sitk.GetArrayViewFromImage(gland) > 0)
    if len(inside) == 0:
        return _LEAST_FADE_VOX
    after = np.array(gland.GetSize()[::-1]) - 1 - inside.max(axis=0)
    return max(_LEAST_FADE_VOX, int(min(inside.min(axis=0).min(), after.min())))


def finish_field(
    field_mm: np.ndarray, grid: Grid, *, fade_vox: int = _LEAST_FADE_VOX
) -> tuple[sitk.DisplacementFieldTransform, tuple[QualityWarning, ...]]:
    """Fade the field (k, j, i, 3) to zero at its border, smooth it where it folds, store it finely."""
    fade = edge_fade(field_mm.shape[:3], fade_vox)[..., None]
    faded = finished = field_mm * fade
    folded, width_vox = _folded(faded, grid), 0
    where = folded
    while folded.any():
        width_vox += 1
        if width_vox > _WIDEST_SMOOTHING_VOX:
            raise RegistrationError("The deformation folds and could not be made smooth; use --method rigid.")
        share = _around(where, width_vox)[..., None]
        smooth = _smoothed(faded, grid, width_vox * grid.spacing_mm[0]) * fade
        finished = faded * (1 - share) + smooth * share
        folded = _folded(finished, grid)
        where = where | folded
    transform = _stored_finely(finished, grid)
    if width_vox == 0:
        return transform, ()
    message = (
        f"The deformation folded and was smoothed by {width_vox * grid.spacing_mm[0]:.1f} mm where it did; "
        "compare with the rigid result."
    )
    return transform, (QualityWarning("field_smoothed", message),)


def _folded(field_mm: np.ndarray, grid: Grid) -> np.ndarray:
    """(k, j, i) booleans: where the field folds or nearly does."""
    jacobian = jacobian_determinant(field_transform(field_mm, grid), grid)
    return sitk.GetArrayFromImage(jacobian) < _LEAST_JACOBIAN


def _around(where: np.ndarray, width_vox: int) -> np.ndarray:
    """One in and next to the given voxels, falling to zero over some times `width_vox` beyond them."""
    near = distance_transform_edt(~where) <= 2 * width_vox
    return np.clip(gaussian_filter(near.astype(float), width_vox), 0, 1)


def _stored_finely(field_mm: np.ndarray, grid: Grid) -> sitk.DisplacementFieldTransform:
    """The field on a grid of at most 1 mm, by cubic splines after a slight smoothing.

    ITK reads a field linearly and Slicer cubically. Their difference falls with the square of the spacing; at
    this one it is about 0.01 mm at most for displacements of 6 mm that vary over 15 mm.
    """
    spacing = tuple(min(_STORED_SPACING_MM, s) for s in grid.spacing_mm)
    fine = grid.with_spacing(spacing)  # type: ignore[arg-type]
    start = (np.linalg.inv(grid.index_to_point) @ np.append(fine.origin_mm, 1.0))[2::-1]
    step = np.array(fine.spacing_mm)[::-1] / np.array(grid.spacing_mm)[::-1]
    axes = [s + d * np.arange(n) for s, d, n in zip(start, step, fine.size_vox[::-1], strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    smooth = _smoothed(field_mm, grid, _STORED_SMOOTHING_MM)
    parts = [map_coordinates(smooth[..., c], places, order=3, mode="constant") for c in range(3)]
    return field_transform(np.stack(parts, axis=-1), fine)


def _smoothed(field_mm: np.ndarray, grid: Grid, sigma_mm: float) -> np.ndarray:
    image = sitk.SmoothingRecursiveGaussian(grid.image(field_mm, vector=True), sigma_mm)
    return sitk.GetArrayFromImage(image)
