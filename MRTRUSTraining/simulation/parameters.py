"""Everything that is drawn for a simulated case, as frozen dataclasses that JSON keeps without loss.

Frame: the anatomical gland frame unless said otherwise: x to the patient's left, y posterior, z superior,
millimetres, origin near the middle of the undeformed gland.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
import typing
from dataclasses import dataclass
from pathlib import Path

from MRTRUSRegistrationLib.errors import InputError

from .limits import LIMITS, SPACINGS_MM

Vector = tuple[float, float, float]

FORMAT_VERSION = 1
# What the anatomy is painted with in both images, besides the inclusions; the MR shows the rectum as well.
TISSUES = (
    *("fat", "marrow", "muscle", "cortex", "rectal_wall", "bladder_wall", "urine", "sphincter", "urethra"),
    *("verumontanum", "bulb", "vesicle", "plexus", "capsule", "surgical_capsule", "stroma"),
    *("peripheral", "transition"),
)
RECTUM_CONTENTS = ("collapsed", "gas", "filled")
_MOST_VOXELS = 512**3


@dataclass(frozen=True)
class GlandParameters:
    """Shape of the gland and its zones; lengths without a unit are relative to the half-width."""

    volume_ml: float
    transition_zone_ml: float
    half_depth: float
    half_height: float
    taper: float
    exponent: float
    shear: float
    groove: float
    asymmetry: float
    zone_asymmetry: float
    irregularity: float
    median_lobe_radius: float
    urethra_radius_mm: float
    urethra_bend: float
    seed: int


@dataclass(frozen=True)
class SurroundingParameters:
    """The organs around the gland; `rectum_content` is "collapsed", "gas" or "filled"."""

    bladder_radii_mm: Vector
    bladder_wall_mm: float
    rectum_radius_mm: float
    rectum_gap_mm: float
    rectum_width: float
    rectum_content: str
    vesicle_length_mm: float
    vesicle_radius_mm: float
    levator_gap_mm: float
    levator_slope: float
    levator_thickness_mm: float
    obturator_gap_mm: float
    obturator_thickness_mm: float
    pubis_gap_mm: float
    seed: int


@dataclass(frozen=True)
class Ellipsoid:
    """A lesion, nodule, cyst or calcification.

    `t2_ms` is its T2, `echo_db` its echogenicity against the tissue around it, `zone` the zone it lies in
    ("peripheral", "transition" or "anterior").
    """

    centre_mm: Vector
    radii_mm: Vector
    zone: str
    t2_ms: float
    echo_db: float

    @property
    def volume_ml(self) -> float:
        return 4 / 3 * math.pi * math.prod(self.radii_mm) / 1000


@dataclass(frozen=True)
class DeformationParameters:
    """TRUS against MR: rotation about the gland, probe dent, smooth random residual.

    `strength` scales the non-rigid part; the sampler lowers it until the case keeps the published bounds.
    """

    rotation_deg: Vector
    dent_mm: float
    dent_width_mm: float
    dent_decay_mm: float
    dent_slope: float
    dent_position_mm: float
    residual_mm: Vector
    residual_scales_mm: Vector
    compressibility: float
    strength: float
    field_spacing_mm: float
    field_centre_mm: Vector
    seed: int


@dataclass(frozen=True)
class MrParameters:
    """One T2-weighted acquisition. `tissues` maps a tissue to its T2 (ms), proton density and textures.

    With `random_contrast` the tissue signals are those of `random_signals` instead of physics.
    `tilt_deg` turns the header about the patient's axes; `centre_mm` is where the gland frame's origin lies
    in the MR world and `offset_mm` where it lies from the middle of the volume.
    """

    field_t: float
    echo_time_ms: float
    tissues: dict[str, tuple[float, float, float, float]]
    random_signals: dict[str, float]
    random_contrast: bool
    bias_log_sd: float
    bias_scale_mm: float
    snr: float
    gamma: float
    slice_spacing_mm: float
    slice_thickness_mm: float
    in_plane_mm: float
    coverage_mm: float
    tilt_deg: Vector
    centre_mm: Vector
    offset_mm: Vector
    size_vox: tuple[int, int, int]
    seed: int


@dataclass(frozen=True)
class TrusParameters:
    """One side-fire acquisition. `tissues` maps a tissue to echogenicity (dB), attenuation
    (dB/cm/MHz) and heterogeneity (dB).

    The probe's axis runs along z through `probe_axis_mm` (x, y in the TRUS anatomical frame). `centre_mm` is
    the origin of that frame in the TRUS world, `grid_centre_mm` the middle of the volume in that frame.
    """

    frequency_mhz: float
    tissues: dict[str, tuple[float, float, float]]
    random_contrast: bool
    probe_axis_mm: tuple[float, float]
    probe_radius_mm: float
    half_angle_deg: float
    depth_mm: float
    standoff_mm: float
    wall_mm: float
    axial_fwhm_mm: float
    lateral_fwhm_mm: tuple[float, float]
    elevational_fwhm_deg: float
    dynamic_range_db: float
    gain_db: float
    gain_slope_db: float
    gain_variation_db: float
    tgc_db_cm_mhz: float
    noise_floor_db: float
    ring_down_db: float
    ring_down_mm: float
    capsule_db: float
    gamma: float
    shadow_sectors_deg: tuple[tuple[float, float, float], ...]
    centre_mm: Vector
    grid_centre_mm: Vector
    size_vox: tuple[int, int, int]
    seed: int


@dataclass(frozen=True)
class CaseParameters:
    """Everything that `simulate` needs; two equal objects give the same case to the bit on one machine."""

    seed: int
    preset: str
    spacing_mm: float
    gland: GlandParameters
    surroundings: SurroundingParameters
    lesions: tuple[Ellipsoid, ...]
    nodules: tuple[Ellipsoid, ...]
    cysts: tuple[Ellipsoid, ...]
    calcifications: tuple[Ellipsoid, ...]
    deformation: DeformationParameters
    mr: MrParameters
    trus: TrusParameters
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> CaseParameters:
        """The inverse of `to_json`; `InputError` when the text is not a valid case."""
        try:
            content = json.loads(text)
            if isinstance(content, dict):
                # The names of the label channels stand in the file for its readers only.
                content.pop("labels", None)
            parameters = _build(cls, content, "its content")
        except ValueError as error:
            raise InputError(f"This is not a parameter file of the simulator ({error}).") from error
        validate(parameters)
        return parameters


def read_parameters(path: Path) -> CaseParameters:
    """A case's parameters from the file that `mrtrus-train simulate` wrote; `InputError` names the file."""
    try:
        return CaseParameters.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The file {path} cannot be read ({error.strerror}); name another.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a parameter file of the simulator (it is no text).") from error
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error


