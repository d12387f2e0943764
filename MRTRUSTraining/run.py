"""One run: a row trained on its sources in a folder of its own, which says what it is in run.json."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from MRTRUSRegistrationLib import __version__
from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.models import InstalledModel, load_network, read_card
from MRTRUSRegistrationLib.outputs import full_disk_said, write_text_atomically

from . import distributed
from .data.fresh import FreshSamples
from .data.unpaired import unpaired_in_all
from .export import load_best
from .networks.eight_bit import weights_in_full
from .registration_samples import RegistrationSample
from .registration_samples import prepare_sample as prepare_registration_sample
from .registration_samples import prepare_samples as prepare_registration
from .registration_settings import RegistrationSettings
from .registration_training import RegistrationTask
from .row import Row, check_shapes, row_from
from .segmentation_training import SegmentationSettings, SegmentationTask
from .segmentation_training import prepare_sample as prepare_segmentation_sample
from .segmentation_training import prepare_samples as prepare_segmentation
from .sources import Sources
from .trainer import LoopSettings, Task, check_checkpoint, read_saved, train
from .watching import Bar, Clock, Lines, Scalars, Watcher

_RECORD = "run.json"
_OWN_STATISTICS = (
    "Batch statistics of the row {row} are those of each process on CPUs: {count} processes do not have the "
    "gradients of one with {count} times the batch."
)


@dataclass(frozen=True)
class Run:
    """A row, what it learns from, and where; `cache` keeps prepared pairs, `start_from` is another
    run's folder or a model's card."""

    row: Row
    sources: Sources
    folder: Path
    cache: Path | None = None
    start_from: Path | None = None


def carry_out(run: Run, *, device: str = "cpu", watchers: Sequence[Watcher] | None = None) -> Path:
    """Train the run's row to its end, from where it was left; returns the best weights' file.

    `InputError` for a row that is not trained, for a folder that another row uses, and for bad data. Under
    torchrun every process calls this.
    """
    if run.row.schedule is None:
        raise InputError(f"The row {run.row.name} is not trained; `mrtrus-train table` compares it.")
    if run.start_from is not None and run.start_from.resolve() == run.folder.resolve():
        raise InputError(f"{run.folder} cannot begin with its own weights; use another folder.")
    check_shapes(run.row)
    check_folder(run.folder, run.row)
    # Before anything in the folder changes.
    check_checkpoint(run.folder, run.row.identity, run.row.schedule.steps)
    # Weights, and thereby the run, are those of the seed.
    torch.manual_seed(run.row.seed)
    task, fresh = distributed.one_after_another(partial(_task, run))
    # What a checkpoint holds came after it, and its run may be gone.
    if run.start_from is not None and not (run.folder / "checkpoint.pt").is_file():
        begin_with(run.start_from, task.network)
    if distributed.is_first():
        write_record(run)
    if not distributed.share_batch_statistics(task.network, device) and distributed.is_first():
        print(_OWN_STATISTICS.format(row=run.row.name, count=distributed.count()), flush=True)
    if watchers is None and distributed.is_first():
        watchers = _watchers(run)
    try:
        settings = loop_settings(run.row, device)
        with full_disk_said(run.folder):
            return train(task, settings, run.folder, identity=run.row.identity, watchers=watchers)
    finally:
        for window in fresh:
            window.close()
        for watcher in watchers or ():
            watcher.close()


def begin_with(weights: Path, network: torch.nn.Module) -> None:
    """Take over the best weights of a run's folder, or those of an exported model, whose card is named.

    Of an exported model what has another shape is left as it is, so that a segmenter of the gland can go on
    to tell its parts apart; a convolution that is given more channels than before begins without them, and a
    head that tells more classes apart begins with those it knew. Of two networks in one file, blurred and
    sharp, the sharp one's are taken. `InputError` where nothing fits.
    """
    own = network.state_dict()
    if weights.suffix != ".json":
        # What the network has beyond that run's begins anew.
        load_best(weights, network, beyond=own)
        return
    state = weights_in_full(load_network(InstalledModel(read_card(weights), weights), "cpu"))
    found = {key: value for key in own for name, value in state.items() if f".{name}".endswith(f".{key}")}
    widened = {key: _widened(key, value, own[key].shape) for key, value in found.items()}
    fitting = {key: value for key, value in widened.items() if value.shape == own[key].shape}
    if not fitting:
        raise InputError(f"The weights of {weights} fit nothing of this row's network; name another model.")
    network.load_state_dict(own | fitting)


def _widened(name: str, weight: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A convolution's weight (out, in, …) with zeros for the input channels that it lacks; a head's weight or
    bias with zeros for the classes that it lacks."""
    if weight.ndim > 2 and weight.shape[1] < shape[1]:
        extra = weight.new_zeros(weight.shape[0], shape[1] - weight.shape[1], *weight.shape[2:])
        return torch.cat([weight, extra], dim=1)
    if name.startswith("head.") and weight.shape[0] < shape[0] and weight.shape[1:] == shape[1:]:
        return torch.cat([weight, weight.new_zeros(shape[0] - weight.shape[0], *weight.shape[1:])])
    return weight


