"""Blend, checkerboard and split, voxel by voxel against SimpleITK; flicker and rock against the clock."""

from __future__ import annotations

import time

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

slicer = pytest.importorskip("slicer", reason="needs slicer-core (pip install mrtrus[slicer])")

from mrml_case import commit_in_memory  # noqa: E402
from scene_fixtures import oblique  # noqa: E402
from shapes import points_mm  # noqa: E402

from MRTRUSRegistrationLib.errors import InputError  # noqa: E402
from MRTRUSRegistrationLib.geometry import Grid, resample  # noqa: E402
from MRTRUSRegistrationLib.mrml.comparison import (  # noqa: E402
    Comparison,
    RegisteredImages,
    checkerboard_pattern,
    flicker_opacity,
    grey_levels,
    rock_opacity,
    split_pattern,
    window_of,
)
from MRTRUSRegistrationLib.mrml.readers import image_of, volume_grid  # noqa: E402
from MRTRUSRegistrationLib.transforms import compose  # noqa: E402

GRID = Grid((12, 10, 8), (1.0, 1.2, 1.5), (3.0, -8.0, 21.0), oblique((12, -7, 20)))


@pytest.fixture(scope="module")
def committed():
    return commit_in_memory(pixel_type=sitk.sitkFloat32)


@pytest.fixture
def comparison(committed):
    return Comparison(committed.case, RegisteredImages(committed.case))


def _shown(node) -> np.ndarray:
    return sitk.GetArrayFromImage(image_of(node))


def _expected_grey(committed, stage: str) -> tuple[np.ndarray, np.ndarray]:
    """MR and TRUS as grey values on the TRUS node's voxels, by SimpleITK from the run's own transforms."""
    result = committed.result
    transform = {
        "before": result.initial,
        "rigid": result.rigid.transform,
        "deformable": compose(result.rigid.transform, result.deformation.transform),
    }[stage]
    mr = sitk.GetArrayFromImage(resample(result.mr, volume_grid(committed.trus), transform))
    trus = sitk.GetArrayFromImage(image_of(committed.trus))
    grey = []
    for array, node in ((mr, committed.mr), (trus, committed.trus)):
        window, level = window_of(node)
        grey.append(np.clip((array - level + window / 2) / window * 255, 0, 255))
    return grey[0], grey[1]


@pytest.mark.parametrize("stage", ["before", "rigid", "deformable"])
def test_checkerboard_is_mr_and_trus_in_turn(committed, comparison, stage):
    shown = _shown(comparison.checkerboard(stage, 5))
    mr, trus = _expected_grey(committed, stage)
    of_mr = checkerboard_pattern(volume_grid(committed.trus), 5)
    assert 0.35 < of_mr.mean() < 0.65
    assert np.abs(shown - np.where(of_mr, mr, trus)).max() <= 1.01
    # The two images differ, or the pattern would not matter.
    assert np.abs(mr - trus).mean() > 20


class _OneAddress:
    """Images whose MR is another array at every request, at the address of the one before where that is free.

    The stages of a case reuse addresses in the same way when an image changes, but not every time.
    """

    def __init__(self, images: RegisteredImages) -> None:
        self.grid, self.trus = images.grid, images.trus
        self.grey = np.zeros_like(images.trus(), np.float32)
        self._address = 0

    def mr(self, stage: str) -> np.ndarray:
        found = [self.grey.copy()]
        while id(found[-1]) != self._address and len(found) < 50:
            found.append(self.grey.copy())
        self._address = id(found[-1])
        return found[-1]


def test_another_mr_at_the_same_address_is_shown(committed):
    window, level = window_of(committed.mr)
    images = _OneAddress(RegisteredImages(committed.case))
    comparison = Comparison(committed.case, images)
    for sign, grey in [(-1, 0), (1, 255)] * 3:
        images.grey[...] = level + sign * window
        assert np.unique(_shown(comparison.blend("rigid", 1.0))).tolist() == [grey]


def test_the_stages_differ(committed, comparison):
    rigid = _shown(comparison.blend("rigid", 1.0)).astype(float)
    deformable = _shown(comparison.blend("deformable", 1.0)).astype(float)
    assert np.abs(rigid - deformable).max() > 20


@pytest.mark.parametrize("opacity", [0.0, 0.3, 1.0])
def test_blend(committed, comparison, opacity):
    mr, trus = _expected_grey(committed, "rigid")
    shown = _shown(comparison.blend("rigid", opacity))
    assert np.abs(shown - (mr * opacity + trus * (1 - opacity))).max() <= 1.01


