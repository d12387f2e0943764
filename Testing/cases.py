"""A small case with a known answer on oblique grids, as images and as files, and tiny models for it.

The MR shows the TRUS's gland turned and shifted by `TRUTH`, which maps TRUS points to MR points (LPS, mm).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from scipy.ndimage import gaussian_filter
from shapes import ellipsoid, turned

from MRTRUSRegistrationLib.geometry import Grid, resample, resample_mask
from MRTRUSRegistrationLib.landmarks import write_landmarks
from MRTRUSRegistrationLib.models import InstalledModel, ModelCard, Preprocessing, Task, file_sha256
from MRTRUSRegistrationLib.results import Landmarks

RADII_MM = (19.0, 13.0, 16.0)
CENTRE_MM = (-31.0, 12.0, 44.0)
TRUTH = sitk.Euler3DTransform(CENTRE_MM, 0.05, -0.03, 0.07, (52.0, -38.0, 21.0))
TRUS_GRID = Grid.centred(np.array(CENTRE_MM), (40, 36, 30), (1.4, 1.5, 1.8), turned(0.2, -0.1, 0.15))
MR_GRID = Grid.centred(
    np.array(TRUTH.TransformPoint(CENTRE_MM)) + np.array((3.0, -2.0, 1.0)),
    (44, 40, 24),
    (1.4, 1.4, 2.5),
    turned(0.1, 0.2, 0),
)
_NAMES = ("left", "right", "apex")
_OFFSETS_MM = np.array([(9.0, 2.0, -3.0), (-8.0, 1.5, 4.0), (1.0, -3.0, -10.0)])


def trus_mask() -> sitk.Image:
    return ellipsoid(TRUS_GRID, RADII_MM, centre_mm=CENTRE_MM, axes=turned(0.3, 0.1, 0.2))


def mr_mask() -> sitk.Image:
    return resample_mask(trus_mask(), MR_GRID, TRUTH.GetInverse())


def trus_image() -> sitk.Image:
    """A bright gland with texture on a dark ground (float32)."""
    noise = gaussian_filter(np.random.default_rng(5).normal(size=TRUS_GRID.size_vox[::-1]), 2)
    array = 100 + 700.0 * sitk.GetArrayFromImage(trus_mask()) + 60 * noise / noise.std()
    return TRUS_GRID.image(array.astype(np.float32))


def mr_image() -> sitk.Image:
    return resample(trus_image(), MR_GRID, TRUTH.GetInverse(), outside=100.0)


def trus_landmarks() -> Landmarks:
    return Landmarks(_NAMES, np.array(CENTRE_MM) + _OFFSETS_MM)


def mr_landmarks() -> Landmarks:
    """The landmarks of the TRUS where the truth has them in the MR."""
    points = [TRUTH.TransformPoint(point) for point in trus_landmarks().points_mm.tolist()]
    return Landmarks(_NAMES, np.array(points))


@dataclass(frozen=True)
class CaseFiles:
    """The case as files; `arguments` are those of `mrtrus register`."""

    folder: Path

    @classmethod
    def write(cls, folder: Path) -> CaseFiles:
        folder.mkdir(parents=True, exist_ok=True)
        case = cls(folder)
        for image, path in (
            (mr_image(), case.mr),
            (trus_image(), case.trus),
            (mr_mask(), case.mr_mask),
            (trus_mask(), case.trus_mask),
        ):
            sitk.WriteImage(image, str(path))
        write_landmarks(mr_landmarks(), case.mr_landmarks)
        write_landmarks(trus_landmarks(), case.trus_landmarks)
        return case

    @property
    def mr(self) -> Path:
        return self.folder / "mr.nii.gz"

    @property
    def trus(self) -> Path:
        return self.folder / "trus.nrrd"

    @property
    def mr_mask(self) -> Path:
        return self.folder / "mr-gland.nii.gz"

    @property
    def trus_mask(self) -> Path:
        return self.folder / "trus-gland.nrrd"

    @property
    def mr_landmarks(self) -> Path:
        return self.folder / "mr.mrk.json"

    @property
    def trus_landmarks(self) -> Path:
        return self.folder / "trus.csv"

    def arguments(self, output: Path | str, **changed: object) -> list[str]:
        """A run with masks and landmarks; `changed` replaces values by the option's name, None leaves out."""
        values: dict[str, object] = {
            "mr": self.mr,
            "trus": self.trus,
            "output": output,
            "method": "centroid",
            "mr_mask": self.mr_mask,
            "trus_mask": self.trus_mask,
            "mr_landmarks": self.mr_landmarks,
            "trus_landmarks": self.trus_landmarks,
        }
        values |= changed
        positional = [str(values.pop(name)) for name in ("mr", "trus")]
        options = [(f"--{name.replace('_', '-')}", value) for name, value in values.items()]
        switches = [name for name, value in options if value is True]
        pairs = [part for name, value in options if value not in (None, True) for part in (name, str(value))]
        return ["register", *positional, *pairs, *switches]


class ThresholdNetwork(torch.nn.Module):
    """Gland where the image is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid((x - 0.5) * 40)


class OrientedNetwork(torch.nn.Module):
    """Gland where the image is bright; sure of it only where brightness grows along the array axis j."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        along = torch.linspace(-1.0, 1.0, x.shape[3]).reshape(1, 1, 1, -1, 1)
        sure = torch.sigmoid((x * along).mean() * 1000)
        return torch.sigmoid((x - 0.5) * (1 + 40 * sure))


class ShiftNetwork(torch.nn.Module):
    """The same displacement everywhere, in voxels along the array axes (k, j, i)."""

    def __init__(self, shift_kji: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift_kji).reshape(1, 3, 1, 1, 1))

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        return self.shift * torch.ones_like(fixed)


def card(
    *,
    name: str,
    task: Task,
    modality: str,
    file: str,
    sha256: str,
    spacing_mm: float = 2.0,
    side_vox: int = 32,
) -> ModelCard:
    return ModelCard(
        name=name,
        title=f"Test model {name}",
        task=task,
        modality=modality,
        architecture={"name": "none", "widths": [1, 2]},
        preprocessing=Preprocessing("LPS", (spacing_mm,) * 3),
        grid_vox=(side_vox,) * 3,
        settings={},
        training_data=({"name": "none", "licence": "CC0"},),
        figures=({"split": "val", "dsc": 0.5},),
        licence="Apache-2.0",
        file=file,
        sha256=sha256,
    )


def install(
    folder: Path, network: torch.nn.Module, *, name: str, task: Task, modality: str, **options: int | float
) -> InstalledModel:
    """Write a network as TorchScript with its card."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit.*deprecated.*", category=DeprecationWarning)
        torch.jit.script(network).save(str(path))
    written = card(
        name=name, task=task, modality=modality, file=path.name, sha256=file_sha256(path), **options
    )  # type: ignore[arg-type]
    card_path = folder / f"{name}.json"
    card_path.write_text(written.to_json(), encoding="utf-8")
    return InstalledModel(written, card_path)


def install_all(folder: Path, *, shift_kji: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Path:
    """A folder with a segmentation model for each image and a registration model named cmsa."""
    for modality in ("MR", "TRUS"):
        install(folder, ThresholdNetwork(), name=f"gland-{modality}", task="segmentation", modality=modality)
    install(
        folder, ShiftNetwork(shift_kji), name="cmsa", task="registration", modality="MR-TRUS", side_vox=40
    )
    return folder
