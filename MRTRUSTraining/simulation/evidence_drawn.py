"""What the simulator draws, against the published distributions; nothing is rendered but bare speckle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.stats
import torch

from .acquisition_sampling import sample_mr
from .anatomy import Anatomy
from .anatomy_sampling import VOLUME_LOG_MEAN, VOLUME_LOG_SD, Zones, sample_gland, sample_lesions
from .draw import Draw
from .findings import Finding, finding, spread
from .parameters import CaseParameters, Ellipsoid, GlandParameters, TrusParameters
from .placement import MAXIMUM_MOTION_MM, deformation_of
from .presets import PRESETS, SPACING_MM
from .trus import Beams, compress, scan_convert, speckle

_CPU = torch.device("cpu")
_FUSION = "fusion cohort, n = 649"
_GLANDS = 2000
_LESIONS_PER_CASE = 40
# How much of a gland's growth its peripheral zone may take and still be called nearly constant.
_CONSTANT = (-0.05, 0.12)
_LESION_MOTION_MM = (5.6, 13.9)


# ---- speckle


def _correlation(values: torch.Tensor, axis: int, lag: int) -> float:
    """Correlation of a field with itself, shifted by `lag` samples along an axis."""
    moved = values.movedim(axis, 0).double()
    first, second = moved[:-lag] - moved.mean(), moved[lag:] - moved.mean()
    return float((first * second).mean() / (moved - moved.mean()).square().mean())


def correlation_width(intensity: torch.Tensor, axis: int, step: float) -> float:
    """Full width at half maximum of the autocovariance along an axis, in the unit of `step`.

    For a Gaussian point spread it is Gaussian and as wide as the point spread's amplitude; the lag at which
    it has fallen to about a half gives its width.
    """
    lag = 1
    while _correlation(intensity, axis, lag + 1) > 0.5:
        lag += 1
    fallen = min(max(_correlation(intensity, axis, lag), 1e-4), 0.9999)
    return lag / math.sqrt(-2 * math.log(fallen)) * 2.3548 * step


def bare_speckle(settings: TrusParameters) -> tuple[torch.Tensor, Beams]:
    """(z, θ, r) envelope of uniform tissue, sampled much finer than its point spread.

    The rim is cut off: there the convolution sees repeated scatterers.
    """
    start = (0.0, -0.3, settings.probe_radius_mm)
    beams = Beams(start, (0.15, math.radians(0.4), 0.08), (120, 80, 150))
    envelope = speckle(torch.zeros(beams.count), beams, settings)
    return envelope[18:-18, 18:-18, 12:-12], beams


def speckle_findings(settings: Sequence[TrusParameters]) -> list[Finding]:
    """First-order statistics against Rayleigh's, correlation against the point spread of each setting."""
    theory = "theory of fully developed speckle"
    contrasts, decibels, widths = [], [], []
    for each in settings:
        envelope, beams = bare_speckle(each)
        contrasts.append(float(envelope.mean() / envelope.std()))
        decibels.append(float((20 * torch.log10(envelope.clamp_min(1e-6))).std()))
        intensity = envelope.square()
        elevational = correlation_width(intensity, 1, math.degrees(beams.step[1]))
        widths.append(
            (
                correlation_width(intensity, 2, beams.step[2]) / each.axial_fwhm_mm,
                correlation_width(intensity[..., :12], 0, beams.step[0]) / each.lateral_fwhm_mm[0],
                correlation_width(intensity[..., -12:], 0, beams.step[0]) / each.lateral_fwhm_mm[1],
                elevational / each.elevational_fwhm_deg,
            )
        )
    rows = [
        finding(
            "speckle: mean / sd of the envelope",
            float(np.mean(contrasts)),
            (1.86, 1.96),
            expected="1.91",
            source=theory,
            shown=spread(contrasts),
        ),
        finding(
            "speckle: sd in dB",
            float(np.mean(decibels)),
            (5.4, 5.75),
            expected="5.57",
            source=theory,
            shown=spread(decibels),
        ),
    ]
    names = ("along the beam", "along the probe, near", "along the probe, far", "across frames")
    for name, ratios in zip(names, np.array(widths).T, strict=True):
        rows.append(
            finding(
                f"speckle: correlation width {name} / point spread",
                float(ratios.mean()),
                (0.9, 1.1),
                expected="1",
                source=theory,
                shown=spread(ratios),
            )
        )
    return [*rows, *_voxel_findings(settings)]


