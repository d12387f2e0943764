"""Overlap, surface distances and landmark errors: analytic cases, other libraries, and the lost landmark."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.geometry import Grid
from MRTRUSRegistrationLib.measures import (
    PointMap,
    centroid_vox,
    dsc,
    gland_centroid_mm,
    hd95_mm,
    landmark_errors_mm,
    landmark_rows,
    landmarks_lost,
    mean_surface_distance_mm,
    registration_measures,
    tre_mean_mm,
    tre_rms_mm,
)
from MRTRUSRegistrationLib.results import LandmarkRow, Landmarks
from MRTRUSRegistrationLib.transforms import compose, field_transform, inverse_points_mm

OBLIQUE = tuple(sitk.Euler3DTransform((0, 0, 0), 0.4, -0.3, 0.7).GetMatrix())
GRID = Grid((40, 36, 30), (0.8, 1.0, 1.5), (10.0, -20.0, 5.0), OBLIQUE)


def box(grid: Grid, start: tuple[int, int, int], size: tuple[int, int, int]) -> sitk.Image:
    """A box from index (i, j, k) `start`, `size` voxels wide."""
    mask = np.zeros(grid.size_vox[::-1], np.uint8)
    i, j, k = (slice(begin, begin + width) for begin, width in zip(start, size, strict=True))
    mask[k, j, i] = 1
    return grid.image(mask)


def ball(grid: Grid, radius_mm: float, offset_mm: tuple[float, float, float] = (0, 0, 0)) -> sitk.Image:
    index_kji = np.moveaxis(np.indices(grid.size_vox[::-1]), 0, -1)
    points = index_kji[..., ::-1] @ grid.index_to_point[:3, :3].T + np.array(grid.origin_mm)
    distance_mm = np.linalg.norm(points - grid.centre_mm - np.array(offset_mm), axis=-1)
    return grid.image((distance_mm <= radius_mm).astype(np.uint8))


def blobs() -> tuple[sitk.Image, sitk.Image]:
    """Two ragged, partly overlapping masks on the oblique anisotropic grid."""
    noise = sitk.SmoothingRecursiveGaussian(
        GRID.image(np.random.default_rng(4).normal(size=GRID.size_vox[::-1])), 2.0
    )
    wobble = sitk.GetArrayFromImage(noise) * 40
    masks = []
    for offset, sign in ((0.0, 1.0), (3.0, -1.0)):
        distance = sitk.GetArrayFromImage(
            sitk.SignedMaurerDistanceMap(
                ball(GRID, 9.0, (offset, offset / 2, 0.0)), squaredDistance=False, useImageSpacing=True
            )
        )
        masks.append(GRID.image((distance + sign * wobble < 0).astype(np.uint8)))
    return masks[0], masks[1]


def translation(vector_mm: tuple[float, float, float]) -> PointMap:
    """Maps TRUS points by `vector_mm` to MR points, and MR points back."""
    vector = np.array(vector_mm)
    return PointMap(sitk.TranslationTransform(3, vector.tolist()), lambda points: points - vector)


def landmarks_of(*labels: sitk.Image) -> Landmarks:
    points = []
    for label in labels:
        index = np.argwhere(sitk.GetArrayFromImage(label) > 0)[:, ::-1].mean(axis=0)
        points.append((Grid.of(label).index_to_point @ np.append(index, 1))[:3])
    return Landmarks(tuple(f"L{n}" for n in range(len(labels))), np.array(points), tuple(labels))


def row(error_mm: float | None, *, initial_mm: float = 1.0, rigid_mm: float | None = None) -> LandmarkRow:
    return LandmarkRow(
        "x",
        (0, 0, 0),
        None if error_mm is None else (1, 1, 1),
        initial_mm,
        rigid_mm,
        error_mm,
        error_mm is None,
    )


# Overlap and surfaces


def test_dsc_of_shifted_boxes() -> None:
    a, b = box(GRID, (5, 5, 5), (10, 8, 6)), box(GRID, (9, 5, 5), (10, 8, 6))
    assert dsc(a, b) == pytest.approx(2 * 6 / 20)
    assert dsc(a, a) == 1.0
    assert dsc(a, box(GRID, (20, 5, 5), (4, 4, 4))) == 0.0


def test_distances_of_boxes_apart_along_an_axis() -> None:
    """Equal plates one voxel thick, 4 voxels of 1.5 mm apart: every distance is 6 mm, whatever the frame."""
    a, b = box(GRID, (5, 5, 5), (10, 8, 1)), box(GRID, (5, 5, 9), (10, 8, 1))
    assert hd95_mm(a, b) == pytest.approx(6.0)
    assert mean_surface_distance_mm(a, b) == pytest.approx(6.0)
    assert gland_centroid_mm(a, b) == pytest.approx(6.0)


def test_spacing_belongs_to_the_axis() -> None:
    for axis, spacing_mm in enumerate(GRID.spacing_mm):
        size = [6, 6, 6]
        size[axis] = 1
        start = [5, 5, 5]
        start[axis] += 3
        a, b = box(GRID, (5, 5, 5), tuple(size)), box(GRID, tuple(start), tuple(size))
        assert hd95_mm(a, b) == pytest.approx(3 * spacing_mm)


def test_surface_distances_of_concentric_balls() -> None:
    """Spheres of 8 and 12 mm radius: 4 mm apart everywhere, to half a voxel."""
    grid = Grid((60, 60, 60), (0.5, 0.5, 0.5), direction=OBLIQUE)
    a, b = ball(grid, 8.0), ball(grid, 12.0)
    assert mean_surface_distance_mm(a, b) == pytest.approx(4.0, abs=0.25)
    assert hd95_mm(a, b) == pytest.approx(4.0, abs=0.25)
    assert dsc(a, b) == pytest.approx(2 * 8**3 / (8**3 + 12**3), abs=0.01)


def test_both_directions_are_pooled() -> None:
    """A plate and the same plate with a small far satellite: 100 zero distances a side, 4 of 10 mm."""
    grid = Grid((40, 40, 20), (1.0, 1.0, 1.0))
    plate = box(grid, (5, 5, 5), (10, 10, 1))
    both = sitk.Or(plate, box(grid, (8, 8, 15), (2, 2, 1)))
    assert mean_surface_distance_mm(plate, both) == pytest.approx(4 * 10 / 204)
    assert mean_surface_distance_mm(both, plate) == pytest.approx(4 * 10 / 204)
    # 4 of 204 are fewer than 5 %, though they are 3.8 % of one direction and 0 % of the other.
    assert hd95_mm(plate, both) == 0.0
    wider = sitk.Or(plate, box(grid, (8, 8, 15), (4, 4, 1)))  # 16 of 216: 7.4 %
    assert hd95_mm(plate, wider) == pytest.approx(10.0)


def test_border_of_the_volume_is_a_surface() -> None:
    """A mask that fills the volume has its surface at the border, not none."""
    grid = Grid((9, 9, 9), (1.0, 1.0, 1.0))
    whole, middle = box(grid, (0, 0, 0), (9, 9, 9)), box(grid, (4, 4, 4), (1, 1, 1))
    distances = np.linalg.norm(np.argwhere(sitk.GetArrayFromImage(whole)) - 4.0, axis=1)
    border = np.abs(np.argwhere(sitk.GetArrayFromImage(whole)) - 4).max(axis=1) == 4
    expected = np.append(distances[border], 4.0)
    assert mean_surface_distance_mm(whole, middle) == pytest.approx(expected.mean())
    assert hd95_mm(whole, middle) == pytest.approx(np.percentile(expected, 95))


def test_where_the_masks_lie_in_the_volume_does_not_matter() -> None:
    a, b = blobs()
    padded = [sitk.ConstantPad(mask, (7, 3, 5), (2, 9, 4)) for mask in (a, b)]
    assert hd95_mm(*padded) == pytest.approx(hd95_mm(a, b), abs=1e-9)
    assert mean_surface_distance_mm(b, a) == pytest.approx(mean_surface_distance_mm(a, b), abs=1e-9)


@pytest.mark.slow  # for the import of MONAI
def test_agrees_with_monai() -> None:
    """MONAI has the same surfaces and the same mean, and the same distances where they are pooled.

    Its own HD95 is the larger of the two directions' percentiles: pooling cannot exceed that, nor lie below
    the smaller one.
    """
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    a, b = blobs()
    tensors = [torch.from_numpy(sitk.GetArrayFromImage(mask))[None, None] for mask in (a, b)]
    options = {"include_background": True, "spacing": list(a.GetSpacing()[::-1])}
    assert dsc(a, b) == pytest.approx(metrics.compute_dice(*tensors).item(), abs=1e-6)
    mean = metrics.compute_average_surface_distance(*tensors, symmetric=True, **options)
    assert mean_surface_distance_mm(a, b) == pytest.approx(mean.item(), abs=1e-4)
    _, distances, _ = metrics.utils.get_edge_surface_distance(
        tensors[0][0, 0], tensors[1][0, 0], spacing=options["spacing"], symmetric=True
    )
    assert hd95_mm(a, b) == pytest.approx(np.percentile(torch.cat(distances).numpy(), 95), abs=1e-4)
    directed = [
        metrics.compute_hausdorff_distance(*pair, percentile=95, directed=True, **options).item()
        for pair in (tensors, tensors[::-1])
    ]
    assert min(directed) < hd95_mm(a, b) < max(directed)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_is_close_to_surface_distance() -> None:
    """The package `surface-distance` comes within half a voxel.

    Its surface elements lie between the voxels and weigh as much as their area, and its surface is thicker,
    so that its distances are a little smaller; its HD95 is the larger of the two directions'.
    """
    package = pytest.importorskip("surface_distance")
    grid = Grid((60, 60, 60), (0.5, 0.5, 0.5), direction=OBLIQUE)
    a, b = ball(grid, 10.0), ball(grid, 9.0, (3.0, 1.0, 2.0))
    arrays = [sitk.GetArrayFromImage(mask).astype(bool) for mask in (a, b)]
    found = package.compute_surface_distances(*arrays, a.GetSpacing()[::-1])
    assert dsc(a, b) == pytest.approx(package.compute_dice_coefficient(*arrays))
    there_and_back = package.compute_average_surface_distance(found)
    assert mean_surface_distance_mm(a, b) == pytest.approx(np.mean(there_and_back), abs=0.25)
    assert hd95_mm(a, b) == pytest.approx(package.compute_robust_hausdorff(found, 95), abs=0.25)


def test_empty_masks() -> None:
    a, empty = box(GRID, (5, 5, 5), (4, 4, 4)), GRID.blank()
    assert dsc(a, empty) == 0.0
    assert np.isnan(dsc(empty, empty))
    for measure in (hd95_mm, mean_surface_distance_mm, gland_centroid_mm):
        assert np.isnan(measure(a, empty))
        assert np.isnan(measure(empty, a))
        assert np.isnan(measure(empty, empty))


@pytest.mark.parametrize("measure", [dsc, hd95_mm, mean_surface_distance_mm, gland_centroid_mm])
def test_masks_on_different_grids_are_refused(measure) -> None:
    a = box(GRID, (5, 5, 5), (4, 4, 4))
    moved = sitk.Image(a)
    moved.SetOrigin((10.0, -20.0, 5.5))
    with pytest.raises(ValueError, match="same grid"):
        measure(a, moved)


# Landmarks


def test_centroid_of_a_soft_label() -> None:
    soft = np.zeros((4, 5, 6))
    assert centroid_vox(soft) is None
    soft[1, 1, 1], soft[1, 1, 4] = 0.1, 0.2
    np.testing.assert_allclose(centroid_vox(soft), [1, 1, 3])
    soft[2, 3, 5] = 0.6
    np.testing.assert_allclose(centroid_vox(soft), [2, 3, 5])


def test_labels_and_points_give_the_translation_that_is_left() -> None:
    """MR = TRUS moved by 6, 3, −2 mm; initial leaves all of it, rigid 1 mm, the final transform nothing."""
    trus = landmarks_of(ball(GRID, 5.0, (-2.0, -2.0, 2.0)), ball(GRID, 4.0, (-4.0, 0.0, 2.0)))
    shift = (6.0, 3.0, -2.0)
    moved_grid = Grid(GRID.size_vox, GRID.spacing_mm, tuple(np.add(GRID.origin_mm, shift)), GRID.direction)
    moved = [moved_grid.image(sitk.GetArrayFromImage(label)) for label in trus.labels]
    mr = landmarks_of(*moved)
    stages = {
        "initial": translation((0.0, 0.0, 0.0)),
        "rigid": translation((5.0, 3.0, -2.0)),
        "transform": translation(shift),
    }
    points_only = [Landmarks(side.names, side.points_mm) for side in (mr, trus)]
    # A label cut at one half after a shift by part of a voxel: its centroid is good to half a voxel.
    for pair, tolerance_mm in (((mr, trus), 0.4), (points_only, 1e-9)):
        rows = landmark_rows(*pair, trus_grid=GRID, **stages)
        for n, found in enumerate(rows):
            assert found.name == f"L{n}"
            assert found.initial_error_mm == pytest.approx(7.0, abs=tolerance_mm)
            assert found.rigid_error_mm == pytest.approx(1.0, abs=tolerance_mm)
            assert found.error_mm == pytest.approx(0.0, abs=1e-6)
            np.testing.assert_allclose(found.fixed_mm, trus.points_mm[n], atol=1e-9)
            np.testing.assert_allclose(found.warped_mm, trus.points_mm[n], atol=1e-6)


def test_labels_may_lie_on_any_grid() -> None:
    """An MR label on a finer, unrotated grid finds the same place on the TRUS grid."""
    trus = landmarks_of(ball(GRID, 5.0))
    fine = Grid.centred(GRID.centre_mm, (50, 50, 50), (0.4, 0.4, 0.4), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    rows = landmark_rows(
        landmarks_of(ball(fine, 5.0, (2.0, 0.0, 0.0))),
        trus,
        transform=translation((2.0, 0.0, 0.0)),
        initial=translation((0.0, 0.0, 0.0)),
        trus_grid=GRID,
    )
    assert rows[0].initial_error_mm == pytest.approx(2.0, abs=0.1)
    assert rows[0].error_mm == pytest.approx(0.0, abs=0.1)
    assert rows[0].rigid_error_mm is None


def test_label_too_faint_after_the_warp_keeps_its_soft_centroid() -> None:
    """One voxel of 0.5 mm between TRUS voxels 2 mm apart never exceeds one half, but is not dropped."""
    coarse = Grid((10, 10, 10), (2.0, 2.0, 2.0))
    fine = Grid((40, 40, 40), (0.5, 0.5, 0.5))
    speck = box(fine, (17, 16, 16), (1, 1, 1))  # at 8.5, 8, 8 mm: weight 0 off its own support
    speck = sitk.Or(speck, box(fine, (16, 16, 16), (1, 1, 1)))
    rows = landmark_rows(
        landmarks_of(speck),
        landmarks_of(box(coarse, (4, 4, 4), (1, 1, 1))),
        transform=translation((0.3, 0.3, 0.3)),
        initial=translation((0.0, 0.0, 0.0)),
        trus_grid=coarse,
    )
    soft = sitk.Resample(
        sitk.Cast(speck, sitk.sitkFloat32), coarse.blank(), translation((0.3,) * 3).resampling
    )
    assert 0 < sitk.GetArrayFromImage(soft).max() < 0.5
    assert rows[0].lost is False
    np.testing.assert_allclose(rows[0].warped_mm, (8.0, 8.0, 8.0))
    assert rows[0].error_mm == pytest.approx(0.0)


@pytest.mark.parametrize("shift_vox", [17, 38])
def test_label_carried_beside_the_image_has_its_whole_error(shift_vox: int) -> None:
    """Cut by the image's border it would seem nearer; a little farther out it would seem lost."""
    label = ball(GRID, 4.0)
    rows = landmark_rows(
        landmarks_of(label),
        landmarks_of(label),
        transform=translation(tuple(-0.8 * shift_vox * GRID.axes[:, 0])),
        initial=translation((0.0, 0.0, 0.0)),
        trus_grid=GRID,
    )
    assert rows[0].error_mm == pytest.approx(0.8 * shift_vox, abs=1e-3)
    assert not rows[0].lost


