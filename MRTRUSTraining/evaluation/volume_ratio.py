"""How the reference volumes of a gland in TRUS and in MR relate, for the card of the TRUS segmenter.

`python -m MRTRUSTraining.evaluation.volume_ratio --data DIR` prints it for the mrus training part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from MRTRUSRegistrationLib.geometry import mask_volume_ml

from ..data.cases import find_cases, load_case, read_case_names


def main(data: Annotated[Path, typer.Option(help="The mrus folder.")], part: str = "train") -> None:
    names = read_case_names(data / "splits.json", part)
    cases = [load_case(case) for case in find_cases(data, "mrus", names)]
    ratios = np.log([mask_volume_ml(case.trus_gland) / mask_volume_ml(case.mr_gland) for case in cases])
    print(
        f"mrus {part}, {len(cases)} pairs, reference glands: log of TRUS volume by MR volume "
        f"{ratios.mean():+.3f} ± {ratios.std():.3f} (ratio {np.exp(ratios.mean()):.2f})"
    )


if __name__ == "__main__":
    typer.run(main)
