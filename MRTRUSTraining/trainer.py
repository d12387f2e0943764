"""The training loop: steps, validation, selection of the best, atomic checkpoints and resume."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from MRTRUSRegistrationLib.errors import InputError, RegistrationError


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train; `bf16` runs convolutions in bfloat16 where the processor has it."""

    steps: int
    learning_rate: float
    validate_every: int = 250
    seed: int = 2024
    device: str = "cpu"
    bf16: bool = True
    ema_decay: float = 0.0


Forward = Callable[..., torch.Tensor]


class Task(Protocol):
    """What is trained: a network, its loss on a random batch, and its validation."""

    network: torch.nn.Module
    # The step that is next, set by the loop: what a task draws may depend on it.
    step: int

    def loss(self, forward: Forward, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of one random batch; `forward` calls the network and returns float32."""
        ...

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Figures of the validation split; `score` decides, higher is better."""
        ...


def train(task: Task, settings: LoopSettings, folder: Path, *, log: Callable[[str], None] = print) -> Path:
    """Train to the end, from the last checkpoint in `folder` if there is one; returns the best weights."""
    folder.mkdir(parents=True, exist_ok=True)
    state = _LoopState(task, settings, folder)
    state.resume()
    started, first_step = time.monotonic(), state.step
    while state.step < settings.steps:
        figures = state.advance()
        if state.step % 25 == 0:
            seconds = (time.monotonic() - started) / (state.step - first_step)
            left_minutes = seconds * (settings.steps - state.step) / 60
            parts = " ".join(f"{key} {value:.4f}" for key, value in figures.items())
            pace = f"{seconds:.2f} s/step, {left_minutes:.0f} min left"
            log(f"step {state.step}/{settings.steps} {parts} | {pace}")
        if state.step % settings.validate_every == 0 or state.step == settings.steps:
            log("validation " + json.dumps(state.validate()))
            state.save()
    return folder / "best.pt"


class _LoopState:
    """Everything a checkpoint holds."""

    def __init__(self, task: Task, settings: LoopSettings, folder: Path) -> None:
        torch.manual_seed(settings.seed)
        self.task, self.settings, self.folder = task, settings, folder
        self.rng = np.random.default_rng(settings.seed)
        self.network = task.network.to(settings.device)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.step = 0
        self.best_score = -float("inf")

    def advance(self) -> dict[str, float]:
        settings = self.settings
        rate = settings.learning_rate * (1 - self.step / settings.steps) ** 0.9
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        self.task.step = self.step
        loss, figures = self.task.loss(self._forward, self.rng)
        if not torch.isfinite(loss):
            raise RegistrationError(
                f"The loss is not finite at step {self.step}; the last checkpoint is kept, lower the rate."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return {"loss": float(loss.detach()), **figures}

    def _forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The network in mixed precision; losses and warps stay in float32."""
        with torch.autocast(self.settings.device, torch.bfloat16, enabled=self.settings.bf16):
            return self.network(*(tensor.to(self.settings.device) for tensor in inputs)).float()

    def _update_average(self) -> None:
        decay = min(self.settings.ema_decay, self.step / (self.step + 10))
        for key, value in self.network.state_dict().items():
            self.average[key].lerp_(value.detach(), 1 - decay)

    def validate(self) -> dict[str, float]:
        """Validate the averaged weights and keep them if they are the best so far."""
        current = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        figures = self.task.validate(self.network)
        if figures["score"] > self.best_score:
            self.best_score = figures["score"]
            _save_atomically(
                {"network": self.average, "step": self.step, "figures": figures}, self._best_path
            )
        self.network.load_state_dict(current)
        return {"step": self.step, **{k: round(v, 4) for k, v in figures.items()}}

    @property
    def _best_path(self) -> Path:
        return self.folder / "best.pt"

    @property
    def _checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        content = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "best_score": self.best_score,
            "numpy_rng": json.dumps(self.rng.bit_generator.state),
            "torch_rng": torch.get_rng_state(),
            "steps": self.settings.steps,
        }
        _save_atomically(content, self._checkpoint_path)

    def resume(self) -> None:
        if not self._checkpoint_path.is_file():
            return
        content = self._read_checkpoint()
        try:
            self.network.load_state_dict(content["network"])
        except RuntimeError as error:
            raise InputError(
                f"{self._checkpoint_path} is a checkpoint of another network; use another folder."
            ) from error
        self.average = content["average"]
        self.optimiser.load_state_dict(content["optimiser"])
        self.step, self.best_score = content["step"], content["best_score"]
        self.rng.bit_generator.state = json.loads(content["numpy_rng"])
        torch.set_rng_state(content["torch_rng"].cpu())

    def _read_checkpoint(self) -> dict[str, Any]:
        path = self._checkpoint_path
        try:
            content = torch.load(path, map_location=self.settings.device, weights_only=True)
            if "torch_rng" in content:
                return content
        except (pickle.UnpicklingError, RuntimeError, EOFError, TypeError):
            pass
        raise InputError(f"{path} is not a readable checkpoint; delete it or use another folder.")


def _save_atomically(content: dict[str, Any], path: Path) -> None:
    """Write beside the target and move into place, so that a killed run never leaves half a file."""
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)
