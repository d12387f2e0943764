"""The pictures of the report: slices through the TRUS gland, contours, maps.

Rasters are PNG data URIs with one pixel per `PIXEL_MM`; contours and arrows are SVG paths in pixel units, so
that they stay sharp in print. Slices follow the axes of the TRUS image that lie nearest to the patient's:
axial seen from the feet, sagittal from the left, coronal from the front, as radiologists show them.

Frame: LPS, millimetres. Slice arrays have axes (row, column).
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .geometry import Grid, mask_centroid_mm, mask_points_mm, orientation_direction, resample
from .jacobian import jacobian_determinant
from .results import Deformation, GlandSegmentation, Registration
from .transforms import displacements_mm

PIXEL_MM = 0.4
MARGIN_MM = 15.0
TILE_MM = 10.0
_MAP_PIXEL_MM = 1.0
_LARGEST_VIEW_MM = 160.0

PlaneName = Literal["axial", "sagittal", "coronal"]
PLANE_NAMES: tuple[PlaneName, ...] = ("axial", "sagittal", "coronal")

# Which way the columns and the rows of a picture run: axis in (L, P, S) and sign.
_RUNS: dict[PlaneName, tuple[tuple[int, int], tuple[int, int]]] = {
    "axial": ((0, 1), (1, 1)),
    "sagittal": ((1, 1), (2, -1)),
    "coronal": ((0, 1), (2, -1)),
}
_SIDES = (("R", "L"), ("A", "P"), ("I", "S"))


@dataclass(frozen=True)
class Plane:
    """A slice: `grid` is one voxel thick; `markers` are the letters at left, right, top and bottom."""

    name: PlaneName
    grid: Grid
    markers: tuple[str, str, str, str]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of its picture."""
        return self.grid.size_vox[1], self.grid.size_vox[0]


@dataclass(frozen=True)
class Contour:
    """An outline: `kind` is "trus" or "mr" (its style), `path` an SVG path in pixels."""

    kind: str
    path: str


@dataclass(frozen=True)
class Picture:
    """One picture: `layers` are data URIs to be laid over each other, the first at the bottom."""

    plane: PlaneName
    alt: str
    layers: tuple[str, ...]
    width_px: int
    height_px: int
    markers: tuple[str, str, str, str]
    contours: tuple[Contour, ...] = ()


@dataclass(frozen=True)
class ColourBar:
    """A colour scale: CSS colours from left to right, and (position in percent, text) of its ticks."""

    colours: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class PictureRow:
    """Three planes of one thing."""

    title: str
    caption: str
    pictures: tuple[Picture, ...]
    bar: ColourBar | None = None


@dataclass(frozen=True)
class ReportPictures:
    """All pictures of a report; the maps are None where nothing was deformed."""

    stages: tuple[PictureRow, ...]
    trus: PictureRow
    fusion: PictureRow
    checkerboard: PictureRow
    displacement: PictureRow | None
    jacobian: PictureRow | None
    # How far the planes are tilted from the patient's, and the axes that were assumed for want of a header.
    tilt_deg: float
    assumed_axes: str


@dataclass(frozen=True)
class _Stage:
    title: str
    caption: str
    transform: sitk.Transform


def report_pictures(result: Registration) -> ReportPictures:
    """Draw everything that the report shows of a registration."""
    planes = gland_planes(result.trus, result.trus_gland)
    studio = _Studio(result, planes)
    stages = _stages(result)
    final = stages[-1].transform
    return ReportPictures(
        stages=tuple(studio.moved_mr(stage) for stage in stages),
        trus=studio.trus_row(final),
        fusion=studio.fusion_row(final),
        checkerboard=studio.checkerboard_row(final),
        displacement=studio.displacement_row(result.deformation) if result.deformation else None,
        jacobian=studio.jacobian_row(result.deformation) if result.deformation else None,
        tilt_deg=tilt_deg(result.trus, result.trus_gland),
        assumed_axes=result.trus_gland.axes,
    )


