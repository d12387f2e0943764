"""From nodes back to SimpleITK: volumes, segments, points and transforms, all in LPS millimetres.

Everything is read in the node's own coordinates; the transforms above a node are left out.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813
import slicer
import vtk

from ..errors import InputError
from ..geometry import Grid, resample
from ..results import Landmarks
from .frames import FLIP, points_ras


def voxels(image: vtk.vtkImageData) -> np.ndarray:
    """The scalars as a (k, j, i) or (k, j, i, component) array that shares the image's memory."""
    from vtk.util.numpy_support import vtk_to_numpy

    scalars = image.GetPointData().GetScalars()
    shape = image.GetDimensions()[::-1]
    components = scalars.GetNumberOfComponents()
    return vtk_to_numpy(scalars).reshape(shape if components == 1 else (*shape, components))


def array_from_matrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """A 4×4 array from a VTK matrix."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def check_volume(volume: slicer.vtkMRMLScalarVolumeNode, what: str) -> None:
    """`InputError` unless the node is a 3-D scalar volume with voxels in an open scene; `None` is not."""
    if volume is None or volume.GetScene() is None:
        raise InputError(f"The {what} volume is no longer in the scene: choose one.")
    name, image = volume.GetName(), volume.GetImageData()
    if image is None or min(image.GetDimensions()) < 1 or image.GetPointData().GetScalars() is None:
        raise InputError(f"The {what} volume {name} is empty: load its image again.")
    if min(image.GetDimensions()) < 2:
        raise InputError(f"The {what} volume {name} is a 2-D image: choose a 3-D volume.")
    if image.GetNumberOfScalarComponents() != 1:
        raise InputError(f"The {what} volume {name} is a colour image: choose a grey-value volume.")


def check_pair(mr: slicer.vtkMRMLScalarVolumeNode, trus: slicer.vtkMRMLScalarVolumeNode) -> None:
    """`InputError` unless these are two different 3-D volumes of one scene."""
    check_volume(mr, "MR")
    check_volume(trus, "TRUS")
    if mr is trus:
        raise InputError(f"{mr.GetName()} is chosen as both MR and TRUS: choose two different volumes.")


def volume_grid(volume: slicer.vtkMRMLScalarVolumeNode) -> Grid:
    """The grid of a volume node, its voxels being in the node's own order."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return _grid_from(array_from_matrix(matrix), volume.GetImageData().GetDimensions())


def _grid_from(index_to_ras: np.ndarray, size_vox: tuple[int, int, int]) -> Grid:
    lps = np.diag([*FLIP, 1.0]) @ index_to_ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    direction = tuple((lps[:3, :3] / spacing).ravel().tolist())
    return Grid(tuple(size_vox), tuple(spacing.tolist()), tuple(lps[:3, 3].tolist()), direction)  # type: ignore[arg-type]


def image_of(volume: slicer.vtkMRMLScalarVolumeNode, *, what: str = "chosen") -> sitk.Image:
    """A copy of the volume's voxels with its geometry; `InputError` for an empty, 2-D or colour volume."""
    check_volume(volume, what)
    return volume_grid(volume).image(voxels(volume.GetImageData()).copy())


def segments_of(segmentation: slicer.vtkMRMLSegmentationNode, grid: Grid) -> dict[str, sitk.Image]:
    """The segments by name, as binary images on `grid`; `InputError` where there is none."""
    identifiers = vtk.vtkStringArray()
    segmentation.GetSegmentation().GetSegmentIDs(identifiers)
    names = [identifiers.GetValue(n) for n in range(identifiers.GetNumberOfValues())]
    if not names or not segmentation.CreateBinaryLabelmapRepresentation():
        raise InputError(f"The segmentation {segmentation.GetName()} has no segments: draw one.")
    found = {}
    for identifier in names:
        label = segmentation.GetSegmentation().GetSegment(identifier).GetName()
        unique = label if label not in found else f"{label} ({identifier})"
        found[unique] = _segment_mask(segmentation, identifier, grid)
    return found


def gland_mask_of(segmentation: slicer.vtkMRMLSegmentationNode | None, grid: Grid, what: str) -> sitk.Image:
    """The union of all segments on `grid`; `InputError` where nothing is drawn."""
    if segmentation is None or segmentation.GetScene() is None:
        raise InputError(
            f"The {what} gland is no longer in the scene: choose a segmentation or register again."
        )
    masks = [sitk.GetArrayFromImage(mask) for mask in segments_of(segmentation, grid).values()]
    union = np.any(masks, axis=0)
    if not union.any():
        raise InputError(f"The {what} gland {segmentation.GetName()} is empty: draw the prostate in it.")
    return grid.image(union.astype(np.uint8))


