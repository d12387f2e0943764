"""What shows a training: scalars that TensorBoard reads back, the clock, the bar."""

from __future__ import annotations

import json
from pathlib import Path

import loop_case
import pytest
from loop_case import LineTask

from MRTRUSTraining.trainer import train
from MRTRUSTraining.watching import Bar, Clock, Pace, Scalars, read_seconds


def test_scalars_are_those_of_the_run(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    task, scalars = LineTask(), Scalars(tmp_path / "tensorboard")
    train(task, loop_case.settings(20), tmp_path, watchers=[scalars])
    scalars.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = events.Scalars("training/loss")
    assert [event.step for event in losses] == list(range(1, 21))
    assert [event.value for event in losses] == pytest.approx(task.losses)
    assert [event.step for event in events.Scalars("validation/score")] == [10, 20]


def test_the_clock_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "time.json"
    assert read_seconds(path) is None
    Clock(path).validated(5, {})
    first = read_seconds(path)
    assert first is not None
    path.write_text(json.dumps({"seconds": 100.0, "step": 5}), encoding="utf-8")
    Clock(path).validated(10, {})
    assert 100.0 <= (read_seconds(path) or 0) < 160.0
    assert json.loads(path.read_text(encoding="utf-8"))["step"] == 10
    path.write_text("nothing", encoding="utf-8")
    assert read_seconds(path) is None


def test_the_bar_says_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("ours-2")
    bar.stepped(30, 60, {"loss": 0.25}, Pace(2.0, 120.0))
    bar.validated(30, {"score": 0.5})
    bar.close()
    shown = capsys.readouterr().out
    for part in ("ours-2", "30/60", "loss 0.2500", "2 min left", "step 30: score 0.5000"):
        assert part in shown