def loop_settings(row: Row, device: str) -> LoopSettings:
    schedule = row.schedule
    if schedule is None:
        raise ValueError(f"The row {row.name} has no schedule.")
    return LoopSettings(
        steps=schedule.steps,
        learning_rate=schedule.learning_rate,
        validate_every=max(1, schedule.steps // schedule.validations),
        seed=row.seed,
        device=device,
        bf16=schedule.bf16,
        ema_decay=schedule.ema_decay,
        batch=schedule.batch,
        decay=schedule.decay,
    )


def _task(run: Run) -> tuple[Task, list[FreshSamples[Any]]]:
    """The task with its prepared samples, and its fresh samples, which are to be closed."""
    settings = run.row.method
    training, validation = run.sources.parts()
    if isinstance(settings, SegmentationSettings):
        groups: list[Any] = [prepare_segmentation(part, settings, run.cache) for part in training]
        fresh = _fresh(run.sources, partial(prepare_segmentation_sample, settings=settings))
        held_out = prepare_segmentation(validation, settings, run.cache)
        return SegmentationTask(settings, [*groups, *fresh], held_out), fresh
    if not isinstance(settings, RegistrationSettings):
        raise ValueError(f"The row {run.row.name} is not trained.")
    groups = [prepare_registration(part, settings, run.cache) for part in training]
    fresh = _fresh(run.sources, partial(prepare_registration_sample, settings=settings))
    pairs = prepare_registration(validation, settings, run.cache)
    _say_unpaired([*groups, pairs])
    return RegistrationTask(settings, [*groups, *fresh], pairs), fresh


def _say_unpaired(groups: Sequence[Sequence[RegistrationSample]]) -> None:
    # Real and simulated cases may have the same names.
    samples = [sample for group in groups for sample in group]
    left_out = unpaired_in_all([sample.unpaired for sample in samples])
    if left_out and distributed.is_first():
        print(left_out, flush=True)


def _fresh(sources: Sources, prepare: Any) -> list[FreshSamples[Any]]:
    return [] if sources.fresh is None else [FreshSamples(sources.fresh, prepare)]


def _watchers(run: Run) -> list[Watcher]:
    """A bar in a terminal, lines in a file; scalars where TensorBoard is installed."""
    shown: Watcher = Bar(run.row.name) if sys.stdout.isatty() else Lines(partial(print, flush=True))
    scalars: list[Watcher] = [Scalars(run.folder / "tensorboard")] if find_spec("tensorboard") else []
    return [shown, Clock(run.folder / "time.json"), *scalars]


# --- the record of a run ---------------------------------------------------------------------------------


def write_record(run: Run) -> None:
    """Keep in run.json what goes on, what it learns from and every command that drove it."""
    steps = run.row.schedule.steps if run.row.schedule else 0
    found = _read(run.folder)
    commands = list(found.get("commands", []))
    command = command_line()
    if not commands or commands[-1] != command:
        commands.append(command)
    content = {
        "row": run.row.as_dict(),
        "sources": run.sources.as_dict(),
        "cache": _absolute(run.cache),
        "start_from": _absolute(run.start_from),
        "commands": commands,
        "training_data": run.sources.describe(steps),
        "software": {"mrtrus": __version__, "torch": torch.__version__},
    }
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(json.dumps(content, indent=1) + "\n", run.folder / _RECORD)
    except OSError as error:
        raise InputError(f"The output folder {run.folder} cannot be written ({error.strerror}).") from error


def command_line() -> str:
    """The command as it was given; a reader of a card has other folders, their last parts say enough."""
    given = (Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:])
    return shlex.join(["mrtrus-train", *given])


