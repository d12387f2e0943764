"""Drawing a case: published distributions in, `CaseParameters` out. Nothing here renders an image."""

from __future__ import annotations

from dataclasses import replace

from MRTRUSRegistrationLib.errors import InputError

from .acquisition_sampling import sample_mr, sample_trus, with_contrasts
from .anatomy_sampling import (
    Zones,
    sample_calcifications,
    sample_cysts,
    sample_gland,
    sample_lesions,
    sample_nodules,
    sample_surroundings,
)
from .draw import Draw
from .limits import SPACINGS_MM
from .parameters import CaseParameters, DeformationParameters, GlandParameters, validate
from .placement import bounded, placed
from .presets import PRESETS, SPACING_MM, Preset


def sample_case(
    seed: int,
    *,
    preset: str = "clinical",
    spacing_mm: float = SPACING_MM,
    random_contrast: float | None = None,
) -> CaseParameters:
    """Draw one case. The same seed, preset, spacing and share give the same case.

    `random_contrast` is the chance, for each side independently, of tissue contrasts without physics
    (None: the preset's own). Raises `InputError` for an unknown preset, a negative seed, an impossible
    spacing or a share outside 0 to 1.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no simulation preset {preset!r}: choose one of {', '.join(PRESETS)}.")
    if seed < 0:
        raise InputError(f"The seed {seed} cannot be used: a simulation needs a seed of 0 or more.")
    least, most = SPACINGS_MM
    if not least <= spacing_mm <= most:
        raise InputError(
            f"The spacing of {spacing_mm:g} mm cannot be used: a simulation needs a voxel spacing of "
            f"{least:g} to {most:g} mm."
        )
    draw, settings = Draw(seed), PRESETS[preset]
    if random_contrast is not None:
        if not 0 <= random_contrast <= 1:
            raise InputError(f"A share of {random_contrast} random contrasts lies outside 0 to 1.")
        settings = replace(settings, random_contrast_share=random_contrast)
    gland = sample_gland(draw, settings)
    case = CaseParameters(
        seed=seed,
        preset=preset,
        spacing_mm=spacing_mm,
        gland=gland,
        surroundings=sample_surroundings(draw),
        lesions=(),
        nodules=(),
        cysts=(),
        calcifications=(),
        deformation=_sample_deformation(draw, gland),
        mr=sample_mr(draw, settings, spacing_mm),
        trus=sample_trus(draw, settings, spacing_mm),
    )
    case = _with_inclusions(case, draw, settings)
    case = placed(bounded(case), draw)
    validate(case)
    return case


def _sample_deformation(draw: Draw, gland: GlandParameters) -> DeformationParameters:
    """Rotation sd 6° per axis up to 20°, dent up to 8 mm.

    The residual is of 0.3 to 1 mm at a scale of 10 mm and of 0.5 to 2 mm at 20 and 40 mm.
    """
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


def _with_inclusions(case: CaseParameters, draw: Draw, settings: Preset) -> CaseParameters:
    zones = Zones(case)
    case = replace(
        case,
        lesions=sample_lesions(draw, settings, zones, case.gland),
        nodules=sample_nodules(draw, case, zones),
        cysts=sample_cysts(draw, settings, zones),
        calcifications=sample_calcifications(draw, settings, zones),
    )
    return with_contrasts(case, draw)
