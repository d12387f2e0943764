"""What shows a training while it runs: lines, a bar in a terminal, and scalars for TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from MRTRUSRegistrationLib.outputs import write_text_atomically

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Pace:
    """How fast a training goes and how long it will still take."""

    seconds_a_step: float
    seconds_left: float


class Watcher(Protocol):
    """Told of every step and of every validation."""

    def stepped(self, step: int, steps: int, figures: Figures, pace: Pace) -> None: ...

    def validated(self, step: int, figures: Figures) -> None: ...

    def close(self) -> None: ...


class Lines:
    """A line every 25 steps and one for each validation."""

    def __init__(self, log: Callable[[str], None] = print) -> None:
        self._log = log

    def stepped(self, step: int, steps: int, figures: Figures, pace: Pace) -> None:
        if step % 25:
            return
        parts = " ".join(f"{key} {value:.4f}" for key, value in figures.items())
        times = f"{pace.seconds_a_step:.2f} s/step, {pace.seconds_left / 60:.0f} min left"
        self._log(f"step {step}/{steps} {parts} | {times}")

    def validated(self, step: int, figures: Figures) -> None:
        shown = {"step": step, **{key: round(value, 4) for key, value in figures.items()}}
        self._log("validation " + json.dumps(shown))

    def close(self) -> None:
        pass


class Bar:
    """A bar with the time left; validations stand above it."""

    def __init__(self, title: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        self._task = self._progress.add_task(title, total=None, figures="")
        self._progress.start()

    def stepped(self, step: int, steps: int, figures: Figures, pace: Pace) -> None:
        shown = f"loss {figures['loss']:.4f}, {pace.seconds_left / 60:.0f} min left"
        self._progress.update(self._task, completed=step, total=steps, figures=shown)

    def validated(self, step: int, figures: Figures) -> None:
        shown = ", ".join(f"{key} {value:.4f}" for key, value in figures.items())
        self._progress.console.print(f"step {step}: {shown}")

    def close(self) -> None:
        self._progress.stop()


class Clock:
    """Keeps in a file how long a run has taken up to its last checkpoint, all its parts together."""

    def __init__(self, path: Path) -> None:
        self._path, self._started = path, time.monotonic()
        self._before = read_seconds(path) or 0.0

    def stepped(self, step: int, steps: int, figures: Figures, pace: Pace) -> None:
        pass

    def validated(self, step: int, figures: Figures) -> None:
        seconds = self._before + time.monotonic() - self._started
        write_text_atomically(json.dumps({"seconds": round(seconds, 1), "step": step}) + "\n", self._path)

    def close(self) -> None:
        pass


def read_seconds(path: Path) -> float | None:
    """What a `Clock` has kept, None where there is no such file."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Scalars:
    """Loss, its parts and the validation figures as TensorBoard reads them, in a folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def stepped(self, step: int, steps: int, figures: Figures, pace: Pace) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"training/{name}", value, step)

    def validated(self, step: int, figures: Figures) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"validation/{name}", value, step)

    def close(self) -> None:
        self._writer.close()
