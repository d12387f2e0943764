"""Commands of `mrtrus-train` that train rows, compare them and export them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from MRTRUSRegistrationLib.errors import InputError, RegistrationError
from MRTRUSRegistrationLib.seeds import check_seed

from .data.case_files import LAYOUTS, Layout
from .simulation.presets import PRESETS, SPACING_MM

if TYPE_CHECKING:
    from .data.fresh import FreshSettings
    from .row import Row
    from .sources import Sources

_DATA_HELP = "Data set of real pairs: a folder, or a manifest (CSV)."
DataOption = Annotated[Path | None, typer.Option(help=_DATA_HELP)]
NeededDataOption = Annotated[Path, typer.Option(help=_DATA_HELP)]
LayoutOption = Annotated[str | None, typer.Option(help=f"{', '.join(LAYOUTS)}; default: the row's.")]
SplitOption = Annotated[
    Path | None, typer.Option(help="JSON file that splits by patients; default: the data set's own split.")
]
SimulatedOption = Annotated[Path | None, typer.Option(help="Folder of simulated pairs (layout muregpro).")]
FreshOption = Annotated[
    int, typer.Option(help="Also simulate this many cases at a time while training, renewed one by one.")
]
FreshSeedOption = Annotated[int | None, typer.Option(help="Seed of the first fresh case; default 100000.")]
FreshEveryOption = Annotated[
    int | None, typer.Option(help="Steps after which the oldest fresh case is replaced; default 20.")
]
FreshWorkersOption = Annotated[
    int | None, typer.Option(help="Processes that make fresh cases ahead of need; default 1.")
]
FreshPresetOption = Annotated[
    str | None, typer.Option(help=f"Preset of fresh cases: {', '.join(PRESETS)}; default clinical.")
]
FreshSpacingOption = Annotated[
    float | None, typer.Option(help=f"Voxel spacing of fresh cases; default {SPACING_MM:g}.")
]
FreshContrastOption = Annotated[
    float | None,
    typer.Option(help="Share of fresh images whose contrasts follow no physics; default: the preset's own."),
]
RunsOption = Annotated[Path, typer.Option(help="Folder that holds a run's folder for each row, by its name.")]
RunFolderOption = Annotated[Path, typer.Option(help="Folder of the run; an interrupted one goes on there.")]
StepsOption = Annotated[int | None, typer.Option(help="How many steps; default: the row's.")]
RateOption = Annotated[float | None, typer.Option(help="Learning rate of Adam; default: the row's.")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of weights and draws; default: the row's.")]
StartFromOption = Annotated[
    Path | None, typer.Option(help="Run folder whose best weights to begin with, as after pre-training.")
]
CacheOption = Annotated[Path | None, typer.Option(help="Folder to keep prepared pairs in.")]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
NoteOption = Annotated[str, typer.Option(help="Anything about the training that its command does not say.")]
RowArgument = Annotated[str, typer.Argument(help="A row's name (see `rows`) or a YAML file.")]


def rows() -> None:
    """List the rows that come with the package: what each is, and in which table it stands."""
    from rich.console import Console
    from rich.table import Table

    from .row import all_rows

    listed = Table("row", "tables", "steps", "what it is")
    for row in all_rows().values():
        tables = ", ".join(place.table for place in row.places)
        listed.add_row(row.name, tables, str(row.schedule.steps) if row.schedule else "–", row.definition)
    Console().print(listed)


def run(
    output: RunsOption,
    row: Annotated[str | None, typer.Argument(help="A row's name (see `rows`) or a YAML file.")] = None,
    table: Annotated[
        str | None, typer.Option(help="Instead: every row of table 1, 2, B or V, in turn.")
    ] = None,
    data: DataOption = None,
    layout: LayoutOption = None,
    split: SplitOption = None,
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
    seed: SeedOption = None,
    start_from: StartFromOption = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for prepared pairs; default: in OUTPUT.")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Train a row, or all of a table, and select it on the validation part; goes on where it was interrupted.

    Under torchrun (`torchrun --nproc-per-node 2 -m MRTRUSTraining.cli run …`) each process trains on its own
    share of a batch.
    """
    from .distributed import processes

    chosen = [changed(each, steps, learning_rate, seed) for each in _chosen_rows(row, table)]
    drawn = FreshDraws(fresh_seed, fresh_preset, fresh_spacing_mm, fresh_random_contrast)
    window = fresh_window(fresh, drawn, fresh_every, fresh_workers, device)
    kept = cache or output / "cache"
    with processes(device):
        for each in chosen:
            sources = _sources(each, data, layout, split, simulated, window)
            start(each, sources, output / each.name, kept, start_from, device)


def start(
    row: Row, sources: Sources, folder: Path, cache: Path | None, start_from: Path | None, device: str
) -> None:
    """Train a row in a folder, on this process's share where torchrun started it."""
    from .distributed import is_first, processes
    from .run import Run, carry_out

    with processes(device) as own_device:
        best = carry_out(Run(row, sources, folder, cache, start_from), device=own_device)
        if is_first():
            print(f"{row.name}: {best}", flush=True)


def _chosen_rows(row: str | None, table: str | None) -> list[Row]:
    from .row import find_row, rows_of_table

    if (row is None) == (table is None):
        raise InputError("Name either one row or a table (--table); `mrtrus-train rows` lists them.")
    return [find_row(row)] if row is not None else [r for r in rows_of_table(table or "") if r.is_trained]


