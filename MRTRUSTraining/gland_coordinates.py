"""Where each voxel lies in the gland: coordinates that the same tissue has in both images of a pair.

A network that tells them from one image alone makes registration a matter of finding equal coordinates
(registration by regression, Gopinath et al. 2024, there for brains and an atlas). They are those of the MR:
places along its axes from the centre of its gland, one at the surface of an ellipsoid of the gland's moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.geometry import Grid, mask_points_mm
from MRTRUSRegistrationLib.transforms import displacements_mm


@dataclass(frozen=True)
class GlandChart:
    """The middle of an MR gland and its half-extents along x, y and z (LPS), in mm."""

    centre_mm: np.ndarray
    half_extent_mm: np.ndarray

    @classmethod
    def of(cls, mr_gland: sitk.Image) -> GlandChart:
        points = mask_points_mm(mr_gland)
        # The variance of an ellipsoid along an axis is a fifth of its half-extent squared.
        return cls(points.mean(axis=0), np.sqrt(5) * points.std(axis=0))

    def on(self, grid: Grid, trus_to_mr: sitk.Transform | None = None) -> sitk.Image:
        """Coordinates (vector of float32, in the order z, y, x) of a grid's voxels.

        The grid is one in the MR, or with `trus_to_mr` (TRUS points to MR points) one in the TRUS.
        """
        points = grid.points_mm()
        if trus_to_mr is not None:
            points = points + displacements_mm(trus_to_mr, grid)
        coordinates = (points - self.centre_mm) / self.half_extent_mm
        return grid.image(coordinates[..., ::-1].astype(np.float32), vector=True)
