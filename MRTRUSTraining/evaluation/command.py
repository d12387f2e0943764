"""`mrtrus evaluate`: methods on a data set with reference labels, as metrics.csv and summary.md."""

from __future__ import annotations

import csv
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from MRTRUSRegistrationLib.errors import InputError, RegistrationError
from MRTRUSRegistrationLib.pipeline import METHOD_NAMES, Settings
from MRTRUSRegistrationLib.results import Registration

from ..data.cases import LAYOUTS, Case, Layout, LoadedCase, find_cases, find_part, find_parts, read_case_names
from .evaluate import Masks, MetricsRow
from .extras import MEASURE_SETS, MeasureSet

_SO_FAR = "metrics.partial.csv"
PICTURES = "pictures"


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    layout: Annotated[str, typer.Option(help=f"One of {', '.join(LAYOUTS)}.")],
    methods: Annotated[str, typer.Option(help="Methods by commas: initial,centroid,rigid,syn,cmsa.")],
    output: Annotated[
        Path,
        typer.Option(
            help="Folder for metrics.csv, labels.csv and summary.md; those of an earlier evaluation are "
            "replaced."
        ),
    ],
    cases: Annotated[
        Path | None,
        typer.Option(help="JSON list of case names, or a splits.json; default: its validation part, or all."),
    ] = None,
    masks: Annotated[str, typer.Option(help="reference or predicted.")] = "predicted",
    models: Annotated[Path | None, typer.Option(help="Folder of models, searched first.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of ANTs.")] = 0,
    measures: Annotated[
        str,
        typer.Option(
            help="More measures by commas: compat (paper A's code), challenge (µ-RegPro, MR fixed, also in "
            "challenge.csv), paper-b, dense (which part of the error is global, where the true map is known)."
        ),
    ] = "",
    pictures: Annotated[
        bool,
        typer.Option(help="Also draw a page a case: outlines, and registered MR, TRUS and original MR."),
    ] = False,
) -> None:
    """Register every case with every method and compare with its reference labels."""
    from MRTRUSRegistrationLib.outputs import write_text_atomically

    from .evaluate import check_runnable
    from .evaluate import evaluate as run
    from .summary import summary_markdown
    from .tables import write_tables

    if layout not in LAYOUTS:
        raise InputError(f"The layout {layout!r} is not known; use {', '.join(LAYOUTS)}.")
    if masks not in ("reference", "predicted"):
        raise InputError(f"The masks {masks!r} are not known; use reference or predicted.")
    wanted, sets = _methods(methods), _measure_sets(measures)
    settings = Settings(models=models, device=device, seed=seed)
    known = cast(Masks, masks)
    check_runnable(wanted, settings, known)
    found = _cases(data, layout, cases)
    _make_folder(output)
    _remove_pages(output)
    if pictures:
        _make_folder(output / PICTURES)
    simulated = {case.name for case in found if case.truth_path is not None}
    rows = run(
        found,
        wanted,
        masks=known,
        settings=settings,
        on_row=_keeping(output, simulated),
        measures=sets,
        on_case=partial(_draw, output) if pictures else None,
    )
    # First, so that nothing that fails in the summary loses the figures.
    metrics = write_tables(rows, output)
    text = summary_markdown(
        rows,
        title=f"{data.resolve().name}, {len(found)} {'pair' if len(found) == 1 else 'pairs'}, {masks} masks",
        command=shlex.join(["mrtrus", *sys.argv[1:]]),
    )
    write_text_atomically(text, output / "summary.md")
    (output / _SO_FAR).unlink(missing_ok=True)
    print(f"\n{text}\n{metrics}")
    failed = sorted({row.case for row in rows if row.error})
    if failed:
        raise RegistrationError(f"{len(failed)} case(s) failed: {', '.join(failed)}; see summary.md.")


def _keeping(folder: Path, simulated: Collection[str]) -> Callable[[MetricsRow], None]:
    """What shows each row and keeps those so far, for an evaluation that does not come to its end.

    Landmarks of simulated cases often lie beyond one of the images; the summary counts them.
    """
    from MRTRUSRegistrationLib.outputs import write_text_atomically

    from .evaluate import metrics_csv

    rows: list[MetricsRow] = []

    def keep(row: MetricsRow) -> None:
        if row.case not in simulated and row.case not in {each.case for each in rows}:
            _show_unpaired(row)
        _show(row)
        rows.append(row)
        write_text_atomically(metrics_csv(rows), folder / _SO_FAR)

    return keep


def _remove_pages(output: Path) -> None:
    """Remove the pages of an earlier evaluation, which would stand beside figures of other cases."""
    try:
        with (output / "metrics.csv").open(encoding="utf-8", newline="") as file:
            names = {row.get("case") for row in csv.DictReader(file)}
    except (OSError, UnicodeDecodeError, csv.Error):
        return
    for page in (output / PICTURES).glob("*.png"):
        if page.stem in names:
            page.unlink()


def _draw(output: Path, case: LoadedCase, results: Mapping[str, Registration]) -> None:
    """Draw the page of a case, unless all its methods failed; the figures go on without it."""
    from .pictures import draw_page

    path = output / PICTURES / f"{case.name}.png"
    try:
        if results:
            draw_page(case, results, path)
    except OSError as error:
        print(f"The page {path} cannot be written ({error.strerror}).", file=sys.stderr)


def _show(row: MetricsRow) -> None:
    figures = row.error or f"DSC {row.dsc:.3f}, TRE {row.tre_rms_mm:.2f} mm, {row.seconds:.1f} s"
    print(f"{row.case} {row.method}: {figures}", flush=True)


def _show_unpaired(row: MetricsRow) -> None:
    for sentence in row.unpaired:
        print(sentence, flush=True)


def _methods(text: str) -> list[str]:
    """Method names, each once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"No methods were given; use some of {', '.join(METHOD_NAMES)}.")
    return list(dict.fromkeys(names))


def _measure_sets(text: str) -> list[MeasureSet]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in MEASURE_SETS:
            raise InputError(f"The measures {name!r} are not known; use some of {', '.join(MEASURE_SETS)}.")
    return cast(list[MeasureSet], names)


def _cases(data: Path, layout: Layout, listed: Path | None) -> list[Case]:
    """The listed cases; without a list the validation part of the data set's own split, else all."""
    if listed is not None:
        return find_cases(data, layout, read_case_names(listed))
    if "val" in find_parts(data, layout):
        return find_part(data, layout, "val")
    return find_cases(data, layout)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The output folder {output} cannot be made ({error.strerror}).") from error