def _voxel_findings(settings: Sequence[TrusParameters]) -> list[Finding]:
    """Speckle size in the finished volume, in voxels: uniform tissue through every later step."""
    sizes = np.array([_size_in_voxels(each) for each in settings])
    expected = (
        ("along the beam", 0, (0.5, 2.0)),
        ("across frames", 1, (1.0, 3.5)),
        ("along the probe", 2, (0.8, 2.5)),
    )
    return [
        finding(
            f"speckle in the volume, voxels {name}",
            float(sizes[:, axis].mean()),
            limits,
            expected="about 1" if axis != 1 else "1 to 3",
            source="voxel size against the point spread of 9 MHz",
            shown=spread(sizes[:, axis]),
        )
        for name, axis, limits in expected
    ]


def _size_in_voxels(settings: TrusParameters) -> tuple[float, float, float]:
    placed = replace(
        settings, probe_axis_mm=(0.0, 0.0), grid_centre_mm=(0.0, 0.0, 0.0), size_vox=(40, 40, 40)
    )
    beams = Beams.of(placed, SPACING_MM)
    level = 20 * torch.log10(speckle(torch.zeros(beams.count), beams, placed).clamp_min(1e-6)) - 8
    axis = SPACING_MM * (torch.arange(40.0) - 20)
    # A block 30 mm in front of the probe's axis: its depth runs along the beam.
    z, x, y = torch.meshgrid(0.7 * axis, 0.7 * axis, 0.5 * axis - 38, indexing="ij")
    step = (0.7, 0.7, 0.5)
    grey = scan_convert(compress(level, placed), torch.stack([x, y, z], dim=-1), beams, placed)
    widths = [correlation_width(grey, each, step[each]) for each in (2, 1, 0)]
    return widths[0], widths[1], widths[2]


# ---- glands, tissues and lesions


def drawn_glands(preset: str, count: int = _GLANDS) -> list[GlandParameters]:
    return [sample_gland(Draw(seed), PRESETS[preset]) for seed in range(count)]


def gland_findings(glands: Sequence[GlandParameters]) -> list[Finding]:
    """Volumes of the gland and its zones."""
    volume = np.array([gland.volume_ml for gland in glands])
    inner = np.array([gland.transition_zone_ml for gland in glands])
    law = scipy.stats.lognorm(s=VOLUME_LOG_SD, scale=math.exp(VOLUME_LOG_MEAN))
    low, high = law.cdf([15, 150])
    kept = volume[(volume > 15) & (volume < 150)]
    fit = scipy.stats.kstest(kept, lambda v: (law.cdf(v) - low) / (high - low))
    usual = (volume > 30) & (volume < 90)
    slope = _growth(volume[usual], (volume - inner)[usual])
    large = volume > 90
    large_slope = _growth(volume[large], (volume - inner)[large])
    share = inner / volume
    zones = "503 patients at 3 T: the peripheral zone does not grow"
    return [
        finding(
            "gland volume: mean, ml",
            float(volume.mean()),
            (54, 63),
            expected="58.7 ± 34.3",
            source=_FUSION,
            shown=spread(volume, digits=1),
        ),
        finding(
            "gland volume: sd, ml", float(volume.std()), (27, 38), expected="34.3", source=_FUSION, digits=1
        ),
        finding(
            "gland volume: median, ml",
            float(np.median(volume)),
            (48.5, 53.5),
            expected="51",
            source=_FUSION,
            digits=1,
        ),
        finding(
            "gland volume: Kolmogorov–Smirnov p",
            float(fit.pvalue),
            (0.01, 1.0),
            expected="> 0.01 for lognormal(3.93, 0.54) within 15 to 150 ml",
            source=_FUSION,
        ),
        finding(
            "peripheral zone, ml",
            float((volume - inner)[usual].mean()),
            (15, 25),
            expected="15 to 25",
            source="usual range",
            shown=spread((volume - inner)[usual], digits=1),
        ),
        finding(
            "peripheral zone: growth per ml of gland", slope, _CONSTANT, expected="about 0", source=zones
        ),
        finding(
            "peripheral zone above 90 ml: growth per ml of gland",
            large_slope,
            _CONSTANT,
            expected="about 0",
            source=zones,
            shown=_growth_shown(large_slope, (volume - inner)[large]),
        ),
        finding(
            "share of glands whose central gland is 30 to 80 %",
            float(((share > 0.3) & (share < 0.8)).mean()),
            (0.9, 1.0),
            expected="nearly all",
            source="usual range",
        ),
    ]


def _growth(volume_ml: np.ndarray, zone_ml: np.ndarray) -> float:
    """Slope of a zone's volume over the gland's; nan where there are too few glands for one."""
    return float(np.polyfit(volume_ml, zone_ml, 1)[0]) if len(volume_ml) > 2 else math.nan


