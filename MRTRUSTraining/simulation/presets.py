"""Settings of the simulator that differ between sets of cases, and the sizes of its volumes."""

from __future__ import annotations

from dataclasses import dataclass

SPACING_MM = 0.8
MR_EXTENT_VOX = (120, 128, 128)
TRUS_EXTENT_VOX = (81, 118, 88)


@dataclass(frozen=True)
class Preset:
    """The settings in which presets differ; pairs are the ends of uniform distributions.

    `field_t` is the MR scanner's field strength, None where it may be either 1.5 or 3 T.
    """

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
    field_t: float | None = None


PRESETS = {
    "clinical": Preset(),
    "clinical-1.5t": Preset(field_t=1.5),
    "clinical-3t": Preset(field_t=3.0),
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