def display_axes(image: sitk.Image, axes: str = "") -> np.ndarray:
    """3×3 matrix whose columns are the LPS directions in which a picture shows left, posterior, superior.

    They are the image's own axes, each the one nearest to the patient's. `axes` (an orientation code) says
    how the index axes lie in the patient where the header does not.
    """
    anatomy = np.reshape(orientation_direction(axes) if axes else image.GetDirection(), (3, 3))
    order = max(permutations(range(3)), key=lambda p: sum(abs(anatomy[row, p[row]]) for row in range(3)))
    signs = [1.0 if anatomy[row, column] >= 0 else -1.0 for row, column in enumerate(order)]
    return Grid.of(image).axes[:, list(order)] * np.array(signs)


def tilt_deg(image: sitk.Image, gland: GlandSegmentation) -> float:
    """The largest angle between a displayed axis and the patient's; 0 where the header says nothing."""
    if gland.axes:
        return 0.0
    cosines = np.diag(display_axes(image)).clip(-1, 1)
    return float(np.degrees(np.arccos(cosines)).max())


def gland_planes(trus: sitk.Image, gland: GlandSegmentation) -> tuple[Plane, ...]:
    """Axial, sagittal and coronal plane through the gland's centroid, with a margin around the gland."""
    axes = display_axes(trus, gland.axes)
    centroid_mm = mask_centroid_mm(gland.mask)
    reach = (mask_points_mm(gland.mask) - centroid_mm) @ axes
    low, high = reach.min(axis=0) - MARGIN_MM, reach.max(axis=0) + MARGIN_MM
    half = _LARGEST_VIEW_MM / 2
    low, high = low.clip(-half, half), high.clip(-half, half)
    return tuple(_plane(name, axes, centroid_mm, low, high) for name in PLANE_NAMES)


def slice_image(image: sitk.Image, plane: Plane, transform: sitk.Transform | None = None) -> np.ndarray:
    """(row, column) float32 values of `image` on a plane, not a number outside the image.

    `transform` maps points of the plane's (TRUS) space to the image's.
    """
    as_float = sitk.Cast(image, sitk.sitkFloat32)
    return sitk.GetArrayFromImage(resample(as_float, plane.grid, transform, outside=float("nan")))[0]


def contour_path(soft_mask: np.ndarray) -> str:
    """SVG path, in pixels, of the lines where a (row, column) soft mask crosses one half."""
    from contourpy import contour_generator

    # The outermost pixels count as outside, so that every outline closes within the picture.
    lines = contour_generator(z=np.pad(soft_mask, 1)).lines(0.5)
    return " ".join(_line_path(np.asarray(line) - 0.5) for line in lines if len(line) > 2)


def _stages(result: Registration) -> list[_Stage]:
    """What the MR went through, each step once."""
    stages = [_Stage("Before", "The MR at its starting position.", result.initial)]
    if result.rigid.method == "centroid":
        caption = "The MR moved so that the centres of both glands coincide, without rotation."
        stages.append(_Stage("Centres matched", caption, result.rigid.transform))
    elif result.rigid.method != "initial":
        seen = " as the network sees the gland" if result.rigid.method == "network" else ""
        turned = f"moved and rotated (by {result.rigid.rotation_deg:.1f}°)"
        caption = f"The MR {turned}{seen}, its shape unchanged."
        stages.append(_Stage("Rigid", caption, result.rigid.transform))
    if result.deformation:
        caption = "The MR deformed to follow the gland as the probe presses on it."
        stages.append(_Stage("Deformable", caption, result.transform))
    return stages


