"""The TRUS side: log-compressed speckle of a side-fire probe, in probe coordinates, then scan-converted.

Probe coordinates: r from the probe's axis, θ about it (0 looks anterior, positive to the patient's left), z
along it. Arrays in these coordinates have axes (z, θ, r).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional

from .anatomy import Anatomy, paint
from .deformation import Deformed
from .noise import Texture, blur_axis, generator, smooth_noise, trilinear
from .parameters import TrusParameters

_COUPLANT_DB = -42.0
# How far the echo of a hard surface reaches behind it.
_ECHO_MM = 1.6


@dataclass(frozen=True)
class Beams:
    """The polar sampling grid: first value and step of z (mm), θ (rad) and r (mm), and their counts."""

    start: tuple[float, float, float]
    step: tuple[float, float, float]
    count: tuple[int, int, int]

    @classmethod
    def of(cls, parameters: TrusParameters, spacing_mm: float) -> Beams:
        """Half the voxel size along r, finer than a frame's angle in θ, 5/8 of the voxel size along z."""
        fine = spacing_mm / 0.8
        half = torch.pi / 180 * parameters.half_angle_deg
        length = parameters.size_vox[2] * spacing_mm
        step = (0.5 * fine, torch.pi / 180 * 1.1 * fine, 0.4 * fine)
        reach = (length, 2 * half, parameters.depth_mm)
        count = [int(extent / each) + 1 for extent, each in zip(reach, step, strict=True)]
        start = (parameters.grid_centre_mm[2] - length / 2, -half, parameters.probe_radius_mm)
        return cls(start, step, (count[0], count[1], count[2]))

    def axis(self, number: int, device: torch.device) -> torch.Tensor:
        return self.start[number] + self.step[number] * torch.arange(self.count[number], device=device)

    def points_mm(self, parameters: TrusParameters, device: torch.device) -> torch.Tensor:
        """(z, θ, r, 3) positions in the TRUS anatomical frame."""
        z, angle, radius = torch.meshgrid(*(self.axis(each, device) for each in range(3)), indexing="ij")
        x = parameters.probe_axis_mm[0] + radius * torch.sin(angle)
        y = parameters.probe_axis_mm[1] - radius * torch.cos(angle)
        return torch.stack([x, y, z], dim=-1)


def to_polar(points_mm: torch.Tensor, parameters: TrusParameters) -> torch.Tensor:
    """(..., 3) of (z, θ, r) for (..., 3) points of the TRUS anatomical frame."""
    x = points_mm[..., 0] - parameters.probe_axis_mm[0]
    y = parameters.probe_axis_mm[1] - points_mm[..., 1]
    return torch.stack([points_mm[..., 2], torch.atan2(x, y), torch.hypot(x, y)], dim=-1)


def fan_mask(points_mm: torch.Tensor, parameters: TrusParameters) -> torch.Tensor:
    """(...) boolean: what the fan shows of the (..., 3) points."""
    _, angle, radius = to_polar(points_mm, parameters).unbind(-1)
    inside = angle.abs() <= torch.pi / 180 * parameters.half_angle_deg
    deepest = parameters.probe_radius_mm + parameters.depth_mm
    return inside & (radius >= parameters.probe_radius_mm) & (radius <= deepest)


def render_trus(
    anatomy: Anatomy,
    deformed: Deformed,
    points_mm: torch.Tensor,
    parameters: TrusParameters,
    spacing_mm: float,
) -> torch.Tensor:
    """(k, j, i) image, 0 to 255, from the (k, j, i, 3) TRUS-frame positions of the voxels."""
    device = points_mm.device
    beams = Beams.of(parameters, spacing_mm)
    echo_db, loss_db, gland_mm = _tissue(anatomy, deformed, beams, parameters, device)
    envelope = speckle(echo_db, beams, parameters)
    envelope = envelope + capsule_echo(gland_mm, beams, parameters)
    level_db = 20 * torch.log10(envelope.clamp_min(1e-6)) - loss_db + _gain_db(beams, parameters, device)
    level_db = _with_ring_down(level_db, beams, parameters)
    grey = compress(_with_noise_floor(level_db, parameters), parameters)
    return scan_convert(grey, points_mm, beams, parameters)


