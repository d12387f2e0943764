"""The transform that a user gives as a starting position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .errors import InputError
from .rigid import linear_parts
from .volume_files import check_present, file_name, suffix_of

_SUFFIXES = (".h5", ".hdf5", ".hdf", ".tfm", ".txt", ".mat")


def read_transform(path: str | Path) -> sitk.Transform:
    """Read a linear 3-D ITK, Slicer or ANTs transform that maps TRUS points to MR points (LPS, mm).

    Composite transforms of linear parts are fine. Raises `InputError` for anything else.
    """
    path = Path(path)
    check_present(path)
    name = file_name(path)
    if suffix_of(path) not in _SUFFIXES or path.is_dir():
        raise InputError(f"{name} is not a transform file: give an ITK transform ({', '.join(_SUFFIXES)}).")
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise InputError(
            f"{name} cannot be read as a transform: give a file written by ITK, 3D Slicer or ANTs."
        ) from error
    _check_linear(transform, name)
    return transform


def _check_linear(transform: sitk.Transform, name: str) -> None:
    if transform.GetDimension() != 3:
        raise InputError(f"{name} is a {transform.GetDimension()}-D transform: give a 3-D one.")
    if not transform.IsLinear():
        raise InputError(f"{name} is not a linear transform: give a rigid one as a start.")
    matrix, offset = linear_parts(transform)
    determinant = np.linalg.det(matrix)
    if not (np.isfinite(determinant) and np.isfinite(offset).all() and determinant > 1e-6):
        raise InputError(f"{name} is singular or mirrors the image: give a rigid transform.")