class _Studio:
    """The images of one registration on three planes."""

    def __init__(self, result: Registration, planes: tuple[Plane, ...]) -> None:
        self.result = result
        self.planes = planes
        self.map_planes = [_coarse(plane) for plane in planes]
        self.mr_gland = _soft_mask(result.mr_gland.mask)
        trus_gland = _soft_mask(result.trus_gland.mask)
        self.trus_contours = [_contour("trus", trus_gland, plane, None) for plane in planes]
        trus = [slice_image(result.trus, plane) for plane in planes]
        self.trus = [_to_grey(array, _window(trus)) for array in trus]
        final = [slice_image(result.mr, plane, result.transform) for plane in planes]
        # One window for all stages, so that nothing seems to change but the position.
        self.mr_window = _window(final)
        self.registered = [_to_grey(array, self.mr_window) for array in final]

    def moved_mr(self, stage: _Stage) -> PictureRow:
        contours = self._both_contours(stage.transform)
        pictures = []
        for n, plane in enumerate(self.planes):
            grey = _to_grey(slice_image(self.result.mr, plane, stage.transform), self.mr_window)
            what = f"MR, {stage.title.lower()}, with the gland outlines of TRUS and MR"
            pictures.append(_picture(plane, what, (_grey_png(grey),), contours[n]))
        return PictureRow(stage.title, stage.caption, tuple(pictures))

    def trus_row(self, final: sitk.Transform) -> PictureRow:
        contours = self._both_contours(final)
        pictures = [
            _picture(plane, "TRUS with its gland outline and the registered MR's", (_grey_png(grey),), lines)
            for plane, grey, lines in zip(self.planes, self.trus, contours, strict=True)
        ]
        return PictureRow("TRUS", "The ultrasound itself with the final outlines.", tuple(pictures))

    def fusion_row(self, final: sitk.Transform) -> PictureRow:
        contours = self._both_contours(final)
        pictures = []
        for n, plane in enumerate(self.planes):
            layers = _grey_png(self.trus[n]), _tinted_png(self.registered[n])
            what = "Registered MR in amber, half transparent over TRUS in grey, with both gland outlines"
            pictures.append(_picture(plane, what, layers, contours[n]))
        return PictureRow("Fusion", "The registered MR (amber) over TRUS (grey).", tuple(pictures))

    def checkerboard_row(self, final: sitk.Transform) -> PictureRow:
        pictures = []
        for plane, trus, mr in zip(self.planes, self.trus, self.registered, strict=True):
            board = np.where(_checkers(plane.shape), mr, trus)
            what = "Checkerboard of TRUS and registered MR in tiles of 10 mm"
            pictures.append(_picture(plane, what, (_grey_png(board),), ()))
        caption = "Tiles of 10 mm from TRUS and MR in turn: borders should run on from tile to tile."
        return PictureRow("Checkerboard", caption, tuple(pictures))

    def displacement_row(self, deformation: Deformation) -> PictureRow:
        lengths = [displacement_mm(deformation, plane) for plane in self.map_planes]
        top = _nice_ceiling(max(float(length.max()) for length in lengths))
        caption = "How far the deformable step shifts each point beyond the rigid move, in mm."
        what = "Map of the displacement in millimetres over TRUS"
        pictures = self._maps([length / top for length in lengths], "viridis", what)
        ticks = [(100 * part, f"{part * top:.3g} mm") for part in (0, 0.25, 0.5, 0.75, 1)]
        return PictureRow("Displacement", caption, pictures, ColourBar(_css_colours("viridis"), tuple(ticks)))

    def jacobian_row(self, deformation: Deformation) -> PictureRow:
        determinants = [jacobian_slice(deformation, plane) for plane in self.map_planes]
        half = self._jacobian_half_range(determinants)
        caption = (
            "Local volume on MR divided by that on TRUS. White: unchanged; blue (below 1): MR tissue is "
            "stretched; red (above 1): it is compressed; magenta: folds, which tissue cannot do."
        )
        what = "Map of the Jacobian determinant over TRUS, centred at 1"
        relative = [(values - 1) / (2 * half) + 0.5 for values in determinants]
        folds = [values <= 0 for values in determinants]
        pictures = self._maps(relative, "RdBu_r", what, folds)
        ticks = [(100 * part, f"{1 + half * (2 * part - 1):.3g}") for part in (0.25, 0.5, 0.75)]
        ticks = [(0.0, f"≤ {1 - half:.3g}"), *ticks, (100.0, f"≥ {1 + half:.3g}")]
        return PictureRow(
            "Local volume (Jacobian)", caption, pictures, ColourBar(_css_colours("RdBu_r"), tuple(ticks))
        )

    def _jacobian_half_range(self, determinants: list[np.ndarray]) -> float:
        """How far the colours reach from 1: what the gland needs, whatever happens around it."""
        farthest = 0.0
        for plane, values in zip(self.map_planes, determinants, strict=True):
            gland = slice_image(self.result.trus_gland.mask, plane) > 0.5
            farthest = max(farthest, float(np.abs(values[gland] - 1).max(initial=0)))
        return float(min(max(np.ceil(10 * farthest) / 10, 0.2), 1.0))

    def _maps(
        self, values: list[np.ndarray], palette: str, what: str, marked: list[np.ndarray] | None = None
    ) -> tuple[Picture, ...]:
        pictures = []
        for n, plane in enumerate(self.planes):
            # Beyond the TRUS image nothing can be said about the deformation.
            seen = np.isfinite(slice_image(self.result.trus, self.map_planes[n]))
            colours = _map_png(
                np.where(seen, values[n], np.nan), palette, seen & marked[n] if marked else None
            )
            layers = _grey_png(self.trus[n]), colours
            pictures.append(_picture(plane, what, layers, (self.trus_contours[n],)))
        return tuple(pictures)

    def _both_contours(self, transform: sitk.Transform) -> list[tuple[Contour, ...]]:
        return [
            (trus, _contour("mr", self.mr_gland, plane, transform))
            for plane, trus in zip(self.planes, self.trus_contours, strict=True)
        ]


