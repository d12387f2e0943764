"""`mrtrus evaluate`: methods on a data set with reference labels, as metrics.csv and summary.md."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from MRTRUSRegistrationLib.errors import InputError, RegistrationError
from MRTRUSRegistrationLib.pipeline import METHOD_NAMES, Settings

from ..data.cases import Layout, find_cases, read_case_names


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    layout: Annotated[str, typer.Option(help="mrus or muregpro.")],
    methods: Annotated[str, typer.Option(help="Methods by commas: initial,centroid,rigid,syn,cmsa.")],
    output: Annotated[Path, typer.Option(help="Folder for metrics.csv and summary.md.")],
    cases: Annotated[
        Path | None,
        typer.Option(help="JSON list of case names, or a splits.json; default: its validation part, or all."),
    ] = None,
    masks: Annotated[str, typer.Option(help="reference or predicted.")] = "predicted",
    models: Annotated[Path | None, typer.Option(help="Folder of models, searched first.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of ANTs.")] = 0,
) -> None:
    """Register every case with every method and compare with its reference labels."""
    from .evaluate import MetricsRow, metrics_csv, write_text_atomically
    from .evaluate import evaluate as run
    from .summary import summary_markdown

    if layout not in ("mrus", "muregpro"):
        raise InputError(f"The layout {layout!r} is not known; use mrus or muregpro.")
    if masks not in ("reference", "predicted"):
        raise InputError(f"The masks {masks!r} are not known; use reference or predicted.")
    wanted = _methods(methods)
    found = find_cases(data, cast(Layout, layout), _case_names(data, cases))
    _make_folder(output)
    settings = Settings(models=models, device=device, seed=seed)

    def show(row: MetricsRow) -> None:
        figures = row.error or f"DSC {row.dsc:.3f}, TRE {row.tre_rms_mm:.2f} mm, {row.seconds:.1f} s"
        print(f"{row.case} {row.method}: {figures}", flush=True)

    rows = run(
        found, wanted, masks=cast(Literal["reference", "predicted"], masks), settings=settings, on_row=show
    )
    text = summary_markdown(
        rows,
        title=f"{data.resolve().name}, {len(found)} pairs, {masks} masks",
        command=f"mrtrus {' '.join(sys.argv[1:])}",
    )
    write_text_atomically(metrics_csv(rows), output / "metrics.csv")
    write_text_atomically(text, output / "summary.md")
    print(f"\n{text}\n{output / 'metrics.csv'}")
    failed = sorted({row.case for row in rows if row.error})
    if failed:
        raise RegistrationError(f"{len(failed)} case(s) failed: {', '.join(failed)}; see summary.md.")


def _methods(text: str) -> list[str]:
    """Method names; whether one that is not built in is an installed model shows when it runs."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"No methods were given; use some of {', '.join(METHOD_NAMES)}.")
    return list(dict.fromkeys(names))


def _case_names(data: Path, cases: Path | None) -> list[str] | None:
    """The named cases; without a list the validation part of the data set's own split, else all."""
    if cases is not None:
        return read_case_names(cases)
    splits = data / "splits.json"
    return read_case_names(splits, "val") if splits.is_file() else None


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The output folder {output} cannot be made ({error.strerror}).") from error