def times_drawn(segmentation: slicer.vtkMRMLSegmentationNode) -> tuple[int, ...]:
    """When each segment was last drawn, as VTK's modified times; 0 for one that has no labelmap."""
    inner = segmentation.GetSegmentation()
    segments = [inner.GetNthSegment(n) for n in range(inner.GetNumberOfSegments())]
    labelmaps = [segment.GetRepresentation("Binary labelmap") for segment in segments]
    return tuple(labelmap.GetMTime() if labelmap is not None else 0 for labelmap in labelmaps)


def _segment_mask(segmentation: slicer.vtkMRMLSegmentationNode, identifier: str, grid: Grid) -> sitk.Image:
    labelmap = slicer.vtkOrientedImageData()
    filled = segmentation.GetBinaryLabelmapRepresentation(identifier, labelmap)
    if not filled or min(labelmap.GetDimensions()) < 1:
        return grid.blank()
    matrix, extent = vtk.vtkMatrix4x4(), labelmap.GetExtent()
    labelmap.GetImageToWorldMatrix(matrix)
    index_to_ras = array_from_matrix(matrix)
    # The voxels of a segment start at its extent, the matrix counts from index zero.
    index_to_ras[:3, 3] += index_to_ras[:3, :3] @ np.array(extent[::2])
    own = _grid_from(index_to_ras, labelmap.GetDimensions())
    mask = own.image((voxels(labelmap) > 0).astype(np.uint8))
    return resample(mask, grid, nearest=True)


def landmarks_of(points: slicer.vtkMRMLMarkupsFiducialNode) -> Landmarks:
    """The placed points of a list; points without a name are called after their number."""
    placed = _placed(points)
    names = tuple(points.GetNthControlPointLabel(n).strip() or f"point {n + 1}" for n in placed)
    positions = [points.GetNthControlPointPosition(n) for n in placed]
    return Landmarks(names, points_ras(np.array(positions, float).reshape(-1, 3)))


def placed_ids(points: slicer.vtkMRMLMarkupsFiducialNode) -> tuple[str, ...]:
    """The IDs of the points of `landmarks_of`, which they keep when others come and go, and in files."""
    return tuple(points.GetNthControlPointID(n) for n in _placed(points))


def _placed(points: slicer.vtkMRMLMarkupsFiducialNode) -> list[int]:
    defined = slicer.vtkMRMLMarkupsNode.PositionDefined
    numbers = range(points.GetNumberOfControlPoints())
    return [n for n in numbers if points.GetNthControlPointPositionStatus(n) == defined]


def resampling_transform(node: slicer.vtkMRMLTransformNode) -> sitk.Transform:
    """What a transform node does to points of its parent's space, as a SimpleITK transform.

    Linear nodes become affine transforms, displacement grids displacement field transforms (interpolated
    linearly, where Slicer interpolates by cubic splines). `InputError` for any other kind.
    """
    if node.IsLinear():
        matrix = vtk.vtkMatrix4x4()
        node.GetMatrixTransformFromParent(matrix)
        return _affine(array_from_matrix(matrix))
    grid = node.GetTransformFromParentAs("vtkOrientedGridTransform", False)
    if grid is None or grid.GetDisplacementGrid() is None or grid.GetInverseFlag():
        raise InputError(
            f"The transform {node.GetName()} is neither linear nor a displacement grid from its parent:"
            " convert it in the Transforms module."
        )
    return sitk.DisplacementFieldTransform(_field(grid))


def _affine(matrix_ras: np.ndarray) -> sitk.AffineTransform:
    flip = np.diag([*FLIP, 1.0])
    matrix = flip @ matrix_ras @ flip
    affine = sitk.AffineTransform(3)
    affine.SetMatrix(matrix[:3, :3].ravel().tolist())
    affine.SetTranslation(matrix[:3, 3].tolist())
    return affine


def _field(grid: slicer.vtkOrientedGridTransform) -> sitk.Image:
    data = grid.GetDisplacementGrid()
    turn = grid.GetGridDirectionMatrix()
    directions = np.eye(3) if turn is None else array_from_matrix(turn)[:3, :3]
    ras_mm = voxels(data) * grid.GetDisplacementScale() + grid.GetDisplacementShift()
    field = sitk.GetImageFromArray(ras_mm.astype(np.float64) * FLIP, isVector=True)
    field.SetSpacing(data.GetSpacing())
    field.SetOrigin(points_ras(np.array(data.GetOrigin())).tolist())
    field.SetDirection((FLIP[:, None] * directions).ravel().tolist())
    return field