def _growth_shown(slope: float, zone_ml: np.ndarray) -> str:
    if math.isnan(slope):
        return "too few drawn"
    return f"{slope:.2f}: {spread(zone_ml, digits=1, unit='ml')}"


def tissue_findings(preset: str, count: int = 500) -> list[Finding]:
    """T2 of the zones between patients, at 3 T, or at the preset's own field strength."""
    drawn = [sample_mr(Draw(seed), PRESETS[preset], SPACING_MM) for seed in range(count)]
    field_t = max(each.field_t for each in drawn)
    published = {"peripheral": (149, 49, (125, 165)), "transition": (125, 26, (105, 140))}
    rows = []
    for zone, (mean, sd, limits) in published.items():
        t2 = [each.tissues[zone][0] for each in drawn if each.field_t == field_t]
        rows += _t2_rows(f"T2 of the {zone} zone", t2, limits, mean=mean, sd=sd)
    return rows


def _t2_rows(
    name: str, t2_ms: Sequence[float], limits: tuple[float, float], *, mean: float, sd: float
) -> list[Finding]:
    """Mean and sd of T2 against Simpkin's; the sd may be off by a fifth."""
    source = "Simpkin 2013"
    return [
        finding(
            f"{name}, ms",
            float(np.mean(t2_ms)),
            limits,
            expected=f"{mean} ± {sd}",
            source=source,
            shown=spread(t2_ms, digits=0),
        ),
        finding(
            f"{name}: sd, ms",
            float(np.std(t2_ms)),
            (0.8 * sd, 1.2 * sd),
            expected=f"{sd}",
            source=source,
            digits=1,
        ),
    ]


def drawn_lesions(cases: Sequence[CaseParameters], preset: str) -> list[Ellipsoid]:
    """Many sets of lesions in each of the cases' glands."""
    found: list[Ellipsoid] = []
    for number, case in enumerate(cases):
        zones, draw = Zones(replace(case, lesions=())), Draw(number)
        for _ in range(_LESIONS_PER_CASE):
            found += sample_lesions(draw, PRESETS[preset], zones, case.gland)
    return found


def lesion_findings(lesions: Sequence[Ellipsoid]) -> list[Finding]:
    """Zones, sizes, echogenicity and T2 of lesions."""
    count = len(lesions)
    diameter = np.array([2 * math.prod(each.radii_mm) ** (1 / 3) for each in lesions])
    rows = []
    for zone, share in (("peripheral", 0.7), ("transition", 0.25), ("anterior", 0.05)):
        found = sum(each.zone == zone for each in lesions) / count
        limits = (share - 0.06, share + 0.06)
        rows.append(finding(f"lesions: {zone}", found, limits, expected=f"{share}", source="usual shares"))
    kinds = {
        "hypoechoic": (sum(each.echo_db <= -3 for each in lesions), 0.55),
        "isoechoic": (sum(abs(each.echo_db) <= 1 for each in lesions), 0.35),
        "hyperechoic": (sum(each.echo_db >= 2 for each in lesions), 0.10),
    }
    for kind, (number, share) in kinds.items():
        limits = (share - 0.06, share + 0.06)
        source = (
            "44 % visible of 856 men; 24 to 30 % of cancers isoechoic" if kind == "hypoechoic" else "design"
        )
        rows.append(finding(f"lesions: {kind}", number / count, limits, expected=f"{share}", source=source))
    rows.append(
        finding(
            "lesions: diameter, mm",
            float(np.median(diameter)),
            (9.5, 12.0),
            expected="median 11, 5 to 25",
            source="usual range",
            shown=f"median {np.median(diameter):.1f}, {spread(diameter, digits=1)}",
        )
    )
    t2 = [each.t2_ms for each in lesions]
    return [*rows, *_t2_rows("lesions: T2", t2, (90, 104), mean=97, sd=23)]


# ---- deformation


@dataclass(frozen=True)
class Motion:
    """How one case moves; lengths in mm, over the nodes of its field inside the gland.

    `lesions_mm` is the non-rigid part alone, `lesions_with_bulk_mm` what is left of the whole map, rotation
    included, when the pipeline's start has brought the centroids of both glands together.
    """

    jacobian_min: float
    jacobian_off_median: float
    volume_change: float
    largest_mm: float
    lesions_mm: tuple[float, ...]
    lesions_with_bulk_mm: tuple[float, ...]
    after_rigid_mm: float
    rotation_deg: float
    strength: float