def test_split_in_the_patient_not_in_the_array(committed, comparison):
    shown = _shown(comparison.split("rigid", 0.4, "left-right"))
    mr, trus = _expected_grey(committed, "rigid")
    left_mm = points_mm(volume_grid(committed.trus))[..., 0]
    # LPS x grows to the left, so that the left side of the patient is where x is largest.
    of_mr = left_mm > left_mm.max() - 0.4 * np.ptp(left_mm)
    assert (
        np.abs(shown - np.where(of_mr, mr, trus))[
            np.abs(left_mm - left_mm.max() + 0.4 * np.ptp(left_mm)) > 0.1
        ].max()
        <= 1.01
    )


@pytest.mark.parametrize(
    ("axis", "lps_axis", "sign"),
    [("left-right", 0, -1), ("posterior-anterior", 1, -1), ("inferior-superior", 2, 1)],
)
def test_split_pattern_runs_along_the_patient(axis, lps_axis, sign):
    along = sign * points_mm(GRID)[..., lps_axis]
    for position in (0.25, 0.7):
        assert np.array_equal(
            split_pattern(GRID, position, axis), along < along.min() + position * np.ptp(along)
        )
    assert not split_pattern(GRID, 0.0, axis).any()
    assert split_pattern(GRID, 1.0, axis).all()


def test_checkerboard_squares_are_cubes_in_millimetres():
    pattern = checkerboard_pattern(Grid((40, 20, 10), (1.0, 2.0, 4.0)), 4)
    assert np.array_equal(np.flatnonzero(np.diff(pattern[0, 0].astype(int))) + 1, [10, 20, 30])
    assert np.array_equal(np.flatnonzero(np.diff(pattern[0, :, 0].astype(int))) + 1, [5, 10, 15])
    assert np.array_equal(np.flatnonzero(np.diff(pattern[:, 0, 0].astype(int))) + 1, [2, 5, 7])


def test_a_checkerboard_needs_squares(comparison):
    with pytest.raises(InputError, match="0 squares"):
        comparison.checkerboard("rigid", 0)


def test_grey_levels_follow_the_window():
    assert grey_levels(np.array([0, 50, 100, 150, 200]), 100.0, 100.0).tolist() == [0, 0, 128, 255, 255]


def test_the_mr_is_computed_once_until_something_changes(committed):
    images = RegisteredImages(committed.case)
    first = images.mr("deformable")
    assert images.mr("deformable") is first
    assert images.mr("rigid") is not first
    grid = committed.case.deformation.GetTransformFromParent()
    grid.SetDisplacementScale(0.0)
    # A deformation that is scaled to nothing leaves the rigid alignment.
    assert np.abs(images.mr("deformable") - images.mr("rigid")).max() < 0.01
    grid.SetDisplacementScale(1.0)
    assert np.abs(images.mr("deformable") - first).max() < 0.01
    committed.mr.GetImageData().Modified()
    assert images.mr("rigid") is images.mr("rigid")


def test_one_node_is_used_over_and_over(committed, comparison):
    nodes = {comparison.checkerboard("rigid", n).GetID() for n in range(2, 6)}
    nodes |= {comparison.split("before", 0.5, "left-right").GetID()}
    assert len(nodes) == 1


@pytest.mark.parametrize("which", ["mr", "trus"])
def test_a_deleted_image_is_said_in_one_sentence(which):
    committed = commit_in_memory(landmarks=0)
    comparison = Comparison(committed.case, RegisteredImages(committed.case))
    committed.scene.RemoveNode(getattr(committed, which))
    with pytest.raises(InputError, match=f"The {which.upper()} volume is no longer in the scene"):
        comparison.split("rigid", 0.5, "left-right")


def test_flicker_shows_one_image_at_a_time():
    assert [flicker_opacity(t) for t in (0.0, 0.49, 0.5, 0.99, 1.0, 7.6)] == [0, 0, 1, 1, 0, 1]
    assert flicker_opacity(0.3, period_s=0.5) == 1


def test_rocking_starts_with_the_trus_and_comes_back_to_it():
    assert [rock_opacity(t) for t in (0.0, 0.75, 1.5, 2.25, 3.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])


@pytest.mark.slow
def test_a_change_takes_less_than_a_tenth_of_a_second():
    size = {"trus_size_vox": (120, 128, 128), "trus_spacing_mm": (0.8,) * 3, "mr_size_vox": (128, 128, 40)}
    committed = commit_in_memory(landmarks=0, deformable=False, **size)
    comparison = Comparison(committed.case, RegisteredImages(committed.case))
    comparison.checkerboard("rigid", 4)
    times = []
    for squares in range(3, 10):
        start = time.process_time()
        comparison.checkerboard("rigid", squares)
        comparison.split("rigid", squares / 10, "left-right")
        times.append((time.process_time() - start) / 2)
    assert np.median(times) < 0.1
