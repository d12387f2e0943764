"""Grids, frames and resampling.

Everything here is LPS and millimetres, as in ITK. A transform maps points of the fixed (TRUS) space to
points of the moving (MR) space. Arrays follow SimpleITK: axes are (k, j, i), the reverse of ITK's index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813  (the library's own customary name)

# The LPS axis that each letter of an orientation code points along, and the sign.
_LETTERS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
_OPPOSITE = str.maketrans("LRPASI", "RLAPIS")


@dataclass(frozen=True)
class Grid:
    """A sampling grid in LPS millimetres.

    `size_vox`, `spacing_mm` and `origin_mm` are in index order (i, j, k); `direction` is ITK's row-major
    3×3 matrix whose columns are the unit vectors of the index axes.
    """

    size_vox: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    @classmethod
    def of(cls, image: sitk.Image) -> Grid:
        """The grid that a 3-D image is sampled on."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @classmethod
    def centred(
        cls,
        centre_mm: np.ndarray,
        size_vox: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        direction: tuple[float, ...],
    ) -> Grid:
        """The grid of the given size whose middle (between first and last voxel centre) is `centre_mm`."""
        half = (np.array(size_vox) - 1) / 2 * np.array(spacing_mm)
        origin = np.asarray(centre_mm, float) - np.reshape(direction, (3, 3)) @ half
        return cls(size_vox, spacing_mm, tuple(origin.tolist()), direction)

    @property
    def axes(self) -> np.ndarray:
        """3×3 matrix whose columns are the unit vectors of the index axes."""
        return np.array(self.direction).reshape(3, 3)

    @property
    def index_to_point(self) -> np.ndarray:
        """4×4 matrix from index (i, j, k, 1) to LPS millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes * np.array(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    @property
    def centre_mm(self) -> np.ndarray:
        middle = np.append((np.array(self.size_vox) - 1) / 2, 1.0)
        return (self.index_to_point @ middle)[:3]

    @property
    def voxel_volume_mm3(self) -> float:
        return float(np.prod(self.spacing_mm))

    def points_mm(self) -> np.ndarray:
        """(k, j, i, 3) LPS positions of the voxel centres."""
        index = np.moveaxis(np.indices(self.size_vox[::-1])[::-1], 0, -1)
        return index @ self.index_to_point[:3, :3].T + np.array(self.origin_mm)

    def padded(self, margin_vox: int) -> Grid:
        """The grid grown by `margin_vox` voxels on all six sides."""
        start = self.index_to_point @ np.array([-margin_vox] * 3 + [1.0])
        size = tuple(n + 2 * margin_vox for n in self.size_vox)
        return Grid(size, self.spacing_mm, tuple(start[:3].tolist()), self.direction)  # type: ignore[arg-type]

    def with_spacing(self, spacing_mm: tuple[float, float, float]) -> Grid:
        """A grid with the same axes and middle, the new spacing, covering at least the same region."""
        extent = np.array(self.size_vox) * np.array(self.spacing_mm)
        size = tuple(int(n) for n in np.ceil(extent / np.array(spacing_mm) - 1e-6).clip(1))
        return Grid.centred(self.centre_mm, size, spacing_mm, self.direction)  # type: ignore[arg-type]

    def blank(self, pixel_type: int = sitk.sitkUInt8) -> sitk.Image:
        """An image of zeros on this grid."""
        image = sitk.Image(self.size_vox, pixel_type)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        return image

    def image(self, array_kji: np.ndarray, *, vector: bool = False) -> sitk.Image:
        """An image on this grid from an array with axes (k, j, i), or (k, j, i, component)."""
        image = sitk.GetImageFromArray(np.ascontiguousarray(array_kji), isVector=vector)
        image.SetSpacing(self.spacing_mm)
        image.SetOrigin(self.origin_mm)
        image.SetDirection(self.direction)
        return image

    def same_as(self, other: Grid, *, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids have the same voxels, to `tolerance_mm` at their corners."""
        if self.size_vox != other.size_vox:
            return False
        corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
        corners[:, :3] *= np.array(self.size_vox) - 1
        gap = corners @ (self.index_to_point - other.index_to_point).T
        return bool(np.abs(gap).max() <= tolerance_mm)


