"""Drawing the gland, the organs around it and what lies inside it.

Sources stand in the tables of the developers' notes; where a number is a design choice the comment says so.
"""

from __future__ import annotations

import numpy as np
import torch

from .anatomy import Anatomy
from .draw import Draw
from .parameters import (
    CaseParameters,
    Ellipsoid,
    GlandParameters,
    SurroundingParameters,
    Vector,
    zone_volumes_ml,
)
from .presets import Preset

VOLUME_LOG_MEAN, VOLUME_LOG_SD = 3.93, 0.54


def sample_gland(draw: Draw, settings: Preset) -> GlandParameters:
    """Volume lognormal (fusion cohort, n = 649), peripheral zone nearly constant, the rest transition.

    The peripheral zone is at least 22 % of the gland, so that it grows with glands above some 90 ml.
    """
    volume = float(np.exp(draw.normal(VOLUME_LOG_MEAN, VOLUME_LOG_SD, 4.0)))
    volume = float(np.clip(volume, 15, 150))
    if settings.volume_ml is not None:
        volume = draw.between(settings.volume_ml)
    peripheral = float(np.clip(draw.normal(19.0, 3.5), 0.22 * volume, 0.68 * volume))
    lobe = draw.uniform(0.25, 0.42) if draw.chance(0.15 if volume > 40 else 0.03) else 0.0
    return GlandParameters(
        volume_ml=volume,
        transition_zone_ml=volume - peripheral,
        half_depth=draw.normal(0.74, 0.06, 2.0),
        half_height=draw.normal(0.81, 0.07, 2.0),
        taper=draw.uniform(0.12, 0.4),
        exponent=draw.uniform(2.0, 2.7),
        shear=draw.normal(0.12, 0.1, 2.0),
        groove=draw.uniform(0.0, 0.16),
        asymmetry=draw.normal(0.0, 0.05, 2.0),
        zone_asymmetry=draw.normal(0.0, 0.08, 2.0),
        irregularity=draw.uniform(0.02, 0.06),
        median_lobe_radius=lobe,
        urethra_radius_mm=draw.uniform(2.4, 3.6),
        urethra_bend=draw.uniform(0.15, 0.35),
        seed=draw.seed(),
    )


def sample_surroundings(draw: Draw) -> SurroundingParameters:
    content = draw.choice(("collapsed", "gas", "filled"), (0.5, 0.35, 0.15))
    wide = content != "collapsed"
    return SurroundingParameters(
        bladder_radii_mm=(draw.uniform(24, 42), draw.uniform(18, 32), draw.uniform(8, 28)),
        bladder_wall_mm=draw.uniform(2.5, 5.0),
        rectum_radius_mm=draw.uniform(11, 19) if wide else draw.uniform(8, 11),
        rectum_gap_mm=draw.uniform(0.5, 3.0),
        rectum_width=draw.uniform(0.9, 1.5),
        rectum_content=str(content),
        vesicle_length_mm=draw.uniform(18, 30),
        vesicle_radius_mm=draw.uniform(4.0, 7.0),
        levator_gap_mm=draw.uniform(3.0, 8.0),
        levator_slope=draw.uniform(0.4, 0.9),
        levator_thickness_mm=draw.uniform(3.0, 5.5),
        obturator_gap_mm=draw.uniform(6.0, 14.0),
        obturator_thickness_mm=draw.uniform(11.0, 18.0),
        pubis_gap_mm=draw.uniform(6.0, 16.0),
        seed=draw.seed(),
    )


class Zones:
    """Points of the gland on a 2 mm grid with their distances to its surface and zones."""

    def __init__(self, case: CaseParameters) -> None:
        anatomy = Anatomy(case, torch.device("cpu"))
        reach = 1.6 * anatomy.gland.scale_mm
        axis = torch.arange(-reach, reach, 2.0)
        points = torch.cartesian_prod(axis, axis, axis)
        self.anatomy = anatomy
        gland = anatomy.gland.distance(points)
        self.points = points[gland < 0]
        self.gland = gland[gland < 0]
        self.transition = anatomy.gland.transition_distance(self.points, self.gland)
        self.stroma = anatomy.gland.stroma_distance(self.points, self.gland)
        self.urethra = anatomy.gland.urethra_axis_distance(self.points) - case.gland.urethra_radius_mm

    def room(self, zone: str, radius_mm: float) -> torch.Tensor:
        """Where an inclusion of this radius lies mostly within its zone."""
        if zone == "anterior":
            return self.stroma < 0
        deep = self.gland < -0.45 * radius_mm
        clear = self.urethra > 0.6 * radius_mm
        if zone == "transition":
            return deep & clear & (self.transition < -0.4 * radius_mm)
        return deep & clear & (self.transition > 0.2 * radius_mm) & (self.stroma > 0)

    def place(self, draw: Draw, zone: str, radius_mm: float) -> Vector | None:
        """A random position, or None when there is no room."""
        points = self.points[self.room(zone, radius_mm)]
        if len(points) == 0:
            return None
        x, y, z = points[draw.count(0, len(points) - 1)].tolist()
        return x, y, z


