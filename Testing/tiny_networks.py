"""Networks of a line, with cards, that make the output of a stage predictable by hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from MRTRUSRegistrationLib.models import InstalledModel, ModelCard, Preprocessing, Task, file_sha256


class Brightness(torch.nn.Module):
    """Probability = intensity: a voxel-wise network."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


class BrightTowardsTheBack(torch.nn.Module):
    """As sure as the intensity where the image gets brighter along its second array axis (front to back)."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        half = image.shape[3] // 2
        front, back = image[:, :, :, :half], image[:, :, :, half:]
        sure = torch.sigmoid(20 * (back.mean() - front.mean()))
        return (image > 0.2).float() * (0.55 + 0.4 * sure)


class Shift(torch.nn.Module):
    """A constant displacement in voxels, array-axis order."""

    def __init__(self, shift_vox: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift_vox).view(1, 3, 1, 1, 1))

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        return self.shift + torch.zeros_like(fixed).expand(-1, 3, -1, -1, -1)


class Turn(torch.nn.Module):
    """The displacement of a rotation about the middle of the volume, by angles (rad) about its array axes."""

    def __init__(self, angles_rad: tuple[float, float, float]) -> None:
        super().__init__()
        rotation = Rotation.from_euler("xyz", angles_rad)
        self.angle_deg = float(np.degrees(rotation.magnitude()))
        matrix = torch.from_numpy(rotation.as_matrix().astype(np.float32))
        self.register_buffer("change", matrix - torch.eye(3))

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        k, j, i = fixed.shape[2], fixed.shape[3], fixed.shape[4]
        axes = [torch.arange(n, dtype=torch.float32, device=fixed.device) - (n - 1) / 2 for n in (k, j, i)]
        points = torch.stack(torch.meshgrid(axes, indexing="ij")).reshape(3, k * j * i)
        return (self.change @ points).reshape(1, 3, k, j, i)


class Wave(torch.nn.Module):
    """A displacement along the last axis that folds: ± `height` voxels with a period of eight voxels."""

    def __init__(self, height_vox: float) -> None:
        super().__init__()
        self.height_vox = height_vox

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        place = torch.arange(fixed.shape[4], dtype=torch.float32, device=fixed.device)
        wave = self.height_vox * torch.sin(place * (6.283185307 / 8.0)) + torch.zeros_like(fixed)
        zero = torch.zeros_like(fixed)
        return torch.cat([zero, zero, wave], dim=1)


class Undefined(torch.nn.Module):
    """A network that has gone wrong."""

    def forward(self, moving: torch.Tensor, fixed: torch.Tensor) -> torch.Tensor:
        return torch.cat([fixed, fixed, fixed / 0.0 - fixed / 0.0], dim=1)


def install(
    network: torch.nn.Module,
    folder: Path,
    *,
    modality: str,
    grid_vox: tuple[int, int, int],
    preprocessing: Preprocessing,
    settings: dict[str, Any] | None = None,
    name: str = "tiny",
    task: Task | None = None,
) -> InstalledModel:
    """Write the network and its card into a folder, as an export does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(path))
    card = ModelCard(
        name=name,
        title="A network for tests",
        task=task or ("registration" if modality == "MR-TRUS" else "segmentation"),
        modality=modality,
        architecture={"name": type(network).__name__},
        preprocessing=preprocessing,
        grid_vox=grid_vox,
        settings=settings or {},
        training_data=(),
        figures=(),
        licence="Apache-2.0",
        file=path.name,
        sha256=file_sha256(path),
    )
    card_path = folder / f"{name}.json"
    card_path.write_text(card.to_json(), encoding="utf-8")
    return InstalledModel(card, card_path)