def motion_of(case: CaseParameters) -> Motion:
    """Motion of the gland and of what lies in it, from the TRUS frame to the gland frame."""
    deformed = deformation_of(case, _CPU)
    anatomy = Anatomy(case, _CPU)
    nodes = deformed.grid.points_mm(_CPU)
    mapped = deformed(nodes.reshape(-1, 3))
    inside = (anatomy.gland.distance(mapped) < 0).reshape(nodes.shape[:3])
    jacobian = deformed.jacobian()[inside]
    start, end = nodes[inside], mapped.reshape(nodes.shape)[inside]
    motion = deformed.field[inside].norm(dim=1)
    # A node's share of the gland's volume in MR is its determinant.
    mr_centre = (end * jacobian[:, None]).sum(dim=0) / jacobian.sum()
    with_bulk = (end - mr_centre) - (start - start.mean(dim=0))
    inclusions = [anatomy.inclusion_distance(end, lesion) < 0 for lesion in case.lesions]
    lesions = [each for each in inclusions if each.any()]
    angle = math.degrees(math.acos(min(1.0, (float(deformed.rotation.trace()) - 1) / 2)))
    return Motion(
        float(jacobian.min()),
        float((jacobian - 1).abs().median()),
        float(jacobian.mean()) - 1,
        float(motion.max()),
        tuple(float(deformed.field[inside][each].mean(dim=0).norm()) for each in lesions),
        tuple(float(with_bulk[each].mean(dim=0).norm()) for each in lesions),
        _residual_mm(start, end),
        angle,
        case.deformation.strength,
    )


def _residual_mm(start: torch.Tensor, end: torch.Tensor) -> float:
    """Mean distance that the best rigid map leaves between (N, 3) points (Kabsch)."""
    first, second = start - start.mean(dim=0), end - end.mean(dim=0)
    u, _, v = torch.linalg.svd(first.T @ second)
    turn = torch.diag(torch.tensor([1.0, 1.0, float(torch.sign(torch.linalg.det(u @ v)))]))
    return float((first @ u @ turn @ v - second).norm(dim=1).mean())


def motion_findings(motions: Sequence[Motion]) -> list[Finding]:
    """Folds, volume and motion against the published ranges."""
    jacobian = np.array([each.jacobian_min for each in motions])
    off = np.array([each.jacobian_off_median for each in motions])
    change = 100 * np.array([each.volume_change for each in motions])
    largest = np.array([each.largest_mm for each in motions])
    lesions = np.array([each for motion in motions for each in motion.lesions_mm])
    bulk = np.array([each for motion in motions for each in motion.lesions_with_bulk_mm])
    low, high = _LESION_MOTION_MM
    share = float(((bulk >= low) & (bulk <= high)).mean()) if bulk.size else math.nan
    left = np.array([each.after_rigid_mm for each in motions])
    finite = "finite elements, 30 N at the rectum"
    return [
        finding(
            "least Jacobian determinant in the gland",
            float(jacobian.min()),
            (1e-3, 9),
            expected="> 0: no folds",
            source="tissue",
            shown=spread(jacobian),
        ),
        finding(
            "median of abs(J − 1) in the gland",
            float(off.max()),
            (0, 0.1),
            expected="< 0.1",
            source="nearly incompressible tissue",
            shown=spread(off, digits=3),
        ),
        finding(
            "change of the gland's volume, %",
            float(np.abs(change).max()),
            (0, 5),
            expected="within 5",
            source="nearly incompressible tissue",
            shown=spread(change, digits=1),
        ),
        finding(
            "largest motion in the gland, mm",
            float(largest.max()),
            (0, MAXIMUM_MOTION_MM),
            expected="up to 13.9",
            source=finite,
            shown=spread(largest, digits=1),
        ),
        finding(
            f"share of lesions that move by {low} to {high} mm, gland centroids together",
            share,
            (0.9, 1.0),
            expected="nearly all: the range of a lesion's motion with that of the whole gland",
            source=finite,
            shown=f"{share:.2f}: {spread(bulk, digits=1, unit='mm')}",
        ),
        Finding(
            "the non-rigid part of a lesion's motion, mm",
            spread(lesions, digits=1),
            "no figure of its own; part of the row above",
            finite,
            None,
        ),
        Finding(
            "mean motion in the gland left by the best rigid map, mm",
            spread(left),
            "no figure of its own; landmark errors after rigid registration are 3 to 6",
            "published registrations",
            None,
        ),
        Finding(
            "rotation, °",
            spread([each.rotation_deg for each in motions], digits=1),
            "6 per axis (design)",
            "–",
            None,
        ),
        Finding(
            "strength left after the bounds",
            spread([each.strength for each in motions]),
            "1 where the bounds hold at once",
            "–",
            None,
        ),
    ]