@pytest.mark.parametrize(("shift_mm", "lost"), [(30.0, False), (80.0, True)])
def test_a_label_is_looked_for_as_far_along_thick_slices(shift_mm: float, lost: bool) -> None:
    """Counted in voxels of the finest side, 45 mm would be 300 mm along the slices."""
    grid = Grid((40, 40, 20), (0.3, 0.3, 2.0))
    label = ball(grid, 3.0)
    rows = landmark_rows(
        landmarks_of(label),
        landmarks_of(label),
        transform=translation((0.0, 0.0, -shift_mm)),
        initial=translation((0.0, 0.0, 0.0)),
        trus_grid=grid,
    )
    assert rows[0].lost is lost
    assert rows[0].error_mm is None if lost else rows[0].error_mm == pytest.approx(shift_mm, abs=1e-3)


def test_label_carried_out_of_the_image_is_lost_not_dropped() -> None:
    label, other = ball(GRID, 4.0), ball(GRID, 3.0, (2.0, 0.0, 0.0))
    rows = landmark_rows(
        landmarks_of(label, other),
        landmarks_of(label, other),
        transform=translation((100.0, 0.0, 0.0)),
        initial=translation((0.0, 0.0, 0.0)),
        rigid=translation((0.0, 1.0, 0.0)),
        trus_grid=GRID,
    )
    assert [found.lost for found in rows] == [True, True]
    assert [found.error_mm for found in rows] == [None, None]
    assert [found.warped_mm for found in rows] == [None, None]
    assert landmarks_lost(rows) == 2
    assert landmarks_lost(rows, stage="rigid") == landmarks_lost(rows, stage="initial") == 0
    assert np.isnan(tre_rms_mm(rows))
    assert tre_rms_mm(rows, stage="rigid") == pytest.approx(1.0, abs=0.1)
    backwards = landmark_rows(
        landmarks_of(label),
        landmarks_of(label),
        transform=translation((0.0, 0.0, 0.0)),
        initial=translation((100.0, 0.0, 0.0)),
        trus_grid=GRID,
    )
    assert np.isnan(backwards[0].initial_error_mm)
    assert backwards[0].lost is False
    assert landmarks_lost(backwards, stage="initial") == 1


