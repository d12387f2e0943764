"""The surface of a binary mask between its voxels, and the distance to it. Frame: LPS, millimetres."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import find_objects, gaussian_filter
from scipy.spatial import cKDTree

from .geometry import Grid

# Smoothing that takes the steps of voxels from the surface and moves it by less than 0.1 mm.
_SIGMA_VOX = 1.0
_MOST_SIGMA_MM = 1.0
_ROOM_VOX = 4


@dataclass(frozen=True)
class GlandSurface:
    """Samples of a surface: `points_mm` and the `normals` there (inwards, unit) are (n, 3).

    There is one where the smoothed mask passes one half between two neighbouring voxels, so that the nearest
    sample lies within `gap_mm` of the nearest point of the surface.
    """

    points_mm: np.ndarray
    normals: np.ndarray
    gap_mm: float
    _tree: cKDTree = field(repr=False, compare=False)

    @classmethod
    def of(cls, mask: sitk.Image) -> GlandSurface:
        """The surface of a mask, closed where the mask reaches the border; `ValueError` if it is empty."""
        inside = sitk.GetArrayFromImage(mask) > 0
        if not inside.any():
            raise ValueError("An empty mask has no surface.")
        box = find_objects(inside.astype(np.uint8))[0]
        sigma_vox = np.minimum(_SIGMA_VOX, _MOST_SIGMA_MM / np.array(mask.GetSpacing()))[::-1]
        padded = np.pad(inside[box], _ROOM_VOX).astype(np.float32)
        soft = gaussian_filter(padded, sigma_vox, mode="constant")
        gradient = np.stack(np.gradient(soft), axis=-1)
        parts = [_crossings(soft, gradient, axis) for axis in range(3)]
        index_kji = np.concatenate([part[0] for part in parts])
        index_kji += np.array([part.start for part in box]) - _ROOM_VOX
        matrix = Grid.of(mask).index_to_point
        points_mm = index_kji[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
        normals = np.concatenate([part[1] for part in parts])[:, ::-1] @ np.linalg.inv(matrix[:3, :3])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        gap_mm = float(np.linalg.norm(mask.GetSpacing())) / 2
        return cls(points_mm, normals, gap_mm, cKDTree(points_mm))

    def distance_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """(n,) distances of (n, 3) points to the surface, positive inside.

        A mask knows its surface to half a voxel at worst; on average this is right to about a tenth of one.
        """
        points = np.asarray(points_mm, float).reshape(-1, 3)
        distance, nearest = self._tree.query(points)
        along = np.sum((points - self.points_mm[nearest]) * self.normals[nearest], axis=1)
        # What the nearest sample lies beside the nearest point of the surface is no distance to that.
        beside = np.minimum(distance**2 - along**2, self.gap_mm**2)
        return np.sign(along) * np.sqrt(np.maximum(distance**2 - beside, 0))


def _crossings(soft: np.ndarray, gradient: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) indices (k, j, i) along one array axis where `soft` passes one half, and the gradients there."""
    before, after = (np.arange(soft.shape[axis] - 1) + n for n in (0, 1))
    low, high = (np.take(soft, part, axis=axis) for part in (before, after))
    crossing = (low > 0.5) != (high > 0.5)
    along = (0.5 - low[crossing]) / (high[crossing] - low[crossing])
    index = np.argwhere(crossing).astype(float)
    index[:, axis] += along
    slopes = [np.take(gradient, part, axis=axis)[crossing] for part in (before, after)]
    return index, slopes[0] + along[:, None] * (slopes[1] - slopes[0])
