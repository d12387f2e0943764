"""The command `mrtrus-train`: simulate, train, export."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError

from .data.augmentation import SpatialRange
from .data.cases import Case, Layout, find_cases, read_case_names
from .data.fresh import FreshSamples, FreshSettings, Source
from .export import load_best
from .registration_training import RegionLoss, RegistrationSample, RegistrationSettings, RegistrationTask
from .registration_training import prepare_sample as prepare_registration_sample
from .registration_training import prepare_samples as prepare_registration
from .segmentation_training import (
    SegmentationSample,
    SegmentationSettings,
    SegmentationTask,
    VolumeAgreement,
)
from .segmentation_training import prepare_sample as prepare_segmentation_sample
from .segmentation_training import prepare_samples as prepare_segmentation
from .simulation.command import simulate
from .simulation.evidence import simulation_evidence
from .simulation.sample_case import write_sample_case
from .trainer import LoopSettings, train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
export_app = typer.Typer(no_args_is_help=True, help="Write a trained model as TorchScript, .pt2 and card.")
app.add_typer(export_app, name="export")
app.command()(simulate)
app.command("sample-case")(write_sample_case)
app.command("simulation-evidence")(simulation_evidence)

DataOption = Annotated[
    Path | None, typer.Option(help="Folder of real pairs in the layout mrus, with splits.json.")
]
SimulatedOption = Annotated[Path | None, typer.Option(help="Folder of simulated pairs (layout muregpro).")]
FreshOption = Annotated[
    int, typer.Option(help="Also simulate this many cases at a time while training, renewed one by one.")
]
FreshSeedOption = Annotated[int, typer.Option(help="Seed of the first fresh case.")]
FreshEveryOption = Annotated[int, typer.Option(help="Steps after which the oldest fresh case is replaced.")]
FreshWorkersOption = Annotated[int, typer.Option(help="Processes that make fresh cases ahead of need.")]
OutputOption = Annotated[Path, typer.Option(help="Folder for checkpoints; an interrupted run resumes there.")]
NoteOption = Annotated[str, typer.Option(help="Anything about the training that its command does not say.")]
StartFromOption = Annotated[
    Path | None, typer.Option(help="Run folder whose best weights to begin with, as after pre-training.")
]
RunOption = Annotated[Path, typer.Option(help="Folder of the training run.")]
ModelsOption = Annotated[Path, typer.Option(help="Models folder to write to.")]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]


def _split(
    data: Path | None, simulated: Path | None, fresh: FreshSettings | None
) -> tuple[list[list[Case]], list[Case]]:
    """Groups of training cases, and validation cases: each source's own validation part."""
    training, validation = [], []
    for folder, layout in ((data, "mrus"), (simulated, "muregpro")):
        if folder is not None:
            train_part, val_part = _split_folder(folder, layout)  # type: ignore[arg-type]
            training.append(train_part)
            validation += val_part
    if not training and fresh is None:
        raise InputError("Give --data, --simulated or --fresh: there is nothing to train on.")
    if not validation:
        raise InputError("Give --data or --simulated too: fresh cases alone have no validation part.")
    return training, validation


def _split_folder(folder: Path, layout: Layout) -> tuple[list[Case], list[Case]]:
    """By splits.json where there is one, else the first eighth of the cases, eight at most, validates.

    Simulated cases are patients, so no patient is split.
    """
    if (folder / "splits.json").is_file():
        names = [read_case_names(folder / "splits.json", part) for part in ("train", "val")]
        return find_cases(folder, layout, names[0]), find_cases(folder, layout, names[1])
    cases = find_cases(folder, layout)
    held_out = min(8, -(-len(cases) // 8))
    return cases[held_out:], cases[:held_out]


def _describe(
    data: Path | None, simulated: Path | None, fresh: FreshSettings | None, steps: int
) -> list[dict[str, Any]]:
    """What the weights were learnt from, for the card."""
    described: list[dict[str, Any]] = []
    if data is not None:
        cases, _ = _split_folder(data, "mrus")
        described.append(
            {
                "name": "mrus (YipengHu/example-data, branch mrus), training part",
                "pairs": len(cases),
                "patients": len({case.patient for case in cases}),
                "licence": "none stated by the publisher",
            }
        )
    if simulated is not None:
        cases, _ = _split_folder(simulated, "muregpro")
        described.append(
            {
                "name": "mrtrus-train simulate, training part",
                "pairs": len(cases),
                "seeds": [_simulation_seed(simulated, case.name) for case in cases],
                "licence": "Apache-2.0",
            }
        )
    if fresh is not None:
        last = fresh.first_seed + (steps - 1) // fresh.steps_a_case + fresh.cases - 1
        described.append(
            {
                "name": f"mrtrus-train simulate, preset {fresh.preset}, made while training",
                "pairs": last - fresh.first_seed + 1,
                "seeds": f"{fresh.first_seed} to {last}",
                "licence": "Apache-2.0",
            }
        )
    return described


def _record(output: Path, training_data: list[dict[str, Any]]) -> None:
    """Keep, for the card, what a run learns from and every command that drove it, in run.json."""
    path = output / "run.json"
    # A reader of the card has other folders: their last parts say enough.
    command = " ".join(
        ["mrtrus-train", *(Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])]
    )
    try:
        commands = json.loads(path.read_text(encoding="utf-8"))["commands"] if path.is_file() else []
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not the record of a training run; use another folder.") from error
    if not commands or commands[-1] != command:
        commands.append(command)
    try:
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"commands": commands, "training_data": training_data}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"The output folder {output} cannot be written ({error.strerror}).") from error


