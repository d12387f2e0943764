"""Targets on the MR, such as lesions, carried to the TRUS and described where a needle would find them.

Frame: LPS, millimetres, unless a name says RAS. A target is a point, or a label whose centroid is its point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .geometry import (
    Grid,
    mask_centroid_mm,
    mask_volume_ml,
    reordered_direction,
    resample,
    resample_mask,
)
from .gland_surface import GlandSurface
from .results import GlandSegmentation, QualityWarning
from .segments import voxel_count
from .transforms import compose, inverse_points_mm

Point = tuple[float, float, float]
Side = Literal["left", "right", "midline"]
Third = Literal["apex", "mid", "base"]

# Nearer to the middle than a registration's own error (about 5 mm on landmarks), a side cannot be told.
MIDLINE_MM = 5.0
# Room around a carried label's box for what a deformation bends between the box's sampled places.
_BEND_MM = 5.0


@dataclass(frozen=True)
class Target:
    """A structure on the MR: `point_mm` is (3,), LPS; `label` is binary, on the MR's grid."""

    name: str
    point_mm: np.ndarray
    label: sitk.Image | None = None


@dataclass(frozen=True)
class TargetRow:
    """A target in TRUS space.

    `capsule_mm` is the distance to the gland's surface, positive inside. `apex_to_base` is 0 at the gland's
    lowest and 1 at its highest point. `trus_ml` counts what lies in the TRUS volume. `spread_mm` is the
    confidence map there (the label's mean); absent without a map or outside the gland. `moved_mm` is how
    far a person moved the target after it was carried. `label` is uint8 on the TRUS grid.
    """

    name: str
    mr_mm: Point | None
    trus_mm: Point
    capsule_mm: float
    apex_to_base: float
    third: Third
    side: Side
    mr_ml: float | None = None
    trus_ml: float | None = None
    spread_mm: float | None = None
    moved_mm: float = 0.0
    warnings: tuple[QualityWarning, ...] = ()
    label: sitk.Image | None = field(default=None, repr=False, compare=False)

    @property
    def trus_ras_mm(self) -> Point:
        return -self.trus_mm[0], -self.trus_mm[1], self.trus_mm[2]


@dataclass(frozen=True)
class TrusGland:
    """The TRUS gland as a place to describe targets in: its surface, its extent, the sides of the patient.

    `left` and `superior` are unit vectors: the patient's own axes, not the gland's long axis. Where the
    header does not say how the TRUS lies, they are the index axes that `axes` names.
    """

    grid: Grid
    centre_mm: np.ndarray
    surface: GlandSurface
    left: np.ndarray
    superior: np.ndarray

    @classmethod
    def of(cls, gland: sitk.Image | GlandSegmentation, *, axes: str = "") -> TrusGland:
        """From a binary mask on the TRUS grid; `axes` as in `GlandSegmentation`, whose own is used."""
        if isinstance(gland, GlandSegmentation):
            gland, axes = gland.mask, gland.axes
        if not voxel_count(gland):
            raise InputError("The mask of the TRUS is empty; draw the prostate gland in it.")
        left, _, superior = _patient_axes(gland, axes).T
        return cls(Grid.of(gland), mask_centroid_mm(gland), GlandSurface.of(gland), left, superior)

    def apex_to_base(self, point_mm: Sequence[float] | np.ndarray) -> float:
        """Height in the gland: 0 at its lowest, 1 at its highest point along the patient's axis.

        Below 0 or above 1 beyond them.
        """
        heights = self.surface.points_mm @ self.superior
        return float((np.dot(point_mm, self.superior) - heights.min()) / np.ptp(heights))

    def third(self, point_mm: Sequence[float] | np.ndarray) -> Third:
        """The apical, middle or basal third of the gland's height, as sector maps divide it."""
        height = self.apex_to_base(point_mm)
        return "apex" if height < 1 / 3 else "mid" if height <= 2 / 3 else "base"

    def side(self, point_mm: Sequence[float] | np.ndarray) -> Side:
        """The patient's side of the sagittal plane through the gland's centroid, with a band as midline."""
        to_left = float(np.dot(np.asarray(point_mm, float) - self.centre_mm, self.left))
        if abs(to_left) <= MIDLINE_MM:
            return "midline"
        return "left" if to_left > 0 else "right"

    def in_view(self, point_mm: Sequence[float] | np.ndarray) -> bool:
        """Whether a point lies in the TRUS volume, the outer halves of its border voxels included."""
        index = (np.linalg.inv(self.grid.index_to_point) @ np.append(point_mm, 1.0))[:3]
        return bool(np.all(index >= -0.5) and np.all(index <= np.array(self.grid.size_vox) - 0.5))


