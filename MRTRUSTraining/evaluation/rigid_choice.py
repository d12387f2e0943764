"""Which rigid setting does best on the landmarks of training pairs: metric and limit of rotation.

`python -m MRTRUSTraining.evaluation.rigid_choice --data DIR` prints a table for the mrus training part with
reference masks. A rigid transform moves a landmark's centroid exactly, so no label is resampled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import SimpleITK as sitk  # noqa: N813
import typer

from MRTRUSRegistrationLib.ants_masks import AntsMetric
from MRTRUSRegistrationLib.geometry import mask_centroid_mm
from MRTRUSRegistrationLib.rigid import (
    RigidSettings,
    align_rigid,
    gland_initial,
    rotation_deg,
    scaled_rotation,
)

from ..data.cases import LoadedCase, find_cases, load_case, read_case_names

LIMITS_DEG = (0.0, 3.0, 5.0, 8.0, 10.0, 15.0, 20.0, 180.0)
METRICS: tuple[AntsMetric, ...] = ("mattes", "meansquares")


def landmark_rms_mm(case: LoadedCase, transform: sitk.Transform) -> float:
    """RMS distance of the landmarks' centroids in MR space; nan without landmarks."""
    gaps = [
        np.array(transform.TransformPoint(mask_centroid_mm(fixed).tolist())) - mask_centroid_mm(moving)
        for fixed, moving in zip(case.trus_labels[1:], case.mr_labels[1:], strict=True)
    ]
    return float(np.sqrt(np.mean(np.sum(np.square(gaps), axis=1)))) if gaps else float("nan")


def errors_by_limit_mm(case: LoadedCase, metric: AntsMetric) -> list[float]:
    """Landmark error at each limit of `LIMITS_DEG`, from one run of ANTs."""
    initial = gland_initial(case.mr_gland, case.trus_gland)
    settings = RigidSettings(metric=metric, max_rotation_deg=180.0)
    found = align_rigid(case.mr_gland, case.trus_gland, initial, settings=settings).transform
    angle = max(rotation_deg(found), 1e-6)
    return [landmark_rms_mm(case, scaled_rotation(found, min(1.0, limit / angle))) for limit in LIMITS_DEG]


def main(data: Annotated[Path, typer.Option(help="The mrus folder.")], part: str = "train") -> None:
    names = read_case_names(data / "splits.json", part)
    cases = [load_case(case) for case in find_cases(data, "mrus", names)]
    print(f"mrus {part}, {len(cases)} pairs, reference masks: mean over pairs of tre_rms_mm")
    print("limit of rotation  " + " ".join(f"{limit:6.0f}°" for limit in LIMITS_DEG))
    for metric in METRICS:
        errors = np.array([errors_by_limit_mm(case, metric) for case in cases])
        print(
            f"{metric:18s} " + " ".join(f"{value:7.2f}" for value in np.nanmean(errors, axis=0)), flush=True
        )


if __name__ == "__main__":
    typer.run(main)
