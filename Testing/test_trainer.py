"""The training loop: resuming, selection, checkpoints and failures."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import loop_case
import pytest
import torch
from loop_case import LineTask

from MRTRUSRegistrationLib.errors import InputError, RegistrationError
from MRTRUSTraining.trainer import train
from MRTRUSTraining.watching import Lines


def run(folder: Path, task: LineTask | None = None, *, steps: int = 40) -> LineTask:
    task = task or LineTask()
    train(task, loop_case.settings(steps), folder, watchers=())
    return task


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def assert_same(a: object, b: object) -> None:
    """Equal to the bit, through dictionaries and lists."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


class Stop(Exception):
    """Ends a run in the middle of a step, as a kill does."""


def interrupted(folder: Path, *, after: int) -> LineTask:
    task = LineTask()
    whole = task.loss

    def loss(*arguments: object) -> object:
        if len(task.losses) == after:
            raise Stop
        return whole(*arguments)  # type: ignore[arg-type]

    task.loss = loss  # type: ignore[method-assign,assignment]
    with pytest.raises(Stop):
        run(folder, task)
    return task


@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_of_either_dimension_are_trained(tmp_path: Path, dimensions: int) -> None:
    """Only 3-D convolutions know the layout that makes them fast."""
    kind = torch.nn.Conv2d if dimensions == 2 else torch.nn.Conv3d
    task = LineTask()
    first = torch.nn.Unflatten(1, (1,) * (dimensions + 1))
    task.network = torch.nn.Sequential(first, kind(1, 4, 1), torch.nn.Flatten(), torch.nn.Linear(4, 1))
    run(tmp_path, task)
    assert task.losses[-1] < task.losses[0]


def test_training_learns(tmp_path: Path) -> None:
    task = run(tmp_path, steps=120)
    assert sum(task.losses[-20:]) < 0.2 * sum(task.losses[:20])
    assert torch.load(tmp_path / "best.pt", weights_only=True)["figures"]["score"] > -1.0


