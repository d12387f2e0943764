"""A rigid alignment that another process can repeat: prints its parameters as JSON, exactly."""

from __future__ import annotations

import json
import sys
from typing import get_args

import SimpleITK as sitk  # noqa: N813
from shapes import cube_grid, gland_like

from MRTRUSRegistrationLib.ants_masks import AntsMetric
from MRTRUSRegistrationLib.geometry import resample_mask
from MRTRUSRegistrationLib.rigid import RigidSettings, align_rigid, gland_initial

SEEDS = (0, 5)
TRUTH = sitk.Euler3DTransform((0, 0, 0), 0.06, -0.05, 0.08, (14.0, -9.0, 21.0))


def glands() -> tuple[sitk.Image, sitk.Image]:
    """An MR gland without symmetry and the same gland in TRUS; TRUTH maps TRUS points to MR points."""
    trus = gland_like(cube_grid(48, 1.4))
    middle = TRUTH.TransformPoint((0.0, 0.0, 0.0))
    mr_grid = cube_grid(48, 1.5)
    shifted = type(mr_grid)(
        mr_grid.size_vox,
        mr_grid.spacing_mm,
        tuple(o + m for o, m in zip(mr_grid.origin_mm, middle, strict=True)),
    )
    return resample_mask(trus, shifted, TRUTH.GetInverse()), trus


def alignments() -> dict[str, list[str]]:
    """Every digit of the transforms, by metric and seed."""
    mr, trus = glands()
    found = {}
    for metric in get_args(AntsMetric):
        for seed in SEEDS:
            settings = RigidSettings(
                metric=metric, iterations=(40, 20), shrink_factors=(4, 2), smoothing_vox=(2, 1)
            )
            transform = align_rigid(mr, trus, gland_initial(mr, trus), settings=settings, seed=seed).transform
            numbers = (*transform.GetParameters(), *transform.GetFixedParameters())
            found[f"{metric} {seed}"] = [float(number).hex() for number in numbers]
    return found


if __name__ == "__main__":
    json.dump(alignments(), sys.stdout)
