"""Simulated cases made while a training runs: a window of them, renewed one by one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar, Union

import numpy as np
import SimpleITK as sitk  # noqa: N813

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import Grid

from ..simulation.cases import SimulatedCase, simulate
from ..simulation.parameters import CaseParameters
from ..simulation.presets import SPACING_MM
from ..simulation.sampling import sample_case
from ..workers import Workers
from .cases import LoadedCase, centred_initial

Sample = TypeVar("Sample")
# Where a task draws from: samples that stay, or a moving window of fresh ones.
Source = Union[Sequence[Sample], "FreshSamples[Sample]"]


@dataclass(frozen=True)
class FreshSettings:
    """`cases` at a time; the oldest is replaced after every `steps_a_case` steps by the next seed's.

    `device` is where cases are rendered; `workers` processes do it ahead of need on the CPU (0: in this one,
    which a GPU wants). `preset`, `spacing_mm` and `random_contrast` are those of `sample_case`, which refuses
    impossible ones.
    """

    cases: int
    first_seed: int = 100_000
    steps_a_case: int = 20
    preset: str = "clinical"
    device: str = "cpu"
    workers: int = 1
    spacing_mm: float = SPACING_MM
    random_contrast: float | None = None

    def __post_init__(self) -> None:
        if self.cases < 1 or self.steps_a_case < 1 or self.workers < 0 or self.first_seed < 0:
            raise InputError("Fresh cases need at least one case at a time and one step a case.")
        draw_parameters(self, self.first_seed)


def draw_parameters(settings: FreshSettings, seed: int) -> CaseParameters:
    """What is drawn for the case of one seed; `InputError` for settings that the simulator has not."""
    return sample_case(
        seed,
        preset=settings.preset,
        spacing_mm=settings.spacing_mm,
        random_contrast=settings.random_contrast,
    )


def loaded(case: SimulatedCase) -> LoadedCase:
    """A simulated case as if it had been read from its files."""
    names = [
        name
        for name in case.mr_labels
        if name == "gland" or (_any(case.mr_labels[name]) and _any(case.trus_labels[name]))
    ]
    seed = f"seed {case.parameters.seed}"
    return LoadedCase(
        name=seed,
        patient=seed,
        mr=sitk.Cast(case.mr, sitk.sitkFloat32),
        trus=sitk.Cast(case.trus, sitk.sitkFloat32),
        mr_labels=tuple(case.mr_labels[name] for name in names),
        trus_labels=tuple(case.trus_labels[name] for name in names),
        label_names=tuple(names),
        initial=centred_initial(Grid.of(case.mr), Grid.of(case.trus)),
        truth=case.transform,
    )


def _any(mask: sitk.Image) -> bool:
    return bool(np.any(sitk.GetArrayViewFromImage(mask)))


class FreshSamples(Generic[Sample]):
    """Prepared samples of a moving window of seeds.

    What the window holds depends on the step alone, so an interrupted training continues to the bit.
    `prepare` must be picklable where there are workers.
    """

    def __init__(self, settings: FreshSettings, prepare: Callable[[LoadedCase], Sample]) -> None:
        self._settings, self._prepare = settings, prepare
        self._ready: OrderedDict[int, Sample] = OrderedDict()
        self._coming: dict[int, Future[Sample]] = {}
        self._workers: Workers | None = None

    def at(self, step: int) -> Sequence[Sample]:
        """The samples of the window at this step; what the next one needs is begun."""
        first = self._settings.first_seed + step // self._settings.steps_a_case
        wanted = range(first, first + self._settings.cases)
        for seed in [seed for seed in self._ready if seed < first]:
            del self._ready[seed]
        if self._settings.workers:
            for seed in range(first, wanted.stop + self._settings.workers):
                self._begin(seed)
        for seed in wanted:
            if seed not in self._ready:
                coming, workers = self._coming.pop(seed, None), self._workers
                self._ready[seed] = workers.result(coming) if workers and coming else self._make(seed)
        return [self._ready[seed] for seed in wanted]

    def _begin(self, seed: int) -> None:
        if seed in self._ready or seed in self._coming:
            return
        if self._workers is None:
            self._workers = Workers(self._settings.workers)
        self._coming[seed] = self._workers.submit(make_sample, seed, self._settings, self._prepare, threads=1)

    def _make(self, seed: int) -> Sample:
        return make_sample(seed, self._settings, self._prepare)

    def close(self) -> None:
        """End the workers; cases that they have begun are lost."""
        if self._workers is not None:
            self._workers.close()
            self._workers, self._coming = None, {}


def samples_at(source: Source[Sample], step: int) -> Sequence[Sample]:
    """What may be drawn at this step."""
    return source.at(step) if isinstance(source, FreshSamples) else source


def make_sample(
    seed: int, settings: FreshSettings, prepare: Callable[[LoadedCase], Sample], *, threads: int | None = None
) -> Sample:
    """Draw, render and prepare the case of one seed."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return prepare(loaded(simulate(draw_parameters(settings, seed), device=settings.device)))
