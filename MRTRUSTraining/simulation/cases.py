"""Rendering a drawn case and writing it in the µ-RegPro challenge's layout."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from MRTRUSRegistrationLib.geometry import Grid, orientation_direction
from MRTRUSRegistrationLib.outputs import full_disk_said, require_space

from .anatomy import LABELS, Anatomy
from .deformation import Deformed, one_thread, rotation_matrix
from .mr import render_mr
from .parameters import CaseParameters, validate
from .placement import deformation_of
from .trus import render_trus

ORIENTATION = "PRS"
# What the folders' names begin with that cases are written to before they are complete.
ASIDE = ".writing-"


@dataclass(frozen=True)
class SimulatedCase:
    """A pair with its truth: images and masks (uint8) on their own grids, LPS mm.

    `transform` maps TRUS points to MR points, as a resampling transform does.
    """

    mr: sitk.Image
    trus: sitk.Image
    mr_labels: dict[str, sitk.Image]
    trus_labels: dict[str, sitk.Image]
    transform: sitk.CompositeTransform
    parameters: CaseParameters


def simulate(parameters: CaseParameters, *, device: str | torch.device = "cpu") -> SimulatedCase:
    """Render a case. The same parameters give the same voxels to the bit on one machine's CPU.

    Raises `InputError` for settings that no case can have.
    """
    validate(parameters)
    place = torch.device(device)
    with torch.no_grad(), one_thread():
        anatomy = Anatomy(parameters, place)
        deformed = deformation_of(parameters, place)
        mr_grid, trus_grid = mr_grid_of(parameters), trus_grid_of(parameters)
        mr_points = grid_points(mr_grid, parameters.mr.centre_mm, place)
        trus_points = grid_points(trus_grid, parameters.trus.centre_mm, place)
        mr = render_mr(anatomy, mr_points, parameters.mr, parameters.spacing_mm)
        trus = render_trus(anatomy, deformed, trus_points, parameters.trus, parameters.spacing_mm)
        mr_labels = _labels(anatomy, mr_points.reshape(-1, 3), mr_grid)
        trus_labels = _labels(anatomy, deformed(trus_points.reshape(-1, 3)), trus_grid)
    return SimulatedCase(
        mr=_image(mr, mr_grid),
        trus=_image(trus, trus_grid),
        mr_labels=mr_labels,
        trus_labels=trus_labels,
        transform=true_transform(parameters, deformed),
        parameters=parameters,
    )


def mr_grid_of(parameters: CaseParameters) -> Grid:
    """The MR volume's grid: slightly oblique about posterior, right, superior."""
    mr = parameters.mr
    axes = rotation_matrix(mr.tilt_deg) @ np.reshape(orientation_direction(ORIENTATION), (3, 3))
    centre = np.array(mr.centre_mm) - np.array(mr.offset_mm)
    spacing = (parameters.spacing_mm,) * 3
    return Grid.centred(centre, mr.size_vox, spacing, tuple(axes.ravel().tolist()))


def trus_grid_of(parameters: CaseParameters) -> Grid:
    """The TRUS volume's grid: axes to posterior, right, superior."""
    trus = parameters.trus
    centre = np.array(trus.centre_mm) + np.array(trus.grid_centre_mm)
    spacing = (parameters.spacing_mm,) * 3
    return Grid.centred(centre, trus.size_vox, spacing, orientation_direction(ORIENTATION))


def grid_points(
    grid: Grid, frame_origin_mm: tuple[float, float, float], device: torch.device
) -> torch.Tensor:
    """(k, j, i, 3) positions of the voxel centres relative to an anatomical frame's origin."""
    matrix = grid.index_to_point
    matrix[:3, 3] -= frame_origin_mm
    axes = [torch.arange(n, dtype=torch.float64) for n in grid.size_vox[::-1]]
    k, j, i = torch.meshgrid(*axes, indexing="ij")
    index = torch.stack([i, j, k, torch.ones_like(i)], dim=-1)
    return (index @ torch.from_numpy(matrix[:3].T.copy())).float().to(device)


def _labels(anatomy: Anatomy, points_mm: torch.Tensor, grid: Grid) -> dict[str, sitk.Image]:
    shape = grid.size_vox[::-1]
    masks = anatomy.labels(points_mm)
    return {name: grid.image(masks[name].reshape(shape).byte().cpu().numpy()) for name in LABELS}


def _image(volume: torch.Tensor, grid: Grid) -> sitk.Image:
    return grid.image(volume.round().clamp(0, 255).byte().cpu().numpy())


def true_transform(parameters: CaseParameters, deformed: Deformed) -> sitk.CompositeTransform:
    """The exact map from TRUS points to MR points: the displacement field first, then the rigid part."""
    start, centre = np.array(deformed.grid.start_mm), np.array(parameters.trus.centre_mm)
    grid = Grid(
        deformed.grid.size_vox,
        (deformed.grid.spacing_mm,) * 3,
        tuple((start + centre).tolist()),
    )
    field = grid.image(deformed.field.cpu().numpy().astype(np.float64), vector=True)
    rigid = sitk.Euler3DTransform()
    rigid.SetCenter(parameters.trus.centre_mm)
    rigid.SetRotation(*np.deg2rad(parameters.deformation.rotation_deg).tolist())
    rigid.SetTranslation((np.array(parameters.mr.centre_mm) - centre).tolist())
    return sitk.CompositeTransform([rigid, sitk.DisplacementFieldTransform(field)])


def stack_labels(labels: dict[str, sitk.Image]) -> sitk.Image:
    """One 4-D image whose last axis runs over `LABELS`."""
    return sitk.JoinSeries([labels[name] for name in LABELS])


def case_name(index: int) -> str:
    return f"case{index:06d}"


def write_case(case: SimulatedCase, folder: Path, index: int) -> None:
    """Write one case in the µ-RegPro layout, plus `transforms` and `parameters`."""
    name = case_name(index)
    images = {
        "mr_images": case.mr,
        "us_images": case.trus,
        "mr_labels": stack_labels(case.mr_labels),
        "us_labels": stack_labels(case.trus_labels),
    }
    with full_disk_said(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_aside(case, images, folder, name)


def _write_aside(case: SimulatedCase, images: Mapping[str, sitk.Image], folder: Path, name: str) -> None:
    # Written aside and moved when complete, the MR last, by which a case is known: an interrupted run leaves
    # whole cases only.
    with tempfile.TemporaryDirectory(dir=folder, prefix=ASIDE) as aside:
        for kind in (*images, "transforms", "parameters"):
            (Path(aside) / kind).mkdir()
        for kind, image in images.items():
            sitk.WriteImage(image, str(Path(aside) / kind / f"{name}.nii.gz"), useCompression=True)
            require_space(folder)
        sitk.WriteTransform(case.transform, str(Path(aside) / "transforms" / f"{name}.h5"))
        text = json.dumps({**json.loads(case.parameters.to_json()), "labels": LABELS}, indent=1)
        (Path(aside) / "parameters" / f"{name}.json").write_text(text, encoding="utf-8")
        for path in sorted(Path(aside).glob("*/*"), key=lambda path: path.parent.name == "mr_images"):
            target = folder / path.parent.name / path.name
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
