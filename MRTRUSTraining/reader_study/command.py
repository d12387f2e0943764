"""The commands `mrtrus-train reader-study`, `reader-form` and `made-up-study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.outputs import SYSTEM_FILES, check_inputs_outside, staging_folder
from MRTRUSRegistrationLib.seeds import check_seed

from .delong import IntervalKind
from .study import read_study


def reader_study(
    scores: Annotated[
        list[Path], typer.Argument(help="CSV files: the readers' scores, and the references of the cases.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for report.html, tables and figures.")],
    interval: Annotated[
        str, typer.Option(help="Interval of the area under the curve: wald or logit.")
    ] = "wald",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap bands around the ROC curves.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results.")] = False,
) -> None:
    """Analyse a reader study: accuracy, agreement, confidence, side of the lesion, Gleason."""
    from .report import FILES, Settings, analyse, write_results

    if interval not in ("wald", "logit"):
        raise InputError(f"The interval {interval!r} is not known; use wald or logit.")
    check_seed(seed)
    check_inputs_outside(output, scores)
    _check_folder(output, FILES if overwrite else (), "--overwrite replaces earlier results")
    results = analyse(read_study(scores), Settings(cast(IntervalKind, interval), seed))
    with staging_folder(output) as folder:
        write_results(results, folder)
    for caution in results.cautions:
        print(f"Caution: {caution}")
    print(output / "report.html")


def reader_form(
    cases: Annotated[Path, typer.Argument(help="List with one case a line, or CSV file with a column case.")],
    output: Annotated[Path, typer.Option(help="A new or empty folder for the forms.")],
    readers: Annotated[str, typer.Option(help="Readers, by commas.")] = "junior,senior",
    conditions: Annotated[str, typer.Option(help="Conditions, by commas.")] = "original,registered",
    side_only: Annotated[
        str | None,
        typer.Option(
            help="Conditions, by commas, in which only the side of the lesion is asked for.",
            show_default="trus where it is read",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of the cases, drawn anew for each form.")] = 0,
) -> None:
    """Write the readers' forms: a page that works offline and an empty CSV for each reader and condition."""
    from .form import Plan, read_cases, write_forms

    check_seed(seed)
    listed = read_cases(cases)
    read = _names(conditions)
    plan = Plan(listed.names, _names(readers), read, _side_only(side_only, read), seed)
    _check_folder(output, (), "forms are never replaced, because answers may be in them")
    with staging_folder(output) as folder:
        names = write_forms(plan, folder)
    if listed.comments:
        print(f"{listed.comments} comment line(s) of {cases} were left out.")
    print("\n".join(str(output / name) for name in names))


def made_up_study(
    output: Annotated[Path, typer.Option(help="CSV file to write.")],
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 2025,
) -> None:
    """Write the scores of a study that never took place, to try the analysis on."""
    from MRTRUSRegistrationLib.outputs import write_text_atomically

    from .made_up import made_up_csv

    check_seed(seed)
    if output.exists():
        raise InputError(f"{output} is there already; give another name.")
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(made_up_csv(seed), output)
    print(output)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _side_only(text: str | None, conditions: tuple[str, ...]) -> tuple[str, ...]:
    """What was asked for, of which every condition must be read; TRUS, should it be read, if nothing was."""
    if text is None:
        return tuple(name for name in conditions if name == "trus")
    unknown = [name for name in _names(text) if name not in conditions]
    if unknown:
        raise InputError(
            f"--side-only names {unknown[0]!r}, which is not read; the conditions are "
            f"{', '.join(conditions)}."
        )
    return _names(text)


def _check_folder(folder: Path, own: tuple[str, ...], hint: str) -> None:
    """`InputError` unless the folder is new or empty, or holds earlier results (`own`) and nothing else."""
    target = folder.resolve()
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"The output {folder} is a file; give a folder.")
    if Path.cwd().is_relative_to(target):
        raise InputError(
            f"The output folder {folder} is the current folder or holds it; give a folder inside it."
        )
    names = {path.name for path in target.iterdir()}.difference(SYSTEM_FILES)
    # Without the report nothing says that files of these names are results and not somebody's data.
    foreign = sorted(names.difference(own if "report.html" in names else ()))
    if foreign:
        raise InputError(
            f"The output folder {folder} holds other files ({foreign[0]}); give an empty or new one ({hint})."
        )
