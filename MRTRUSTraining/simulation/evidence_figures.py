"""Figures of the simulator's evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats

from .anatomy_sampling import VOLUME_LOG_MEAN, VOLUME_LOG_SD
from .evidence_drawn import Motion, bare_speckle
from .parameters import Ellipsoid, GlandParameters, TrusParameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_distributions(
    path: Path,
    glands: Sequence[GlandParameters],
    lesions: Sequence[Ellipsoid],
    motions: Sequence[Motion],
    settings: TrusParameters,
) -> None:
    """One page: volumes, zones, lesions, motion, Jacobian and speckle, with the published curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.5))
    axes = figure.subplots(2, 3).ravel()
    _volumes(axes[0], glands)
    _zones(axes[1], glands)
    diameters = [2 * math.prod(each.radii_mm) ** (1 / 3) for each in lesions]
    _histogram(axes[2], diameters, "lesion diameter, mm", mark=11)
    _histogram(axes[3], [each.largest_mm for each in motions], "largest motion in the gland, mm", mark=13.9)
    _histogram(axes[4], [each.jacobian_min for each in motions], "least Jacobian in the gland", mark=0)
    _speckle(axes[5], settings)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _histogram(axis: Axes, values: Sequence[float], label: str, *, mark: float) -> None:
    axis.hist(values, bins=20, color="lightsteelblue")
    axis.axvline(mark, color="black", linestyle="--")
    axis.set_xlabel(label)


def _volumes(axis: Axes, glands: Sequence[GlandParameters]) -> None:
    place = np.linspace(10, 160, 200)
    law = scipy.stats.lognorm(s=VOLUME_LOG_SD, scale=math.exp(VOLUME_LOG_MEAN))
    axis.hist([each.volume_ml for each in glands], bins=60, density=True, color="lightsteelblue")
    axis.plot(place, law.pdf(place), "k--", label="published lognormal")
    axis.set_xlabel("gland volume, ml")
    axis.legend()


def _zones(axis: Axes, glands: Sequence[GlandParameters]) -> None:
    volume = [each.volume_ml for each in glands]
    axis.plot(
        volume, [each.transition_zone_ml for each in glands], ".", markersize=2, label="transition zone"
    )
    outer = [each.volume_ml - each.transition_zone_ml for each in glands]
    axis.plot(volume, outer, ".", markersize=2, label="peripheral zone")
    axis.axhspan(15, 25, color="lightgrey", zorder=0)
    axis.set_xlabel("gland volume, ml")
    axis.set_ylabel("zone volume, ml")
    axis.legend()


def _speckle(axis: Axes, settings: TrusParameters) -> None:
    envelope, _ = bare_speckle(settings)
    place = np.linspace(0, 3.5, 100)
    axis.hist(envelope.flatten().numpy(), bins=100, density=True, color="lightsteelblue")
    axis.plot(place, 2 * place * np.exp(-(place**2)), "k--", label="Rayleigh")
    axis.set_xlim(0, 3.5)
    axis.set_xlabel("envelope of uniform tissue")
    axis.legend()