def _build(kind: typing.Any, value: typing.Any, place: str) -> typing.Any:
    """`value` (from JSON) as the annotated type: dataclass, tuple or dict, recursively.

    `ValueError` names the `place` of what cannot be so.
    """
    if dataclasses.is_dataclass(kind):
        return _build_fields(kind, value, place)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        endless = inner[-1] is Ellipsis
        if not isinstance(value, list) or not (endless or len(value) == len(inner)):
            raise ValueError(f"{place} is no list" + ("" if endless else f" of {len(inner)}"))
        kinds = [inner[0]] * len(value) if endless else inner
        return tuple(_build(each, item, place) for each, item in zip(kinds, value, strict=True))
    if origin is dict:
        items = _object(value, place).items()
        return {name: _build(inner[1], item, f"{place}.{name}") for name, item in items}
    try:
        return kind(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{place} cannot be {reprlib.repr(value)}") from error


def _build_fields(kind: typing.Any, value: typing.Any, place: str) -> typing.Any:
    """A dataclass from an object that has all of its fields, but for those with a default, and no other."""
    content, hints = _object(value, place), typing.get_type_hints(kind)
    needed = [each.name for each in dataclasses.fields(kind) if each.default is dataclasses.MISSING]
    missing = [name for name in needed if name not in content]
    unknown = [name for name in content if name not in hints]
    if missing or unknown:
        lacks = f"{place} lacks {reprlib.repr(missing[0])}" if missing else ""
        raise ValueError(lacks or f"{place} has the unknown {reprlib.repr(unknown[0])}")
    inside = "" if kind is CaseParameters else f"{place}."
    return kind(**{name: _build(hints[name], item, f"{inside}{name}") for name, item in content.items()})


def _object(value: typing.Any, place: str) -> dict[str, typing.Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is no JSON object")
    return value


def zone_volumes_ml(gland: GlandParameters) -> dict[str, float]:
    """Volume that each zone of a lesion offers; the anterior stroma is part of the transition zone's side."""
    peripheral = gland.volume_ml - gland.transition_zone_ml
    return {"peripheral": peripheral, "transition": gland.transition_zone_ml, "anterior": gland.volume_ml / 5}


def validate(parameters: CaseParameters) -> None:
    """Raise `InputError` for settings that no case can have."""
    version = parameters.format_version
    _require(version == FORMAT_VERSION, f"format {version} is not {FORMAT_VERSION}, which this version reads")
    _require(_all_finite(dataclasses.asdict(parameters)), "not all numbers are finite")
    least, most = SPACINGS_MM
    spacing = parameters.spacing_mm
    _require(
        least <= spacing <= most, f"a voxel spacing of {spacing:g} mm lies outside {least:g} to {most:g}"
    )
    _validate_limits(parameters)
    _validate_gland(parameters)
    _validate_tissues(parameters)
    _validate_images(parameters)


def _validate_limits(parameters: CaseParameters) -> None:
    for name, limits in LIMITS.items():
        part = getattr(parameters, name)
        for each in part if isinstance(part, tuple) else (part,):
            for key, (least, most) in limits.items():
                value = getattr(each, key)
                for number in value if isinstance(value, tuple) else (value,):
                    complaint = f"{name}.{key} of {number:g} lies outside {least:g} to {most:g}"
                    _require(least <= number <= most, complaint)


def _validate_gland(parameters: CaseParameters) -> None:
    """Zones fit into the gland, and lesions into their zones."""
    gland = parameters.gland
    inside = 0 < gland.transition_zone_ml < gland.volume_ml
    _require(inside, f"a transition zone of {gland.transition_zone_ml} ml does not fit its gland")
    room = zone_volumes_ml(gland)
    for lesion in parameters.lesions:
        _require(lesion.zone in room, f"a lesion's zone cannot be {lesion.zone!r}")
        fits = lesion.volume_ml < room[lesion.zone]
        _require(fits, f"a lesion of {lesion.volume_ml:.1f} ml is larger than its {lesion.zone} zone")


def _all_finite(value: typing.Any) -> bool:
    if isinstance(value, dict):
        return all(_all_finite(each) for each in value.values())
    if isinstance(value, tuple | list):
        return all(_all_finite(each) for each in value)
    return not isinstance(value, float) or math.isfinite(value)


def _validate_tissues(parameters: CaseParameters) -> None:
    """Every tissue that the anatomy is painted with has properties in both images."""
    painted = set(TISSUES)
    for kind in ("lesion", "nodule", "cyst", "calcification"):
        painted |= {f"{kind}{number}" for number in range(len(getattr(parameters, f"{kind}s")))}
    content, mr = parameters.surroundings.rectum_content, parameters.mr
    _require(content in RECTUM_CONTENTS, f"a rectum's content cannot be {content!r}")
    in_mr = painted | {f"rectum_{content}"}
    missing = (in_mr - mr.tissues.keys()) | (painted - parameters.trus.tissues.keys())
    if mr.random_contrast:
        missing |= in_mr - mr.random_signals.keys()
    _require(not missing, f"no properties are given of {', '.join(sorted(missing))}")
    _require(min(t2_ms for t2_ms, *_ in mr.tissues.values()) > 0, "a T2 is not positive")
    others = [number for tissue in mr.tissues.values() for number in tissue[1:]]
    _require(min(*others, *mr.random_signals.values()) >= 0, "an MR tissue's signal or texture is negative")
    losses = [number for tissue in parameters.trus.tissues.values() for number in tissue[1:]]
    _require(min(losses) >= 0, "a TRUS tissue's attenuation or heterogeneity is negative")


def _validate_images(parameters: CaseParameters) -> None:
    mr, trus, spacing = parameters.mr, parameters.trus, parameters.spacing_mm
    _require(min(*mr.size_vox, *trus.size_vox) > 0, "an image needs at least one voxel on each axis")
    largest = max(math.prod(mr.size_vox), math.prod(trus.size_vox))
    _require(largest <= _MOST_VOXELS, f"an image of {largest} voxels is too large")
    for name, middle, size in (
        ("MR", mr.offset_mm, mr.size_vox),
        ("TRUS", trus.grid_centre_mm, trus.size_vox),
    ):
        # The images' axes run to posterior, right and superior.
        extent = (size[1] * spacing, size[0] * spacing, size[2] * spacing)
        holds = all(abs(place) < length / 2 for place, length in zip(middle, extent, strict=True))
        _require(holds, f"the middle of the gland lies outside the {name} volume")
    _require(trus.probe_radius_mm < trus.depth_mm, "the fan's depth must lie beyond the probe")
    widths = all(width > 0 for _, width, _ in trus.shadow_sectors_deg)
    _require(widths, "the width of a shadow sector is not positive")


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise InputError(f"These simulation settings are impossible: {complaint}; change them.")
