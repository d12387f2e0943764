"""`mrtrus-train simulation-evidence`: figures that say whether the simulator keeps to its sources."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from MRTRUSRegistrationLib.errors import InputError

from .command import check_request
from .findings import Finding, finding, spread, table
from .presets import PRESETS, SPACING_MM

if TYPE_CHECKING:
    from .cases import SimulatedCase
    from .parameters import CaseParameters

_REAL_PAIRS = 24
_MOST_SECONDS = 15
_ABOUT = """\
Every row compares what the simulator draws or renders with a published or derived figure. "Within" says
whether the mean (for folds, volumes and motion the worst case, for lesions' motion the share in range) lies
within the tolerance that the row's source allows. Cases with contrasts that follow no physics are left out
of the contrast rows.
"""


@dataclass(frozen=True)
class _Rendered:
    """Cases that were rendered, and the processor time of each."""

    cases: tuple[SimulatedCase, ...]
    seconds: tuple[float, ...]


def simulation_evidence(
    output: Annotated[Path, typer.Option(help="An empty or new folder for evidence.md and its pictures.")],
    cases: Annotated[int, typer.Option(help="How many cases to render.")] = 12,
    drawn: Annotated[int, typer.Option(help="How many cases to draw without rendering them.")] = 60,
    seed: Annotated[int, typer.Option(help="The first case's seed.")] = 0,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "clinical",
    spacing_mm: Annotated[float, typer.Option(help="Voxel spacing.")] = SPACING_MM,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the public mrus pairs to compare with.")
    ] = None,
) -> None:
    """Measure the simulator against its sources; real pairs stand beside blurred cases where given."""
    from .pictures import public_pairs
    from .sampling import sample_case

    check_request(cases=cases, output=output)
    if drawn < 1:
        raise InputError(f"Cannot draw {drawn} cases: ask for one or more.")
    pairs = [] if data is None else public_pairs(data, _REAL_PAIRS)
    first = sample_case(seed, preset=preset, spacing_mm=spacing_mm)
    output.mkdir(parents=True, exist_ok=True)
    parameters = [first]
    parameters += [
        sample_case(seed + n, preset=preset, spacing_mm=spacing_mm) for n in range(1, max(drawn, cases))
    ]
    sections = {"Drawn": _drawn(parameters[:drawn], preset, output)}
    rendered = _render(parameters[:cases])
    sections["Rendered"] = _rendered(rendered, output)
    if data is not None:
        sections["Beside real pairs"] = _beside(rendered, pairs, data, output)
    text = _page(sections, f"{preset}, seeds from {seed}, {drawn} drawn, {cases} rendered at {spacing_mm} mm")
    (output / "evidence.md").write_text(text, encoding="utf-8")
    print(text)


def _drawn(parameters: Sequence[CaseParameters], preset: str, output: Path) -> list[Finding]:
    from . import evidence_drawn as evidence
    from .evidence_figures import draw_distributions

    settings = [each.trus for each in parameters[:8]]
    glands = evidence.drawn_glands(preset)
    lesions = evidence.drawn_lesions(parameters[:20], preset)
    motions = [evidence.motion_of(each) for each in parameters]
    draw_distributions(output / "distributions.png", glands, lesions, motions, settings[0])
    return [
        *evidence.speckle_findings(settings),
        *evidence.gland_findings(glands),
        *evidence.tissue_findings(preset),
        *evidence.lesion_findings(lesions),
        *evidence.motion_findings(motions),
    ]


def _render(parameters: Sequence[CaseParameters]) -> _Rendered:
    from rich.progress import track

    from .cases import simulate
    from .sampling import sample_case

    made, seconds = [], []
    for each in track(parameters, description="Rendering"):
        start = time.process_time()
        sample_case(each.seed, preset=each.preset, spacing_mm=each.spacing_mm)
        made.append(simulate(each))
        seconds.append(time.process_time() - start)
    return _Rendered(tuple(made), tuple(seconds))


def _rendered(rendered: _Rendered, output: Path) -> list[Finding]:
    from .evidence_rendered import mr_findings, shown_by, trus_findings, volume_findings
    from .pictures import draw_case

    for case in rendered.cases[:4]:
        draw_case(case, output / "cases" / f"seed{case.parameters.seed}.png")
    shown = [(case.parameters, shown_by(case)) for case in rendered.cases]
    return [
        *mr_findings([each for case, each in shown if not case.mr.random_contrast]),
        *trus_findings([each for case, each in shown if not case.trus.random_contrast]),
        *volume_findings([each for _, each in shown]),
        _time_finding(rendered),
    ]


def _time_finding(rendered: _Rendered) -> Finding:
    """The aim is one of pairs at the standard spacing; pairs at another are not judged by it.

    A pair is rendered by one thread, so that its processor time is what the clock of a machine with two free
    cores shows, or a little more; whatever else runs beside it does not count.
    """
    spacing_mm = rendered.cases[0].parameters.spacing_mm
    return finding(
        f"processor seconds to draw and render a pair at {spacing_mm} mm",
        float(np.median(rendered.seconds)) if spacing_mm == SPACING_MM else math.nan,
        (0, _MOST_SECONDS),
        expected=f"at most {_MOST_SECONDS} at {SPACING_MM} mm on two cores",
        source="aim",
        shown=f"median {np.median(rendered.seconds):.1f}, {spread(rendered.seconds, digits=1)}",
    )


def _beside(
    rendered: _Rendered, pairs: Sequence[tuple[str, dict]], data: Path, output: Path
) -> list[Finding]:
    from .evidence_rendered import gland_pairs, real_findings
    from .pictures import coarse, draw_comparison

    draw_comparison(list(rendered.cases[:4]), data, output / "comparison.png")
    rows = []
    for side, folder in (("MR", "moving"), ("TRUS", "fixed")):
        real = [(images[f"{folder}_images"], images[f"{folder}_labels"] > 0.5) for _, images in pairs]
        random = [case for case in rendered.cases if not _random(case, side)]
        rows += real_findings(gland_pairs(random, coarse, side), real, side)
    return rows


def _random(case: SimulatedCase, side: str) -> bool:
    return (case.parameters.mr if side == "MR" else case.parameters.trus).random_contrast


def _page(sections: dict[str, list[Finding]], settings: str) -> str:
    """The whole page in Markdown."""
    rows = [row for part in sections.values() for row in part]
    judged = [row for row in rows if row.within is not None]
    agree = sum(bool(row.within) for row in judged)
    parts = ["# Evidence for the simulator", "", f"Preset {settings}.", "", _ABOUT]
    parts += [f"{agree} of {len(judged)} rows agree with their source.", ""]
    for title, findings in sections.items():
        parts += [f"## {title}", "", table(findings), ""]
    return "\n".join(parts)
