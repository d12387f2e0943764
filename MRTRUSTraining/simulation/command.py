"""`mrtrus-train simulate`: make cases with exact truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from MRTRUSRegistrationLib.errors import InputError

from .sampling import PRESETS, SPACING_MM, sample_case


def simulate(
    cases: Annotated[int, typer.Option(help="How many cases to make.")],
    output: Annotated[Path, typer.Option(help="An empty or new folder.")],
    seed: Annotated[int, typer.Option(help="The first case's seed; the next cases count on from it.")] = 0,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "clinical",
    spacing_mm: Annotated[float, typer.Option(help="Voxel spacing.")] = SPACING_MM,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    pictures: Annotated[bool, typer.Option(help="Also draw a page of every case.")] = False,
) -> None:
    """Make simulated MR and TRUS pairs with exact truth, in the µ-RegPro challenge's layout."""
    from rich.progress import track

    from .cases import simulate as render
    from .cases import write_case

    check_request(cases=cases, output=output, device=device)
    sample_case(seed, preset=preset, spacing_mm=spacing_mm)
    output.mkdir(parents=True, exist_ok=True)
    for number in track(range(cases), description="Simulating"):
        case = render(sample_case(seed + number, preset=preset, spacing_mm=spacing_mm), device=device)
        write_case(case, output, number)
        if pictures:
            from .pictures import draw_case

            draw_case(case, output / "pictures" / f"case{number:06d}.png")


def check_request(*, cases: int, output: Path, device: str = "cpu") -> None:
    """Raise `InputError` unless at least one case is asked for, the folder is free and the device there."""
    import torch

    if cases < 1:
        raise InputError(f"Cannot simulate {cases} cases: ask for one or more.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"The output folder {output} is not empty: name an empty or new one.")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"The device {device!r} cannot be used here: choose cpu or cuda.") from error


def compare(
    pairs: Annotated[Path, typer.Option(help="Folder of the public mrus pairs.")],
    output: Annotated[Path, typer.Option(help="The PNG file to write.")],
    cases: Annotated[int, typer.Option(help="How many cases to show.")] = 4,
    seed: Annotated[int, typer.Option(help="The first case's seed.")] = 0,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "clinical",
) -> None:
    """Draw simulated cases beside real pairs, blurred alike, for a reader to judge."""
    from .cases import simulate as render
    from .pictures import draw_comparison

    if cases < 1:
        raise InputError(f"Cannot show {cases} cases: ask for one or more.")
    made = [render(sample_case(seed + number, preset=preset)) for number in range(cases)]
    draw_comparison(made, pairs, output)


def main() -> None:
    """Entry point of `python -m MRTRUSTraining.simulation.command`."""
    try:
        typer.run(simulate)
    except InputError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from error


if __name__ == "__main__":
    main()