def test_points_far_outside_are_never_lost() -> None:
    side = Landmarks(("apex",), np.array([[0.0, 0.0, 0.0]]))
    far = translation((300.0, 400.0, 0.0))
    rows = landmark_rows(side, side, transform=far, initial=far, trus_grid=GRID)
    assert rows[0].error_mm == pytest.approx(500.0)
    assert rows[0].lost is False


def test_landmark_empty_in_an_original_is_not_evaluated() -> None:
    nowhere = np.array([[np.nan] * 3, [1.0, 2.0, 3.0]])
    identity = translation((0.0, 0.0, 0.0))
    rows = landmark_rows(
        Landmarks(("a", "b"), nowhere),
        Landmarks(("a", "b"), np.zeros((2, 3))),
        transform=identity,
        initial=identity,
        trus_grid=GRID,
    )
    assert [found.name for found in rows] == ["b"]


@pytest.mark.parametrize("as_labels", [False, True])
def test_landmark_without_a_position_does_not_reach_the_maps(as_labels: bool) -> None:
    """The search for the inverse of a field would find no place for it, and stop the whole case."""
    field = np.full((*GRID.size_vox[::-1], 3), 0.5)
    deformation, rigid = field_transform(field, GRID), sitk.Euler3DTransform()
    stage = PointMap(
        compose(rigid, deformation), lambda points_mm: inverse_points_mm(rigid, deformation, points_mm)
    )
    side = landmarks_of(ball(GRID, 4.0), ball(GRID, 4.0))
    nowhere = replace(
        side,
        points_mm=np.array([[np.nan] * 3, side.points_mm[1]]),
        labels=(GRID.blank(), side.labels[1]) if as_labels else (),
    )
    sides = nowhere, side if as_labels else replace(side, labels=())
    (found,) = landmark_rows(*sides, transform=stage, initial=stage, trus_grid=GRID)
    assert found.name == "L1"
    assert found.error_mm == pytest.approx(np.sqrt(0.75), abs=0.2 if as_labels else 1e-3)


