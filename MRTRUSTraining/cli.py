"""The command `mrtrus-train`: simulate, train, export."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError

from .data.augmentation import SpatialRange
from .data.cases import Case, Layout, find_cases, read_case_names
from .registration_training import RegionLoss, RegistrationSettings, RegistrationTask
from .registration_training import prepare_samples as prepare_registration
from .segmentation_training import SegmentationSettings, SegmentationTask
from .segmentation_training import prepare_samples as prepare_segmentation
from .simulation.command import simulate
from .simulation.sample_case import write_sample_case
from .trainer import LoopSettings, train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
export_app = typer.Typer(no_args_is_help=True, help="Write a trained model as TorchScript, .pt2 and card.")
app.add_typer(export_app, name="export")
app.command()(simulate)
app.command("sample-case")(write_sample_case)

DataOption = Annotated[
    Path | None, typer.Option(help="Folder of real pairs in the layout mrus, with splits.json.")
]
SimulatedOption = Annotated[Path | None, typer.Option(help="Folder of simulated pairs (layout muregpro).")]
OutputOption = Annotated[Path, typer.Option(help="Folder for checkpoints; an interrupted run resumes there.")]
NoteOption = Annotated[str, typer.Option(help="Anything about the training that its command does not say.")]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]


def _split(data: Path | None, simulated: Path | None) -> tuple[list[list[Case]], list[Case]]:
    """Groups of training cases, and validation cases: each source's own validation part."""
    training, validation = [], []
    for folder, layout in ((data, "mrus"), (simulated, "muregpro")):
        if folder is not None:
            train_part, val_part = _split_folder(folder, layout)  # type: ignore[arg-type]
            training.append(train_part)
            validation += val_part
    if not training:
        raise InputError("Give --data, --simulated or both: there is nothing to train on.")
    return training, validation


def _split_folder(folder: Path, layout: Layout) -> tuple[list[Case], list[Case]]:
    """By splits.json where there is one, else every eighth case validates (simulated cases are patients)."""
    if (folder / "splits.json").is_file():
        names = [read_case_names(folder / "splits.json", part) for part in ("train", "val")]
        return find_cases(folder, layout, names[0]), find_cases(folder, layout, names[1])
    cases = find_cases(folder, layout)
    return [c for i, c in enumerate(cases) if i % 8], cases[::8]


def _describe(data: Path | None, simulated: Path | None) -> list[dict[str, Any]]:
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
    return described


def _simulation_seed(folder: Path, name: str) -> int | None:
    """The seed that a simulated case was drawn with, from its parameters."""
    path = folder / "parameters" / f"{name}.json"
    return int(json.loads(path.read_text(encoding="utf-8"))["seed"]) if path.is_file() else None


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
    spatial = SpatialRange(log_scale=0.15)
    return SegmentationSettings("TRUS", training_vox=(64, 48, 48), batch=2, threshold=0.6, spatial=spatial)


def registration_settings(network: str) -> RegistrationSettings:
    """The bundled registration network's settings."""
    if network != "cmsa":
        raise InputError(f"The network {network!r} is not known; give cmsa.")
    return RegistrationSettings()


@app.command("segmentation")
def train_segmentation(
    modality: Annotated[str, typer.Argument(help="mr or trus.")],
    output: OutputOption,
    data: DataOption = None,
    simulated: SimulatedOption = None,
    steps: int = 4000,
    learning_rate: float = 2e-3,
    device: DeviceOption = "cpu",
    seed: int = 2024,
) -> None:
    """Train a gland segmenter, select it on the validation part, resume if interrupted."""
    settings = segmentation_settings(modality)
    training, validation = _split(data, simulated)
    task = SegmentationTask(
        settings,
        [prepare_segmentation(group, settings) for group in training],
        prepare_segmentation(validation, settings),
    )
    train(task, _loop(steps, learning_rate, device, seed), output, log=_log)


@app.command("registration")
def train_registration(
    network: Annotated[str, typer.Argument(help="cmsa.")],
    output: OutputOption,
    data: DataOption = None,
    simulated: SimulatedOption = None,
    steps: int = 2900,
    learning_rate: float = 5e-4,
    mi: Annotated[float, typer.Option(help="Weight of the mutual information (paper: 1).")] = 0.2,
    gland: Annotated[float, typer.Option(help="Weight of the gland's Dice (paper: 0.1).")] = 3.0,
    landmark: Annotated[float, typer.Option(help="Weight of a landmark's Dice (paper: 0.3).")] = 0.5,
    smoothness: Annotated[float, typer.Option(help="Weight of the field's gradient (paper: 0.4).")] = 0.3,
    scales_mm: Annotated[
        str, typer.Option(help="Gaussian scales of the Dice loss in mm, by commas (paper: 0).")
    ] = "0,3,6,12",
    device: DeviceOption = "cpu",
    seed: int = 2024,
) -> None:
    """Train the deformable network, select it on the validation part, resume if interrupted."""
    scales = tuple(float(part) for part in scales_mm.split(","))
    loss = RegionLoss(mi=mi, gland=gland, landmark=landmark, smoothness=smoothness, dice_scales_mm=scales)
    settings = replace(registration_settings(network), loss=loss)
    training, validation = _split(data, simulated)
    task = RegistrationTask(
        settings,
        [prepare_registration(group, settings) for group in training],
        prepare_registration(validation, settings),
    )
    train(task, _loop(steps, learning_rate, device, seed), output, log=_log)


def _log(line: str) -> None:
    print(line, flush=True)


@export_app.command("segmentation")
def export_segmentation_command(
    modality: Annotated[str, typer.Argument(help="mr or trus.")],
    run: Annotated[Path, typer.Option(help="Folder of the training run.")],
    output: Annotated[Path, typer.Option(help="Models folder to write to.")],
    data: DataOption = None,
    simulated: SimulatedOption = None,
    note: NoteOption = "",
) -> None:
    """Export a segmenter; --data and --simulated say, for the card, what it was trained on."""
    from .export import export_segmentation

    settings = segmentation_settings(modality)
    command = f"mrtrus-train segmentation {modality}"
    path = export_segmentation(
        run, settings, output, training_data=_describe(data, simulated), command=command, note=note
    )
    print(path)


@export_app.command("registration")
def export_registration_command(
    network: Annotated[str, typer.Argument(help="cmsa.")],
    run: Annotated[Path, typer.Option(help="Folder of the training run.")],
    output: Annotated[Path, typer.Option(help="Models folder to write to.")],
    data: DataOption = None,
    simulated: SimulatedOption = None,
    note: NoteOption = "",
) -> None:
    """Export the registration network; --data and --simulated say, for the card, what it was trained on."""
    from .export import export_registration

    settings = registration_settings(network)
    command = f"mrtrus-train registration {network}"
    path = export_registration(
        run, settings, output, training_data=_describe(data, simulated), command=command, note=note
    )
    print(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mrtrus-train`."""
    sys.exit(run_app(app, arguments))


if __name__ == "__main__":
    main()
