"""The benchmark of a training step, on a small grid: both networks learn, and neither is far slower."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SIZE = (32, 32, 32)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parent / "benchmarks" / "training_step.py"
    spec = importlib.util.spec_from_file_location("training_step", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # The peak of memory is taken in another process, which imports it by name.
    sys.modules["training_step"] = module
    spec.loader.exec_module(module)
    return module


def test_the_networks_are_of_equal_width(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    adam = torch.optim.Adam

    def counting(parameters, **options):  # type: ignore[no-untyped-def]
        kept = list(parameters)
        sizes[len(sizes)] = sum(parameter.numel() for parameter in kept)
        return adam(kept, **options)

    monkeypatch.setattr(torch.optim, "Adam", counting)
    sample = benchmark.pair((16, 16, 16), "cpu")
    for make in benchmark.STEPS.values():
        make(sample, bf16=False)()
    # The difference is the second encoder stream with its attention and fusions.
    assert sizes == {0: 412_411, 1: 327_331}


@pytest.mark.slow
def test_a_step_is_not_far_slower_than_the_peers(benchmark: ModuleType) -> None:
    """Two threads' noise on a small grid allows twice the limit that holds on the real one."""
    sample = benchmark.pair(SIZE, "cpu")
    steps = {name: make(sample, bf16=False) for name, make in benchmark.STEPS.items()}
    seconds = {name: [] for name in steps}
    for _ in range(4):
        for name, step in steps.items():
            seconds[name].append(benchmark._timed(step, "cpu"))
    figures = {name: benchmark.Figures(values[1:], 0.0) for name, values in seconds.items()}
    assert benchmark.ratio(figures) < 2.6
