"""Single nodes: the step from SimpleITK's LPS to MRML's RAS, checked against SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from scene_fixtures import ball, blobs, cubic_displaced, oblique  # noqa: E402
from scene_readers import image_of, mask_of, to_lps, world_points_lps  # noqa: E402

from MRTRUSRegistrationLib.geometry import Grid  # noqa: E402
from MRTRUSRegistrationLib.mrml.frames import linear_matrix_ras  # noqa: E402
from MRTRUSRegistrationLib.mrml.scene_file import new_scene, quiet_vtk  # noqa: E402
from MRTRUSRegistrationLib.mrml.segmentations import add_gland_segmentation  # noqa: E402
from MRTRUSRegistrationLib.mrml.transforms import add_grid_transform, add_linear_transform  # noqa: E402
from MRTRUSRegistrationLib.mrml.volumes import add_volume  # noqa: E402
from MRTRUSRegistrationLib.results import Landmarks  # noqa: E402
from MRTRUSRegistrationLib.transforms import field_transform  # noqa: E402

GRID = Grid((11, 9, 7), (0.7, 1.1, 2.3), (12.0, -34.0, 56.0), oblique((20, -15, 30)))
MIRRORED = Grid((11, 9, 7), (0.7, 1.1, 2.3), (12.0, -34.0, 56.0), oblique((20, -15, 30), left_handed=True))
PIXEL_TYPES = [
    sitk.sitkUInt8,
    sitk.sitkInt8,
    sitk.sitkUInt16,
    sitk.sitkInt16,
    sitk.sitkInt32,
    sitk.sitkInt64,
    sitk.sitkFloat32,
    sitk.sitkFloat64,
]


@pytest.mark.parametrize("pixel_type", PIXEL_TYPES)
def test_volume_keeps_voxels_type_and_geometry(pixel_type):
    image = sitk.Cast(GRID.image(blobs(GRID, seed=0, high=100)), pixel_type)
    back = image_of(add_volume(new_scene(), image, "MR"))
    assert back.GetPixelID() == pixel_type
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    assert Grid.of(back).same_as(GRID, tolerance_mm=1e-9)


def test_left_handed_volume_becomes_right_handed_and_stays_in_place():
    image = MIRRORED.image(blobs(MIRRORED, seed=0))
    back = image_of(add_volume(new_scene(), image, "TRUS"))
    assert np.linalg.det(Grid.of(back).axes) > 0.999
    for index in [(0, 0, 0), (10, 8, 6), (3, 4, 1)]:
        place = image.TransformIndexToPhysicalPoint(index)
        assert back.GetPixel(back.TransformPhysicalPointToIndex(place)) == image.GetPixel(index)


def test_window_shows_the_middle_of_the_intensities():
    values = np.arange(np.prod(GRID.size_vox), dtype=float).reshape(GRID.size_vox[::-1])
    values[0, 0, 0] = 1e6
    scene = new_scene()
    display = add_volume(scene, GRID.image(values), "MR").GetDisplayNode()
    assert display.GetWindow() == pytest.approx(0.98 * values.size, rel=0.01)
    assert display.GetLevel() == pytest.approx(values.size / 2, rel=0.01)


def test_constant_volume_has_a_window():
    scene = new_scene()
    node = add_volume(scene, GRID.image(np.full((7, 9, 11), 5.0)), "MR")
    assert node.GetDisplayNode().GetWindow() > 0


@pytest.mark.parametrize("grid", [GRID, MIRRORED])
def test_segmentation_covers_the_mask(grid):
    scene = new_scene()
    mask = ball(grid, 3.0)
    volume = add_volume(scene, grid.blank(), "MR")
    node = add_gland_segmentation(scene, mask, volume, "MR gland", color=(0.9, 0.6, 0.1))
    back = sitk.Resample(mask_of(node, volume), mask, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert sitk.GetArrayViewFromImage(mask).sum() > 20
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(mask))
    segment = node.GetSegmentation().GetSegment("Prostate")
    assert segment.GetName() == "Prostate"
    assert segment.GetColor() == pytest.approx((0.9, 0.6, 0.1))


def _euler() -> sitk.Euler3DTransform:
    return sitk.Euler3DTransform((5.0, -7.0, 11.0), 0.3, -0.2, 0.5, (20.0, -3.0, 8.0))


def _affine() -> sitk.AffineTransform:
    affine = sitk.AffineTransform(3)
    affine.SetMatrix([1.1, 0.2, -0.1, 0.05, 0.9, 0.3, 0.0, -0.2, 1.2])
    affine.SetTranslation((3.0, -4.0, 5.0))
    return affine


@pytest.mark.parametrize(
    "transform",
    [
        _euler(),
        _affine(),
        sitk.TranslationTransform(3, (1.0, 2.0, 3.0)),
        sitk.Transform(3, sitk.sitkIdentity),
        sitk.CompositeTransform([_euler(), _affine()]),
    ],
    ids=lambda transform: transform.GetName(),
)
def test_linear_transform_carries_points_back(transform):
    points = np.random.default_rng(0).uniform(-80, 80, (20, 3))
    node = add_linear_transform(new_scene(), transform, "rigid")
    expected = [transform.GetInverse().TransformPoint(p) for p in points.tolist()]
    assert node.IsLinear()
    assert world_points_lps(node, points) == pytest.approx(np.array(expected), abs=1e-9)


def test_a_field_is_not_a_linear_transform():
    field = sitk.DisplacementFieldTransform(GRID.image(np.zeros((7, 9, 11, 3)), vector=True))
    with pytest.raises(ValueError, match="not linear"):
        linear_matrix_ras(field)


def _rough_field(grid: Grid) -> sitk.DisplacementFieldTransform:
    """Independent displacements at every node, within a rim as wide as half a cubic spline's support."""
    values = np.random.default_rng(0).normal(size=(*grid.size_vox[::-1], 3))
    return field_transform(values, grid, rim_vox=3)