def displacement_mm(deformation: Deformation, plane: Plane) -> np.ndarray:
    """(row, column): the length of the displacement on a plane, in mm."""
    return np.linalg.norm(displacements_mm(deformation.transform, plane.grid)[0], axis=-1)


def jacobian_slice(deformation: Deformation, plane: Plane) -> np.ndarray:
    """(row, column): the Jacobian determinant of the deformation on a plane."""
    return sitk.GetArrayFromImage(jacobian_determinant(deformation.transform, plane.grid))[0]


def _plane(
    name: PlaneName, axes: np.ndarray, centre_mm: np.ndarray, low_mm: np.ndarray, high_mm: np.ndarray
) -> Plane:
    """The plane through `centre_mm` that covers `low_mm` to `high_mm` along the displayed axes."""
    runs = _RUNS[name]
    columns = [sign * axes[:, axis] for axis, sign in runs]
    matrix = np.stack([*columns, np.cross(columns[0], columns[1])], axis=1)
    ends = [_ends(low_mm[axis], high_mm[axis], sign) for axis, sign in runs]
    size = [max(int(np.ceil((end - start) / PIXEL_MM)), 1) for start, end in ends]
    middle = centre_mm + sum(
        column * (start + end) / 2 for column, (start, end) in zip(columns, ends, strict=True)
    )
    spacing = (PIXEL_MM, PIXEL_MM, PIXEL_MM)
    grid = Grid.centred(middle, (size[0], size[1], 1), spacing, tuple(matrix.ravel().tolist()))
    return Plane(name, grid, _markers(runs))


def _ends(low: float, high: float, sign: int) -> tuple[float, float]:
    return (float(low), float(high)) if sign > 0 else (-float(high), -float(low))


def _markers(runs: tuple[tuple[int, int], tuple[int, int]]) -> tuple[str, str, str, str]:
    (across, right), (down, below) = runs
    left_right = _SIDES[across] if right > 0 else _SIDES[across][::-1]
    top_bottom = _SIDES[down] if below > 0 else _SIDES[down][::-1]
    return (*left_right, *top_bottom)