def reopen(folder: Path) -> Run:
    """The run that a folder's record tells of, to go on with it; `InputError` where there is none."""
    content = _read(folder)
    if "row" not in content or "sources" not in content:
        raise InputError(f"{folder} holds no run of a row (no {_RECORD} of one); start it with `run`.")
    row = row_from(content["row"], str(folder / _RECORD))
    paths = [Path(path) if path else None for path in (content.get("cache"), content.get("start_from"))]
    return Run(row, Sources.from_dict(content["sources"]), folder, *paths)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def check_folder(folder: Path, row: Row) -> None:
    """`InputError` where a folder holds a run of another row, or of the row with other settings."""
    found = _recorded_row(folder)
    if found is None:
        return
    if found.name != row.name:
        raise InputError(f"{folder} holds a run of the row {found.name}; use another folder.")
    if found.identity != row.identity:
        keys = ", ".join(_differences(found.as_dict(), row.as_dict())) or "its settings"
        raise InputError(
            f"{folder} holds a run of {row.name} that differs in {keys}; use another folder, or go on with "
            "the run as it was by `mrtrus-train resume`."
        )


# What of a method trained weights presume; the rest concerns the training, or what follows the network.
_PRESUMED = [
    "modality",
    "network",
    "options",
    "preprocessing",
    "grid_vox",
    "alignment",
    "inputs",
    "intensity_floor",
    "context",
    "structures",
    "coordinates",
]


def check_weights(folder: Path, row: Row) -> None:
    """`InputError` where the weights in a folder were learnt for another row, or for other inputs."""
    found, learnt = _recorded_row(folder), _row_of_weights(folder)
    for name in (learnt, found.name if found else None):
        if name not in (None, row.name):
            raise InputError(f"{folder} holds a run of the row {name}, not of {row.name}.")
    if found is None:
        return
    first, second = (each.as_dict()["method"] for each in (found, row))
    different = [key for key in _PRESUMED if first.get(key) != second.get(key)]
    if different:
        raise InputError(
            f"{folder} was trained with other settings of {row.name} ({', '.join(different)}); train it "
            "again, or export it with a YAML file that says what it was trained with."
        )


def _recorded_row(folder: Path) -> Row | None:
    """The row in a folder's record; None where there is no record, or one of a run that had no row."""
    content = _read(folder).get("row")
    return None if content is None else row_from(content, str(folder / _RECORD))


def _row_of_weights(folder: Path) -> str | None:
    """The name of the row that a folder's best weights say they are of."""
    path = folder / "best.pt"
    record = read_saved(path, set()) if path.is_file() else None
    return (record or {}).get("row", "").partition(" ")[0] or None


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Dotted keys of what a checkpoint depends on and where two rows differ."""
    names = ("method", "data", "seed", "schedule")
    first, second = (_flat({name: row[name] for name in names}) for row in (found, wanted))
    different = [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
    return [key for key in different if key not in ("schedule.steps", "schedule.validations")]


def _flat(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix: content}
    parts = [_flat(value, f"{prefix}.{key}" if prefix else key) for key, value in content.items()]
    return {key: value for part in parts for key, value in part.items()}


def _read(folder: Path) -> dict[str, Any]:
    """What run.json holds; empty where there is none."""
    path = folder / _RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not the record of a training run; use another folder.") from error
    if not isinstance(content, dict) or not isinstance(content.get("commands"), list):
        raise InputError(f"{path} is not the record of a training run; use another folder.")
    return content