def _simulation_seed(folder: Path, name: str) -> int | None:
    """The seed that a simulated case was drawn with, from its parameters."""
    path = folder / "parameters" / f"{name}.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["seed"]) if path.is_file() else None


def _window(cases: int, seed: int, every: int, workers: int, device: str) -> FreshSettings | None:
    """The fresh cases asked for; a GPU renders them in the training's own process."""
    if cases == 0:
        return None
    return FreshSettings(cases, seed, every, device=device, workers=0 if device != "cpu" else workers)


def _loop(steps: int, learning_rate: float, device: str, seed: int) -> LoopSettings:
    return LoopSettings(
        steps=steps,
        learning_rate=learning_rate,
        device=device,
        seed=seed,
        ema_decay=0.995,
        validate_every=max(1, min(250, steps // 4)),
    )


def segmentation_settings(modality: str) -> SegmentationSettings:
    """The bundled segmenter's settings for `mr` or `trus`."""
    if modality.upper() not in ("MR", "TRUS"):
        raise InputError(f"The modality {modality!r} is not known; give mr or trus.")
    if modality.upper() == "MR":
        return SegmentationSettings("MR", training_vox=(80, 80, 64), batch=1)
    # Sweeps differ in depth and angle, so a gland may fill much or little of the fan. The threshold was
    # chosen among 0.5, 0.6 and 0.7 on the validation pairs of mrus, by the registration that follows.
    # The ratio of volumes lies between that of the mrus training pairs (1.11, `evaluation.volume_ratio`) and
    # one, which tissue has; its spread is that of the pairs.
    return SegmentationSettings(
        "TRUS",
        training_vox=(64, 48, 48),
        batch=2,
        threshold=0.6,
        volume_agreement=VolumeAgreement(ratio=1.05, ratio_log_sd=0.13, logit_sd=1.2),
        spatial=SpatialRange(rotation_deg=10.0, log_scale=0.15, elastic_vox=2.0),
    )


def registration_settings(network: str) -> RegistrationSettings:
    """The bundled registration network's settings."""
    if network != "cmsa":
        raise InputError(f"The network {network!r} is not known; give cmsa.")
    return RegistrationSettings(context=1.0)


@app.command("segmentation")
def train_segmentation(
    modality: Annotated[str, typer.Argument(help="mr or trus.")],
    output: OutputOption,
    data: DataOption = None,
    simulated: SimulatedOption = None,
    fresh: FreshOption = 0,
    fresh_seed: FreshSeedOption = 100_000,
    fresh_every: FreshEveryOption = 20,
    fresh_workers: FreshWorkersOption = 1,
    steps: int = 4000,
    learning_rate: float = 2e-3,
    start_from: StartFromOption = None,
    device: DeviceOption = "cpu",
    seed: int = 2024,
) -> None:
    """Train a gland segmenter, select it on the validation part, resume if interrupted."""
    settings = segmentation_settings(modality)
    window = _window(fresh, fresh_seed, fresh_every, fresh_workers, device)
    training, validation = _split(data, simulated, window)
    _record(output, _describe(data, simulated, window, steps))
    sources: list[Source[SegmentationSample]] = [prepare_segmentation(part, settings) for part in training]
    if window is not None:
        sources.append(FreshSamples(window, partial(prepare_segmentation_sample, settings=settings)))
    task = SegmentationTask(settings, sources, prepare_segmentation(validation, settings))
    if start_from is not None:
        load_best(start_from, task.network)
    train(task, _loop(steps, learning_rate, device, seed), output, log=_log)


@app.command("registration")
def train_registration(
    network: Annotated[str, typer.Argument(help="cmsa.")],
    output: OutputOption,
    data: DataOption = None,
    simulated: SimulatedOption = None,
    fresh: FreshOption = 0,
    fresh_seed: FreshSeedOption = 100_000,
    fresh_every: FreshEveryOption = 20,
    fresh_workers: FreshWorkersOption = 1,
    steps: int = 2900,
    learning_rate: float = 5e-4,
    mi: Annotated[float, typer.Option(help="Weight of the mutual information (paper: 1).")] = 0.2,
    gland: Annotated[float, typer.Option(help="Weight of the gland's Dice (paper: 0.1).")] = 3.0,
    landmark: Annotated[float, typer.Option(help="Weight of a landmark's Dice (paper: 0.3).")] = 0.5,
    smoothness: Annotated[float, typer.Option(help="Weight of the field's gradient (paper: 0.4).")] = 0.3,
    scales_mm: Annotated[
        str, typer.Option(help="Gaussian scales of the Dice loss in mm, by commas (paper: 0).")
    ] = "0,3,6,12",
    dense: Annotated[
        float, typer.Option(help="Weight of the true error in mm, where simulated pairs know it (paper: 0).")
    ] = 1.0,
    start_from: StartFromOption = None,
    cache: Annotated[Path | None, typer.Option(help="Folder to keep prepared pairs in.")] = None,
    device: DeviceOption = "cpu",
    seed: int = 2024,
) -> None:
    """Train the deformable network, select it on the validation part, resume if interrupted."""
    scales = tuple(float(part) for part in scales_mm.split(","))
    loss = RegionLoss(mi, gland, landmark, smoothness, scales, dense)
    settings = replace(registration_settings(network), loss=loss)
    window = _window(fresh, fresh_seed, fresh_every, fresh_workers, device)
    training, validation = _split(data, simulated, window)
    _record(output, _describe(data, simulated, window, steps))
    sources: list[Source[RegistrationSample]] = [prepare_registration(p, settings, cache) for p in training]
    if window is not None:
        sources.append(FreshSamples(window, partial(prepare_registration_sample, settings=settings)))
    task = RegistrationTask(settings, sources, prepare_registration(validation, settings, cache))
    if start_from is not None:
        load_best(start_from, task.network)
    train(task, _loop(steps, learning_rate, device, seed), output, log=_log)


def _log(line: str) -> None:
    print(line, flush=True)


@export_app.command("segmentation")
def export_segmentation_command(
    modality: Annotated[str, typer.Argument(help="mr or trus.")],
    run: RunOption,
    output: ModelsOption,
    sharp_run: Annotated[
        Path | None, typer.Option(help="A second run, for sharp volumes; the first is then for blurred ones.")
    ] = None,
    note: NoteOption = "",
) -> None:
    """Export a segmenter; the card says what its run was trained on and by which command."""
    from .export import export_segmentation

    print(export_segmentation(run, segmentation_settings(modality), output, sharp=sharp_run, note=note))


@export_app.command("registration")
def export_registration_command(
    network: Annotated[str, typer.Argument(help="cmsa.")],
    run: RunOption,
    output: ModelsOption,
    note: NoteOption = "",
) -> None:
    """Export a registration network; the card says what its run was trained on and by which command."""
    from .export import export_registration

    print(export_registration(run, registration_settings(network), output, note=note))


@export_app.command("figures")
def export_figures_command(
    models: Annotated[Path, typer.Argument(help="Folder of model cards.")],
    metrics: Annotated[Path, typer.Option(help="metrics.csv of `mrtrus evaluate` with these models.")],
    split: Annotated[str, typer.Option(help="What was evaluated, such as 'mrus validation, 8 pairs'.")],
) -> None:
    """Write the means of an evaluation into the cards; those of the same split are replaced."""
    from .evaluation.card_figures import add_figures

    for path in add_figures(models, metrics, split):
        print(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mrtrus-train`."""
    sys.exit(run_app(app, arguments))


if __name__ == "__main__":
    main()