def _coarse(plane: Plane) -> Plane:
    """The same rectangle with the larger pixels of a map, which is smooth."""
    extent = [size * PIXEL_MM for size in plane.grid.size_vox[:2]]
    columns, rows = (max(round(length / _MAP_PIXEL_MM), 1) for length in extent)
    spacing = (extent[0] / columns, extent[1] / rows, PIXEL_MM)
    grid = Grid.centred(plane.grid.centre_mm, (columns, rows, 1), spacing, plane.grid.direction)
    return Plane(plane.name, grid, plane.markers)


def _soft_mask(mask: sitk.Image) -> sitk.Image:
    """The mask as float, smoothed by about half a voxel: outlines without the steps of its voxels."""
    padded = sitk.ConstantPad(sitk.Cast(mask > 0, sitk.sitkFloat32), [2] * 3, [2] * 3, 0.0)
    return sitk.SmoothingRecursiveGaussian(padded, [0.6 * step for step in mask.GetSpacing()])


def _contour(kind: str, mask: sitk.Image, plane: Plane, transform: sitk.Transform | None) -> Contour:
    soft = resample(mask, plane.grid, transform)
    return Contour(kind, contour_path(sitk.GetArrayFromImage(soft)[0]))


def _line_path(line: np.ndarray) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
    return f"M{points}Z" if np.allclose(line[0], line[-1]) else f"M{points}"


def _window(slices: list[np.ndarray]) -> tuple[float, float]:
    """The range of values that is shown from black to white."""
    values = np.concatenate([array[np.isfinite(array)] for array in slices])
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (1, 99.5)))
    return low, high if high > low else low + 1.0


def _to_grey(array: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """(row, column) values from 0 to 1, not a number outside the image."""
    low, high = window
    return ((array - low) / (high - low)).clip(0, 1)


def _checkers(shape: tuple[int, int]) -> np.ndarray:
    tile = TILE_MM / PIXEL_MM
    rows, columns = (np.floor(np.arange(size) / tile).astype(int) for size in shape)
    return (rows[:, None] + columns[None, :]) % 2 == 0


def _picture(plane: Plane, what: str, layers: tuple[str, ...], contours: tuple[Contour, ...]) -> Picture:
    rows, columns = plane.shape
    left, right = plane.markers[:2]
    where = f"{plane.name} slice through the middle of the gland, {left} at the left, {right} at the right"
    alt = f"{what}; {where}."
    shown = tuple(contour for contour in contours if contour.path)
    return Picture(plane.name, alt, layers, columns, rows, plane.markers, shown)


def _grey_png(grey: np.ndarray) -> str:
    """Grey picture, transparent where there is no image."""
    known = np.isfinite(grey)
    levels = np.where(known, 255 * np.nan_to_num(grey), 0)
    return _png(np.stack([levels, 255 * known], axis=-1))


def _tinted_png(grey: np.ndarray) -> str:
    """The same in amber, so that it can be told from a grey picture beneath."""
    known = np.isfinite(grey)
    colour = np.nan_to_num(grey)[..., None] ** np.array([0.7, 1.1, 2.2])
    return _png(255 * np.concatenate([colour, known[..., None]], axis=-1))


def _map_png(values: np.ndarray, palette: str, marked: np.ndarray | None) -> str:
    """A map of values from 0 to 1 in a colour palette, clear where not a number; `marked` is magenta."""
    from matplotlib import colormaps

    colours = colormaps[palette](values.clip(0, 1))
    colours[..., 3] = np.where(np.isfinite(values), 0.8, 0.0)
    if marked is not None:
        colours[marked] = (1, 0, 1, 1)
    return _png(255 * colours)


def _css_colours(palette: str) -> tuple[str, ...]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return tuple(to_hex(colormaps[palette](part)) for part in np.linspace(0, 1, 11))


def _png(channels: np.ndarray) -> str:
    """PNG data URI of a (row, column, channel) array from 0 to 255: grey and alpha, or RGBA."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.rint(channels).astype(np.uint8)).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _nice_ceiling(value: float) -> float:
    """The next of 1, 2, 3, 4, 6, 8, 10, … mm."""
    steps = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
    return next((step for step in steps if value <= step), float(np.ceil(value / 5) * 5))
