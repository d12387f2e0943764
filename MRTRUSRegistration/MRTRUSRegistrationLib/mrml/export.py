"""What leaves the scene: the scene itself, transforms, the registered MR, targets and the report.

Everything is written to a temporary folder beside the target and moved into place when complete. Files are
LPS, millimetres, as ITK and Slicer write them.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer

from ..errors import InputError
from ..geometry import Grid, resample
from ..landmark_files import NamedPoints, write_points
from ..transforms import field_image
from .case_nodes import CaseNodes
from .readers import check_volume, image_of, resampling_transform, volume_grid
from .scene_file import quiet_vtk
from .stages import accepted_stage, resampling_of, stages_of
from .targets_nodes import target_masks, target_points

Item = Literal["scene", "transforms", "grid", "registered_mr", "targets", "report"]
ITEMS: tuple[Item, ...] = get_args(Item)
# A rigid transform is exact on any grid.
_RIGID_SPACING_MM = 3.0
_GRID_MARGIN_MM = 10.0


def items_of(case: CaseNodes) -> tuple[Item, ...]:
    """What the case can export now."""
    found: list[Item] = ["scene"]
    if "rigid" in stages_of(case):
        found.append("transforms")
        found += ["grid"] if case.trus is not None else []
        found += ["registered_mr"] if case.trus is not None and case.mr is not None else []
    if case.targets is not None or case.target_segments is not None:
        found.append("targets")
    if case.report is not None:
        found.append("report")
    return tuple(found)


def export_case(
    case: CaseNodes,
    folder: str | Path,
    *,
    items: Sequence[Item] = ITEMS,
    targets_csv: str | None = None,
) -> tuple[Path, ...]:
    """Write what is asked for and present into `folder`; returns the files.

    `targets_csv` is the text of the table of targets, for hosts that computed distances and sides; without
    it the table has names and positions. Files of the same names are replaced. `InputError` where nothing
    can be written: either all files are there afterwards, or those from before.
    """
    wanted = [item for item in items_of(case) if item in items]
    if not wanted:
        raise InputError(f"{case.name} has nothing of what was asked for to export: register again.")
    # Slicer writes no scene below a relative path.
    target = Path(folder).absolute()
    writers: dict[str, Callable[[Path], None]] = {
        "scene": lambda to: _write_scene(case, to),
        "transforms": lambda to: _write_transforms(case, to),
        "grid": lambda to: _write(flat_grid(case), to / "mr_to_trus_grid.nrrd"),
        "registered_mr": lambda to: _write(registered_mr(case), to / "registered_mr.nii.gz"),
        "targets": lambda to: _write_targets(case, to, targets_csv),
        "report": lambda to: _write_report(case, to),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=target) as staging, quiet_vtk():
            for item in wanted:
                writers[item](Path(staging))
            return _move(Path(staging), target)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"The export to {target} failed ({reason}): check the folder or give another."
        ) from error


def registered_mr(case: CaseNodes) -> sitk.Image:
    """The MR at its last stage on the voxels of the TRUS, with the MR's own pixel type."""
    check_volume(case.trus, "TRUS")
    transform = resampling_of(case, accepted_stage(case))
    return resample(image_of(case.mr, what="MR"), volume_grid(case.trus), transform)


def flat_grid(case: CaseNodes, *, spacing_mm: float | None = None) -> sitk.Image:
    """Rigid and deformable part as one displacement grid, TRUS points to MR points, LPS mm.

    The grid covers the TRUS volume and 10 mm around it; beyond it nothing is known of the rigid part, so that
    the composite .h5 remains the primary result. Without `spacing_mm` its nodes are those of the deformation,
    and it equals the composition: both are linear between the same nodes.
    """
    check_volume(case.trus, "TRUS")
    stage, trus = accepted_stage(case), volume_grid(case.trus)
    if spacing_mm is None and stage == "deformable":
        lattice = Grid.of(field_image(resampling_transform(case.deformation)))
    else:
        spacing = spacing_mm or _RIGID_SPACING_MM
        lattice = trus.with_spacing((spacing,) * 3)
    return _sampled(resampling_of(case, stage), _covering(trus, lattice))


