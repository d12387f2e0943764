"""Analytic shapes, fields and grids that the tests of the numeric core share. LPS, millimetres."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.geometry import Grid


def turned(x_rad: float, y_rad: float, z_rad: float) -> tuple[float, ...]:
    """Direction matrix of axes turned about all three LPS axes."""
    return sitk.Euler3DTransform((0, 0, 0), x_rad, y_rad, z_rad).GetMatrix()


OBLIQUE = Grid((21, 17, 13), (0.8, 1.1, 1.7), (-12.0, 30.5, -7.25), turned(0.4, -0.3, 0.7))


def points_mm(grid: Grid) -> np.ndarray:
    """(k, j, i, 3) LPS positions of the voxel centres."""
    index_kji = np.moveaxis(np.indices(grid.size_vox[::-1]), 0, -1)
    return index_kji[..., ::-1] @ grid.index_to_point[:3, :3].T + np.array(grid.origin_mm)


def cube_grid(side_vox: int, spacing_mm: float, direction: tuple[float, ...] = turned(0, 0, 0)) -> Grid:
    """A cubic grid about the origin."""
    return Grid.centred(np.zeros(3), (side_vox,) * 3, (spacing_mm,) * 3, direction)


def ellipsoid(
    grid: Grid,
    radii_mm: tuple[float, float, float],
    *,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    axes: tuple[float, ...] = turned(0, 0, 0),
) -> sitk.Image:
    """A uint8 ellipsoid whose half axes lie along the columns of `axes`."""
    local = (points_mm(grid) - np.array(centre_mm)) @ np.reshape(axes, (3, 3))
    inside = np.sum((local / np.array(radii_mm)) ** 2, axis=-1) <= 1
    return grid.image(inside.astype(np.uint8))


def gland_like(grid: Grid) -> sitk.Image:
    """A blob without any symmetry: an ellipsoid with a lobe to one side and a dent."""
    body, lobe = ellipsoid(grid, (22, 16, 18)), ellipsoid(grid, (9, 8, 10), centre_mm=(14, 11, 8))
    dent = ellipsoid(grid, (7, 7, 7), centre_mm=(-9, -17, 6))
    return sitk.Cast((body + lobe > 0) * (dent == 0), sitk.sitkUInt8)


def bump_mm(grid: Grid, peak_mm: tuple[float, float, float], *, width_mm: float) -> np.ndarray:
    """(k, j, i, 3) Gaussian displacement in LPS mm with its peak in the middle of the grid."""
    distance = np.linalg.norm(points_mm(grid) - grid.centre_mm, axis=-1, keepdims=True)
    return np.exp(-0.5 * (distance / width_mm) ** 2) * np.array(peak_mm)


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def overlap(a: sitk.Image, b: sitk.Image) -> float:
    """Dice of two masks on one grid, by its definition."""
    in_a, in_b = array(a) > 0, array(b) > 0
    return float(2 * np.sum(in_a & in_b) / (in_a.sum() + in_b.sum()))