def test_landmarks_that_do_not_pair_are_refused() -> None:
    identity = translation((0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="same names"):
        landmark_rows(
            Landmarks(("a",), np.zeros((1, 3))),
            Landmarks(("b",), np.zeros((1, 3))),
            transform=identity,
            initial=identity,
            trus_grid=GRID,
        )


def test_tre_of_known_errors() -> None:
    rows = [row(3.0, initial_mm=6.0, rigid_mm=1.0), row(4.0, initial_mm=8.0, rigid_mm=1.0)]
    assert tre_rms_mm(rows) == pytest.approx(np.sqrt(12.5))
    assert tre_mean_mm(rows) == pytest.approx(3.5)
    assert tre_rms_mm(rows, stage="initial") == pytest.approx(np.sqrt(50))
    assert tre_mean_mm(rows, stage="rigid") == pytest.approx(1.0)
    with_lost = [*rows, row(None)]
    assert tre_rms_mm(with_lost) == pytest.approx(np.sqrt(12.5))
    assert landmarks_lost(with_lost) == 1
    np.testing.assert_allclose(landmark_errors_mm(with_lost), [3.0, 4.0])


def test_tre_without_landmarks() -> None:
    assert np.isnan([tre_rms_mm([]), tre_mean_mm([])]).all()
    assert landmarks_lost([]) == 0


# All together


def test_registration_measures_hold_every_figure() -> None:
    a, b = blobs()
    rows = (row(3.0), row(4.0), row(None))
    deformation = sitk.ScaleTransform(3, (1.1, 1.0, 1.0))
    deformation.SetCenter(GRID.centre_mm.tolist())
    found = registration_measures(a, b, rows, deformation=deformation)
    assert found.landmark_rows == rows
    assert found.values["dsc"] == dsc(a, b)
    assert found.values["hd95_mm"] == hd95_mm(a, b)
    assert found.values["msd_mm"] == mean_surface_distance_mm(a, b)
    assert found.values["gland_centroid_mm"] == gland_centroid_mm(a, b)
    assert found.values["tre_rms_mm"] == pytest.approx(np.sqrt(12.5))
    assert found.values["tre_mean_mm"] == pytest.approx(3.5)
    assert (found.values["landmarks"], found.values["landmarks_lost"]) == (3, 1)
    assert found.values["jacobian_min"] == pytest.approx(1.1)
    assert found.values["folds_percent"] == 0
    assert found.values["jacobian_log_std"] == pytest.approx(0, abs=1e-9)
    assert found.values["gland_volume_change_percent"] == pytest.approx(100 * (1 / 1.1 - 1))
    x_mm = np.abs(
        np.argwhere(sitk.GetArrayFromImage(b))[:, ::-1] @ GRID.index_to_point[0, :3]
        + GRID.origin_mm[0]
        - GRID.centre_mm[0]
    )
    assert found.values["displacement_mean_mm"] == pytest.approx(0.1 * x_mm.mean())
    assert found.values["displacement_p95_mm"] == pytest.approx(0.1 * np.percentile(x_mm, 95))
    assert found.values["displacement_max_mm"] == pytest.approx(0.1 * x_mm.max())


def test_figures_that_cannot_be_computed_are_absent() -> None:
    a = box(GRID, (5, 5, 5), (4, 4, 4))
    found = registration_measures(GRID.blank(), a)
    assert found.values == {"dsc": 0.0, "landmarks": 0.0, "landmarks_lost": 0.0}


def test_measures_of_an_earlier_stage() -> None:
    a, b = blobs()
    rows = [row(3.0, initial_mm=9.0, rigid_mm=5.0)]
    assert registration_measures(a, b, rows, stage="initial").values["tre_rms_mm"] == 9.0
    assert registration_measures(a, b, rows, stage="rigid").values["tre_rms_mm"] == 5.0
