"""The command `mrtrus`: register, batch, evaluate, models, doctor."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from . import __version__
from .cli_support import run_app
from .doctor import findings
from .errors import InputError, RegistrationError
from .job import Job, run_job
from .models import list_models
from .outputs import NOTICE
from .pipeline import DEFAULT_METHOD
from .progress import Progress, ProgressCallback
from .results import Registration
from .rigid import RigidSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=f"Registration of prostate MR to transrectal ultrasound. {NOTICE}",
)
console = Console()
errors = Console(stderr=True)

_TUNING = "How to register"


@app.command("register")
def register_command(
    mr: Annotated[Path, typer.Argument(help="The MR: NIfTI, NRRD, MHA, or a folder with one DICOM series.")],
    trus: Annotated[Path, typer.Argument(help="The TRUS volume: NIfTI, NRRD, MHA or DICOM.")],
    output: Annotated[Path, typer.Option(help="Folder for the result.")],
    mr_mask: Annotated[Path | None, typer.Option(help="Gland in the MR, instead of segmenting.")] = None,
    trus_mask: Annotated[Path | None, typer.Option(help="Gland in the TRUS, instead of segmenting.")] = None,
    mr_landmarks: Annotated[
        Path | None, typer.Option(help="Landmarks in the MR: .mrk.json, .fcsv, CSV or label volume.")
    ] = None,
    trus_landmarks: Annotated[Path | None, typer.Option(help="The same landmarks in the TRUS.")] = None,
    targets: Annotated[
        Path | None,
        typer.Option(help="Targets in the MR: .mrk.json, .fcsv or CSV, .seg.nrrd or label map."),
    ] = None,
    lesions: Annotated[
        Path | None, typer.Option(help="Further targets: .seg.nrrd or label map, if there are points too.")
    ] = None,
    landmark_frame: Annotated[
        str | None,
        typer.Option(help="Frame of landmarks and targets in CSV files that do not state it: LPS or RAS."),
    ] = None,
    mr_orientation: Annotated[
        str | None, typer.Option(help="How the MR's axes lie, such as LPS, if its header does not say.")
    ] = None,
    trus_orientation: Annotated[
        str | None, typer.Option(help="How the TRUS's axes lie, such as PRS, if its header does not say.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="cmsa (or another installed model), syn, rigid, centroid or initial.",
            rich_help_panel=_TUNING,
        ),
    ] = DEFAULT_METHOD,
    initial: Annotated[
        str,
        typer.Option(
            help="Start from gland (centroids matched), world (headers trusted) or a transform (TRUS→MR).",
            rich_help_panel=_TUNING,
        ),
    ] = "gland",
    rigid_metric: Annotated[
        str, typer.Option(help="mattes or meansquares.", rich_help_panel=_TUNING)
    ] = RigidSettings().metric,
    max_rotation: Annotated[
        float, typer.Option(help="Limit of the rigid rotation, degrees.", rich_help_panel=_TUNING)
    ] = RigidSettings().max_rotation_deg,
    models: Annotated[Path | None, typer.Option(help="Folder of models, searched first.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_TUNING)] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of ANTs; the same seed gives the same bits.")] = 0,
    confidence: Annotated[
        int, typer.Option(help="Perturbations for the confidence map, 2 or more; 0 for none.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result in the folder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only errors.")] = False,
) -> None:
    """Register one MR to one TRUS and write masks, transforms, registered MR, report and Slicer scene."""
    job = Job(
        mr=mr,
        trus=trus,
        output=output,
        method=method,
        models=models,
        device=device,
        seed=seed,
        initial=initial,
        rigid_metric=rigid_metric,
        max_rotation_deg=max_rotation,
        mr_mask=mr_mask,
        trus_mask=trus_mask,
        mr_landmarks=mr_landmarks,
        trus_landmarks=trus_landmarks,
        targets=targets,
        lesions=lesions,
        confidence=confidence,
        landmark_frame=landmark_frame,
        mr_orientation=mr_orientation,
        trus_orientation=trus_orientation,
        overwrite=overwrite,
    )
    with progress_bar(quiet=quiet) as progress:
        result = run_job(job, progress=progress)
    if not quiet:
        _print_result(result, output)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[ProgressCallback | None]:
    """One bar a stage on a terminal, one line a stage elsewhere, nothing when quiet."""
    if quiet or not errors.is_terminal:
        yield None if quiet else _line_a_stage()
        return
    columns = (TextColumn("{task.description:14s}"), BarColumn(), TextColumn("{task.fields[message]}"))
    bar = ProgressBar(*columns, TimeElapsedColumn(), console=errors, transient=False)
    tasks: dict[str, TaskID] = {}

    def show(progress: Progress) -> None:
        # Only now, so that nothing stands above the sentence about bad input.
        bar.start()
        if progress.stage not in tasks:
            tasks[progress.stage] = bar.add_task(progress.stage, total=1.0, message="")
        task = tasks[progress.stage]
        bar.update(task, completed=progress.fraction)
        if progress.message:
            bar.update(task, message=progress.message)

    try:
        yield show
    finally:
        if tasks:
            bar.stop()


def _line_a_stage() -> ProgressCallback:
    seen: set[str] = set()

    def show(progress: Progress) -> None:
        if progress.stage not in seen:
            seen.add(progress.stage)
            print(f"{progress.stage} ...", file=sys.stderr, flush=True)

    return show


def _print_result(result: Registration, output: Path) -> None:
    table = Table(title=None, box=None, pad_edge=False)
    for column in ("", "initial", "rigid", "final"):
        table.add_column(column, justify="left" if not column else "right")
    stages = (result.initial_measures, result.rigid_measures, result.measures)
    for name, label in (
        ("dsc", "gland overlap (DSC)"),
        ("hd95_mm", "HD95 (mm)"),
        ("tre_rms_mm", "landmark error (RMS, mm)"),
    ):
        if name in result.measures.values:
            table.add_row(label, *(f"{stage.values.get(name, float('nan')):.2f}" for stage in stages))
    console.print(table)
    _print_judgement(output)
    for warning in dict.fromkeys(result.warnings):
        _print_line(f"Warning ({warning.code}): {warning.message}", style="yellow")
    _print_line(f"Report: {output / 'report.html'}")
    if (output / "scene.mrb").is_file():
        _print_line(f"Slicer scene: {output / 'scene.mrb'}")
    else:
        _print_line("No Slicer scene: install the extra `slicer` to have one.")
    _print_line(NOTICE, style="dim")


def _print_judgement(output: Path) -> None:
    """The indicator with what is to be checked, and the targets, as the result has them."""
    written = json.loads((output / "result.json").read_text(encoding="utf-8"))
    level = written["indicator"]["level"]
    _print_line(
        written["indicator"]["headline"], style={"good": "green", "check": "yellow"}.get(level, "red")
    )
    for finding in written["indicator"]["findings"]:
        if finding["level"] != "good":
            _print_line(f"- {finding['text']}")
    for target in written["targets"]:
        depth_mm = target["capsule_distance_mm"]
        where = f"{abs(depth_mm):.1f} mm {'inside' if depth_mm >= 0 else 'outside'} the capsule"
        _print_line(f"Target {target['name']}: {target['third']}, {target['side']}, {where}")


def _print_line(text: str, *, style: str | None = None) -> None:
    """A line as it is: a path's brackets are no markup, and nothing is broken at a terminal's width."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


