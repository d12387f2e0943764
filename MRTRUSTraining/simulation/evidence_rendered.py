"""What rendered cases show, against the sources: signal ratios, echo differences, volumes, real pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from MRTRUSRegistrationLib.geometry import Grid, mask_volume_ml

from .anatomy import Anatomy, paint
from .cases import SimulatedCase, grid_points, mr_grid_of, trus_grid_of
from .findings import Finding, finding, spread
from .parameters import CaseParameters
from .placement import deformation_of
from .trus import fan_mask, to_polar

_CPU = torch.device("cpu")
_MR_TISSUES = ("peripheral", "transition", "muscle", "urine", "fat")
_TRUS_TISSUES = ("peripheral", "transition", "muscle", "urine", "fat", "vesicle", "cyst")


@dataclass(frozen=True)
class Shown:
    """Figures of one rendered case: ratios to the peripheral zone, differences in dB; nan where absent."""

    mr_ratios: dict[str, float]
    echo_db: dict[str, float]
    zone_step_db: float
    lesions_db: tuple[tuple[float, float], ...]
    calcifications_db: tuple[float, ...]
    mr_volume: float
    trus_volume: float
    volume_change: float
    in_fan: float


def pure_tissues(
    anatomy: Anatomy, points_mm: torch.Tensor, names: Sequence[str], table: Iterable[str], *, rectum: bool
) -> dict[str, np.ndarray]:
    """Which (N, 3) gland-frame points lie almost wholly in a tissue; numbered inclusions count together."""
    columns = {tissue: [float(tissue.rstrip("0123456789") == name) for name in names] for tissue in table}
    shares, _ = paint(anatomy, points_mm, {t: tuple(c) for t, c in columns.items()}, rectum=rectum)
    return {name: (shares[:, n] > 0.9).numpy() for n, name in enumerate(names)}


def shown_by(case: SimulatedCase) -> Shown:
    """Measure one case, rendered on the CPU."""
    parameters, anatomy = case.parameters, Anatomy(case.parameters, _CPU)
    deformed = deformation_of(parameters, _CPU)
    mr_points = grid_points(mr_grid_of(parameters), parameters.mr.centre_mm, _CPU).reshape(-1, 3)
    trus_points = grid_points(trus_grid_of(parameters), parameters.trus.centre_mm, _CPU).reshape(-1, 3)
    place = deformed(trus_points)
    level = echo_level_db(case, to_polar(trus_points, parameters.trus)[:, 2].numpy())
    trus = pure_tissues(anatomy, place, _TRUS_TISSUES, parameters.trus.tissues, rectum=False)
    gland = sitk.GetArrayFromImage(case.trus_labels["gland"]).ravel() > 0
    volumes = [mask_volume_ml(labels["gland"]) for labels in (case.mr_labels, case.trus_labels)]
    return Shown(
        mr_ratios=_mr_ratios(case, anatomy, mr_points),
        echo_db=_echo_db(level, trus),
        zone_step_db=_zone_step_db(case, level, trus),
        lesions_db=_lesions_db(parameters, anatomy, place, level, trus),
        calcifications_db=_calcifications_db(parameters, anatomy, place, level, trus["transition"]),
        mr_volume=volumes[0] / parameters.gland.volume_ml - 1,
        trus_volume=volumes[1] / parameters.gland.volume_ml - 1,
        volume_change=volumes[1] / volumes[0] - 1,
        in_fan=float(fan_mask(trus_points, parameters.trus).numpy()[gland].mean()),
    )


def _mr_ratios(case: SimulatedCase, anatomy: Anatomy, points_mm: torch.Tensor) -> dict[str, float]:
    """Median signals against the peripheral zone's; windowing is undone, saturated voxels are left out."""
    parameters = case.parameters
    grey = sitk.GetArrayFromImage(case.mr).ravel().astype(float)
    signal = (grey / 255) ** (1 / parameters.mr.gamma)
    known = (grey > 0) & (grey < 255)
    names = (*_MR_TISSUES, "lesion")
    pure = pure_tissues(anatomy, points_mm, names, parameters.mr.tissues, rectum=True)
    levels = {name: _median(signal[pure[name] & (known if name != "urine" else grey > 0)]) for name in names}
    return {name: levels[name] / levels["peripheral"] for name in names if name != "peripheral"}


def echo_level_db(case: SimulatedCase, radius_mm: np.ndarray) -> np.ndarray:
    """(N,) decibels from the TRUS grey values, nan where they are black as outside the fan.

    Log compression and the case's gain over depth are undone; `radius_mm` is from the probe's axis.
    """
    settings = case.parameters.trus
    grey = sitk.GetArrayFromImage(case.trus).ravel().astype(float)
    level = ((grey / 255) ** (1 / settings.gamma) - 1) * settings.dynamic_range_db
    level -= settings.gain_slope_db * (radius_mm - settings.probe_radius_mm) / settings.depth_mm
    return np.where(grey > 0, level, np.nan)


