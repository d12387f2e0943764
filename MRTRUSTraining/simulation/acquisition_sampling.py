"""Drawing how MR and TRUS show the tissues: contrasts, resolution, noise and artefacts."""

from __future__ import annotations

from dataclasses import replace

from .draw import Draw
from .parameters import CaseParameters, MrParameters, TrusParameters
from .presets import MR_EXTENT_VOX, SPACING_MM, TRUS_EXTENT_VOX, Preset

# T2 (ms) mean and sd between patients, proton density, fine and coarse texture (log sd). Usual ranges, fat as
# it appears in fast spin echo; the capsules' T2 is above and the vesicles' below the usual one.
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
# Liu 2011, normal tissue at 3 T. The transition zone's T2 follows from it by a ratio.
_PERIPHERAL_T2 = (149.0, 32.0)


def sample_mr(draw: Draw, settings: Preset, spacing_mm: float) -> MrParameters:
    # Drawn in any case, so that a seed is the same patient at either field strength.
    drawn = float(draw.choice((1.5, 3.0)))  # type: ignore[arg-type]
    field = settings.field_t or drawn
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


# Echogenicity against the transition zone (dB, mean and sd), attenuation (dB/cm/MHz), heterogeneity (dB).
# Design choices around published orderings; bone and calcification attenuate so much that they shadow.
_TRUS_TISSUES = {
    # Periprostatic fat is brighter than the transition zone, as in the public TRUS volumes.
    "fat": (4.0, 2.0, 0.63, 2.0),
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


def sample_trus(draw: Draw, settings: Preset, spacing_mm: float) -> TrusParameters:
    """Everything but the placement, which needs the deformed gland."""
    return TrusParameters(
        frequency_mhz=draw.uniform(6.5, 9.5),
        tissues=_trus_tissues(draw, settings),
        random_contrast=draw.chance(settings.random_contrast_share),
        probe_axis_mm=(0.0, 0.0),
        probe_radius_mm=draw.uniform(8.5, 11.0),
        half_angle_deg=draw.normal(54, 5, 2.0),
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
        capsule_db=draw.uniform(5.0, 12.0),
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


def with_contrasts(case: CaseParameters, draw: Draw) -> CaseParameters:
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