def carry_targets(
    targets: Sequence[Target],
    rigid: sitk.Transform,
    deformation: sitk.DisplacementFieldTransform | None,
    gland: TrusGland,
    *,
    confidence: sitk.Image | None = None,
) -> tuple[TargetRow, ...]:
    """Carry targets from MR to TRUS space and describe them there.

    `rigid` and `deformation` are those of a registration (x ↦ rigid(x + u(x)) maps TRUS points to MR points).
    Points go through its exact inverse; labels are resampled, and their point is the centroid of the carried
    label, what sticks out of the TRUS volume included. `confidence` is a map in mm on the TRUS grid.
    """
    return tuple(_carried(target, rigid, deformation, gland, confidence) for target in targets)


def describe_target(
    name: str,
    trus_mm: Sequence[float] | np.ndarray,
    gland: TrusGland,
    *,
    mr_mm: Sequence[float] | np.ndarray | None = None,
    label: sitk.Image | None = None,
    mr_ml: float | None = None,
    moved_mm: float = 0.0,
    confidence: sitk.Image | None = None,
) -> TargetRow:
    """A row about a target that already is in TRUS space; `label` and `confidence` lie on the TRUS grid."""
    position = _triple(trus_mm)
    if not np.isfinite(position).all():
        raise InputError(f"The target {name} has no finite position: correct or remove it.")
    capsule_mm = float(gland.surface.distance_mm(np.array([position]))[0])
    return TargetRow(
        name=name,
        mr_mm=None if mr_mm is None else _triple(mr_mm),
        trus_mm=position,
        capsule_mm=capsule_mm,
        apex_to_base=gland.apex_to_base(position),
        third=gland.third(position),
        side=gland.side(position),
        mr_ml=mr_ml,
        trus_ml=None if label is None else mask_volume_ml(label),
        spread_mm=None if confidence is None else _spread_mm(confidence, position, label, gland),
        moved_mm=moved_mm,
        warnings=_place_warnings(name, capsule_mm, in_view=gland.in_view(position)),
        label=label,
    )


def move_target(
    row: TargetRow,
    shift_mm: Sequence[float] | np.ndarray,
    gland: TrusGland,
    *,
    confidence: sitk.Image | None = None,
) -> TargetRow:
    """The target after a person moved it by `shift_mm` (LPS, TRUS space); its label moves along.

    `moved_mm` is the length of the way that was moved, over all moves. To follow a drag, move the carried row
    each time by the whole way: every move resamples the label once more.
    """
    shift = np.asarray(shift_mm, float)
    label = row.label
    if label is not None:
        label = resample_mask(label, Grid.of(label), sitk.TranslationTransform(3, (-shift).tolist()))
    return describe_target(
        row.name,
        np.add(row.trus_mm, shift),
        gland,
        mr_mm=row.mr_mm,
        label=label,
        mr_ml=row.mr_ml,
        moved_mm=row.moved_mm + float(np.linalg.norm(shift)),
        confidence=confidence,
    )


def _carried(
    target: Target,
    rigid: sitk.Transform,
    deformation: sitk.DisplacementFieldTransform | None,
    gland: TrusGland,
    confidence: sitk.Image | None,
) -> TargetRow:
    point_mm = inverse_points_mm(rigid, deformation, np.reshape(target.point_mm, (1, 3)))[0]
    if target.label is not None and not voxel_count(target.label):
        raise InputError(f"The target {target.name} has no voxels on the MR: draw it or remove it.")
    if target.label is None:
        return describe_target(target.name, point_mm, gland, mr_mm=target.point_mm, confidence=confidence)
    found = _carried_label(target.label, rigid, deformation, gland)
    row = describe_target(
        target.name,
        point_mm if found.centroid_mm is None else found.centroid_mm,
        gland,
        mr_mm=target.point_mm,
        label=found.label,
        mr_ml=mask_volume_ml(target.label),
        confidence=confidence,
    )
    return replace(row, warnings=row.warnings + _label_warnings(target.name, found))


@dataclass(frozen=True)
class _CarriedLabel:
    """A label on the TRUS grid, the fraction of it that the grid holds, and the centroid of the whole.

    The centroid is None where the label is too small for the TRUS voxels.
    """

    label: sitk.Image
    seen: float
    centroid_mm: np.ndarray | None