@app.command("batch")
def batch_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CASES",
            help="CSV with the columns case, mr, trus (and mr_mask, trus_mask, mr_landmarks, targets, …), or "
            "a folder with one folder a case (mr.*, trus.*), or with moving_images and fixed_images.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for results, batch.csv and cohort.html.")],
    method: Annotated[
        str, typer.Option(help="cmsa (or another installed model), syn, rigid, centroid or initial.")
    ] = DEFAULT_METHOD,
    models: Annotated[Path | None, typer.Option(help="Folder of models, searched first.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of ANTs.")] = 0,
    confidence: Annotated[
        int, typer.Option(help="Perturbations for each case's confidence map; 0 for none.")
    ] = 0,
    workers: Annotated[int, typer.Option(help="Worker processes side by side.")] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed cases again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only errors.")] = False,
) -> None:
    """Register many cases; started again, it goes on where it was interrupted and skips what is finished."""
    from .batch import BatchSettings, run_batch
    from .batch_console import batch_watch, summary_table

    settings = BatchSettings(
        method=method,
        models=models,
        device=device,
        seed=seed,
        confidence=confidence,
        workers=workers,
        retry_failed=retry_failed,
    )
    with batch_watch(console, quiet=quiet) as watch:
        result = run_batch(source, output, settings=settings, watch=watch)
    if not quiet:
        console.print(summary_table(result))
        _print_line(f"Table: {result.table}")
        _print_line(f"Report: {result.page}")
        _print_line(NOTICE, style="dim")
    result.check()


@app.command("models")
def models_command(
    models: Annotated[Path | None, typer.Option(help="Folder of models, searched first.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cards as JSON.")] = False,
) -> None:
    """List the installed models with their cards and check their files."""
    installed = list_models(models)
    if as_json:
        print(json.dumps([{**asdict(m.card), "intact": m.intact} for m in installed], indent=1))
        return
    if not installed:
        raise InputError("No models are installed; put a model and its card into a models folder.")
    for model in installed:
        card = model.card
        state = "intact" if model.intact else "DAMAGED: the file is missing or not the card's"
        _print_line(f"{card.name} ({card.task}, {card.modality}): {card.title}", style="bold")
        _print_line(f"  {card.architecture}")
        _print_line(f"  {model.file_path} sha256 {card.sha256[:16]}… {state}")
        for figure in card.figures:
            _print_line(f"  {figure}")


@app.command("doctor")
def doctor_command() -> None:
    """Say what is installed and whether everything needed is there."""
    checks = findings()
    for check in checks:
        mark, style = ("ok", None) if check.fine else ("bad", "red") if check.needed else ("none", "yellow")
        _print_line(f"{mark:4s} {check.name}: {check.message}", style=style)
    if any(check.needed and not check.fine for check in checks):
        raise RegistrationError("Something that is needed is missing; see the lines marked bad.")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        console.print(f"mrtrus {__version__}", highlight=False)
        raise typer.Exit


def add_plugins() -> None:
    """Commands of other packages of the project, which this one does not import by name."""
    for entry in sorted(entry_points(group="mrtrus.commands"), key=lambda entry: entry.name):
        app.command(entry.name)(entry.load())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mrtrus`."""
    # Ending a run from outside should clean up like Ctrl+C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path or sign that the terminal's encoding lacks should not end a run.
        sys.stdout.reconfigure(errors="backslashreplace")
    add_plugins()
    sys.exit(run_app(app, arguments))
