"""The command `mrtrus`: register, evaluate, models, doctor."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
import typer
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from . import __version__
from .cli_support import run_app
from .doctor import findings
from .errors import InputError, RegistrationError
from .images import LoadedImage, check_different, read_image
from .input_transform import read_transform
from .landmarks import pair_landmarks, read_landmarks
from .masks import check_same_patient, read_mask
from .models import list_models
from .outputs import NOTICE, check_output, write_result
from .pipeline import DEFAULT_METHOD, Settings, register
from .progress import Progress, ProgressCallback, Reporter
from .results import Landmarks, QualityWarning, Registration
from .rigid import RigidSettings, as_rigid

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=f"Registration of prostate MR to transrectal ultrasound. {NOTICE}",
)
console = Console()
errors = Console(stderr=True)

_TUNING = "How to register"
# ANTs takes a 32-bit seed, and one more than the user's (0 means the clock to it).
_SEEDS = 2**31 - 1


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
    landmark_frame: Annotated[
        str | None, typer.Option(help="Frame of landmarks in CSV files that do not state it: LPS or RAS.")
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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result in the folder.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only errors.")] = False,
) -> None:
    """Register one MR to one TRUS and write masks, transforms, registered MR, report and Slicer scene."""
    check_output(output, overwrite=overwrite, inputs=(mr, trus))
    settings = _settings(method, initial, rigid_metric, max_rotation, models, device, seed)
    mr_image = read_image(mr, role="MR", orientation=mr_orientation)
    trus_image = read_image(trus, role="TRUS", orientation=trus_orientation)
    check_different(mr_image, trus_image)
    masks = _read_masks(mr_mask, trus_mask, mr_image, trus_image)
    landmarks = _read_landmarks(mr_landmarks, trus_landmarks, mr_image, trus_image, landmark_frame)
    with progress_bar(quiet=quiet) as progress:
        result = register(
            mr_image.image,
            trus_image.image,
            settings=settings,
            mr_gland=masks[0],
            trus_gland=masks[1],
            mr_landmarks=landmarks.mr,
            trus_landmarks=landmarks.trus,
            mr_orientation_known=mr_image.orientation_known,
            trus_orientation_known=trus_image.orientation_known,
            warnings=(*mr_image.warnings, *trus_image.warnings, *landmarks.warnings),
            progress=progress,
        )
        inputs = {"mr": mr, "trus": trus, "mr_mask": mr_mask, "trus_mask": trus_mask}
        inputs |= {"mr_landmarks": mr_landmarks, "trus_landmarks": trus_landmarks}
        write_result(
            result,
            output,
            case_name=output.absolute().name,
            inputs={name: str(path) for name, path in inputs.items() if path is not None},
            reporter=Reporter(progress),
            with_trus=trus_image.relabelled,
        )
    if not quiet:
        _print_result(result, output)


def _settings(
    method: str,
    initial: str,
    rigid_metric: str,
    max_rotation: float,
    models: Path | None,
    device: str,
    seed: int,
) -> Settings:
    if rigid_metric not in ("mattes", "meansquares"):
        raise InputError(f"The rigid metric {rigid_metric!r} is not known; use mattes or meansquares.")
    if not 0 <= max_rotation <= 180:
        raise InputError(f"The limit of rotation {max_rotation:g}° is not between 0 and 180.")
    if not 0 <= seed < _SEEDS:
        raise InputError(f"The seed {seed} is not between 0 and {_SEEDS - 1}.")
    rigid = replace(RigidSettings(), metric=rigid_metric, max_rotation_deg=max_rotation)  # type: ignore[arg-type]
    return Settings(
        method=method,
        initial=_initial(initial),
        models=models,
        device=device,
        seed=seed,
        rigid=rigid,
    )


def _initial(initial: str) -> Literal["gland", "world"] | sitk.Transform:
    if initial == "gland" or initial == "world":
        return initial
    if not Path(initial).exists():
        raise InputError(
            f"The initial position {initial} is neither gland nor world, nor a transform file that exists."
        )
    transform = read_transform(initial)
    try:
        return as_rigid(transform, np.zeros(3))
    except InputError as error:
        raise InputError(f"{initial}: {error}") from error


def _read_masks(
    mr_mask: Path | None, trus_mask: Path | None, mr: LoadedImage, trus: LoadedImage
) -> tuple[sitk.Image | None, sitk.Image | None]:
    masks = (
        None if mr_mask is None else read_mask(mr_mask, mr),
        None if trus_mask is None else read_mask(trus_mask, trus),
    )
    if mr_mask is not None and trus_mask is not None:
        # The pipeline compares them again, but does not know the names of the files.
        check_same_patient(masks[0], masks[1], mr_mask.name, trus_mask.name)
    return masks


@dataclass(frozen=True)
class _GivenLandmarks:
    mr: Landmarks | None = None
    trus: Landmarks | None = None
    warnings: tuple[QualityWarning, ...] = ()


def _read_landmarks(
    mr_path: Path | None, trus_path: Path | None, mr: LoadedImage, trus: LoadedImage, frame: str | None
) -> _GivenLandmarks:
    if mr_path is None and trus_path is None:
        return _GivenLandmarks()
    if mr_path is None or trus_path is None:
        raise InputError("Landmarks need both --mr-landmarks and --trus-landmarks, for they are compared.")
    if frame not in (None, "LPS", "RAS"):
        raise InputError(f"The frame {frame!r} is not known; give LPS or RAS.")
    pairs = pair_landmarks(
        read_landmarks(mr_path, mr, frame=frame),  # type: ignore[arg-type]
        read_landmarks(trus_path, trus, frame=frame),  # type: ignore[arg-type]
        mr_path.name,
        trus_path.name,
    )
    return _GivenLandmarks(pairs.mr, pairs.trus, pairs.warnings)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[ProgressCallback | None]:
    """One bar a stage on a terminal, one line a stage elsewhere, nothing when quiet."""
    if quiet or not errors.is_terminal:
        yield None if quiet else _line_a_stage()
        return
    columns = (TextColumn("{task.description:14s}"), BarColumn(), TextColumn("{task.fields[message]}"))
    with ProgressBar(*columns, TimeElapsedColumn(), console=errors, transient=False) as bar:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = bar.add_task(progress.stage, total=1.0, message="")
            task = tasks[progress.stage]
            bar.update(task, completed=progress.fraction)
            if progress.message:
                bar.update(task, message=progress.message)

        yield show


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
    for warning in dict.fromkeys(result.warnings):
        _print_line(f"Warning ({warning.code}): {warning.message}", style="yellow")
    _print_line(f"Report: {output / 'report.html'}")
    if (output / "scene.mrb").is_file():
        _print_line(f"Slicer scene: {output / 'scene.mrb'}")
    else:
        _print_line("No Slicer scene: install the extra `slicer` to have one.")
    _print_line(NOTICE, style="dim")


def _print_line(text: str, *, style: str | None = None) -> None:
    """A line as it is: a path's brackets are no markup, and nothing is broken at a terminal's width."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


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
