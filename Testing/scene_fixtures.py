"""Registrations with a known answer, on oblique and anisotropic grids, for the tests of the scene."""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy.ndimage import gaussian_filter

from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask
from MRTRUSRegistrationLib.results import (
    Deformation,
    GlandSegmentation,
    LandmarkRow,
    Landmarks,
    Measures,
    QualityWarning,
    Registration,
    RigidAlignment,
)
from MRTRUSRegistrationLib.transforms import compose, field_transform, inverse_points_mm

MR_CENTRE_MM = np.array([4.0, -21.0, 33.0])
TRUS_CENTRE_MM = np.array([-70.0, 12.0, 5.0])


def oblique(angles_deg: tuple[float, float, float], *, left_handed: bool = False) -> tuple[float, ...]:
    """ITK's direction matrix for three Euler angles, mirrored along the last index axis if asked."""
    matrix = np.array(sitk.Euler3DTransform((0, 0, 0), *np.radians(angles_deg).tolist()).GetMatrix())
    matrix = matrix.reshape(3, 3)
    if left_handed:
        matrix[:, 2] *= -1
    return tuple(matrix.ravel().tolist())


def blobs(
    grid: Grid, *, seed: int, smooth_mm: float = 3.0, low: float = 0.0, high: float = 1000.0
) -> np.ndarray:
    """A smooth random image (k, j, i), scaled to run from `low` to `high`."""
    noise = np.random.default_rng(seed).normal(size=grid.size_vox[::-1])
    smooth = gaussian_filter(noise, [smooth_mm / s for s in grid.spacing_mm[::-1]])
    unit = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return low + (high - low) * unit


def ball(grid: Grid, radius_mm: float) -> sitk.Image:
    """A binary ball in the middle of the grid."""
    index_kji = np.indices(grid.size_vox[::-1]).reshape(3, -1).T
    points = index_kji[:, ::-1] @ grid.index_to_point[:3, :3].T + np.array(grid.origin_mm)
    inside = np.linalg.norm(points - grid.centre_mm, axis=1) <= radius_mm
    return grid.image(inside.reshape(grid.size_vox[::-1]).astype(np.uint8))


def smooth_field(
    grid: Grid, *, seed: int, scale_mm: float, largest_mm: float
) -> sitk.DisplacementFieldTransform:
    """White noise smoothed by a Gaussian of `scale_mm`, faded to a rim of zeros at the grid's edge."""
    rng = np.random.default_rng(seed)
    sigma = [scale_mm / s for s in grid.spacing_mm[::-1]]
    parts = [gaussian_filter(rng.normal(size=grid.size_vox[::-1]), sigma) for _ in range(3)]
    field = np.stack(parts, axis=-1) * _fade(grid, 8.0)[..., None]
    return field_transform(field * largest_mm / np.linalg.norm(field, axis=-1).max(), grid)


def _fade(grid: Grid, margin_mm: float) -> np.ndarray:
    """(k, j, i) weights that fall to zero over the outer `margin_mm`, with two continuous derivatives."""
    weights = np.ones(grid.size_vox[::-1])
    for axis, (n, spacing) in enumerate(zip(grid.size_vox[::-1], grid.spacing_mm[::-1], strict=True)):
        edge_mm = np.minimum(np.arange(n), np.arange(n)[::-1]) * spacing
        t = np.clip(edge_mm / margin_mm, 0, 1)
        weights *= (t**3 * (t * (6 * t - 15) + 10)).reshape([-1 if a == axis else 1 for a in range(3)])
    return weights


