"""The training loop: steps, validation, selection of the best, atomic checkpoints and resume.

What a step draws depends on the seed, the step and the number of the sample alone: a run that was killed goes
on to the bit, and several processes draw what one would.
"""

from __future__ import annotations

import io
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from MRTRUSRegistrationLib.errors import InputError, RegistrationError

from . import distributed
from .watching import Lines, Pace, Watcher


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    `batch` is of one process; `bf16` runs convolutions in bfloat16 where the processor has it. The rate falls
    from `learning_rate` to zero as the power `decay` of what is left, as in the official code of paper A.
    """

    steps: int
    learning_rate: float
    validate_every: int = 250
    seed: int = 2024
    device: str = "cpu"
    bf16: bool = True
    ema_decay: float = 0.0
    batch: int = 1
    decay: float = 0.9


Forward = Callable[..., torch.Tensor]


class Task(Protocol):
    """What is trained: a network, its loss on a random batch, and its validation."""

    network: torch.nn.Module
    # The step that is next, set by the loop: what a task draws may depend on it.
    step: int
    # The share 0…1 of all steps that are done, set by the loop: weights of a loss may depend on it.
    progress: float

    def loss(
        self, forward: Forward, rngs: Sequence[np.random.Generator]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of one random sample for each generator; `forward` calls the network, returns float32."""
        ...

    def validate(self, network: torch.nn.Module) -> dict[str, float]:
        """Figures of the validation split; `score` decides, higher is better."""
        ...


def train(
    task: Task,
    settings: LoopSettings,
    folder: Path,
    *,
    identity: str = "",
    watchers: Sequence[Watcher] | None = None,
) -> Path:
    """Train to the end, from the last checkpoint in `folder` if there is one; returns the best weights.

    A checkpoint that another `identity` wrote is refused with `InputError`, see `check_checkpoint`. Watchers
    see the first of several processes; by default lines are printed. `RegistrationError` where the loss is
    not finite, or no validation was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _LoopState(task, settings, folder, identity)
    state.resume()
    watching = [] if not distributed.is_first() else [Lines()] if watchers is None else list(watchers)
    started, first_step = time.monotonic(), state.step
    while state.step < settings.steps:
        figures = state.advance()
        seconds = (time.monotonic() - started) / (state.step - first_step)
        pace = Pace(seconds, seconds * (settings.steps - state.step))
        for watcher in watching:
            watcher.stepped(state.step, settings.steps, figures, pace)
        if state.step % settings.validate_every == 0 or state.step == settings.steps:
            if distributed.is_first():
                validation = state.validate()
                state.save()
                for watcher in watching:
                    watcher.validated(state.step, validation)
            distributed.wait()
    best = folder / "best.pt"
    if not best.is_file():
        raise RegistrationError(f"No validation gave a finite figure, so there is no {best}; {_LOWER}.")
    return best


_LOWER = "start again in another folder, with a lower learning rate"


class _LoopState:
    """Everything a checkpoint holds."""

    def __init__(self, task: Task, settings: LoopSettings, folder: Path, identity: str) -> None:
        self.task, self.settings, self.folder, self.identity = task, settings, folder, identity
        self.network = _channels_last(task.network.to(settings.device))
        distributed.copy_from_first(self.network)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.step = 0
        self.best_score = -float("inf")

    def advance(self) -> dict[str, float]:
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - self.step / settings.steps) ** settings.decay
        self.network.train()
        self.task.step = self.step
        self.task.progress = self.step / settings.steps
        loss, figures = self.task.loss(self._forward, self._generators())
        mean_loss = distributed.mean(loss)
        if not torch.isfinite(mean_loss):
            raise RegistrationError(
                f"The loss is not finite at step {self.step}; {_LOWER} (the last checkpoint is kept)."
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.network)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimiser.step()
        self.step += 1
        self._update_average()
        return {"loss": float(mean_loss), **figures}

    def _generators(self) -> list[np.random.Generator]:
        """One generator for each sample of this process; torch's own, as for dropout, is seeded alike."""
        seed, first = [self.settings.seed, self.step], distributed.rank() * self.settings.batch
        torch.manual_seed(int(np.random.SeedSequence([*seed, first]).generate_state(1)[0]))
        return [np.random.default_rng([*seed, first + n]) for n in range(self.settings.batch)]

    def _forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The network in mixed precision; losses and warps stay in float32."""
        kind = torch.device(self.settings.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.settings.bf16):
            return self.network(*(tensor.to(self.settings.device) for tensor in inputs)).float()

    def _update_average(self) -> None:
        decay = min(self.settings.ema_decay, self.step / (self.step + 10))
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value.detach(), 1 - decay)
            else:
                self.average[key].copy_(value)

    def validate(self) -> dict[str, float]:
        """Validate the averaged weights and keep them if they are the best so far."""
        current = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        figures = self.task.validate(self.network)
        if figures["score"] > self.best_score:
            self.best_score = figures["score"]
            record = {"network": self.average, "step": self.step, "figures": figures}
            _save_atomically({**record, "row": self.identity}, self._best_path)
        self.network.load_state_dict(current)
        return figures

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
            "steps": self.settings.steps,
            "row": self.identity,
        }
        _save_atomically(content, self._checkpoint_path)

    def resume(self) -> None:
        content = distributed.of_first(partial(_read_checkpoint, self.folder, self.identity))
        if content is None:
            return
        try:
            self.network.load_state_dict(content["network"])
        except RuntimeError as error:
            raise InputError(
                f"{self._checkpoint_path} is a checkpoint of another network; use another folder."
            ) from error
        self.average = {key: value.to(self.settings.device) for key, value in content["average"].items()}
        self.optimiser.load_state_dict(content["optimiser"])
        self.step, self.best_score = content["step"], content["best_score"]


def steps_done(folder: Path) -> int | None:
    """How many steps a folder's checkpoint has; None where there is none that can be read."""
    path = folder / "checkpoint.pt"
    content = read_saved(path, {"step"}) if path.is_file() else None
    return None if content is None else int(content["step"])


