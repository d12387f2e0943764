"""A training task that takes milliseconds, and a program that trains it so that it can be killed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from MRTRUSTraining.trainer import Forward, LoopSettings, train


class LineTask:
    """Learns y = 3x − 1 from random batches, with dropout, so that both random generators matter."""

    def __init__(self, *, pause_s: float = 0.0, scores: tuple[float, ...] = (), nan_at: int = -1) -> None:
        torch.manual_seed(99)
        self.step, self.progress = 0, 0.0
        self.network: torch.nn.Module = torch.nn.Sequential(
            torch.nn.Linear(1, 16), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1)
        )
        self.losses: list[float] = []
        self._pause_s, self._scores, self._nan_at = pause_s, list(scores), nan_at

    def loss(
        self, forward: Forward, rngs: Sequence[np.random.Generator]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        time.sleep(self._pause_s)
        x = torch.from_numpy(np.concatenate([rng.normal(size=(8, 1)) for rng in rngs]).astype(np.float32))
        value = (forward(x) - (3 * x - 1)).square().mean()
        if len(self.losses) == self._nan_at:
            value = value * float("nan")
        self.losses.append(float(value.detach()))
        return value, {}

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        if self._scores:
            return {"score": self._scores.pop(0)}
        x = torch.linspace(-1, 1, 33)[:, None]
        with torch.inference_mode():
            return {"score": -float((network(x) - (3 * x - 1)).square().mean())}


def settings(steps: int = 40) -> LoopSettings:
    return LoopSettings(steps=steps, learning_rate=0.02, validate_every=10, bf16=False, ema_decay=0.9)


def main(folder: str, pause_s: str) -> None:
    train(LineTask(pause_s=float(pause_s)), settings(), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
