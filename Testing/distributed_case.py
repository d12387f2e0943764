"""A program for torchrun: trains a small network on random pairs and keeps its weights and gradients."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from MRTRUSTraining import distributed
from MRTRUSTraining.registration_samples import RegistrationSample
from MRTRUSTraining.registration_settings import RegionLoss, RegistrationSettings
from MRTRUSTraining.registration_training import RegistrationTask
from MRTRUSTraining.trainer import LoopSettings, train

SIZE = (16, 16, 16)
SETTINGS = RegistrationSettings(
    network="cmsa",
    grid_vox=SIZE,
    loss=RegionLoss(mi=0.5, gland=1.0, landmark=1.0, structures="one"),
    validation_draws=1,
)


def pairs() -> list[RegistrationSample]:
    """Two pairs with two structures each, made of blobs that differ from side to side."""
    generator = torch.Generator().manual_seed(1)
    axes = torch.meshgrid(*(torch.arange(n) - 7.5 for n in SIZE), indexing="ij")
    radius = torch.stack(axes).square().sum(0).sqrt()[None]
    samples = []
    for number in range(2):
        images = torch.rand(2, 1, 1, *SIZE, generator=generator)
        gland = ((radius < 6 + number).float(), (radius < 5 + number).float())
        spot = ((radius < 2.5).float(), (radius < 2.5).float().roll(1, -1))
        labels = [torch.stack([gland[side][0], spot[side][0]])[None] for side in (0, 1)]
        samples.append(RegistrationSample(f"{number}", *images, *labels, 1.5))
    return samples


class Task(RegistrationTask):
    """Starts with a field that is not flat, so that every weight has a gradient; may end as a kill does."""

    def __init__(self, die_at: int) -> None:
        super().__init__(SETTINGS, [pairs()], pairs()[:1])
        torch.nn.init.normal_(self.network.flow.weight, std=0.1)  # type: ignore[union-attr,arg-type]
        self._die_at = die_at

    def loss(self, forward, rngs):  # type: ignore[no-untyped-def]
        if self.step == self._die_at:
            os._exit(9)
        return super().loss(forward, rngs)


def main(folder: str, batch: str, steps: str, die_at: str = "-1") -> None:
    with distributed.processes("cpu") as device:
        # Other weights in every process, so that only those of the first can make them agree.
        torch.manual_seed(distributed.rank())
        task = Task(int(die_at))
        loop = LoopSettings(
            steps=int(steps),
            learning_rate=1e-3,
            validate_every=2,
            batch=int(batch),
            bf16=False,
            device=device,
        )
        train(task, loop, Path(folder), watchers=())
        weights = task.network.state_dict()
        gradients = {name: p.grad for name, p in task.network.named_parameters()}
        name = f"process{distributed.rank()}of{distributed.count()}.pt"
        torch.save({"weights": weights, "gradients": gradients}, Path(folder) / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
