"""Drawing a case: published distributions in, `CaseParameters` out. Nothing here renders an image.

Sources stand in the tables of the developers' notes; where a number is a design choice the comment says so.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from MRTRUSRegistrationLib.errors import InputError

from .anatomy import Anatomy
from .deformation import Deformed, FieldGrid
from .parameters import (
    CaseParameters,
    DeformationParameters,
    Ellipsoid,
    GlandParameters,
    MrParameters,
    SurroundingParameters,
    TrusParameters,
    Vector,
    validate,
)

SPACING_MM = 0.8
MR_EXTENT_VOX = (120, 128, 128)
TRUS_EXTENT_VOX = (81, 118, 88)
VOLUME_LOG_MEAN, VOLUME_LOG_SD = 3.93, 0.54
MAXIMUM_MOTION_MM = 13.9
_MAXIMUM_VOLUME_CHANGE = 0.045
_SEED_LIMIT = 2**31 - 1000
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Preset:
    """The settings in which presets differ; pairs are the ends of uniform distributions."""

    axial_fwhm_mm: tuple[float, float] = (0.3, 0.5)
    lateral_fwhm_near_mm: tuple[float, float] = (0.5, 0.8)
    lateral_fwhm_far_mm: tuple[float, float] = (0.9, 1.4)
    elevational_fwhm_deg: tuple[float, float] = (2.0, 4.0)
    dynamic_range_db: tuple[float, float] = (50.0, 65.0)
    gamma: tuple[float, float] = (0.8, 1.3)
    peripheral_db: tuple[float, float] = (1.0, 4.0)
    t2_scale: tuple[float, float] = (0.85, 1.1)
    zone_t2_ratio: tuple[float, float] = (0.95, 1.35)
    slice_mm: tuple[float, float] = (3.0, 3.6)
    snr: tuple[float, float] = (10.0, 40.0)
    bias_log_sd: tuple[float, float] = (0.05, 0.3)
    random_contrast_share: float = 0.25
    volume_ml: tuple[float, float] | None = None
    lesions: tuple[int, ...] = (0, 1, 1, 1, 1, 1, 2, 2, 2, 3)
    calcification_share: float = 0.5
    cyst_share: float = 0.4
    shadow_share: float = 0.4
    gain_slope_db: tuple[float, float] = (-36.0, -8.0)


PRESETS = {
    "clinical": Preset(),
    # Ends that "clinical" never reaches: a test of settings that no model was trained on.
    "shifted": Preset(
        axial_fwhm_mm=(0.6, 0.9),
        lateral_fwhm_near_mm=(0.9, 1.3),
        lateral_fwhm_far_mm=(1.6, 2.4),
        elevational_fwhm_deg=(4.5, 6.5),
        dynamic_range_db=(38.0, 47.0),
        gamma=(0.65, 1.5),
        peripheral_db=(-2.0, 0.5),
        t2_scale=(0.75, 0.88),
        zone_t2_ratio=(1.4, 1.8),
        slice_mm=(3.8, 4.5),
        random_contrast_share=0.0,
    ),
    # A typical case with one lesion, a cyst and calcifications to look at.
    "sample": Preset(
        random_contrast_share=0.0,
        volume_ml=(42.0, 52.0),
        lesions=(1,),
        snr=(28.0, 36.0),
        bias_log_sd=(0.08, 0.15),
        dynamic_range_db=(54.0, 60.0),
        gamma=(0.95, 1.1),
        calcification_share=1.0,
        cyst_share=1.0,
        shadow_share=0.0,
        gain_slope_db=(-20.0, -14.0),
    ),
}


class Draw:
    """A seeded source of the few kinds of random numbers that are needed, as plain Python numbers."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def uniform(self, low: float, high: float) -> float:
        return float(self._generator.uniform(low, high))

    def between(self, ends: tuple[float, float]) -> float:
        return self.uniform(*ends)

    def normal(self, mean: float, sd: float, limits: float = 2.5) -> float:
        """A normal number, kept within `limits` standard deviations."""
        return mean + sd * float(np.clip(self._generator.normal(), -limits, limits))

    def chance(self, share: float) -> bool:
        return bool(self._generator.random() < share)

    def choice(self, items: tuple, shares: tuple[float, ...] | None = None) -> object:
        return items[int(self._generator.choice(len(items), p=shares))]

    def count(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return int(self._generator.integers(low, high + 1))

    def seed(self) -> int:
        return int(self._generator.integers(0, _SEED_LIMIT))

    def vector(self, sd: float, limits: float = 2.5) -> Vector:
        return self.normal(0, sd, limits), self.normal(0, sd, limits), self.normal(0, sd, limits)


def sample_case(seed: int, *, preset: str = "clinical", spacing_mm: float = SPACING_MM) -> CaseParameters:
    """Draw one case. The same seed, preset and spacing give the same case.

    Raises `InputError` for an unknown preset, a negative seed or an impossible spacing.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no simulation preset {preset!r}: choose one of {', '.join(PRESETS)}.")
    if seed < 0 or not 0.2 <= spacing_mm <= 4:
        raise InputError("A simulation needs a seed of 0 or more and a voxel spacing of 0.2 to 4 mm.")
    draw, settings = Draw(seed), PRESETS[preset]
    gland = sample_gland(draw, settings)
    case = CaseParameters(
        seed=seed,
        preset=preset,
        spacing_mm=spacing_mm,
        gland=gland,
        surroundings=_sample_surroundings(draw),
        lesions=(),
        nodules=(),
        cysts=(),
        calcifications=(),
        deformation=_sample_deformation(draw, gland),
        mr=_sample_mr(draw, settings, spacing_mm),
        trus=_sample_trus(draw, settings, spacing_mm),
    )
    case = _with_inclusions(case, draw, settings)
    case = _placed(bounded(case), draw)
    validate(case)
    return case


def sample_gland(draw: Draw, settings: Preset) -> GlandParameters:
    """Volume lognormal (fusion cohort, n = 649), peripheral zone nearly constant, the rest transition."""
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


def _sample_surroundings(draw: Draw) -> SurroundingParameters:
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


def _sample_deformation(draw: Draw, gland: GlandParameters) -> DeformationParameters:
    """Rotation sd 6° per axis up to 20°, dent up to 8 mm, residual about 0.5 to 2 mm at 10, 20 and 40 mm."""
    half_width = (gland.volume_ml * 1000 / 2.5) ** (1 / 3)
    return DeformationParameters(
        rotation_deg=draw.vector(6.0, 3.3),
        dent_mm=draw.uniform(0, 8),
        dent_width_mm=draw.uniform(13, 22),
        dent_decay_mm=draw.uniform(0.9, 1.5) * half_width,
        dent_slope=draw.normal(0, 0.25, 2.0),
        dent_position_mm=0.8 * half_width,
        residual_mm=(draw.uniform(0.3, 1.0), draw.uniform(0.5, 2.0), draw.uniform(0.5, 2.0)),
        residual_scales_mm=(10.0, 20.0, 40.0),
        compressibility=draw.uniform(0.1, 0.3),
        strength=1.0,
        field_spacing_mm=2.0,
        field_centre_mm=(0.0, 0.0, 0.0),
        seed=draw.seed(),
    )


# ---- MR

# T2 (ms) mean and sd between patients, proton density, fine and coarse texture (log sd). Zones and tumour are
# measured values (Simpkin 2013, Liu 2011); the others are usual ranges, fat as it appears in fast spin echo.
_MR_TISSUES = {
    "fat": (140.0, 12.0, 1.75, 0.08, 0.14),
    "marrow": (95.0, 10.0, 1.0, 0.05, 0.15),
    "muscle": (42.0, 4.0, 0.95, 0.1, 0.08),
    "cortex": (18.0, 2.0, 0.4, 0.0, 0.0),
    "rectal_wall": (62.0, 6.0, 0.95, 0.1, 0.1),
    "rectum_collapsed": (75.0, 15.0, 0.9, 0.35, 0.2),
    "rectum_gas": (5.0, 0.5, 0.05, 0.0, 0.0),
    "rectum_filled": (120.0, 40.0, 0.9, 0.3, 0.2),
    "bladder_wall": (55.0, 6.0, 0.95, 0.05, 0.05),
    "urine": (1200.0, 250.0, 1.0, 0.0, 0.02),
    "sphincter": (75.0, 8.0, 0.95, 0.1, 0.05),
    "urethra": (65.0, 10.0, 0.95, 0.05, 0.0),
    "verumontanum": (190.0, 40.0, 1.0, 0.0, 0.0),
    "bulb": (220.0, 40.0, 1.0, 0.05, 0.05),
    "vesicle": (330.0, 110.0, 0.95, 0.45, 0.1),
    "plexus": (150.0, 20.0, 1.1, 0.3, 0.2),
    "capsule": (52.0, 6.0, 0.9, 0.0, 0.0),
    "surgical_capsule": (60.0, 8.0, 0.9, 0.0, 0.0),
    "stroma": (45.0, 4.0, 0.95, 0.1, 0.05),
    "calcification": (20.0, 3.0, 0.3, 0.0, 0.0),
}
_PERIPHERAL_T2, _TRANSITION_T2_SD = (149.0, 32.0), 0.1


def _sample_mr(draw: Draw, settings: Preset, spacing_mm: float) -> MrParameters:
    field = float(draw.choice((1.5, 3.0)))  # type: ignore[arg-type]
    slice_mm = draw.between(settings.slice_mm)
    # Higher field: more signal and stronger bias.
    low, high = settings.snr
    middle = (low + high) / 2
    return MrParameters(
        field_t=field,
        echo_time_ms=draw.uniform(90, 115),
        tissues=_mr_tissues(draw, settings, field),
        random_signals={},
        random_contrast=draw.chance(settings.random_contrast_share),
        bias_log_sd=draw.between(settings.bias_log_sd) * (0.7 if field < 2 else 1.0),
        bias_scale_mm=draw.uniform(60, 110),
        snr=draw.uniform(low, middle) if field < 2 else draw.uniform(middle * 0.8, high),
        gamma=draw.uniform(0.85, 1.2),
        slice_spacing_mm=slice_mm,
        slice_thickness_mm=slice_mm * draw.uniform(0.85, 1.0),
        in_plane_mm=draw.uniform(0.6, 1.1),
        coverage_mm=draw.uniform(75, 104),
        tilt_deg=draw.vector(3.0, 2.5),
        centre_mm=draw.vector(60.0),
        offset_mm=(draw.normal(0, 3), draw.normal(2, 5), draw.normal(0, 5)),
        size_vox=_size(MR_EXTENT_VOX, spacing_mm),
        seed=draw.seed(),
    )


def _size(extent_vox: tuple[int, int, int], spacing_mm: float) -> tuple[int, int, int]:
    """The size that covers the standard field of view at another spacing."""
    i, j, k = (round(n * SPACING_MM / spacing_mm) for n in extent_vox)
    return i, j, k


def _mr_tissues(draw: Draw, settings: Preset, field_t: float) -> dict[str, tuple[float, float, float, float]]:
    scale = draw.between(settings.t2_scale) * (1.04 if field_t < 2 else 1.0)
    tissues = {}
    for tissue, (mean, sd, density, fine, coarse) in _MR_TISSUES.items():
        t2 = scale * max(draw.normal(mean, sd), 0.3 * mean)
        tissues[tissue] = (t2, density * draw.uniform(0.92, 1.08), fine, coarse)
    t2, density, fine, coarse = tissues["fat"]
    # How bright fat is depends on the echo train more than on the tissue.
    tissues["fat"] = (t2, density * draw.uniform(0.65, 1.25), fine, coarse)
    peripheral = scale * draw.normal(*_PERIPHERAL_T2, 2.0)
    transition = peripheral / draw.between(settings.zone_t2_ratio)
    tissues["peripheral"] = (peripheral, 1.0, draw.uniform(0.05, 0.12), draw.uniform(0.05, 0.15))
    tissues["transition"] = (transition, 1.0, draw.uniform(0.08, 0.2), draw.uniform(0.1, 0.2))
    return tissues


# ---- TRUS

# Echogenicity against the transition zone (dB, mean and sd), attenuation (dB/cm/MHz), heterogeneity (dB).
# Design choices around published orderings; bone and calcification attenuate so much that they shadow.
_TRUS_TISSUES = {
    "fat": (-2.0, 4.0, 0.63, 3.0),
    "marrow": (-8.0, 3.0, 2.0, 1.0),
    "muscle": (-6.0, 2.0, 0.7, 2.0),
    "cortex": (12.0, 2.0, 9.0, 1.0),
    "rectal_wall": (6.0, 2.5, 0.6, 1.5),
    "bladder_wall": (0.0, 2.0, 0.6, 1.0),
    "urine": (-30.0, 5.0, 0.1, 0.0),
    "sphincter": (-4.0, 2.0, 0.6, 1.0),
    "urethra": (-7.0, 2.0, 0.6, 1.0),
    "verumontanum": (-3.0, 2.0, 0.6, 1.0),
    "bulb": (-5.0, 2.0, 0.6, 1.0),
    "vesicle": (-9.0, 2.0, 0.4, 3.5),
    "plexus": (-2.0, 2.0, 0.5, 4.0),
    "capsule": (3.0, 1.0, 0.6, 0.0),
    "surgical_capsule": (3.0, 2.0, 0.7, 1.0),
    "stroma": (-6.0, 2.0, 0.8, 1.0),
    "cyst": (-36.0, 2.0, 0.1, 0.0),
    "calcification": (15.0, 2.0, 14.0, 0.0),
}


def _sample_trus(draw: Draw, settings: Preset, spacing_mm: float) -> TrusParameters:
    """Everything but the placement, which needs the deformed gland."""
    return TrusParameters(
        frequency_mhz=draw.uniform(6.5, 9.5),
        tissues=_trus_tissues(draw, settings),
        random_contrast=draw.chance(settings.random_contrast_share),
        probe_axis_mm=(0.0, 0.0),
        probe_radius_mm=draw.uniform(8.5, 11.0),
        half_angle_deg=draw.normal(46, 4, 2.0),
        depth_mm=draw.uniform(60, 66),
        standoff_mm=draw.uniform(3.0, 8.5),
        wall_mm=draw.uniform(4.0, 9.0),
        axial_fwhm_mm=draw.between(settings.axial_fwhm_mm),
        lateral_fwhm_mm=(
            draw.between(settings.lateral_fwhm_near_mm),
            draw.between(settings.lateral_fwhm_far_mm),
        ),
        elevational_fwhm_deg=draw.between(settings.elevational_fwhm_deg),
        dynamic_range_db=draw.between(settings.dynamic_range_db),
        gain_db=draw.normal(-9, 4, 2.0),
        gain_slope_db=draw.between(settings.gain_slope_db),
        gain_variation_db=draw.uniform(0.5, 2.5),
        tgc_db_cm_mhz=draw.normal(0.56, 0.05, 2.0),
        noise_floor_db=draw.uniform(-48, -36),
        ring_down_db=draw.uniform(-32, -6),
        ring_down_mm=draw.uniform(1.5, 4.0),
        capsule_db=draw.uniform(2.0, 9.0),
        gamma=draw.between(settings.gamma),
        shadow_sectors_deg=_shadow_sectors(draw, settings),
        centre_mm=draw.vector(60.0),
        grid_centre_mm=(0.0, 0.0, 0.0),
        size_vox=_size(TRUS_EXTENT_VOX, spacing_mm),
        seed=draw.seed(),
    )


def _shadow_sectors(draw: Draw, settings: Preset) -> tuple[tuple[float, float, float], ...]:
    """(angle, width, loss in dB) of sectors lost to gas or poor contact; most lie at the fan's sides."""
    count = draw.count(1, 2) if draw.chance(settings.shadow_share) else 0
    side = [1.0 if draw.chance(0.5) else -1.0 for _ in range(count)]
    return tuple((s * draw.uniform(18, 50), draw.uniform(3, 9), draw.uniform(5, 18)) for s in side)


def _trus_tissues(draw: Draw, settings: Preset) -> dict[str, tuple[float, float, float]]:
    tissues = {}
    for tissue, (mean, sd, loss, texture) in _TRUS_TISSUES.items():
        tissues[tissue] = (draw.normal(mean, sd), loss * draw.uniform(0.85, 1.15), texture)
    loss = draw.uniform(0.5, 0.65)
    tissues["transition"] = (0.0, loss, draw.uniform(1.5, 3.5))
    tissues["peripheral"] = (draw.between(settings.peripheral_db), loss, draw.uniform(0.5, 1.5))
    return tissues


# ---- what lies inside the gland


class Zones:
    """Points of the gland on a 2 mm grid with their distances to its surface and zones."""

    def __init__(self, case: CaseParameters) -> None:
        anatomy = Anatomy(case, _CPU)
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


def _with_inclusions(case: CaseParameters, draw: Draw, settings: Preset) -> CaseParameters:
    zones = Zones(case)
    case = replace(
        case,
        lesions=sample_lesions(draw, settings, zones),
        nodules=_sample_nodules(draw, case, zones),
        cysts=_sample_cysts(draw, settings, zones),
        calcifications=_sample_calcifications(draw, settings, zones),
    )
    return _with_contrasts(case, draw)


def _radii(draw: Draw, radius_mm: float, spread: float) -> Vector:
    """Radii of an ellipsoid with the volume of a sphere of `radius_mm`."""
    ratios = np.exp([draw.uniform(-spread, spread) for _ in range(3)])
    x, y, z = (radius_mm * ratios / np.prod(ratios) ** (1 / 3)).tolist()
    return x, y, z


def sample_lesions(draw: Draw, settings: Preset, zones: Zones) -> tuple[Ellipsoid, ...]:
    """Diameter lognormal about 11 mm within 5 to 25; 70 % peripheral, 25 % transition, 5 % anterior.

    55 % hypoechoic by 3 to 9 dB, 35 % isoechoic, 10 % hyperechoic; T2 97 ± 23 ms.
    """
    lesions = []
    for _ in range(int(str(draw.choice(settings.lesions)))):
        zone = str(draw.choice(("peripheral", "transition", "anterior"), (0.7, 0.25, 0.05)))
        radius = float(np.clip(11 * np.exp(draw.normal(0, 0.35)), 5, 25)) / 2
        echo = draw.choice(("hypo", "iso", "hyper"), (0.55, 0.35, 0.1))
        decibels = {"hypo": draw.uniform(-9, -3), "iso": draw.uniform(-1, 1), "hyper": draw.uniform(2, 6)}
        t2 = min(draw.normal(97, 18, 2.0), 125.0)
        centre = zones.place(draw, zone, radius)
        while centre is None and radius > 2.6:
            radius *= 0.85
            centre = zones.place(draw, zone, radius)
        if centre is not None:
            lesions.append(Ellipsoid(centre, _radii(draw, radius, 0.3), zone, t2, decibels[str(echo)]))
    return tuple(lesions)


def _sample_nodules(draw: Draw, case: CaseParameters, zones: Zones) -> tuple[Ellipsoid, ...]:
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


def _sample_cysts(draw: Draw, settings: Preset, zones: Zones) -> tuple[Ellipsoid, ...]:
    cysts = []
    for _ in range(draw.count(1, 2) if draw.chance(settings.cyst_share) else 0):
        zone = str(draw.choice(("transition", "peripheral"), (0.7, 0.3)))
        radius = draw.uniform(1.8, 4.5)
        centre = zones.place(draw, zone, radius)
        if centre is not None:
            cysts.append(Ellipsoid(centre, _radii(draw, radius, 0.2), zone, draw.uniform(500, 2000), -36.0))
    return tuple(cysts)


def _sample_calcifications(draw: Draw, settings: Preset, zones: Zones) -> tuple[Ellipsoid, ...]:
    """Small pieces along the surgical capsule."""
    border = zones.points[(zones.transition.abs() < 1.2) & (zones.gland < -3) & (zones.points[:, 1] > -4)]
    pieces = []
    if len(border) and draw.chance(settings.calcification_share):
        for _ in range(draw.count(1, 5)):
            x, y, z = border[draw.count(0, len(border) - 1)].tolist()
            radius = draw.uniform(1.0, 2.2)
            pieces.append(Ellipsoid((x, y, z), _radii(draw, radius, 0.3), "transition", 20.0, 15.0))
    return tuple(pieces)


def _with_contrasts(case: CaseParameters, draw: Draw) -> CaseParameters:
    """Add the inclusions to both tissue tables; replace contrasts by random ones where the case says so."""
    mr, trus = dict(case.mr.tissues), dict(case.trus.tissues)
    for kind in ("lesion", "nodule", "cyst", "calcification"):
        for number, inclusion in enumerate(getattr(case, f"{kind}s")):
            around = trus["transition" if inclusion.zone != "peripheral" else "peripheral"]
            density = 0.3 if kind == "calcification" else 1.0
            texture = draw.uniform(0.05, 0.3) if kind == "nodule" else 0.06
            mr[f"{kind}{number}"] = (inclusion.t2_ms, density, texture, 0.05)
            loss = {"cyst": 0.1, "calcification": 14.0}.get(kind, around[1])
            trus[f"{kind}{number}"] = (around[0] + inclusion.echo_db, loss, 0.0 if kind == "cyst" else 1.5)
    signals = {tissue: draw.uniform(0.03, 1.0) for tissue in mr} if case.mr.random_contrast else {}
    if case.trus.random_contrast:
        trus = {tissue: (draw.uniform(-18, 8), loss, spread) for tissue, (_, loss, spread) in trus.items()}
    return replace(
        case,
        mr=replace(case.mr, tissues=mr, random_signals=signals),
        trus=replace(case.trus, tissues=trus),
    )


# ---- deformation within bounds, placement of the probe


def deformation_of(case: CaseParameters, device: torch.device) -> Deformed:
    """The case's map from the TRUS frame to the gland frame."""
    i, j, k = (n * case.spacing_mm for n in case.trus.size_vox)
    return _deformed(case.deformation, (j, i, k), device)


@lru_cache(maxsize=2)
def _deformed(deformation: DeformationParameters, extent_mm: Vector, device: torch.device) -> Deformed:
    """The map of these parameters, remembered because bounds, placement and rendering all need it."""
    grid = FieldGrid.around(deformation.field_centre_mm, extent_mm, deformation.field_spacing_mm)
    return Deformed.of(grid, deformation, device)


def _gland_in_trus(case: CaseParameters, deformed: Deformed) -> torch.Tensor:
    """(z, y, x) boolean: the gland at the nodes of the displacement field."""
    points = deformed.grid.points_mm(_CPU)
    inside = Anatomy(case, _CPU).gland.distance(deformed(points.reshape(-1, 3))) < 0
    return inside.reshape(points.shape[:3])


def within_bounds(case: CaseParameters, deformed: Deformed) -> bool:
    """No fold, gland volume kept, local volume nearly kept, motion within the published range."""
    inside = _gland_in_trus(case, deformed)
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
        weaker = dataclasses.replace(case.deformation, strength=0.85 * case.deformation.strength)
        case = replace(case, deformation=weaker)
    return case


def _placed(case: CaseParameters, draw: Draw) -> CaseParameters:
    """Put the probe behind the deformed gland, and the volume about both."""
    deformed = deformation_of(case, _CPU)
    gland = deformed.grid.points_mm(_CPU)[_gland_in_trus(case, deformed)]
    trus = case.trus
    middle = draw.normal(0, 2.5) + float(gland[:, 0].mean())
    back = float(gland[(gland[:, 0] - middle).abs() < 6, 1].max())
    axis_y = back + trus.probe_radius_mm + trus.standoff_mm + trus.wall_mm + draw.uniform(-1, 2)
    angle = torch.atan2((gland[:, 0] - middle).abs(), axis_y - gland[:, 1]).rad2deg()
    # The operator opens the fan far enough for nearly all of the gland.
    needed = float(torch.quantile(angle[:: max(1, len(angle) // 100_000)], 0.97))
    half_angle = min(max(trus.half_angle_deg, needed), 65.0)
    depth_mm = trus.size_vox[0] * case.spacing_mm
    box_back = axis_y - trus.probe_radius_mm + draw.uniform(1.0, 5.0)
    half_height = float(gland[:, 2].max() - gland[:, 2].min()) / 2
    spare = max(trus.size_vox[2] * case.spacing_mm / 2 - half_height, 0.0)
    above = min(draw.uniform(1, 8), 0.8 * spare)
    centre_z = float(gland[:, 2].max() + gland[:, 2].min()) / 2 + above
    centre = (middle + draw.normal(0, 1.5), box_back - depth_mm / 2, centre_z)
    placed = replace(trus, probe_axis_mm=(middle, axis_y), half_angle_deg=half_angle, grid_centre_mm=centre)
    return replace(case, trus=placed)