def _radii(draw: Draw, radius_mm: float, spread: float) -> Vector:
    """Radii of an ellipsoid with the volume of a sphere of `radius_mm`."""
    ratios = np.exp([draw.uniform(-spread, spread) for _ in range(3)])
    x, y, z = (radius_mm * ratios / np.prod(ratios) ** (1 / 3)).tolist()
    return x, y, z


def sample_lesions(
    draw: Draw, settings: Preset, zones: Zones, gland: GlandParameters
) -> tuple[Ellipsoid, ...]:
    """Diameter lognormal about 11 mm within 5 to 25; 70 % peripheral, 25 % transition, 5 % anterior.

    55 % hypoechoic by 3 to 9 dB, 35 % isoechoic, 10 % hyperechoic; T2 97 ± 18 ms within 61 to 125 ms,
    narrower than the published 97 ± 23 ms (Simpkin 2013).
    """
    lesions = []
    for _ in range(int(str(draw.choice(settings.lesions)))):
        zone = str(draw.choice(("peripheral", "transition", "anterior"), (0.7, 0.25, 0.05)))
        radius = float(np.clip(11 * np.exp(draw.normal(0, 0.35)), 5, 25)) / 2
        echo = draw.choice(("hypo", "iso", "hyper"), (0.55, 0.35, 0.1))
        decibels = {"hypo": draw.uniform(-9, -3), "iso": draw.uniform(-1, 1), "hyper": draw.uniform(2, 6)}
        t2 = min(draw.normal(97, 18, 2.0), 125.0)
        # A large one may be larger than the zone of a small gland.
        radius = min(radius, (0.9 * 1000 * zone_volumes_ml(gland)[zone] * 3 / (4 * np.pi)) ** (1 / 3))
        centre = zones.place(draw, zone, radius)
        while centre is None and radius > 2.6:
            radius *= 0.85
            centre = zones.place(draw, zone, radius)
        if centre is not None:
            lesions.append(Ellipsoid(centre, _radii(draw, radius, 0.3), zone, t2, decibels[str(echo)]))
    return tuple(lesions)


def sample_nodules(draw: Draw, case: CaseParameters, zones: Zones) -> tuple[Ellipsoid, ...]:
    """More nodules in a larger transition zone; T2 70 to 200 ms (stromal to glandular)."""
    largest = 0.35 * (case.gland.transition_zone_ml * 1000) ** (1 / 3)
    expected = case.gland.transition_zone_ml / 5
    nodules = []
    for _ in range(min(draw.count(int(expected / 2), int(1.5 * expected) + 1), 16)):
        radius = min(draw.uniform(3, 10), largest)
        centre = zones.place(draw, "transition", 0.7 * radius)
        if centre is not None:
            radii = _radii(draw, radius, 0.25)
            nodules.append(Ellipsoid(centre, radii, "transition", draw.uniform(70, 200), draw.normal(0, 2.5)))
    return tuple(nodules)


def sample_cysts(draw: Draw, settings: Preset, zones: Zones) -> tuple[Ellipsoid, ...]:
    cysts = []
    for _ in range(draw.count(1, 2) if draw.chance(settings.cyst_share) else 0):
        zone = str(draw.choice(("transition", "peripheral"), (0.7, 0.3)))
        radius = draw.uniform(1.8, 4.5)
        centre = zones.place(draw, zone, radius)
        if centre is not None:
            cysts.append(Ellipsoid(centre, _radii(draw, radius, 0.2), zone, draw.uniform(500, 2000), -36.0))
    return tuple(cysts)


def sample_calcifications(draw: Draw, settings: Preset, zones: Zones) -> tuple[Ellipsoid, ...]:
    """Small pieces along the surgical capsule."""
    border = zones.points[(zones.transition.abs() < 1.2) & (zones.gland < -3) & (zones.points[:, 1] > -4)]
    pieces = []
    if len(border) and draw.chance(settings.calcification_share):
        for _ in range(draw.count(1, 5)):
            x, y, z = border[draw.count(0, len(border) - 1)].tolist()
            radius = draw.uniform(1.0, 2.2)
            pieces.append(Ellipsoid((x, y, z), _radii(draw, radius, 0.3), "transition", 20.0, 15.0))
    return tuple(pieces)