@pytest.mark.parametrize("grid", [GRID, MIRRORED])
def test_field_is_exact_at_the_nodes_of_its_grid(grid):
    transform = _rough_field(grid)
    field = transform.GetDisplacementField()
    grid_transform = add_grid_transform(new_scene(), transform, "field").GetTransformFromParent()
    for index in np.random.default_rng(1).integers(0, field.GetSize(), (50, 3)).tolist():
        point = np.array(field.TransformIndexToPhysicalPoint(index))
        expected = np.array(field.GetPixel(index))
        assert to_lps(grid_transform.TransformPoint(to_lps(point))) - point == pytest.approx(
            expected, abs=1e-6
        )


def test_field_is_catmull_rom_between_the_nodes_and_nothing_beyond_the_grid():
    transform = _rough_field(GRID)
    field = Grid.of(transform.GetDisplacementField())
    grid_transform = add_grid_transform(new_scene(), transform, "field").GetTransformFromParent()
    index = np.random.default_rng(1).uniform(-5, np.array(field.size_vox) + 4, (400, 3))
    points = index @ field.index_to_point[:3, :3].T + np.array(field.origin_mm)
    mapped = to_lps(np.array([grid_transform.TransformPoint(p) for p in to_lps(points).tolist()]))
    assert mapped == pytest.approx(cubic_displaced(transform, points), abs=5e-5)
    outside = np.any((index < 0) | (index > np.array(field.size_vox) - 1), axis=1)
    assert 50 < outside.sum() < 350
    assert mapped[outside] == pytest.approx(points[outside], abs=1e-9)


def test_field_without_a_rim_of_zeros_is_refused():
    field = np.zeros((7, 9, 11, 3))
    field[3, 4, 10, 1] = 0.5
    transform = sitk.DisplacementFieldTransform(GRID.image(field, vector=True))
    with pytest.raises(ValueError, match="rim of zeros"):
        add_grid_transform(new_scene(), transform, "field")


def test_landmarks_lie_in_ras_and_are_locked():
    from MRTRUSRegistrationLib.mrml.markups import add_landmarks

    points = np.array([[1.0, 2.0, 3.0], [-4.0, 5.0, -6.0]])
    with quiet_vtk():
        node = add_landmarks(new_scene(), Landmarks(("apex", "base"), points), "MR", color=(1, 0, 0))
        positions = [node.GetNthControlPointPosition(n) for n in range(2)]
        labels = [node.GetNthControlPointLabel(n) for n in range(2)]
    assert positions == [(-1.0, -2.0, 3.0), (4.0, -5.0, -6.0)]
    assert labels == ["apex", "base"]
    assert node.GetLocked()
