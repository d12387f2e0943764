"""A tiny data set and tiny rows for it, so that a whole run takes a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from dataset_case import write_dataset

NAMES = ("a", "b", "c", "d")


def tiny_data(folder: Path) -> Path:
    """Four pairs of three patients; two of them, one patient each, validate."""
    write_dataset(folder, "mrus", NAMES)
    split = {"train": ["a", "b"], "val": ["c", "d"], "patients": [["a", "b"], ["c"], ["d"]]}
    (folder / "splits.json").write_text(json.dumps(split), encoding="utf-8")
    return folder


def registration_content(**method: Any) -> dict[str, Any]:
    """A registration row on a grid of 4 mm, which holds the glands of the tiny data."""
    return {
        "name": "tiny",
        "title": "A tiny row",
        "definition": "For tests.",
        "method": {
            "kind": "registration",
            "network": "voxelmorph",
            "options": {"integration_steps": 2},
            "preprocessing": {"orientation": "LPS", "spacing_mm": [4.0, 4.0, 4.0]},
            "grid_vox": [32, 16, 16],
            "alignment": "centroid",
            "validation_draws": 1,
            **method,
        },
        "schedule": {"steps": 4, "learning_rate": 1e-3, "bf16": False, "validations": 2},
        "data": {"layout": "mrus"},
        "seed": 5,
    }


def segmentation_content(**method: Any) -> dict[str, Any]:
    """A segmentation row with a V-Net of two channels a level."""
    content = registration_content()
    content["method"] = {
        "kind": "segmentation",
        "modality": "MR",
        "network": "vnet",
        "options": {"widths": [2, 2, 2, 2, 2]},
        "preprocessing": {"orientation": "LPS", "spacing_mm": [2.0, 2.0, 2.0]},
        "training_vox": [32, 32, 32],
        "window_vox": [32, 32, 32],
        **method,
    }
    return content


def write_row(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