def _tissue(
    anatomy: Anatomy,
    deformed: Deformed,
    beams: Beams,
    parameters: TrusParameters,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Echogenicity (dB), uncompensated two-way loss (dB) and distance to the gland, each (z, θ, r)."""
    points = beams.points_mm(parameters, device).reshape(-1, 3)
    place = deformed(points)
    values, gland_mm = paint(anatomy, place, parameters.tissues, rectum=False)
    _lay_rectal_wall(values, gland_mm, points, parameters)
    coarse = Texture(parameters.seed + 1, 6.0, device)(place)
    fine = Texture(parameters.seed + 2, 2.5, device)(place)
    echo_db = values[:, 0] + values[:, 2] * (0.75 * coarse + 0.65 * fine)
    excess = values[:, 1].reshape(beams.count) - parameters.tgc_db_cm_mhz
    step_cm = beams.step[2] / 10
    loss_db = 2 * parameters.frequency_mhz * step_cm * excess.cumsum(dim=2)
    # The front of a calcification or of bone shines: what it swallows is missing behind its echo only.
    behind = max(1, round(_ECHO_MM / beams.step[2]))
    loss_db = functional.pad(loss_db[..., :-behind], (behind, 0))
    loss_db = blur_axis(loss_db, 1, 0.6).clamp(-14, 60)
    return echo_db.reshape(beams.count), loss_db, gland_mm.reshape(beams.count)


def _lay_rectal_wall(
    values: torch.Tensor, gland_mm: torch.Tensor, points_mm: torch.Tensor, parameters: TrusParameters
) -> None:
    """Paint couplant and rectal wall around the probe, in place, except where the gland lies."""
    radius = to_polar(points_mm, parameters)[:, 2]
    uneven = Texture(parameters.seed + 3, 14.0, points_mm.device)(points_mm)
    wall = parameters.probe_radius_mm + parameters.standoff_mm + 0.5 * uneven
    outside = gland_mm > 0
    rectal = outside & (radius < wall + parameters.wall_mm)
    values[rectal] = values.new_tensor(parameters.tissues["rectal_wall"])
    muscularis = rectal & ((radius - wall - 0.5 * parameters.wall_mm).abs() < 0.8)
    values[muscularis] = values.new_tensor(parameters.tissues["muscle"])
    couplant = outside & (radius < wall)
    values[couplant] = values.new_tensor((_COUPLANT_DB, 0.1, 0.0))


def speckle(echo_db: torch.Tensor, beams: Beams, parameters: TrusParameters) -> torch.Tensor:
    """(z, θ, r) envelope of fully developed speckle for an echogenicity map.

    White complex scatterers, weighted by the tissue, convolved with a point spread that is fixed along the
    beam and across frames, and widens along z with depth. With uniform tissue the envelope is Rayleigh.
    """
    device = echo_db.device
    noise = torch.randn((2, *beams.count), generator=generator(parameters.seed)).to(device)
    amplitude = 10 ** (echo_db / 20)
    axial = parameters.axial_fwhm_mm / 2.355 / beams.step[2]
    elevational = parameters.elevational_fwhm_deg * torch.pi / 180 / 2.355 / beams.step[1]
    near, far = (each / 2.355 / beams.step[0] for each in parameters.lateral_fwhm_mm)
    depth = torch.linspace(0, 1, beams.count[2], device=device)
    power = torch.zeros(beams.count, device=device)
    for part in noise:
        field = blur_axis(part * amplitude, 2, axial, normalised=False)
        field = blur_axis(field, 1, elevational, normalised=False)
        # Two widths mixed by depth, with weights that keep the variance of each.
        narrow = blur_axis(field, 0, near, normalised=False)
        wide = blur_axis(field, 0, far, normalised=False)
        mixed = narrow * (1 - depth) + wide * depth
        power += mixed**2
    shared = (2 * near * far / (near**2 + far**2)) ** 0.5 if min(near, far) > 0.3 else 1.0
    variance = (1 - depth) ** 2 + depth**2 + 2 * depth * (1 - depth) * shared
    return (power / (2 * variance)).sqrt()


def capsule_echo(gland_mm: torch.Tensor, beams: Beams, parameters: TrusParameters) -> torch.Tensor:
    """Mirror-like echo of the capsule: strongest where its normal lies along the beam."""
    along = torch.gradient(gland_mm, spacing=beams.step[2], dim=2)[0].abs().clamp(0, 1)
    shell = torch.exp(-0.5 * (gland_mm / 0.5) ** 2)
    patchy = smooth_noise(beams.count, 8.0, parameters.seed + 4, gland_mm.device)
    strength = 10 ** (parameters.capsule_db / 20)
    return strength * shell * along**4 * (1 + 0.4 * patchy).clamp_min(0)


def _gain_db(beams: Beams, parameters: TrusParameters, device: torch.device) -> torch.Tensor:
    """(z, θ, r) gain: overall, sloping with depth, varying between beams, and shadowed sectors."""
    depth = torch.linspace(-0.5, 0.5, beams.count[2], device=device)
    angle = torch.rad2deg(beams.axis(1, device))
    contact = smooth_noise((beams.count[0], beams.count[1], 8), 12.0, parameters.seed + 5, device)
    across = parameters.gain_variation_db * contact.mean(dim=2) / contact.mean(dim=2).std().clamp_min(0.1)
    for centre, width, loss_db in parameters.shadow_sectors_deg:
        across = across - loss_db * torch.exp(-0.5 * ((angle - centre) / width) ** 2)
    slope = parameters.gain_db + parameters.gain_slope_db * depth
    return across[:, :, None] + slope


def _with_ring_down(level_db: torch.Tensor, beams: Beams, parameters: TrusParameters) -> torch.Tensor:
    """Add the transducer's own reverberation, which fades within a few millimetres."""
    depth = beams.axis(2, level_db.device) - parameters.probe_radius_mm
    fading = parameters.ring_down_db - 12 * depth / parameters.ring_down_mm
    bands = fading + 4 * torch.cos(2 * torch.pi * depth / (0.6 * parameters.ring_down_mm))
    return 10 * torch.log10(10 ** (level_db / 10) + 10 ** (bands / 10))


def _with_noise_floor(level_db: torch.Tensor, parameters: TrusParameters) -> torch.Tensor:
    noise = torch.rand(level_db.shape, generator=generator(parameters.seed + 6)).to(level_db.device)
    floor = 10 ** (parameters.noise_floor_db / 10) * -torch.log(noise.clamp_min(1e-6))
    return 10 * torch.log10(10 ** (level_db / 10) + floor)


def compress(level_db: torch.Tensor, parameters: TrusParameters) -> torch.Tensor:
    """Grey values 0 to 255 from decibels: white lies 16 dB above mid-zone tissue."""
    unit = 1 + (level_db - 16) / parameters.dynamic_range_db
    return unit.clamp(0, 1) ** parameters.gamma * 255


def scan_convert(
    grey: torch.Tensor, points_mm: torch.Tensor, beams: Beams, parameters: TrusParameters
) -> torch.Tensor:
    """(k, j, i) image from (z, θ, r) values; zero outside the fan."""
    polar = to_polar(points_mm.reshape(-1, 3), parameters)
    index = (polar - polar.new_tensor(beams.start)) / polar.new_tensor(beams.step)
    values = trilinear(grey[None], index.flip(1))[:, 0].reshape(points_mm.shape[:3])
    return values * fan_mask(points_mm, parameters)
