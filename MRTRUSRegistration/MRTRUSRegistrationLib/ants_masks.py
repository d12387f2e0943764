"""ANTs on pairs of masks: a common small grid, deterministic runs, results as ITK transforms.

antspyx is imported when first used. Its determinism flag is global and must be set after the import; with
it, runs with the same seed agree to the bit within and across processes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import RegistrationError
from .geometry import Grid, mask_points_mm, resample

AntsMetric = Literal["meansquares", "mattes"]


@dataclass(frozen=True)
class MaskPair:
    """Both glands in TRUS space on one LPS-aligned grid, as soft indicators (float32, 0…1)."""

    moving: sitk.Image
    fixed: sitk.Image
    grid: Grid


def mask_pair(
    mr_gland: sitk.Image,
    trus_gland: sitk.Image,
    initial: sitk.Transform,
    *,
    spacing_mm: float,
    margin_mm: float = 12.0,
) -> MaskPair:
    """Bring both masks on to a grid that holds both glands and a margin; `initial` is TRUS→MR.

    A grid of the glands alone, at a spacing near the masks' own uncertainty, saves most of ANTs' time.
    """
    inverse = initial.GetInverse()
    moved = np.array([inverse.TransformPoint(p) for p in mask_points_mm(mr_gland)[::7].tolist()])
    points = np.vstack([moved, mask_points_mm(trus_gland)])
    low, high = points.min(axis=0) - margin_mm, points.max(axis=0) + margin_mm
    size = tuple(int(n) for n in np.ceil((high - low) / spacing_mm))
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    grid = Grid.centred((low + high) / 2, size, (spacing_mm,) * 3, identity)  # type: ignore[arg-type]
    moving = resample(sitk.Cast(mr_gland, sitk.sitkFloat32), grid, initial)
    fixed = resample(sitk.Cast(trus_gland, sitk.sitkFloat32), grid)
    return MaskPair(moving, fixed, grid)


def run_ants(pair: MaskPair, *, kind: str, seed: int, **options: Any) -> list[sitk.Transform]:
    """Run `ants.registration` on a pair, moving MR; returns its fixed→moving transforms, first applied first.

    `kind` is ANTs' type of transform; `RegistrationError` when ANTs fails.
    """
    import ants

    # ANTs takes the seed 0 for "seed me by the clock".
    ants.config.set_ants_deterministic(True, seed + 1)
    fixed, moving = _to_ants(pair.fixed, pair.grid), _to_ants(pair.moving, pair.grid)
    with tempfile.TemporaryDirectory(prefix="mrtrus-ants-") as folder:
        try:
            result = ants.registration(
                fixed, moving, type_of_transform=kind, outprefix=str(Path(folder) / "t"), **options
            )
        except RuntimeError as error:
            raise RegistrationError(f"ANTs failed on the gland masks ({error}).") from error
        # ANTs lists an image's transforms outermost first, which is the order that points pass them.
        return [_read(path) for path in result["fwdtransforms"]]


def _to_ants(image: sitk.Image, grid: Grid) -> Any:
    import ants

    array_ijk = np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    return ants.from_numpy(
        array_ijk, origin=list(grid.origin_mm), spacing=list(grid.spacing_mm), direction=grid.axes
    )


def _read(path: str) -> sitk.Transform:
    if path.endswith(".mat"):
        return sitk.ReadTransform(path)
    return sitk.DisplacementFieldTransform(sitk.ReadImage(path, sitk.sitkVectorFloat64))
