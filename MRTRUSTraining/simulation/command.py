"""`mrtrus-train simulate`: make cases with exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from MRTRUSRegistrationLib.errors import InputError

from ..devices import check_device
from .parameters import CaseParameters, read_parameters
from .presets import PRESETS, SPACING_MM
from .sampling import sample_case


def simulate(
    output: Annotated[Path, typer.Option(help="An empty or new folder.")],
    cases: Annotated[int | None, typer.Option(help="How many cases to make.")] = None,
    parameters: Annotated[
        Path | None,
        typer.Option("--from", help="Instead: parameters of one case (JSON) to make it from, to the bit."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The first case's seed; the next cases count on from it.")] = 0,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "clinical",
    spacing_mm: Annotated[float, typer.Option(help="Voxel spacing.")] = SPACING_MM,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    random_contrast: Annotated[
        float | None,
        typer.Option(
            help="Share of images whose contrasts follow no physics; the preset's own if not given."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes that make cases side by side.")] = 1,
    pictures: Annotated[bool, typer.Option(help="Also draw a page of every case.")] = False,
) -> None:
    """Make simulated MR and TRUS pairs with exact truth, in the µ-RegPro challenge's layout."""
    from rich.progress import track

    if (cases is None) == (parameters is None):
        raise InputError("Say either how many cases to make (--cases) or which file of one case (--from).")
    count = 1 if cases is None else cases
    check_request(cases=count, output=output, device=device, jobs=jobs)
    given = None if parameters is None else _given(parameters)
    request = _Request(seed, preset, spacing_mm, random_contrast, device, output, pictures, given)
    request.draw(0)
    output.mkdir(parents=True, exist_ok=True)
    for _ in track(_make_all(request, count, jobs), total=count, description="Simulating"):
        pass


def _given(path: Path) -> CaseParameters:
    """The case that a parameter file describes; `InputError`, naming the file, when no case can be so."""
    from .placement import check_geometry

    parameters = read_parameters(path)
    try:
        check_geometry(parameters)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    return parameters


def _make_all(request: _Request, cases: int, jobs: int) -> Iterator[None]:
    if jobs == 1:
        for number in range(cases):
            request.make(number)
            yield
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as workers:
        made = [workers.submit(request.make, number, threads=1) for number in range(cases)]
        try:
            for each in as_completed(made):
                each.result()
                yield
        except BaseException:
            workers.shutdown(wait=True, cancel_futures=True)
            raise


@dataclass(frozen=True)
class _Request:
    """What every case of one command shares."""

    seed: int
    preset: str
    spacing_mm: float
    random_contrast: float | None
    device: str
    output: Path
    pictures: bool
    given: CaseParameters | None

    def draw(self, number: int) -> CaseParameters:
        return self.given or sample_case(
            self.seed + number,
            preset=self.preset,
            spacing_mm=self.spacing_mm,
            random_contrast=self.random_contrast,
        )

    def make(self, number: int, *, threads: int | None = None) -> None:
        """Render and write one case."""
        import torch

        from .cases import simulate as render
        from .cases import write_case

        if threads is not None:
            torch.set_num_threads(threads)
        case = render(self.draw(number), device=self.device)
        write_case(case, self.output, number)
        if self.pictures:
            from .pictures import draw_case

            draw_case(case, self.output / "pictures" / f"case{number:06d}.png")


def check_request(*, cases: int, output: Path, device: str = "cpu", jobs: int = 1) -> None:
    """Raise `InputError` unless at least one case is asked for, the folder is free and the device there."""
    if cases < 1:
        raise InputError(f"Cannot simulate {cases} cases: ask for one or more.")
    if jobs < 1:
        raise InputError(f"Cannot work with {jobs} processes: ask for one or more.")
    if output.exists() and not output.is_dir():
        raise InputError(f"The output {output} is a file: name an empty or new folder.")
    if output.exists() and any(output.iterdir()):
        raise InputError(f"The output folder {output} is not empty: name an empty or new one.")
    check_device(device)
