"""The sample case that the project ships: one simulated pair with exactly corresponding landmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import SimpleITK as sitk  # noqa: N813
import typer

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.geometry import mask_centroid_mm
from MRTRUSRegistrationLib.landmarks import write_landmarks
from MRTRUSRegistrationLib.results import Landmarks
from MRTRUSRegistrationLib.transforms import transform_points_mm

if TYPE_CHECKING:
    from .cases import SimulatedCase

# Structures that a reader finds in both images; the zones are too large to point at.
LANDMARKS = ("urethra", "lesions", "cysts", "calcifications", "seminal vesicles", "apex", "base")


def sample_landmarks(case: SimulatedCase) -> tuple[Landmarks, Landmarks]:
    """MR and TRUS landmarks: the centroids of the TRUS labels, and where the exact transform takes them."""
    labels = {name.replace("_", " "): label for name, label in case.trus_labels.items()}
    names = tuple(n for n in LANDMARKS if n in labels and np.any(sitk.GetArrayViewFromImage(labels[n])))
    trus_mm = np.array([mask_centroid_mm(labels[name]) for name in names])
    return Landmarks(names, transform_points_mm(case.transform, trus_mm)), Landmarks(names, trus_mm)


def write_sample_case(
    output: Annotated[Path, typer.Option(help="Folder for the sample case.")],
    seed: Annotated[int, typer.Option(help="Seed of the case; the default is the shipped one.")] = 12,
    preset: Annotated[str, typer.Option(help="Preset of the simulator.")] = "sample",
) -> None:
    """Simulate the bundled sample case: images, labels, landmarks and the parameters that regenerate it."""
    from .cases import simulate, stack_labels
    from .sampling import sample_case

    if output.is_dir() and any(output.iterdir()):
        raise InputError(f"The folder {output} is not empty; give a new one.")
    output.mkdir(parents=True, exist_ok=True)
    case = simulate(sample_case(seed, preset=preset))
    for name, image in {
        "mr": case.mr,
        "trus": case.trus,
        "mr_labels": stack_labels(case.mr_labels),
        "trus_labels": stack_labels(case.trus_labels),
    }.items():
        sitk.WriteImage(image, str(output / f"{name}.nii.gz"), useCompression=True)
    mr_landmarks, trus_landmarks = sample_landmarks(case)
    write_landmarks(mr_landmarks, output / "mr_landmarks.mrk.json")
    write_landmarks(trus_landmarks, output / "trus_landmarks.mrk.json")
    (output / "parameters.json").write_text(case.parameters.to_json(), encoding="utf-8")
