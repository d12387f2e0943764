"""The deformation within its bounds, and the probe and the volume placed about the deformed gland."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from MRTRUSRegistrationLib.errors import InputError

from .anatomy import Anatomy
from .deformation import Deformed, FieldGrid, one_thread
from .draw import Draw
from .parameters import CaseParameters, DeformationParameters, Vector

MAXIMUM_MOTION_MM = 13.9
_MAXIMUM_VOLUME_CHANGE = 0.045
_CPU = torch.device("cpu")


def deformation_of(case: CaseParameters, device: torch.device) -> Deformed:
    """The case's map from the TRUS frame to the gland frame."""
    i, j, k = (n * case.spacing_mm for n in case.trus.size_vox)
    return _deformed(case.deformation, (j, i, k), device)


@lru_cache(maxsize=2)
def _deformed(deformation: DeformationParameters, extent_mm: Vector, device: torch.device) -> Deformed:
    """The map of these parameters, remembered because bounds, placement and rendering all need it."""
    grid = FieldGrid.around(deformation.field_centre_mm, extent_mm, deformation.field_spacing_mm)
    with one_thread():
        return Deformed.of(grid, deformation, device)


def _gland_in_trus(case: CaseParameters, deformed: Deformed) -> torch.Tensor:
    """(z, y, x) boolean: the gland at the nodes of the displacement field."""
    points = deformed.grid.points_mm(_CPU)
    inside = Anatomy(case, _CPU).gland.distance(deformed(points.reshape(-1, 3))) < 0
    return inside.reshape(points.shape[:3])


def within_bounds(case: CaseParameters, deformed: Deformed) -> bool:
    """No fold, gland volume kept, local volume nearly kept, motion within the published range."""
    inside = _gland_in_trus(case, deformed)
    if not inside.any():
        return False
    jacobian = deformed.jacobian()[inside]
    motion = deformed.field[inside].norm(dim=1)
    # The determinant maps TRUS volume to MR volume: its mean over the gland in TRUS is their ratio.
    ratio = 1 / float(jacobian.mean())
    return (
        float(jacobian.min()) > 0.25
        and float((jacobian - 1).abs().median()) < 0.1
        and abs(ratio - 1) < _MAXIMUM_VOLUME_CHANGE
        and float(motion.max()) < MAXIMUM_MOTION_MM
    )


def check_geometry(case: CaseParameters) -> None:
    """Raise `InputError` where an inclusion lies outside the gland or the map leaves the sampler's bounds.

    The sampler sees to both; parameters that were edited may break them, and `validate` cannot see it
    without the anatomy.
    """
    gland = Anatomy(case, _CPU).gland
    for name in ("lesions", "nodules", "cysts", "calcifications"):
        for inclusion in getattr(case, name):
            if gland.distance(torch.tensor([inclusion.centre_mm])).item() >= 0:
                raise InputError(
                    f"One of the {name} lies outside the gland, at {inclusion.centre_mm}; move its centre."
                )
    if not within_bounds(case, deformation_of(case, _CPU)):
        raise InputError(
            "The deformation folds, changes the gland's volume, moves it by more than "
            f"{MAXIMUM_MOTION_MM} mm or does not reach it; lower deformation.strength or move its centre."
        )


def bounded(case: CaseParameters) -> CaseParameters:
    """Place the field about the gland's nominal position and weaken it until the bounds hold."""
    trus = case.trus
    half = (case.gland.volume_ml * 1000 / 2.5) ** (1 / 3)
    back = case.gland.half_depth * half + trus.probe_radius_mm + trus.standoff_mm + trus.wall_mm - 7
    depth_mm = trus.size_vox[0] * case.spacing_mm
    centre = (0.0, back - depth_mm / 2, 3.0)
    deformation = replace(case.deformation, field_centre_mm=centre)
    case = replace(case, deformation=deformation)
    while not within_bounds(case, deformation_of(case, _CPU)):
        weaker = replace(case.deformation, strength=0.85 * case.deformation.strength)
        case = replace(case, deformation=weaker)
    return case


def placed(case: CaseParameters, draw: Draw) -> CaseParameters:
    """Put the probe behind the deformed gland, and the volume about both."""
    deformed = deformation_of(case, _CPU)
    gland = deformed.grid.points_mm(_CPU)[_gland_in_trus(case, deformed)]
    trus = case.trus
    middle = draw.normal(0, 2.5) + float(gland[:, 0].mean())
    back = float(gland[(gland[:, 0] - middle).abs() < 6, 1].max())
    axis_y = back + trus.probe_radius_mm + trus.standoff_mm + trus.wall_mm + draw.uniform(-1, 2)
    angle = torch.atan2((gland[:, 0] - middle).abs(), axis_y - gland[:, 1]).rad2deg()
    # The operator sets the fan and its depth so that it shows nearly all of the gland.
    needed_deg = _high_quantile(angle) + 2.0
    half_angle = min(max(trus.half_angle_deg, needed_deg), 80.0)
    reach = torch.hypot(gland[:, 0] - middle, axis_y - gland[:, 1])
    seen_mm = max(trus.depth_mm, _high_quantile(reach) - trus.probe_radius_mm + 2.0)
    depth_mm = trus.size_vox[0] * case.spacing_mm
    # A deep gland is shown whole at the cost of what lies next to the probe.
    deepest_back = float(gland[:, 1].min()) - 1.0 + depth_mm
    box_back = max(min(axis_y - trus.probe_radius_mm + draw.uniform(1.0, 5.0), deepest_back), back + 3.0)
    half_height = float(gland[:, 2].max() - gland[:, 2].min()) / 2
    spare = max(trus.size_vox[2] * case.spacing_mm / 2 - half_height, 0.0)
    above = min(draw.uniform(1, 8), 0.8 * spare)
    centre_z = float(gland[:, 2].max() + gland[:, 2].min()) / 2 + above
    centre = (middle + draw.normal(0, 1.5), box_back - depth_mm / 2, centre_z)
    placed = replace(
        trus,
        probe_axis_mm=(middle, axis_y),
        half_angle_deg=half_angle,
        depth_mm=seen_mm,
        grid_centre_mm=centre,
    )
    return replace(case, trus=placed)


def _high_quantile(values: torch.Tensor) -> float:
    """The 99.5th percentile; torch limits how many values it sorts."""
    return float(torch.quantile(values[:: max(1, len(values) // 100_000)], 0.995))
