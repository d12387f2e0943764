"""Gland masks from files: reading, checking, and bringing them on to their image's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .geometry import Grid, mask_points_mm, mask_volume_ml, resample_mask
from .images import LoadedImage
from .results import QualityWarning
from .segments import binary, gland_segment, has_segments, voxel_count
from .volume_files import VolumeFile, channels, check_orthonormal, open_volume

_GLAND_ML = (3.0, 400.0)
_MAX_FILLED = 0.9
_DIFFERENT_PATIENTS = 3.0
_VOLUME_MISMATCH = 1.5


def read_mask(path: str | Path, loaded: LoadedImage) -> sitk.Image:
    """Read the gland mask of an image, as uint8 0/1 on the image's grid.

    Any volume format, a Slicer segmentation (.seg.nrrd, the segment named prostate or gland, or the only
    one), a label map (all voxels that are not zero) or 4-D labels (the first channel). A mask on another
    grid than the image's is resampled in world space. Raises `InputError` for a mask that cannot be used.
    """
    volume = open_label_file(Path(path))
    gland = gland_segment(volume).mask if has_segments(volume) else binary(channels(volume.read())[0])
    if not voxel_count(gland):
        raise InputError(f"{volume.name} is an empty mask: draw the prostate gland in it.")
    mask = on_image_grid(gland, loaded, name=volume.name)
    _check_gland(mask, volume.name)
    return mask


def check_same_patient(
    mr_mask: sitk.Image, trus_mask: sitk.Image, mr_name: str, trus_name: str
) -> tuple[QualityWarning, ...]:
    """Compare the gland volumes: `InputError` beyond a factor of 3, a warning beyond 1.5."""
    mr_ml, trus_ml = mask_volume_ml(mr_mask), mask_volume_ml(trus_mask)
    ratio = max(mr_ml, trus_ml) / max(min(mr_ml, trus_ml), 1e-9)
    volumes = f"{mr_ml:.0f} ml in {mr_name} and {trus_ml:.0f} ml in {trus_name}"
    if ratio > _DIFFERENT_PATIENTS:
        raise InputError(
            f"The gland has {volumes}, which cannot be the same patient: check that the files belong together"
            " and that the masks show the whole gland."
        )
    if ratio <= _VOLUME_MISMATCH:
        return ()
    message = f"The gland has {volumes}: check that the masks show the whole gland of the same patient."
    return (QualityWarning("gland_volume_mismatch", message),)


def open_label_file(path: Path) -> VolumeFile:
    """Open a file of labels; `InputError` unless it is a volume with right-angled axes."""
    volume = open_volume(path)
    if len(volume.size_vox) < 3:
        raise InputError(f"{volume.name} is a 2-D image: give a label volume.")
    check_orthonormal(volume)
    return volume


def on_image_grid(label: sitk.Image, loaded: LoadedImage, *, name: str) -> sitk.Image:
    """Bring a binary label in world space on to the image's grid; uint8 0/1.

    A label whose axes are those of the re-labelled image is taken to lie in its frame, any other label in
    the file's frame. Raises `InputError` where less than half of it lies in the image.
    """
    frame = _frame_of(Grid.of(label), loaded)
    if not Grid.of(label).same_as(frame):
        _check_inside(label, frame, loaded, name)
        label = resample_mask(label, frame)
    return loaded.grid.image(sitk.GetArrayViewFromImage(label))


def _frame_of(grid: Grid, loaded: LoadedImage) -> Grid:
    own = np.allclose(grid.direction, loaded.grid.direction, atol=1e-3)
    in_file = np.allclose(grid.direction, loaded.file_grid.direction, atol=1e-3)
    return loaded.grid if own and not in_file else loaded.file_grid


def _check_inside(label: sitk.Image, frame: Grid, loaded: LoadedImage, name: str) -> None:
    points = np.column_stack([mask_points_mm(label), np.ones(voxel_count(label))])
    index = (points @ np.linalg.inv(frame.index_to_point).T)[:, :3]
    inside = np.all((index >= -0.5) & (index <= np.array(frame.size_vox) - 0.5), axis=1)
    if inside.mean() < 0.5:
        raise InputError(
            f"{name} lies off its image {loaded.name} ({100 * inside.mean():.0f} % of it is inside): give the"
            " labels that were drawn on this image."
        )


def _check_gland(mask: sitk.Image, name: str) -> None:
    count = voxel_count(mask)
    if not count:
        raise InputError(f"{name} has no voxels on its image: draw the prostate gland in it.")
    if count > _MAX_FILLED * mask.GetNumberOfPixels():
        raise InputError(
            f"{name} fills {100 * count / mask.GetNumberOfPixels():.0f} % of its image: give a mask of the"
            " prostate gland alone."
        )
    volume_ml = mask_volume_ml(mask)
    if not _GLAND_ML[0] <= volume_ml <= _GLAND_ML[1]:
        raise InputError(
            f"{name} holds {volume_ml:.1f} ml, which is not a prostate ({_GLAND_ML[0]:.0f} to"
            f" {_GLAND_ML[1]:.0f} ml): give a mask of the whole gland."
        )
