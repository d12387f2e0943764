"""How much of each structure is seen in TRUS against MR: what the warning `structures_differ` rests on.

`python -m MRTRUSTraining.evaluation.structure_ratio --data DIR` prints it for a folder of simulated pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from MRTRUSRegistrationLib.structures import structure_models_named

from ..data.cases import Case, list_cases
from ..registration_samples import prepare_samples
from ..registration_settings import RegistrationSettings
from ..row import find_row


def ratios(
    cases: list[Case], settings: RegistrationSettings, structures: int, cache: Path | None
) -> Iterator[list[float]]:
    """For each case the volume seen in TRUS by that seen in MR, structure by structure, on the row's grid."""
    for case in cases:
        (sample,) = prepare_samples([case], settings, cache)
        both = sample.fixed_image[0], sample.moving_image[0]
        fixed, moving = (each[1 : 1 + structures].sum((1, 2, 3)) for each in both)
        yield (fixed / moving).tolist()


def main(
    data: Annotated[Path, typer.Option(help="A folder in the layout muregpro.")],
    row: Annotated[str, typer.Option(help="A row that is shown structures.")] = "cmsa-structures",
    cache: Annotated[Path | None, typer.Option(help="Folder for prepared pairs.")] = None,
    most: Annotated[int, typer.Option(help="How many pairs, from the first.")] = 120,
) -> None:
    settings = find_row(row).method
    if not isinstance(settings, RegistrationSettings) or not settings.structures:
        raise typer.BadParameter(f"The row {row} is shown no structures.")
    cases = list_cases(data, "muregpro")[:most]
    names = structure_models_named(settings.structures)["MR"].card.settings["structures"]
    found = np.log(list(ratios(cases, settings, len(names), cache)))
    for name, logs in zip(names, found.T, strict=True):
        middle = np.exp(np.median(logs))
        most_apart, nearly_all = (np.exp(np.quantile(np.abs(logs), share)) for share in (1.0, 0.95))
        print(
            f"{len(cases)} pairs, {name}: TRUS by MR {middle:.2f} (median), apart by a factor "
            f"of {most_apart:.2f} at most, {nearly_all:.2f} in 95 %"
        )


if __name__ == "__main__":
    typer.run(main)