def registration(
    *,
    mr_size_vox: tuple[int, int, int] = (48, 56, 24),
    mr_spacing_mm: tuple[float, float, float] = (1.1, 0.9, 2.2),
    trus_size_vox: tuple[int, int, int] = (52, 48, 44),
    trus_spacing_mm: tuple[float, float, float] = (1.0, 0.9, 1.1),
    field_spacing_mm: float | None = None,
    field_scale_mm: float = 10.0,
    largest_mm: float = 4.0,
    deformable: bool = True,
    landmarks: int = 6,
    pixel_type: int = sitk.sitkInt16,
) -> Registration:
    """A registration whose registered image and landmark positions SimpleITK computed.

    The field lies on the voxels of the TRUS image, or on a grid of its own where `field_spacing_mm` is given.
    """
    mr_grid = Grid.centred(MR_CENTRE_MM, mr_size_vox, mr_spacing_mm, oblique((17, -11, 24)))
    trus_direction = oblique((-9, 21, 6), left_handed=True)
    trus_grid = Grid.centred(TRUS_CENTRE_MM, trus_size_vox, trus_spacing_mm, trus_direction)
    mr = sitk.Cast(mr_grid.image(blobs(mr_grid, seed=1)), pixel_type)
    trus = sitk.Cast(trus_grid.image(blobs(trus_grid, seed=2, high=255)), sitk.sitkUInt8)
    rigid = _rigid()
    field_grid = trus_grid.with_spacing((field_spacing_mm,) * 3) if field_spacing_mm else trus_grid
    field = smooth_field(field_grid, seed=3, scale_mm=field_scale_mm, largest_mm=largest_mm)
    deformation = Deformation(field, "cmsa", "test-model") if deformable else None
    transform = compose(rigid, field if deformable else None)
    mr_points, trus_points = _landmarks(landmarks, rigid, field if deformable else None)
    mr_gland, trus_gland = ball(mr_grid, 18.0), ball(trus_grid, 17.0)
    return Registration(
        mr=mr,
        trus=trus,
        mr_gland=GlandSegmentation(mr_gland),
        trus_gland=GlandSegmentation(trus_gland),
        initial=sitk.TranslationTransform(3, (MR_CENTRE_MM - TRUS_CENTRE_MM).tolist()),
        rigid=RigidAlignment(rigid, "mask", 14.0),
        deformation=deformation,
        transform=transform,
        registered_mr=resample(sitk.Cast(mr, sitk.sitkFloat64), trus_grid, transform),
        registered_mr_mask=resample_mask(mr_gland, trus_grid, transform),
        mr_landmarks=mr_points,
        trus_landmarks=trus_points,
        measures=Measures({"dsc": 0.91, "tre_rms_mm": 2.0, "folds_percent": 0.0}, _rows(trus_points)),
        initial_measures=Measures({"dsc": 0.7, "tre_rms_mm": 5.5}),
        rigid_measures=Measures({"dsc": 0.85, "tre_rms_mm": 3.25}),
        warnings=(QualityWarning("rotation", "The rotation is “weakly” supported."),),
        timings_s={"rigid": 0.5},
        method="cmsa" if deformable else "rigid",
        provenance={"version": "0.1.0", "settings": {"method": "cmsa", "note": "µ-RegPro <&>"}},
    )


def cubic_displaced(transform: sitk.DisplacementFieldTransform, points_mm: np.ndarray) -> np.ndarray:
    """x + u(x) with the field interpolated by Catmull–Rom splines, as VTK's "cubic" grid does it.

    R. Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP 29 (1981), a = −1/2.
    """
    field = transform.GetDisplacementField()
    grid, values = Grid.of(field), sitk.GetArrayViewFromImage(field)
    index = (points_mm - np.array(grid.origin_mm)) @ np.linalg.inv(grid.index_to_point[:3, :3]).T
    base = np.floor(index)
    t = index - base
    weights = np.stack(
        [
            -t / 2 + t**2 - t**3 / 2,
            1 - 2.5 * t**2 + 1.5 * t**3,
            t / 2 + 2 * t**2 - 1.5 * t**3,
            (t**3 - t**2) / 2,
        ]
    )
    near = (base[None] + np.arange(-1, 3)[:, None, None]).astype(int)
    i, j, k = np.moveaxis(np.clip(near, 0, np.array(grid.size_vox) - 1), -1, 0)
    patch = values[k[:, None, None], j[None, :, None], i[None, None, :]]
    wi, wj, wk = np.moveaxis(weights, -1, 0)
    return points_mm + np.einsum("kn,jn,in,kjinc->nc", wk, wj, wi, patch)


def _rigid() -> sitk.Euler3DTransform:
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(TRUS_CENTRE_MM.tolist())
    rigid.SetRotation(*[math.radians(a) for a in (8.0, -10.0, 6.0)])
    rigid.SetTranslation((MR_CENTRE_MM - TRUS_CENTRE_MM + np.array([1.5, -2.0, 0.7])).tolist())
    return rigid


def _landmarks(
    count: int, rigid: sitk.Transform, field: sitk.DisplacementFieldTransform | None
) -> tuple[Landmarks | None, Landmarks | None]:
    """MR landmarks around the middle of the gland, and where they belong in TRUS space."""
    if count == 0:
        return None, None
    names = tuple(f"target {n + 1}" for n in range(count))
    points = MR_CENTRE_MM + np.random.default_rng(4).uniform(-10, 10, (count, 3))
    return Landmarks(names, points), Landmarks(names, inverse_points_mm(rigid, field, points))


def _rows(landmarks: Landmarks | None) -> tuple[LandmarkRow, ...]:
    """One row a landmark, the last of them lost."""
    if landmarks is None:
        return ()
    rows = []
    for n, (name, point) in enumerate(zip(landmarks.names, landmarks.points_mm.tolist(), strict=True)):
        lost = n == len(landmarks) - 1
        rows.append(LandmarkRow(name, tuple(point), None, 5.0 + n, 3.0, None if lost else 1.5, lost))
    return tuple(rows)