def _echo_db(level: np.ndarray, tissues: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean levels against the transition zone's."""
    means = {name: _mean(level[mask]) for name, mask in tissues.items()}
    return {name: value - means["transition"] for name, value in means.items() if name != "transition"}


def _zone_step_db(case: SimulatedCase, level: np.ndarray, tissues: dict[str, np.ndarray]) -> float:
    """Peripheral minus transition zone within 4 mm of their border, so that depth and gain cancel."""
    distance = sitk.SignedMaurerDistanceMap(
        case.trus_labels["transition_zone"], squaredDistance=False, useImageSpacing=True
    )
    near = np.abs(sitk.GetArrayFromImage(distance)).ravel() < 4
    return _mean(level[near & tissues["peripheral"]]) - _mean(level[near & tissues["transition"]])


def _lesions_db(
    parameters: CaseParameters,
    anatomy: Anatomy,
    place: torch.Tensor,
    level: np.ndarray,
    tissues: dict[str, np.ndarray],
) -> tuple[tuple[float, float], ...]:
    """(drawn, measured) echogenicity of every lesion against its own zone within 4 mm around it."""
    found = []
    for lesion in parameters.lesions:
        zone = "peripheral" if lesion.zone == "peripheral" else "transition"
        distance = anatomy.inclusion_distance(place, lesion).numpy()
        inside, around = level[distance < -0.5], level[(distance > 1) & (distance < 4) & tissues[zone]]
        if np.isfinite(inside).sum() > 50 and np.isfinite(around).sum() > 50:
            found.append((lesion.echo_db, _mean(inside) - _mean(around)))
    return tuple(found)


def _calcifications_db(
    parameters: CaseParameters,
    anatomy: Anatomy,
    place: torch.Tensor,
    level: np.ndarray,
    transition: np.ndarray,
) -> tuple[float, ...]:
    """How far the bright part of every calcification exceeds the bright part of the transition zone.

    Bright is the upper tenth: the rest of a calcification lies in its own shadow.
    """
    usual = _high(level[transition])
    near = (anatomy.inclusion_distance(place, each).numpy() < 0.5 for each in parameters.calcifications)
    return tuple(_high(level[inside]) - usual for inside in near)


def _high(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, 0.9)) if known.size else math.nan


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else math.nan


# ---- rows


def mr_findings(shown: Sequence[Shown]) -> list[Finding]:
    """Signal ratios of the cases with physical MR contrast; the sources' are exp(−TE/T2) at TE 100 ms."""
    published = {
        "transition": (".45 / .51 = 0.88", (0.78, 1.0), "Simpkin 2013"),
        "lesion": (".36 / .51 = 0.71", (0.55, 0.88), "Simpkin 2013, Liu 2011"),
        "muscle": (".06 to .14 / .51 = 0.12 to 0.27", (0.1, 0.32), "usual T2 of 35 to 50 ms"),
        "urine": (".82 to .95 / .51 = 1.6 to 1.9, where it does not saturate", (1.3, 2.2), "usual T2"),
        "fat": (".5 to .8 of urine = 0.8 to 1.5", (0.7, 1.6), "usual range"),
    }
    rows = []
    for name, (expected, limits, source) in published.items():
        ratios = _known(each.mr_ratios[name] for each in shown)
        value = float(ratios.mean()) if ratios.size else math.nan
        quantity = f"MR: {name} / peripheral zone"
        rows.append(finding(quantity, value, limits, expected=expected, source=source, shown=spread(ratios)))
    return rows


def trus_findings(shown: Sequence[Shown]) -> list[Finding]:
    """Echo differences of the cases with physical TRUS contrast."""
    usual = "usual range"
    steps = _known(each.zone_step_db for each in shown)
    rows = [
        finding(
            "TRUS: peripheral − transition zone at their border, dB",
            float(steps.mean()) if steps.size else math.nan,
            (0.5, 4.5),
            expected="1 to 4",
            source=usual,
            shown=spread(steps, digits=1),
        )
    ]
    orders = (("vesicle", "below", -30, -2), ("urine", "far below", -60, -8), ("cyst", "far below", -60, -8))
    for name, words, low, high in (*orders, ("fat", "above", 0, 10)):
        levels = _known(each.echo_db[name] for each in shown)
        expected = f"{words} the transition zone"
        value = float(levels.mean()) if levels.size else math.nan
        quantity = f"TRUS: {name} − transition zone, dB"
        rows.append(
            finding(
                quantity, value, (low, high), expected=expected, source=usual, shown=spread(levels, digits=1)
            )
        )
    return [
        *rows,
        _calcification_row(shown),
        *_lesion_rows([pair for each in shown for pair in each.lesions_db]),
    ]


