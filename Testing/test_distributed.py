"""Training on two processes that torchrun starts: the same as on one with twice the batch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed_case
import pytest
import torch
from row_case import registration_content, tiny_data, write_row
from torch.testing._internal.distributed.fake_pg import FakeStore

from MRTRUSTraining import distributed
from MRTRUSTraining.networks.named import build_registration_network

OPTIONS: dict[str, dict[str, Any]] = {
    "localnet": {"width": 4, "depth": 2},
    "voxelmorph": {"integration_steps": 2},
}


def torchrun(folder: Path, *, batch: int, steps: int, die_at: int = -1) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = [distributed_case.__file__, str(folder), str(batch), str(steps), str(die_at)]
    subprocess.run([*command, *program], check=True, timeout=500, capture_output=True)


def kept(folder: Path, process: str) -> dict[str, Any]:
    return torch.load(folder / f"{process}.pt", weights_only=True)


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], atol: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=atol, rtol=1e-3, msg=name)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    torchrun(folder, batch=1, steps=4)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    distributed_case.main(str(folder), "2", "4")
    return folder


@pytest.mark.slow
def test_two_processes_have_the_gradients_and_the_weights_of_one(together: Path, alone: Path) -> None:
    one = kept(alone, "process0of1")
    for process in ("process0of2", "process1of2"):
        two = kept(together, process)
        # Sums of single-precision numbers in another order.
        assert_equal(two["gradients"], one["gradients"], atol=1e-6)
        assert_equal(two["weights"], one["weights"], atol=1e-5)
    assert max(float(value.abs().max()) for value in one["gradients"].values()) > 1e-2


@pytest.mark.slow
def test_both_processes_end_with_the_same_weights_to_the_bit(together: Path) -> None:
    first, second = (kept(together, f"process{n}of2")["weights"] for n in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_two_killed_processes_go_on_to_the_bit(together: Path, tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        torchrun(tmp_path, batch=1, steps=4, die_at=3)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    torchrun(tmp_path, batch=1, steps=4)
    again, whole = kept(tmp_path, "process0of2")["weights"], kept(together, "process0of2")["weights"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def said_by_two(folder: Path, network: str) -> str:
    """What two processes print while they train a tiny row with this network."""
    content = registration_content(network=network, options=OPTIONS[network], inputs="images")
    path = write_row(folder / "tiny.yaml", content)
    data = tiny_data(folder / "data")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = ["-m", "MRTRUSTraining.cli", "run", str(path), "--data", str(data), "--steps", "1"]
    given = [*command, *program, "--output", str(folder / "runs")]
    return subprocess.run(given, check=True, timeout=500, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(("network", "times"), [("localnet", 1), ("voxelmorph", 0)])
def test_rows_with_batch_norm_say_that_processes_differ_on_cpus(
    tmp_path: Path, network: str, times: int
) -> None:
    said = said_by_two(tmp_path, network)
    assert "best.pt" in said
    sentence = "Batch statistics of the row tiny are those of each process on CPUs: 2 processes"
    assert said.count(sentence) == said.count("Batch statistics") == times


@pytest.fixture
def one_of_two() -> Iterator[None]:
    """As if another process were there, which is never waited for."""
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_of_two")
def test_batch_norms_are_shared_on_gpus_alone() -> None:
    network = build_registration_network("localnet", **OPTIONS["localnet"])
    names = list(network.state_dict())
    norms = [name for name, each in network.named_modules() if isinstance(each, torch.nn.BatchNorm3d)]
    assert norms
    assert not distributed.share_batch_statistics(network, "cpu")
    assert isinstance(network.get_submodule(norms[0]), torch.nn.BatchNorm3d)
    assert distributed.share_batch_statistics(network, "cuda:0")
    assert all(isinstance(network.get_submodule(name), torch.nn.SyncBatchNorm) for name in norms)
    assert list(network.state_dict()) == names
    without = build_registration_network("voxelmorph", **OPTIONS["voxelmorph"])
    assert distributed.share_batch_statistics(without, "cpu")


def test_one_process_is_all_there_is_without_torchrun() -> None:
    assert (distributed.rank(), distributed.count(), distributed.is_first()) == (0, 1, True)
    with distributed.processes("cpu") as device:
        assert device == "cpu"
    assert distributed.of_first(lambda: 3) == distributed.one_after_another(lambda: 3) == 3
    assert float(distributed.mean(torch.tensor(2.0))) == 2.0
    assert distributed.share_batch_statistics(torch.nn.BatchNorm3d(1), "cpu")
    network = torch.nn.Linear(1, 1)
    network(torch.ones(1, 1)).sum().backward()
    before = network.weight.grad
    distributed.average_gradients(network)
    assert network.weight.grad is before