def _carried_label(
    label: sitk.Image,
    rigid: sitk.Transform,
    deformation: sitk.DisplacementFieldTransform | None,
    gland: TrusGland,
) -> _CarriedLabel:
    """Resample on the TRUS grid's voxels around the label only, beyond the TRUS volume too."""
    places_mm = inverse_points_mm(rigid, deformation, _lattice_mm(label))
    box = _box_on_lattice(places_mm, gland.grid)
    whole = resample_mask(label, box, compose(rigid, deformation))
    count = voxel_count(whole)
    # The voxels of both are the same where both have some.
    seen = resample(whole, gland.grid, nearest=True)
    if not count:
        return _CarriedLabel(seen, 0.0, None)
    return _CarriedLabel(seen, voxel_count(seen) / count, mask_centroid_mm(whole))


def _lattice_mm(label: sitk.Image) -> np.ndarray:
    """(27, 3) corners, middles of edges and faces, and middle of a label's box."""
    index = np.argwhere(sitk.GetArrayViewFromImage(label) > 0)[:, ::-1]
    low, high = index.min(axis=0) - 0.5, index.max(axis=0) + 0.5
    steps = np.stack(np.meshgrid(*[np.linspace(0, 1, 3)] * 3), axis=-1).reshape(-1, 3)
    matrix = Grid.of(label).index_to_point
    return (low + steps * (high - low)) @ matrix[:3, :3].T + matrix[:3, 3]


def _box_on_lattice(points_mm: np.ndarray, grid: Grid) -> Grid:
    """The part of the lattice of `grid`, beyond its borders too, around some points."""
    inverse = np.linalg.inv(grid.index_to_point)
    index = points_mm @ inverse[:3, :3].T + inverse[:3, 3]
    margin = _BEND_MM / np.array(grid.spacing_mm)
    start = np.floor(index.min(axis=0) - margin).astype(int)
    size = np.ceil(index.max(axis=0) + margin).astype(int) + 1 - start
    origin = (grid.index_to_point @ np.append(start, 1.0))[:3]
    return Grid(tuple(size.tolist()), grid.spacing_mm, tuple(origin.tolist()), grid.direction)


def _spread_mm(
    confidence: sitk.Image, position: Point, label: sitk.Image | None, gland: TrusGland
) -> float | None:
    """The map's mean over a label, or its value in the voxel of a point; a map says nothing where it is 0."""
    values = sitk.GetArrayViewFromImage(confidence)
    if label is not None and voxel_count(label):
        inside = values[sitk.GetArrayViewFromImage(label) > 0]
    elif gland.in_view(position):
        last = np.array(confidence.GetSize()) - 1
        index = np.clip(np.round(confidence.TransformPhysicalPointToContinuousIndex(position)), 0, last)
        inside = values[tuple(index[::-1].astype(int))].reshape(1)
    else:
        return None
    known = inside[inside > 0]
    return float(known.mean()) if known.size else None


def _place_warnings(name: str, capsule_mm: float, *, in_view: bool) -> tuple[QualityWarning, ...]:
    found = []
    if capsule_mm < 0:
        message = (
            f"The target {name} lies {-capsule_mm:.1f} mm outside of the gland in TRUS; check both contours"
            " and whether the target belongs to the gland."
        )
        found.append(QualityWarning("target_outside_gland", message))
    if not in_view:
        message = f"The target {name} lies outside of the TRUS volume, where nothing can be seen."
        found.append(QualityWarning("target_outside_view", message))
    return tuple(found)


def _label_warnings(name: str, found: _CarriedLabel) -> tuple[QualityWarning, ...]:
    if found.centroid_mm is None:
        message = f"The target {name} is too small for the TRUS voxels; only its position was carried."
        return (QualityWarning("target_too_small", message),)
    if found.seen == 1:
        return ()
    message = (
        f"Only {100 * found.seen:.0f} % of the target {name} lies in the TRUS volume; the rest is cut off."
    )
    return (QualityWarning("target_cut", message),)


def _patient_axes(gland: sitk.Image, axes: str) -> np.ndarray:
    """3×3 matrix whose columns point to the patient's left, back and head.

    These are the axes of LPS; where `axes` says how the index axes really lie, they are made from those.
    """
    if not axes:
        return np.eye(3)
    return np.reshape(reordered_direction(gland.GetDirection(), axes, "LPS"), (3, 3))


def _triple(point: Sequence[float] | np.ndarray) -> Point:
    x, y, z = (float(value) for value in point)
    return x, y, z
