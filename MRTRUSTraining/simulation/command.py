"""`mrtrus-train simulate`: make cases with exact truth."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from MRTRUSRegistrationLib.errors import InputError

from ..devices import check_device
from .parameters import CaseParameters, read_parameters
from .presets import PRESETS, SPACING_MM


def simulate(
    output: Annotated[Path, typer.Option(help="An empty or new folder.")],
    cases: Annotated[int | None, typer.Option(help="How many cases to make.")] = None,
    parameters: Annotated[
        Path | None,
        typer.Option("--from", help="Instead: parameters of one case (JSON) to make it from, to the bit."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The first case's seed (default: 0); the next cases count on from it.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(PRESETS)}; default: clinical.")
    ] = None,
    spacing_mm: Annotated[float | None, typer.Option(help=f"Voxel spacing; default: {SPACING_MM}.")] = None,
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
    drawn = {
        "--seed": seed,
        "--preset": preset,
        "--spacing-mm": spacing_mm,
        "--random-contrast": random_contrast,
    }
    beside = next((option for option, value in drawn.items() if value is not None), None)
    if parameters is not None and beside is not None:
        raise InputError(f"A case of --from is given by its file; leave {beside} out.")
    given = None if parameters is None else _given(parameters)
    request = _Request(
        seed or 0,
        preset or "clinical",
        SPACING_MM if spacing_mm is None else spacing_mm,
        random_contrast,
        device,
        output,
        pictures,
        given,
    )
    request.draw(0)
    output.mkdir(parents=True, exist_ok=True)
    with closing(_make_all(request, count, jobs)) as made:
        for _ in track(made, total=count, description="Simulating"):
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


def _make_all(request: _Request, cases: int, jobs: int) -> Generator[None, None, None]:
    """Yield after every case; where it ends early, nothing of the cases that are not done is left."""
    left = set(range(cases))
    try:
        with closing(_in_turn(request, cases) if jobs == 1 else _at_once(request, cases, jobs)) as made:
            for number in made:
                left.remove(number)
                yield
    finally:
        request.remove(left)


def _in_turn(request: _Request, cases: int) -> Generator[int, None, None]:
    for number in range(cases):
        request.make(number)
        yield number


def _at_once(request: _Request, cases: int, jobs: int) -> Generator[int, None, None]:
    """The numbers of the cases as they are done; where it ends early, the workers end with it."""
    from concurrent.futures import as_completed

    from ..workers import Workers

    with closing(Workers(jobs)) as workers:
        made = {workers.submit(request.make, n, threads=1): n for n in range(cases)}
        for each in as_completed(made):
            workers.result(each)
            yield made[each]


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
        from .sampling import sample_case

        return self.given or sample_case(
            self.seed + number,
            preset=self.preset,
            spacing_mm=self.spacing_mm,
            random_contrast=self.random_contrast,
        )

    def make(self, number: int, *, threads: int | None = None) -> None:
        """Render and write one case."""
        import torch

        from .cases import case_name, write_case
        from .cases import simulate as render

        if threads is not None:
            torch.set_num_threads(threads)
        case = render(self.draw(number), device=self.device)
        write_case(case, self.output, number)
        if self.pictures:
            from .pictures import draw_case

            draw_case(case, self.output / "pictures" / f"{case_name(number)}.png")

    def remove(self, numbers: Collection[int]) -> None:
        """Remove what there is of some cases, which workers that were ended may have left half written."""
        from .cases import ASIDE, case_name

        if not numbers:
            return
        names = {case_name(number) for number in numbers}
        for folder in [path for path in self.output.glob("*") if path.is_dir()]:
            if folder.name.startswith(ASIDE):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for path in [path for path in folder.iterdir() if path.name.split(".")[0] in names]:
                path.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()


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
