"""Cases that are simulated while a training runs."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from loop_case import LineTask

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSTraining.data.cases import LoadedCase
from MRTRUSTraining.data.fresh import FreshSamples, FreshSettings, loaded, make_sample, samples_at
from MRTRUSTraining.segmentation_training import SegmentationSettings, SegmentationTask, prepare_sample
from MRTRUSTraining.simulation.cases import simulate
from MRTRUSTraining.simulation.sampling import sample_case
from MRTRUSTraining.trainer import LoopSettings, train

COARSE = FreshSettings(cases=2, first_seed=5, steps_a_case=3, workers=0, spacing_mm=4.0)


def name_and_volume(case: LoadedCase) -> tuple[str, int]:
    return case.name, int(sitk.GetArrayFromImage(case.mr_gland).sum())


def spacing_and_contrast(case: LoadedCase) -> tuple[float, float]:
    return case.mr.GetSpacing()[0], float(sitk.GetArrayFromImage(case.mr).mean())


@pytest.mark.slow
def test_the_window_moves_with_the_step_alone() -> None:
    source = FreshSamples(COARSE, name_and_volume)
    names = [[name for name, _ in source.at(step)] for step in (0, 2, 3, 9)]
    assert names == [["seed 5", "seed 6"]] * 2 + [["seed 6", "seed 7"], ["seed 8", "seed 9"]]
    assert FreshSamples(COARSE, name_and_volume).at(9) == source.at(9)


@pytest.mark.slow
def test_workers_make_the_same_cases() -> None:
    with_workers = FreshSamples(FreshSettings(2, 5, 3, workers=1, spacing_mm=4.0), name_and_volume)
    try:
        assert with_workers.at(3) == FreshSamples(COARSE, name_and_volume).at(3)
    finally:
        with_workers.close()


@pytest.mark.slow
def test_fresh_cases_are_drawn_as_the_settings_say() -> None:
    settings = replace(COARSE, preset="shifted", random_contrast=1.0)
    parameters = make_sample(5, settings, spacing_and_contrast)
    expected = simulate(sample_case(5, preset="shifted", spacing_mm=4.0, random_contrast=1.0))
    assert parameters == spacing_and_contrast(loaded(expected))
    assert parameters != make_sample(5, COARSE, spacing_and_contrast)


def test_a_fresh_case_is_that_of_the_command() -> None:
    case = simulate(sample_case(5, spacing_mm=4.0))
    fresh = loaded(case)
    assert fresh.truth is case.transform
    assert fresh.label_names[0] == "gland"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(fresh.mr), sitk.GetArrayFromImage(case.mr))
    for label in (*fresh.mr_labels, *fresh.trus_labels):
        assert sitk.GetArrayFromImage(label).any()


def test_samples_that_stay_are_the_same_at_every_step() -> None:
    samples = ["a", "b"]
    assert samples_at(samples, 0) is samples_at(samples, 99) is samples


@pytest.mark.slow
def test_a_segmenter_trains_on_them(tmp_path) -> None:
    settings = SegmentationSettings("MR", options={"widths": (2,) * 5}, training_vox=(32, 32, 32))
    prepare = partial(prepare_sample, settings=settings)
    source = FreshSamples(COARSE, prepare)
    task = SegmentationTask(settings, [source], [prepare(loaded(simulate(sample_case(1, spacing_mm=4.0))))])
    train(task, LoopSettings(steps=4, learning_rate=1e-3, validate_every=4, bf16=False), tmp_path)
    assert task.step == 3
    assert [sample.name for sample in source.at(task.step)] == ["seed 6", "seed 7"]


def test_the_loop_tells_the_task_its_step(tmp_path) -> None:
    task = LineTask()
    train(task, LoopSettings(steps=7, learning_rate=0.01, validate_every=7, bf16=False), tmp_path)
    assert task.step == 6


@pytest.mark.parametrize("wrong", [{"cases": 0}, {"steps_a_case": 0}, {"workers": -1}, {"first_seed": -1}])
def test_impossible_windows_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="Fresh cases"):
        FreshSettings(**{"cases": 2, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "clinicl"}, "no simulation preset 'clinicl'"),
        ({"spacing_mm": 9.0}, "voxel spacing of 0.2 to 4 mm"),
        ({"random_contrast": 1.5}, "outside 0 to 1"),
    ],
)
def test_what_the_simulator_has_not_is_refused_before_the_training(wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FreshSettings(2, **wrong)