def test_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    assert run(tmp_path / "a").losses == run(tmp_path / "b").losses
    assert_same(checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b"))


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    other = LineTask()
    train(other, replace(loop_case.settings(), seed=7), tmp_path / "b", watchers=())
    assert run(tmp_path / "a").losses[1:] != other.losses[1:]


@pytest.mark.parametrize("after", [10, 17, 39])
def test_a_resumed_run_is_an_uninterrupted_one_to_the_bit(tmp_path: Path, after: int) -> None:
    whole = run(tmp_path / "whole")
    first = interrupted(tmp_path / "parts", after=after)
    second = run(tmp_path / "parts")
    kept = after // 10 * 10
    assert len(second.losses) == 40 - kept, "it must go on from the checkpoint, not start again"
    assert first.losses[:kept] + second.losses == whole.losses
    assert_same(checkpoint(tmp_path / "parts"), checkpoint(tmp_path / "whole"))
    best = [torch.load(tmp_path / name / "best.pt", weights_only=True) for name in ("parts", "whole")]
    assert_same(*best)


def test_a_run_stopped_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    interrupted(tmp_path / "parts", after=6)
    assert run(tmp_path / "parts").losses == run(tmp_path / "whole").losses


@pytest.mark.slow
def test_a_killed_process_resumes_to_the_bit(tmp_path: Path) -> None:
    program = [sys.executable, loop_case.__file__, str(tmp_path / "killed")]
    process = subprocess.Popen([*program, "0.03"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "checkpoint.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert checkpoint(tmp_path / "killed")["step"] < 40
    subprocess.run([*program, "0"], check=True, stdout=subprocess.DEVNULL)
    run(tmp_path / "whole")
    assert_same(checkpoint(tmp_path / "killed"), checkpoint(tmp_path / "whole"))


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    assert run(tmp_path).losses == []
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_the_best_weights_are_those_of_the_highest_score(tmp_path: Path) -> None:
    run(tmp_path, LineTask(scores=(0.1, 0.7, 0.6, 0.2)))
    record = torch.load(tmp_path / "best.pt", weights_only=True)
    assert record["step"] == 20
    assert record["figures"] == {"score": 0.7}
    run(tmp_path / "half", LineTask(scores=(0.1, 0.7)), steps=20)
    assert checkpoint(tmp_path)["best_score"] == 0.7


def test_a_resumed_run_remembers_the_best_score(tmp_path: Path) -> None:
    task = LineTask(scores=(0.9,), nan_at=15)
    with pytest.raises(RegistrationError):
        run(tmp_path, task)
    run(tmp_path, LineTask(scores=(0.5, 0.6, 0.8)))
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == 10


def test_what_is_kept_is_the_running_average(tmp_path: Path) -> None:
    """best.pt holds the averaged weights, the checkpoint both; without averaging they are one."""
    run(tmp_path / "average", LineTask(scores=(1.0,)), steps=10)
    content = checkpoint(tmp_path / "average")
    best = torch.load(tmp_path / "average" / "best.pt", weights_only=True)["network"]
    assert_same(best, content["average"])
    assert not torch.equal(content["network"]["0.weight"], content["average"]["0.weight"])
    plain = replace(loop_case.settings(10), ema_decay=0.0)
    train(LineTask(scores=(1.0,)), plain, tmp_path / "plain", watchers=())
    content = checkpoint(tmp_path / "plain")
    assert_same(content["network"], content["average"])


def test_the_average_is_that_of_its_formula(tmp_path: Path) -> None:
    weights = []
    task = LineTask()
    start = task.network.state_dict()["3.bias"].clone()
    whole = task.loss

    def loss(*arguments: object) -> object:
        weights.append(task.network.state_dict()["3.bias"].clone())
        return whole(*arguments)  # type: ignore[arg-type]

    task.loss = loss  # type: ignore[method-assign,assignment]
    run(tmp_path, task, steps=10)
    content = checkpoint(tmp_path)
    expected = start
    for step, value in enumerate([*weights[1:], content["network"]["3.bias"]], start=1):
        decay = min(0.9, step / (step + 10))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(content["average"]["3.bias"], expected, atol=1e-6, rtol=0)


def test_the_rate_falls_with_the_power_nine_tenths(tmp_path: Path) -> None:
    run(tmp_path, steps=40)
    # The last step was number 39.
    assert checkpoint(tmp_path)["optimiser"]["param_groups"][0]["lr"] == pytest.approx(0.02 * (1 / 40) ** 0.9)


def test_the_loop_tells_the_task_the_share_that_is_done(tmp_path: Path) -> None:
    def shares(folder: Path, steps: int) -> list[float]:
        task, seen = LineTask(), []
        whole = task.loss

        def loss(*arguments: object) -> object:
            seen.append(task.progress)
            return whole(*arguments)  # type: ignore[arg-type]

        task.loss = loss  # type: ignore[method-assign,assignment]
        run(folder, task, steps=steps)
        return seen

    assert shares(tmp_path, 10) == pytest.approx([n / 10 for n in range(10)])
    # A run that goes on for longer is where its new length puts it.
    assert shares(tmp_path, 20) == pytest.approx([n / 20 for n in range(10, 20)])


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match="not finite at step 15"):
        run(tmp_path, LineTask(nan_at=15))
    content = checkpoint(tmp_path)
    assert content["step"] == 10
    assert all(torch.isfinite(value).all() for value in content["network"].values())
    run(tmp_path)
    run(tmp_path / "whole")
    assert_same(checkpoint(tmp_path), checkpoint(tmp_path / "whole"))


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=10)
    other = LineTask()
    other.network = torch.nn.Linear(1, 1)
    with pytest.raises(InputError, match="another network"):
        run(tmp_path, other)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        run(tmp_path)
    torch.save({"weights": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match=r"checkpoint\.pt"):
        run(tmp_path)


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that breaks off half-way: the old file stays whole and the run resumes from it."""
    run(tmp_path, LineTask(scores=(1.0,)), steps=10)
    whole_write, written = Path.write_bytes, []

    def breaks_off(path: Path, content: bytes) -> int:
        written.append(path)
        whole_write(path, bytes(content)[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", breaks_off)
    with pytest.raises(OSError, match="No space"):
        run(tmp_path, LineTask(scores=(0.5,)), steps=20)
    assert written[0].name != "checkpoint.pt"
    assert not written[0].exists()
    assert checkpoint(tmp_path)["step"] == 10
    monkeypatch.undo()
    assert len(run(tmp_path, steps=20).losses) == 10


def test_bfloat16_is_used_where_asked_and_results_are_single_precision(tmp_path: Path) -> None:
    kinds = []

    class Watching(LineTask):
        def loss(self, forward, rngs):  # type: ignore[no-untyped-def]
            self.network[0].register_forward_hook(lambda *hook: kinds.append(hook[2].dtype))
            kinds.append(forward(torch.ones(1, 1)).dtype)
            return super().loss(forward, rngs)

    half = replace(loop_case.settings(1), bf16=True, validate_every=10)
    train(Watching(), half, tmp_path / "a", watchers=())
    assert kinds[:2] == [torch.bfloat16, torch.float32]
    kinds.clear()
    train(Watching(), replace(half, bf16=False), tmp_path / "b", watchers=())
    assert kinds[:2] == [torch.float32, torch.float32]


def test_progress_is_logged(tmp_path: Path) -> None:
    lines: list[str] = []
    train(LineTask(), loop_case.settings(30), tmp_path, watchers=[Lines(lines.append)])
    assert [line.split()[0] for line in lines] == ["validation", "validation", "step", "validation"]
    assert lines[2].startswith("step 25/30 loss ")