def check_checkpoint(folder: Path, identity: str, steps: int) -> None:
    """`InputError` where a folder's checkpoint is damaged, longer than `steps`, or another `identity`'s.

    An identity is a row's name and the fingerprint of its settings. Where the folder has a record (run.json),
    settings are compared by that, and the name alone counts: earlier versions made fingerprints otherwise.
    """
    content = _read_checkpoint(folder, identity)
    if content is not None and content["step"] > steps:
        raise InputError(
            f"{folder} has {content['step']} steps already, more than {steps}; use another folder."
        )


def _read_checkpoint(folder: Path, identity: str) -> dict[str, Any] | None:
    """The checkpoint in a folder, None where there is none yet.

    One without an identity is of a run that had no row.
    """
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return None
    content = read_saved(path, {"network", "average", "optimiser", "step", "best_score"})
    if content is None:
        raise InputError(f"{path} is not a readable checkpoint; delete it or use another folder.")
    found = content.get("row", "")
    if (folder / "run.json").is_file():
        same = found.partition(" ")[0] == identity.partition(" ")[0]
    else:
        same = found == identity
    if found and identity and not same:
        raise InputError(f"{path} is a checkpoint of the row {found}, not of {identity}; use another folder.")
    return content


def _channels_last(network: torch.nn.Module) -> torch.nn.Module:
    """The network with its 3-D convolutions laid out as bfloat16 wants them: they take a third less time."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network


def read_saved(path: Path, needed: set[str]) -> dict[str, Any] | None:
    """What a run saved in a file, on the CPU; None where the file is damaged or lacks what is `needed`."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError):
        return None
    return content if isinstance(content, dict) and needed <= set(content) else None


def _save_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Write beside the target and move into place, so that a killed run never leaves half a file."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    temporary = path.with_suffix(".tmp")
    try:
        # Not by torch: where the disk is full it ends in an error of its own.
        temporary.write_bytes(buffer.getbuffer())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