def changed(row: Row, steps: int | None, learning_rate: float | None, seed: int | None) -> Row:
    """The row with what the command line says instead of it."""
    if row.schedule is None:
        return row
    rate_is_right = learning_rate is None or (learning_rate > 0 and math.isfinite(learning_rate))
    if (steps is not None and steps < 1) or not rate_is_right:
        raise InputError("Steps and learning rate must be positive.")
    if seed is not None:
        check_seed(seed)
    schedule = replace(
        row.schedule,
        steps=row.schedule.steps if steps is None else steps,
        learning_rate=row.schedule.learning_rate if learning_rate is None else learning_rate,
    )
    return replace(row, schedule=schedule, seed=row.seed if seed is None else seed)


def _sources(
    row: Row,
    data: Path | None,
    layout: str | None,
    split: Path | None,
    simulated: Path | None,
    fresh: FreshSettings | None,
) -> Sources:
    """The row's own layout and split where the command line names none; another layout has its own split."""
    from .sources import Sources

    known = known_layout(layout or row.data.layout)
    if split is None and data is not None and known == row.data.layout:
        split = _own_split(row, data)
    return Sources(data, known, split, simulated, fresh)


def _own_split(row: Row, data: Path) -> Path | None:
    """The split file that a row names; a data set may lack the usual one, not one that somebody named."""
    from .data.splits import SPLIT_NAME

    if row.data.split is None or (row.data.split == SPLIT_NAME and not (data / SPLIT_NAME).is_file()):
        return None
    return data / row.data.split


def known_layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise InputError(f"The layout {name!r} is not known; use {', '.join(LAYOUTS)}.")
    return name


@dataclass(frozen=True)
class FreshDraws:
    """What of `FreshSettings` says how fresh cases are drawn; None is its default."""

    first_seed: int | None
    preset: str | None
    spacing_mm: float | None
    random_contrast: float | None


def fresh_window(
    cases: int, drawn: FreshDraws, every: int | None, workers: int | None, device: str
) -> FreshSettings | None:
    """The fresh cases asked for; a GPU renders them in the training's own process."""
    from .data.fresh import FreshSettings

    options = {**vars(drawn), "steps_a_case": every, "workers": workers}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if cases == 0:
        if given:
            raise InputError(
                "The options --fresh-… say how fresh cases are simulated; give --fresh too: how many."
            )
        return None
    if device != "cpu":
        given["workers"] = 0
    return FreshSettings(cases, device=device, **given)


def resume(
    folder: Annotated[Path, typer.Argument(help="Folder of the run.")],
    steps: Annotated[int | None, typer.Option(help="Make the run this long instead.")] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Go on with an interrupted run from its last checkpoint, to the result that it would have had."""
    from .run import reopen

    found = reopen(folder)
    row = changed(found.row, steps, None, None)
    start(row, found.sources, folder, found.cache, found.start_from, device)


def table(
    name: Annotated[str, typer.Argument(help="1, 2 or B; V for paper A's segmenters.")],
    runs: RunsOption,
    data: NeededDataOption,
    output: Annotated[Path, typer.Option(help="Folder for the table, metrics.csv and the exported models.")],
    layout: LayoutOption = None,
    split: SplitOption = None,
    part: Annotated[str, typer.Option(help="Part of the split: val or test.")] = "val",
    also: Annotated[
        str | None,
        typer.Option(
            help="Other methods (of table V: segmenters) to compare, by commas; default: the bundled."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of ANTs.")] = 0,
) -> None:
    """Compare the rows of a table: published figures beside ours, interval, paired test against rigid."""
    from MRTRUSRegistrationLib.pipeline import Settings

    from .row import rows_of_table
    from .run import command_line
    from .sources import part_cases
    from .table import TableRequest, make_table

    first = rows_of_table(name)[0]
    sources = _sources(first, data, layout, split, None, None)
    cases = part_cases(data, sources.layout, part, sources.split)
    compared = ("vnet-mr,vnet-trus" if name == "V" else "cmsa") if also is None else also
    others = tuple(each.strip() for each in compared.split(",") if each.strip())
    request = TableRequest(name, runs, cases, output, others, Settings(device=device, seed=seed))
    made = make_table(request, command=command_line(), report=lambda line: print(line, flush=True))
    print(f"\n{made.markdown.read_text(encoding='utf-8')}\n{made.markdown}\n{made.csv}")
    if made.failed:
        raise RegistrationError(
            f"{len(made.failed)} case(s) failed: {', '.join(made.failed)}; see {output / 'metrics.csv'}."
        )


def shrink(
    card: Annotated[Path, typer.Argument(help="The card of an exported V-Net.")],
    output: Annotated[Path, typer.Option(help="Models folder to write to.")],
    part: Annotated[str, typer.Option(help="all, or sharp: the network for sharp volumes alone.")] = "all",
) -> None:
    """Store an exported segmenter with 8-bit weights: half the file, nearly the same probabilities."""
    from .shrink import PARTS
    from .shrink import shrink as write

    if part not in PARTS:
        raise InputError(f"There is no part {part!r}; use {' or '.join(PARTS)}.")
    print(write(card, output, part=part))


def export_row(
    row: RowArgument,
    run: Annotated[Path, typer.Option(help="Folder of the run, or the folder of runs that holds it.")],
    output: Annotated[Path, typer.Option(help="Models folder to write to.")],
    sharp_run: Annotated[
        Path | None, typer.Option(help="A second run, for sharp volumes; the first is then for blurred ones.")
    ] = None,
    note: NoteOption = "",
) -> None:
    """Export a row's trained model: TorchScript, .pt2 and the card, which says what it was trained on."""
    from .row import find_row
    from .run import check_weights
    from .table import export_row as write

    wanted = find_row(row)
    folder = run if (run / "best.pt").is_file() else run / wanted.name
    for each in (folder, sharp_run):
        if each is not None:
            check_weights(each, wanted)
    print(write(wanted, folder, output, sharp=sharp_run, note=note))
