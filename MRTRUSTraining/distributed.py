"""Training on several processes, as torchrun starts them: on one machine or many, CPU (gloo) or GPU (nccl).

Without torchrun everything here is what one process does alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from .devices import check_device

Value = TypeVar("Value")
# The first process validates and prepares data alone, which may take long.
_PATIENCE = timedelta(hours=6)


@contextmanager
def processes(device: str) -> Iterator[str]:
    """Join the processes of torchrun, if it started this one; yields the device that this process uses.

    Entered again inside, it stays as it is. `InputError` where the device cannot be used.
    """
    alone = "RANK" not in os.environ
    own = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and not alone else device
    check_device(own)
    if alone:
        yield own
        return
    if distributed.is_initialized():
        yield own
        return
    if own != device:
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield own
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process among all, from zero."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes, validates and reports; exactly one does."""
    return rank() == 0


def wait() -> None:
    """Until every process has come here."""
    if count() > 1:
        distributed.barrier()


def of_first(make: Callable[[], Value]) -> Value:
    """What `make` gives in the first process, for all; the others do not call it."""
    if count() == 1:
        return make()
    content: list[Value | None] = [make() if is_first() else None]
    distributed.broadcast_object_list(content, src=0)
    return content[0]  # type: ignore[return-value]


def one_after_another(make: Callable[[], Value]) -> Value:
    """Call `make` in the first process, then in all the others, which find what it left on disk."""
    if is_first():
        value = make()
        wait()
        return value
    wait()
    return make()


def copy_from_first(network: torch.nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    if count() > 1:
        for tensor in network.state_dict().values():
            distributed.broadcast(tensor, src=0)


def share_batch_statistics(network: torch.nn.Module, device: str) -> bool:
    """Let batch norms use the samples of all processes; False where they stay with those of each.

    Torch has such a norm for GPUs alone.
    """
    # The common base of batch norms of every dimension, which torch does not export.
    kind = torch.nn.modules.batchnorm._BatchNorm
    if count() == 1 or not any(isinstance(module, kind) for module in network.modules()):
        return True
    if torch.device(device).type != "cuda":
        return False
    torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return True


def mean(value: torch.Tensor) -> torch.Tensor:
    """Mean of a tensor of one number over the processes; not finite where one of them is not."""
    if count() == 1:
        return value.detach()
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / count()


def average_gradients(network: torch.nn.Module) -> None:
    """Replace every gradient by its mean over the processes, in one exchange."""
    if count() == 1:
        return
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    parts = (flat / count()).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
