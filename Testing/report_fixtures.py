"""Registrations of analytic images for the tests of the report."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import SimpleITK as sitk  # noqa: N813
from shapes import bump_mm, ellipsoid, points_mm, turned

from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask
from MRTRUSRegistrationLib.results import (
    Deformation,
    GlandSegmentation,
    LandmarkRow,
    Measures,
    Registration,
    RigidAlignment,
)
from MRTRUSRegistrationLib.transforms import compose, field_transform

GOOD = {"dsc": 0.91, "hd95_mm": 3.25, "msd_mm": 0.94, "landmarks": 0.0, "landmarks_lost": 0.0}
LANDMARKS = {"tre_mean_mm": 2.04, "tre_rms_mm": 2.31, "landmarks": 2.0}
TRUS_GRID = Grid.centred(np.array([3.0, -5.0, 40.0]), (36, 40, 32), (2.0,) * 3, turned(0.1, -0.2, 0.15))


def landmark(name: str, initial_mm: float, rigid_mm: float | None, final_mm: float | None) -> LandmarkRow:
    """A landmark with the given errors; lost where there is no final one."""
    lost = final_mm is None
    return LandmarkRow(name, (0, 0, 0), None if lost else (0, 0, 1), initial_mm, rigid_mm, final_mm, lost)


def measures(*rows: LandmarkRow, **values: float) -> Measures:
    """Good figures, with those given changed or added."""
    return Measures(GOOD | values, rows)


def registration(*, deformed: bool = True, **changes: object) -> Registration:
    """Two ellipsoids, MR shifted by 4 mm and bent, with good measures and without landmarks."""
    centre = tuple(TRUS_GRID.centre_mm.tolist())
    trus_mask = ellipsoid(TRUS_GRID, (24, 18, 20), centre_mm=centre, axes=TRUS_GRID.direction)
    mr_grid = Grid.centred(
        TRUS_GRID.centre_mm + np.array([4, 0, 0]), (30, 30, 22), (2.5, 2.5, 3.0), turned(0, 0, 0)
    )
    mr_mask = ellipsoid(mr_grid, (23, 19, 20), centre_mm=(centre[0] + 4, centre[1], centre[2]))
    rigid = sitk.Euler3DTransform(centre, 0, 0, 0.05, (4.0, 0.0, 0.0))
    field = field_transform(bump_mm(TRUS_GRID, (0, 3, 0), width_mm=15), TRUS_GRID) if deformed else None
    transform = compose(rigid, field)
    mr, trus = wavy(mr_grid), wavy(TRUS_GRID)
    result = Registration(
        mr=mr,
        trus=trus,
        mr_gland=GlandSegmentation(mr_mask),
        trus_gland=GlandSegmentation(trus_mask),
        initial=sitk.TranslationTransform(3),
        rigid=RigidAlignment(rigid, "ants", 2.9),
        deformation=Deformation(field, "cmsa", "cmsa") if field else None,
        transform=transform,
        registered_mr=resample(mr, TRUS_GRID, transform),
        registered_mr_mask=resample_mask(mr_mask, TRUS_GRID, transform),
        mr_landmarks=None,
        trus_landmarks=None,
        measures=measures(),
        initial_measures=measures(dsc=0.61),
        rigid_measures=measures(dsc=0.84),
        warnings=(),
        timings_s={"align": 1.5, "deform": 4.5},
        method="cmsa" if deformed else "rigid",
        provenance={
            "software": {"mrtrus": "0.1.0"},
            "models": {"cmsa": "0123456789abcdef"},
            "settings": {"seed": 7, "rigid": {"metric": "meansquares"}},
            "date": "2026-01-02T03:04:05+00:00",
        },
    )
    return replace(result, **changes)  # type: ignore[arg-type]


def wavy(grid: Grid) -> sitk.Image:
    """An image whose values change everywhere."""
    values = np.sin(points_mm(grid) / 7).sum(axis=-1)
    return grid.image((100 + 30 * values).astype(np.float32))