def _covering(trus: Grid, lattice: Grid) -> Grid:
    """The nodes of an endless lattice that cover a volume and the margin around it."""
    corners = np.array(list(product((0.0, 1.0), repeat=3))) * (np.array(trus.size_vox) - 1)
    corners_mm = corners @ trus.index_to_point[:3, :3].T + np.array(trus.origin_mm)
    to_index = np.linalg.inv(lattice.index_to_point)
    index = corners_mm @ to_index[:3, :3].T + to_index[:3, 3]
    margin = _GRID_MARGIN_MM / np.array(lattice.spacing_mm)
    first = np.floor(index.min(axis=0) - margin).astype(int)
    last = np.ceil(index.max(axis=0) + margin).astype(int)
    origin = lattice.index_to_point @ np.append(first, 1.0)
    size = tuple((last - first + 1).tolist())
    return Grid(size, lattice.spacing_mm, tuple(origin[:3].tolist()), lattice.direction)


def _sampled(transform: sitk.Transform, grid: Grid) -> sitk.Image:
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat32, grid.size_vox, grid.origin_mm, grid.spacing_mm, grid.direction
    )
    # What tells Slicer that this is a displacement field and which way it maps.
    field.SetMetaData("intent_code", "1006")
    field.SetMetaData("displacement field type", "resampling")
    return field


def _write_transforms(case: CaseNodes, folder: Path) -> None:
    final = accepted_stage(case)
    for name, stage in (("mr_to_trus", final), ("rigid", "rigid")):
        transform = resampling_of(case, stage)
        _checked(lambda: sitk.WriteTransform(transform, str(folder / f"{name}.h5")))  # noqa: B023


def _write(image: sitk.Image, path: Path) -> None:
    _checked(lambda: sitk.WriteImage(image, str(path), useCompression=True))


def _checked(write: Callable[[], None]) -> None:
    """Run one of ITK's writers, with its failure as an `OSError` like everybody's."""
    try:
        write()
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error)) from error


def _write_scene(case: CaseNodes, folder: Path) -> None:
    """The whole scene; what other cases and the user added belongs to it."""
    scene = case.scene
    root = scene.GetRootDirectory()
    scene.SetRootDirectory(str(folder))
    try:
        messages = slicer.vtkMRMLMessageCollection()
        if not scene.WriteToMRB(str(folder / "scene.mrb"), None, messages):
            raise OSError(errno.EIO, "the scene's files cannot be written")
    finally:
        scene.SetRootDirectory(root)


def _write_targets(case: CaseNodes, folder: Path, table: str | None) -> None:
    points, masks = target_points(case), target_masks(case)
    if points is not None:
        write_points(NamedPoints(points.names, points.points_mm), folder / "targets.mrk.json")
    if masks:
        _write(_label_map(masks), folder / "targets.nii.gz")
    if table is not None:
        (folder / "targets.csv").write_text(table, encoding="utf-8")
    elif points is not None:
        write_points(NamedPoints(points.names, points.points_mm), folder / "targets.csv")


def _label_map(masks: dict[str, sitk.Image]) -> sitk.Image:
    """Every target under its number, in their order; where two overlap, the later one."""
    labels = np.zeros(next(iter(masks.values())).GetSize()[::-1], np.uint8)
    for number, mask in enumerate(masks.values(), start=1):
        labels[sitk.GetArrayFromImage(mask) > 0] = number
    return Grid.of(next(iter(masks.values()))).image(labels)


def _write_report(case: CaseNodes, folder: Path) -> None:
    (folder / "report.html").write_text(case.report.GetText(), encoding="utf-8")


def _move(staging: Path, target: Path) -> tuple[Path, ...]:
    """Move complete files into place; on an error in between those from before go back."""
    moved: list[Path] = []
    kept = Path(tempfile.mkdtemp(prefix="old-", dir=staging))
    try:
        for path in sorted(entry for entry in staging.iterdir() if entry.is_file()):
            final = target / path.name
            if final.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(final))
            if final.exists():
                os.replace(final, kept / path.name)
            moved.append(final)
            os.replace(path, final)
    except OSError:
        for final in moved:
            final.unlink(missing_ok=True)
            if (kept / final.name).exists():
                os.replace(kept / final.name, final)
        raise
    return tuple(moved)
