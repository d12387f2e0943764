"""The anatomy as implicit functions of position, so that any grid or beam can be rendered exactly.

Every distance is a signed one in millimetres (negative inside), close to Euclidean near the surface. Points
are (N, 3) tensors in the anatomical gland frame: x left, y posterior, z superior, millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache

import torch

from .noise import Texture
from .parameters import CaseParameters, Ellipsoid, GlandParameters, SurroundingParameters

LABELS = (
    "gland",
    "urethra",
    "transition_zone",
    "peripheral_zone",
    "lesions",
    "cysts",
    "calcifications",
    "seminal_vesicles",
    "apex",
    "base",
)
_LANDMARK_RADIUS_MM = 5.0
_EDGE_MM = 0.4

Layer = tuple[str, torch.Tensor]


def smooth_minimum(first: torch.Tensor, second: torch.Tensor, width_mm: float) -> torch.Tensor:
    """The union of two signed distances with a fillet of about `width_mm`."""
    overlap = (width_mm - (first - second).abs()).clamp_min(0) / width_mm
    return torch.minimum(first, second) - overlap**2 * width_mm / 4


def ellipsoid_distance(
    points_mm: torch.Tensor, centre_mm: tuple[float, float, float], radii_mm: tuple[float, float, float]
) -> torch.Tensor:
    """Approximate signed distance to an ellipsoid with axes along x, y and z."""
    radii = points_mm.new_tensor(radii_mm)
    scaled = (points_mm - points_mm.new_tensor(centre_mm)) / radii
    level = scaled.norm(dim=1).clamp_min(1e-4)
    gradient = (scaled / radii).norm(dim=1) / level
    return (level - 1) / gradient


def segment_distance(
    points_mm: torch.Tensor, start_mm: tuple[float, float, float], end_mm: tuple[float, float, float]
) -> torch.Tensor:
    """Distance to a line segment."""
    start, end = points_mm.new_tensor(start_mm), points_mm.new_tensor(end_mm)
    axis = end - start
    along = ((points_mm - start) @ axis / axis.dot(axis)).clamp(0, 1)
    return (points_mm - start - along[:, None] * axis).norm(dim=1)


class Gland:
    """The undeformed gland: its surface, zones and urethra."""

    def __init__(self, parameters: GlandParameters, device: torch.device) -> None:
        self.parameters = parameters
        self._device = device
        self._rough = Texture(parameters.seed, 0.7, device)
        self._fine = Texture(parameters.seed + 1, 0.35, device)
        unit = self._unit_grid(device)
        inside = unit[self._unit_distance(unit) < 0]
        unit_volume = inside.shape[0] * self._unit_step**3
        self.scale_mm = (parameters.volume_ml * 1000 / unit_volume) ** (1 / 3)
        levels = self._zone_level(inside).sort().values
        share = parameters.transition_zone_ml / parameters.volume_ml
        self._zone_threshold = float(levels[min(int(share * len(levels)), len(levels) - 1)])

    _unit_step = 0.05

    def _unit_grid(self, device: torch.device) -> torch.Tensor:
        axis = torch.arange(-1.6, 1.6 + 1e-6, self._unit_step, device=device)
        return torch.cartesian_prod(axis, axis, axis)

    @property
    def half_mm(self) -> tuple[float, float, float]:
        """Nominal half-width, half-depth and half-height."""
        shape = self.parameters
        return self.scale_mm, self.scale_mm * shape.half_depth, self.scale_mm * shape.half_height

    def distance(self, points_mm: torch.Tensor) -> torch.Tensor:
        """(N,) signed distance to the gland's surface."""
        return self._unit_distance(points_mm / self.scale_mm) * self.scale_mm

    def _unit_distance(self, unit: torch.Tensor) -> torch.Tensor:
        """Signed distance for a gland of half-width one: a tapered superellipsoid with bumps."""
        shape = self.parameters
        x, y, z = unit.unbind(1)
        height = z / shape.half_height
        narrowing = 1 + shape.taper * torch.tanh(1.5 * height)
        half_x = narrowing * (1 + shape.asymmetry * torch.tanh(x / 0.3))
        half_y = narrowing * shape.half_depth
        groove = shape.groove * torch.exp(-((x / 0.35) ** 2)) * y.clamp_min(0)
        scaled_x, scaled_y = x / half_x, (y - shape.shear * z + groove) / half_y
        power = shape.exponent
        flat = (scaled_x.abs() ** power + scaled_y.abs() ** power + 1e-9) ** (2 / power)
        level = (flat + height**2).sqrt().clamp_min(1e-4)
        slope = (scaled_x / half_x) ** 2 + (scaled_y / half_y) ** 2 + (height / shape.half_height) ** 2
        body = (level - 1 + self._bumps(unit, level)) * level / slope.sqrt().clamp_min(1e-4)
        if shape.median_lobe_radius <= 0:
            return body
        centre = (0.0, -0.15 * shape.half_depth, 0.92 * shape.half_height)
        lobe = (unit - unit.new_tensor(centre)).norm(dim=1) - shape.median_lobe_radius
        return smooth_minimum(body, lobe, 0.3)

    def _bumps(self, unit: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """(N,) unevenness of the surface; only evaluated near it, for speed, and faded out towards there."""
        bumps = torch.zeros_like(level)
        near = ((level - 1).abs() < 0.4).nonzero()[:, 0]
        uneven = self._rough(unit[near]) + 0.4 * self._fine(unit[near])
        fade = ((0.4 - (level[near] - 1).abs()) / 0.15).clamp(0, 1)
        bumps[near] = self.parameters.irregularity * fade * uneven
        return bumps

    def _zone_level(self, unit: torch.Tensor) -> torch.Tensor:
        """A level function whose sublevel sets are the two lobes of the transition zone."""
        shape = self.parameters
        lobes = []
        for side in (-1, 1):
            size = 1 + side * shape.zone_asymmetry
            centre = (side * 0.27, -0.22 * shape.half_depth, 0.16 * shape.half_height)
            radii = (0.5 * size, 0.72 * shape.half_depth * size, 0.85 * shape.half_height)
            lobes.append(((unit - unit.new_tensor(centre)) / unit.new_tensor(radii)).norm(dim=1))
        return smooth_minimum(lobes[0], lobes[1], 0.3) + 0.04 * self._rough(unit + 5.0)

    def transition_distance(self, points_mm: torch.Tensor, gland_mm: torch.Tensor) -> torch.Tensor:
        """(N,) signed distance to the transition zone, given the distance to the gland."""
        level = self._zone_level(points_mm / self.scale_mm)
        radius_mm = 0.6 * self.scale_mm
        return torch.maximum((level - self._zone_threshold) * radius_mm, gland_mm)

    def stroma_distance(self, points_mm: torch.Tensor, gland_mm: torch.Tensor) -> torch.Tensor:
        """(N,) signed distance to the anterior fibromuscular stroma."""
        width, depth, height = self.half_mm
        centre = (0.0, -0.98 * depth, 0.05 * height)
        apron = ellipsoid_distance(points_mm, centre, (0.55 * width, 0.22 * depth, 0.75 * height))
        return torch.maximum(apron + 1.2 * self._fine(points_mm / 12), gland_mm)

    def urethra_y_mm(self, z_mm: torch.Tensor) -> torch.Tensor:
        """Where the urethra runs: bent backwards at the verumontanum."""
        _, depth, height = self.half_mm
        bend = torch.exp(-((z_mm / (0.6 * height)) ** 2))
        return depth * (-0.15 + self.parameters.urethra_bend * bend) + self.parameters.shear * z_mm

    def urethra_axis_distance(self, points_mm: torch.Tensor) -> torch.Tensor:
        """(N,) distance to the urethra's axis, across it."""
        return torch.hypot(points_mm[:, 0], points_mm[:, 1] - self.urethra_y_mm(points_mm[:, 2]))

    @cached_property
    def ends_mm(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Apex and base: where the urethra leaves and enters the gland."""
        device = self._device
        z = torch.arange(-2 * self.scale_mm, 2 * self.scale_mm, 0.1, device=device)
        axis = torch.stack([torch.zeros_like(z), self.urethra_y_mm(z), z], dim=1)
        inside = axis[self.distance(axis) < 0]
        low, high = inside[0].tolist(), inside[-1].tolist()
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])


@lru_cache(maxsize=4)
def gland_of(parameters: GlandParameters, device: torch.device) -> Gland:
    """The gland of these parameters, remembered because measuring its volume takes a moment."""
    return Gland(parameters, device)


class Anatomy:
    """A whole pelvis, as far as MR and TRUS show it."""

    def __init__(self, parameters: CaseParameters, device: torch.device) -> None:
        self.parameters = parameters
        self.gland = gland_of(parameters.gland, device)
        self._bumps = Texture(parameters.surroundings.seed, 9.0, device)
        self._crumbs = Texture(parameters.surroundings.seed + 1, 4.0, device)

    # ---- labels

    def labels(self, points_mm: torch.Tensor) -> dict[str, torch.Tensor]:
        """The truth at (N, 3) points: one (N,) boolean tensor for each of `LABELS`."""
        result = {
            name: torch.zeros(len(points_mm), dtype=torch.bool, device=points_mm.device) for name in LABELS
        }
        gland_mm = self.gland.distance(points_mm)
        result["gland"] = gland_mm < 0
        result["seminal_vesicles"] = (self._vesicle_distance(points_mm) < 0) & (gland_mm >= 0)
        near = (gland_mm < 0).nonzero()[:, 0]
        for name, mask in self._inner_labels(points_mm[near], gland_mm[near]).items():
            result[name][near] = mask
        return result

    def _inner_labels(self, points_mm: torch.Tensor, gland_mm: torch.Tensor) -> dict[str, torch.Tensor]:
        case, gland = self.parameters, self.gland
        zone = gland.transition_distance(points_mm, gland_mm) < 0
        stroma = gland.stroma_distance(points_mm, gland_mm) < 0
        apex, base = (points_mm.new_tensor(end) for end in gland.ends_mm)
        return {
            "urethra": gland.urethra_axis_distance(points_mm) < case.gland.urethra_radius_mm,
            "transition_zone": zone & ~stroma,
            "peripheral_zone": ~zone & ~stroma,
            "lesions": self._any_inside(points_mm, case.lesions),
            "cysts": self._any_inside(points_mm, case.cysts),
            "calcifications": self._any_inside(points_mm, case.calcifications),
            "apex": (points_mm - apex).norm(dim=1) < _LANDMARK_RADIUS_MM,
            "base": (points_mm - base).norm(dim=1) < _LANDMARK_RADIUS_MM,
        }

    def _any_inside(self, points_mm: torch.Tensor, inclusions: tuple[Ellipsoid, ...]) -> torch.Tensor:
        inside = torch.zeros(len(points_mm), dtype=torch.bool, device=points_mm.device)
        for inclusion in inclusions:
            inside |= self.inclusion_distance(points_mm, inclusion) < 0
        return inside

    def inclusion_distance(self, points_mm: torch.Tensor, inclusion: Ellipsoid) -> torch.Tensor:
        """(N,) signed distance to a lesion, nodule, cyst or calcification; its surface is slightly uneven."""
        smooth = ellipsoid_distance(points_mm, inclusion.centre_mm, inclusion.radii_mm)
        return smooth + 0.1 * min(inclusion.radii_mm) * self._crumbs(points_mm)

    # ---- layers, painted in order

    def outer_layers(
        self, points_mm: torch.Tensor, gland_mm: torch.Tensor, *, rectum: bool
    ) -> Iterator[Layer]:
        """(tissue, signed distance) of what lies around the gland, from the background to the front.

        Without `rectum` the rectum is left out: in TRUS the probe fills it.
        """
        uneven = self._bumps(points_mm)
        yield "plexus", self._veins(points_mm, gland_mm, uneven)
        yield from self._pelvic_wall(points_mm, uneven)
        yield from self._levator(points_mm, uneven)
        if rectum:
            yield from self._rectum(points_mm, uneven)
        yield from self._bladder(points_mm, uneven)
        yield from self._below_apex(points_mm)
        yield "vesicle", self._vesicle_distance(points_mm)
        yield "plexus", self._bundles(points_mm, gland_mm)

    def inner_layers(self, points_mm: torch.Tensor, gland_mm: torch.Tensor) -> Iterator[Layer]:
        """(tissue, signed distance) of what lies inside the gland; points well outside may be left out."""
        gland = self.gland
        zone_mm = gland.transition_distance(points_mm, gland_mm)
        yield "capsule", gland_mm
        yield "peripheral", gland_mm + 0.8
        yield "surgical_capsule", torch.maximum(zone_mm, gland_mm + 0.8)
        yield "transition", torch.maximum(zone_mm + 0.9, gland_mm + 0.8)
        for number, nodule in enumerate(self.parameters.nodules):
            nodule_mm = torch.maximum(self.inclusion_distance(points_mm, nodule), zone_mm + 0.5)
            yield "surgical_capsule", nodule_mm
            yield f"nodule{number}", nodule_mm + 0.7
        yield "stroma", gland.stroma_distance(points_mm, gland_mm)
        yield from self._urethra(points_mm, gland_mm)
        for kind in ("lesion", "cyst", "calcification"):
            for number, inclusion in enumerate(getattr(self.parameters, f"{kind}s")):
                distance = self.inclusion_distance(points_mm, inclusion)
                yield f"{kind}{number}", torch.maximum(distance, gland_mm + 0.3)

    def _urethra(self, points_mm: torch.Tensor, gland_mm: torch.Tensor) -> Iterator[Layer]:
        axis_mm = self.gland.urethra_axis_distance(points_mm)
        radius = self.parameters.gland.urethra_radius_mm
        yield "urethra", torch.maximum(axis_mm - radius, gland_mm)
        colliculus = torch.maximum(axis_mm - 0.6 * radius, points_mm[:, 2].abs() - 5.0)
        yield "verumontanum", torch.maximum(colliculus, gland_mm)

    def _veins(self, points_mm: torch.Tensor, gland_mm: torch.Tensor, uneven: torch.Tensor) -> torch.Tensor:
        """Dorsal venous complex and fascia: thick in front of the gland, thin at its sides."""
        _, depth, _ = self.gland.half_mm
        front = torch.sigmoid((-points_mm[:, 1] - 0.4 * depth) / 5)
        reach = 2.5 + 7 * front * (1 - (points_mm[:, 0] / 40).abs()).clamp_min(0) + uneven
        return torch.maximum(gland_mm - reach, points_mm[:, 1] - 0.4 * depth)

    def _bundles(self, points_mm: torch.Tensor, gland_mm: torch.Tensor) -> torch.Tensor:
        """Neurovascular bundles: at five and seven o'clock along the gland."""
        width, depth, height = self.gland.half_mm
        x, y, z = points_mm.unbind(1)
        axis = torch.hypot(x.abs() - 0.72 * width, y - 0.85 * depth - self.parameters.gland.shear * z)
        return torch.maximum(torch.maximum(axis - 4.0, 0.5 - gland_mm), z.abs() - height)

    def _pelvic_wall(self, points_mm: torch.Tensor, uneven: torch.Tensor) -> Iterator[Layer]:
        around: SurroundingParameters = self.parameters.surroundings
        width, depth, _ = self.gland.half_mm
        x, y, z = points_mm.unbind(1)
        wavy = 1.5 * uneven
        half = around.obturator_thickness_mm / 2
        middle = max(width, 22.0) + around.obturator_gap_mm + half + 0.38 * y + wavy
        yield "marrow", torch.maximum(middle + half + 2.0 - x.abs(), y - 14 + wavy)
        across, along = (x.abs() - middle) / half, (y + 4 - 0.3 * z) / 33
        level = torch.hypot(across, along.abs() ** 1.5)
        yield "muscle", (level - 1) * half
        front = -depth - around.pubis_gap_mm
        for side in (-1, 1):
            centre = (side * 18.0, front - 11.0, -4.0)
            bone = ellipsoid_distance(points_mm, centre, (19.0, 11.0, 20.0)) + wavy
            yield "cortex", bone
            yield "marrow", bone + 1.8
        yield "muscle", ellipsoid_distance(points_mm, (0.0, front - 9.0, -4.0), (3.0, 9.0, 17.0))

    def _levator(self, points_mm: torch.Tensor, uneven: torch.Tensor) -> Iterator[Layer]:
        around = self.parameters.surroundings
        width, depth, height = self.gland.half_mm
        x, y, z = points_mm.unbind(1)
        half = 0.85 * width + around.levator_gap_mm + around.levator_slope * z + 1.5 * uneven
        back = depth + 1.8 * around.rectum_radius_mm + 4 - 0.15 * z
        half = half.clamp_min(9.0)
        level = torch.hypot(x / half, (y - 0.3 * depth) / back)
        thickness = around.levator_thickness_mm * (1 + 0.25 * uneven)
        sheet = (level - 1).abs() * half - thickness / 2
        yield "muscle", torch.maximum(sheet, torch.maximum(-y - 0.5 * depth, z - 0.7 * height))
        # The raphe that runs from the anal canal back to the coccyx.
        raphe = x.abs() - 2.0 - 0.03 * (y - back).clamp_min(0) ** 1.3 - 0.5 * uneven
        yield "muscle", torch.maximum(torch.maximum(raphe, back - y), z + 0.2 * height)

    def _rectum(self, points_mm: torch.Tensor, uneven: torch.Tensor) -> Iterator[Layer]:
        around = self.parameters.surroundings
        _, depth, height = self.gland.half_mm
        x, y, z = points_mm.unbind(1)
        narrow = 1 - 0.35 * torch.sigmoid(-(z + height + 4) / 3)
        radius = around.rectum_radius_mm * narrow + 0.8 * uneven
        front = depth + around.rectum_gap_mm + self.parameters.gland.shear * z
        bend = 0.008 * z.clamp_min(0) ** 2 + 0.3 * (-z - height).clamp_min(0)
        axis_y = front + around.rectum_radius_mm + bend
        across = torch.hypot(x / around.rectum_width, y - axis_y)
        yield "rectal_wall", across - radius
        yield f"rectum_{around.rectum_content}", across - radius + 3.5

    def _bladder(self, points_mm: torch.Tensor, uneven: torch.Tensor) -> Iterator[Layer]:
        around = self.parameters.surroundings
        height = self.gland.half_mm[2]
        centre = (0.0, -7.0, 0.92 * height + 0.85 * around.bladder_radii_mm[2])
        outside = ellipsoid_distance(points_mm, centre, around.bladder_radii_mm) + uneven
        yield "bladder_wall", outside
        yield "urine", outside + around.bladder_wall_mm

    def _below_apex(self, points_mm: torch.Tensor) -> Iterator[Layer]:
        (_, apex_y, apex_z), _ = self.gland.ends_mm
        x, y, z = points_mm.unbind(1)
        across = torch.hypot(x, y - apex_y - 0.15 * (z - apex_z))
        below = z - apex_z - 2
        diaphragm = ellipsoid_distance(points_mm, (0.0, apex_y - 4, apex_z - 13), (34.0, 20.0, 6.0))
        yield "muscle", diaphragm + 1.5 * self._bumps(points_mm)
        yield "muscle", torch.maximum(across - 10.0, below)
        yield "sphincter", torch.maximum(across - 5.0, below)
        yield "urethra", torch.maximum(across - 2.0, below)
        yield "bulb", ellipsoid_distance(points_mm, (0.0, apex_y, apex_z - 24), (13.0, 12.0, 9.0))

    def _vesicle_distance(self, points_mm: torch.Tensor) -> torch.Tensor:
        around = self.parameters.surroundings
        _, depth, height = self.gland.half_mm
        length = around.vesicle_length_mm
        distance = torch.full_like(points_mm[:, 0], math.inf)
        for side in (-1, 1):
            start = (side * 4.0, 0.6 * depth, 0.8 * height)
            end = (side * (4 + 0.85 * length), 0.75 * depth + 3, 0.8 * height + 0.5 * length)
            tube = segment_distance(points_mm, start, end)
            distance = torch.minimum(distance, tube - around.vesicle_radius_mm)
        return distance + 1.2 * self._crumbs(points_mm)


def paint(
    anatomy: Anatomy, points_mm: torch.Tensor, table: Mapping[str, tuple[float, ...]], *, rectum: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tissue properties at (N, 3) points: (N, C) from `table` (tissue to C values), and the gland's distance.

    Layers blend over about half a millimetre, which stands for partial volume below the voxel size.
    """
    gland_mm = anatomy.gland.distance(points_mm)
    values = points_mm.new_tensor(table["fat"]).repeat(len(points_mm), 1)
    for tissue, distance in anatomy.outer_layers(points_mm, gland_mm, rectum=rectum):
        _blend(values, table[tissue], distance)
    near = (gland_mm < 4 * _EDGE_MM).nonzero()[:, 0]
    inner = values[near]
    for tissue, distance in anatomy.inner_layers(points_mm[near], gland_mm[near]):
        _blend(inner, table[tissue], distance)
    values[near] = inner
    return values, gland_mm


def _blend(values: torch.Tensor, colour: tuple[float, ...], distance_mm: torch.Tensor) -> None:
    """Paint `colour` over `values` in place where the distance is negative, with a soft edge."""
    weight = torch.sigmoid(distance_mm / -_EDGE_MM)[:, None]
    values.lerp_(values.new_tensor(colour).expand_as(values), weight)