def resample(
    image: sitk.Image,
    grid: Grid,
    transform: sitk.Transform | None = None,
    *,
    nearest: bool = False,
    outside: float = 0.0,
) -> sitk.Image:
    """Resample `image` onto `grid`; `transform` maps points of the grid's space to the image's space."""
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(grid.size_vox)
    resampler.SetOutputSpacing(grid.spacing_mm)
    resampler.SetOutputOrigin(grid.origin_mm)
    resampler.SetOutputDirection(grid.direction)
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resampler.SetDefaultPixelValue(outside)
    resampler.SetTransform(sitk.Transform(3, sitk.sitkIdentity) if transform is None else transform)
    return resampler.Execute(image)


def resample_mask(mask: sitk.Image, grid: Grid, transform: sitk.Transform | None = None) -> sitk.Image:
    """Resample a binary mask: linear interpolation of its indicator, kept where it exceeds one half.

    Unlike nearest-neighbour interpolation this has no half-voxel steps on a finer grid.
    """
    soft = resample(sitk.Cast(mask, sitk.sitkFloat32), grid, transform)
    return soft > 0.5


def mask_points_mm(mask: sitk.Image) -> np.ndarray:
    """(n, 3) LPS positions of the voxel centres inside a binary mask."""
    index_kji = np.argwhere(sitk.GetArrayViewFromImage(mask) > 0)
    return index_kji[:, ::-1] @ Grid.of(mask).index_to_point[:3, :3].T + np.array(mask.GetOrigin())


def mask_centroid_mm(mask: sitk.Image) -> np.ndarray:
    """(3,) LPS centroid of a binary mask, as the mean of its voxel centres."""
    return mask_points_mm(mask).mean(axis=0)


def mask_volume_ml(mask: sitk.Image) -> float:
    voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
    return voxels * Grid.of(mask).voxel_volume_mm3 / 1000


def orientation_code(direction: tuple[float, ...]) -> str:
    """Three letters that say towards which side of the patient each index axis runs, such as "LPS"."""
    code = ""
    for column in np.reshape(direction, (3, 3)).T:
        axis = int(np.argmax(np.abs(column)))
        code += ("LR", "PA", "SI")[axis][0 if column[axis] > 0 else 1]
    return code


def opposite(code: str) -> str:
    """The code with every letter's other side, such as "RAI" for "LPS"."""
    return code.translate(_OPPOSITE)


def orientation_direction(code: str) -> tuple[float, ...]:
    """ITK's direction matrix for an orientation code; `ValueError` unless it names each axis once."""
    letters = [_LETTERS.get(letter) for letter in code.upper()]
    if len(letters) != 3 or None in letters or {entry[0] for entry in letters if entry} != {0, 1, 2}:
        raise ValueError(f"{code!r} is not an orientation code: give one letter each of L/R, P/A and S/I.")
    matrix = np.zeros((3, 3))
    for column, entry in enumerate(letters):
        if entry is not None:
            matrix[entry[0], column] = entry[1]
    return tuple(matrix.ravel().tolist())


def with_orientation(image: sitk.Image, code: str) -> sitk.Image:
    """The same voxels with axes that lie as `code` says; the middle of the volume stays where it is."""
    grid = Grid.of(image)
    turned = Grid.centred(grid.centre_mm, grid.size_vox, grid.spacing_mm, orientation_direction(code))
    copy = sitk.Image(image)
    copy.SetOrigin(turned.origin_mm)
    copy.SetDirection(turned.direction)
    return copy


def reordered_direction(direction: tuple[float, ...], axes: str, wanted: str) -> tuple[float, ...]:
    """The direction matrix whose columns are the given one's, permuted and flipped from `axes` to `wanted`.

    `axes` says how the index axes lie, which is `orientation_code(direction)` unless the header is wrong.
    """
    columns = np.reshape(direction, (3, 3)).T
    reordered = []
    for letter in wanted.upper():
        axis, sign = _LETTERS[letter]
        source = next(n for n, have in enumerate(axes.upper()) if _LETTERS[have][0] == axis)
        reordered.append(columns[source] * sign * _LETTERS[axes.upper()[source]][1])
    return tuple(np.array(reordered).T.ravel().tolist())