def _calcification_row(shown: Sequence[Shown]) -> Finding:
    fronts = _known(value for each in shown for value in each.calcifications_db)
    return finding(
        "TRUS: calcifications − transition zone, brightest tenths, dB",
        float(np.median(fronts)) if fronts.size else math.nan,
        (2, 25),
        expected="bright in front of their shadow, up to white",
        source="usual appearance",
        shown=spread(fronts, digits=1),
    )


def _lesion_rows(pairs: Sequence[tuple[float, float]]) -> list[Finding]:
    difference = np.array([measured - drawn for drawn, measured in pairs])
    dark = np.array([measured for drawn, measured in pairs if drawn <= -3])
    return [
        finding(
            "TRUS: hypoechoic lesions − tissue around, dB",
            float(dark.mean()) if dark.size else math.nan,
            (-9.5, -2),
            expected="−3 to −9",
            source="usual range",
            shown=spread(dark, digits=1),
        ),
        finding(
            "TRUS: lesions, measured − drawn contrast, dB",
            float(difference.mean()) if difference.size else math.nan,
            (-2, 2),
            expected="0",
            source="the drawn value",
            shown=spread(difference, digits=1),
        ),
    ]


def volume_findings(shown: Sequence[Shown]) -> list[Finding]:
    """Gland volumes of the labels, and what of the gland the fan shows."""
    off = 100 * np.array([each.mr_volume for each in shown])
    change = 100 * np.array([each.volume_change for each in shown])
    seen = 100 * np.array([each.in_fan for each in shown])
    return [
        finding(
            "gland volume of the MR label against the drawn one, %",
            float(np.abs(off).max()),
            (0, 3),
            expected="0",
            source="the drawn value",
            shown=spread(off, digits=1),
        ),
        finding(
            "gland volume in TRUS against MR, %",
            float(np.abs(change).max()),
            (0, 10),
            expected="within 5 by deformation, more where the volume cuts the gland",
            source="contour disagreement of ±5 to 10",
            shown=spread(change, digits=1),
        ),
        finding(
            "share of the gland that the fan shows, %",
            float(seen.min()),
            (95, 100),
            expected="nearly all",
            source="clinical sweeps",
            shown=spread(seen, digits=1),
        ),
    ]


def _known(values: Iterable[float]) -> np.ndarray:
    array = np.array(list(values), float)
    return array[np.isfinite(array)]


# ---- beside real pairs


def gland_statistics(image: sitk.Image, gland: sitk.Image) -> dict[str, float]:
    """Brightness of the gland against a rim of 2 to 10 mm around it, and its variation inside."""
    array = sitk.GetArrayFromImage(image).astype(float)
    array = array / max(float(np.percentile(array, 99.5)), 1e-6)
    mask = sitk.Cast(gland > 0, sitk.sitkUInt8)
    mask.CopyInformation(image)
    distance = sitk.GetArrayFromImage(
        sitk.SignedMaurerDistanceMap(mask, squaredDistance=False, useImageSpacing=True)
    )
    inside = array[distance < -1]
    rim = array[(distance > 2) & (distance < 10) & (array > 0.02)]
    return {
        "brightness of the gland": float(inside.mean()),
        "gland / rim around it": float(inside.mean() / rim.mean()),
        "variation inside the gland": float(inside.std() / inside.mean()),
    }


def real_findings(
    simulated: Sequence[tuple[sitk.Image, sitk.Image]],
    real: Sequence[tuple[sitk.Image, sitk.Image]],
    side: str,
) -> list[Finding]:
    """Statistics of (image, gland) of blurred simulated images against real ones, which are as blurred."""
    ours = [gland_statistics(*pair) for pair in simulated]
    theirs = [gland_statistics(*pair) for pair in real]
    rows = []
    for name in ours[0]:
        values, published = (np.array([each[name] for each in group]) for group in (ours, theirs))
        limits = (published.mean() - 1.5 * published.std(), published.mean() + 1.5 * published.std())
        rows.append(
            finding(
                f"{side}: {name}, blurred",
                float(values.mean()),
                limits,
                expected=spread(published),
                source="the real pairs, ± 1.5 sd",
                shown=spread(values),
            )
        )
    return rows


def gland_pairs(
    cases: Sequence[SimulatedCase], coarse: Callable[..., tuple[sitk.Image, dict[str, sitk.Image]]], side: str
) -> list[tuple[sitk.Image, sitk.Image]]:
    """(image, gland) of one side of the cases after `coarse`."""
    pairs = []
    for case in cases:
        image, labels = (case.mr, case.mr_labels) if side == "MR" else (case.trus, case.trus_labels)
        soft, masks = coarse(image, {"gland": labels["gland"]})
        assert Grid.of(soft).same_as(Grid.of(masks["gland"]))
        pairs.append((soft, masks["gland"]))
    return pairs
