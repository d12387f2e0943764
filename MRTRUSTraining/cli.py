"""The command `mrtrus-train`: data, simulation, training, comparison, export, reader studies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from MRTRUSRegistrationLib.cli_support import run_app
from MRTRUSRegistrationLib.errors import InputError

from . import commands
from .commands import (
    CacheOption,
    DataOption,
    DeviceOption,
    FreshContrastOption,
    FreshEveryOption,
    FreshOption,
    FreshPresetOption,
    FreshSeedOption,
    FreshSpacingOption,
    FreshWorkersOption,
    NoteOption,
    RateOption,
    RunFolderOption,
    SeedOption,
    SimulatedOption,
    StartFromOption,
    StepsOption,
)
from .data.check import check
from .paper_b.command import prepare_paper_b
from .reader_study.command import made_up_study, reader_form, reader_study
from .simulation.command import simulate
from .simulation.evidence import simulation_evidence
from .simulation.sample_case import write_sample_case


class RowsByName(TyperGroup):
    """A group whose first argument may also be a row's name, which then goes to its command `row`."""

    def resolve_command(self, ctx, args):  # type: ignore[no-untyped-def]
        named = bool(args) and not args[0].startswith("-") and args[0] not in self.commands
        return super().resolve_command(ctx, ["row", *args] if named else args)


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
export_app = typer.Typer(
    cls=RowsByName,
    no_args_is_help=True,
    help="Write a row's trained model as TorchScript, .pt2 and card: `export ROW --run RUN --output MODELS`.",
)
app.command()(check)
app.command("prepare-paper-b")(prepare_paper_b)
app.command()(simulate)
app.command("sample-case")(write_sample_case)
app.command("simulation-evidence")(simulation_evidence)
app.command()(commands.rows)
app.command()(commands.run)
app.command()(commands.resume)
app.command()(commands.table)
app.command()(commands.shrink)
app.add_typer(export_app, name="export")
export_app.command("row")(commands.export_row)
app.command("reader-study")(reader_study)
app.command("reader-form")(reader_form)
app.command("made-up-study")(made_up_study)


@app.command("segmentation")
def train_segmentation(
    modality: Annotated[str, typer.Argument(help="mr or trus.")],
    output: RunFolderOption,
    data: DataOption = None,
    simulated: SimulatedOption = None,
    fresh: FreshOption = 0,
    fresh_seed: FreshSeedOption = None,
    fresh_every: FreshEveryOption = None,
    fresh_workers: FreshWorkersOption = None,
    fresh_preset: FreshPresetOption = None,
    fresh_spacing_mm: FreshSpacingOption = None,
    fresh_random_contrast: FreshContrastOption = None,
    steps: StepsOption = None,
    learning_rate: RateOption = None,
    start_from: StartFromOption = None,
    cache: CacheOption = None,
    device: DeviceOption = "cpu",
    seed: SeedOption = None,
) -> None:
    """Train the bundled gland segmenter, in a folder of its own: the row vnet-mr or vnet-trus."""
    from .row import find_row
    from .sources import Sources

    row = commands.changed(find_row(_segmenter(modality)), steps, learning_rate, seed)
    drawn = commands.FreshDraws(fresh_seed, fresh_preset, fresh_spacing_mm, fresh_random_contrast)
    window = commands.fresh_window(fresh, drawn, fresh_every, fresh_workers, device)
    commands.start(row, Sources(data, simulated=simulated, fresh=window), output, cache, start_from, device)


def _segmenter(modality: str) -> str:
    if modality.casefold() not in ("mr", "trus"):
        raise InputError(f"The modality {modality!r} is not known; give mr or trus.")
    return f"vnet-{modality.casefold()}"


@app.command("registration")
def train_registration(
    network: Annotated[str, typer.Argument(help="cmsa.")],
    output: RunFolderOption,
    data: DataOption = None,
    simulated: SimulatedOption = None,
    fresh: FreshOption = 0,
    fresh_seed: FreshSeedOption = None,
    fresh_every: FreshEveryOption = None,
    fresh_workers: FreshWorkersOption = None,
    fresh_preset: FreshPresetOption = None,
    fresh_spacing_mm: FreshSpacingOption = None,
    fresh_random_contrast: FreshContrastOption = None,
    steps: StepsOption = None,
    learning_rate: RateOption = None,
    mi: Annotated[float | None, typer.Option(help="Weight of the mutual information (paper: 1).")] = None,
    gland: Annotated[float | None, typer.Option(help="Weight of the gland's Dice (paper: 0.1).")] = None,
    landmark: Annotated[float | None, typer.Option(help="Weight of a landmark's Dice (paper: 0.3).")] = None,
    smoothness: Annotated[
        float | None, typer.Option(help="Weight of the field's gradient (paper: 0.4).")
    ] = None,
    scales_mm: Annotated[
        str | None, typer.Option(help="Gaussian scales of the Dice loss in mm, by commas (paper: 0).")
    ] = None,
    dense: Annotated[
        float | None,
        typer.Option(help="Weight of the true error in mm, where simulated pairs know it (paper: 0)."),
    ] = None,
    start_from: StartFromOption = None,
    cache: CacheOption = None,
    device: DeviceOption = "cpu",
    seed: SeedOption = None,
) -> None:
    """Train the bundled registration network, in a folder of its own: the row cmsa."""
    from .registration_settings import RegistrationSettings
    from .row import find_row, row_from
    from .sources import Sources

    if network != "cmsa":
        raise InputError(f"The network {network!r} is not known; give cmsa, or use `mrtrus-train run`.")
    row = commands.changed(find_row(network), steps, learning_rate, seed)
    scales = None if scales_mm is None else _numbers(scales_mm, "--scales-mm")
    weights: dict[str, Any] = {
        "mi": mi,
        "gland": gland,
        "landmark": landmark,
        "smoothness": smoothness,
        "dense": dense,
        "dice_scales_mm": scales,
    }
    given = {name: value for name, value in weights.items() if value is not None}
    if isinstance(row.method, RegistrationSettings):
        loss = replace(row.method.loss, **given)
        # Checked as a row's file is.
        row = row_from(replace(row, method=replace(row.method, loss=loss)).as_dict(), "The options")
    drawn = commands.FreshDraws(fresh_seed, fresh_preset, fresh_spacing_mm, fresh_random_contrast)
    window = commands.fresh_window(fresh, drawn, fresh_every, fresh_workers, device)
    commands.start(row, Sources(data, simulated=simulated, fresh=window), output, cache, start_from, device)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} cannot be {text!r}; give numbers by commas.") from error


@export_app.command("segmentation")
def export_segmentation_command(
    modality: Annotated[str, typer.Argument(help="mr or trus.")],
    run: Annotated[Path, typer.Option(help="Folder of the training run.")],
    output: Annotated[Path, typer.Option(help="Models folder to write to.")],
    sharp_run: Annotated[
        Path | None, typer.Option(help="A second run, for sharp volumes; the first is then for blurred ones.")
    ] = None,
    note: NoteOption = "",
) -> None:
    """Export the bundled segmenter: as `export vnet-mr` or `export vnet-trus`."""
    commands.export_row(_segmenter(modality), run, output, sharp_run, note)


@export_app.command("registration")
def export_registration_command(
    network: Annotated[str, typer.Argument(help="cmsa.")],
    run: Annotated[Path, typer.Option(help="Folder of the training run.")],
    output: Annotated[Path, typer.Option(help="Models folder to write to.")],
    note: NoteOption = "",
) -> None:
    """Export the bundled registration network: as `export cmsa`."""
    commands.export_row(network, run, output, None, note)


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
