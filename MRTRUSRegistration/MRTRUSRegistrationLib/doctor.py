"""What `mrtrus doctor` looks at: versions, GPU, models, the extras, and where it may write."""

from __future__ import annotations

import platform
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from .errors import InputError
from .models import list_models

_NEEDED = ("torch", "antspyx", "SimpleITK", "numpy", "scipy", "matplotlib", "Jinja2")
_OPTIONAL = {"slicer-core": "scene.mrb", "pydantic": "training", "PyYAML": "training"}


@dataclass(frozen=True)
class Finding:
    """One line of the report; what is `needed` and not `fine` makes the command fail."""

    name: str
    message: str
    fine: bool
    needed: bool = True


def findings() -> list[Finding]:
    """Everything that `mrtrus doctor` checks, in the order it is printed."""
    found = [Finding("Python", platform.python_version(), True)]
    found += [_package(name) for name in _NEEDED]
    found += [_package(name, purpose=purpose) for name, purpose in _OPTIONAL.items()]
    return [*found, _gpu(), *_models(), _temporary_folder()]


def _package(name: str, purpose: str | None = None) -> Finding:
    try:
        return Finding(name, version(name), True, needed=purpose is None)
    except PackageNotFoundError:
        missing = "not installed" if purpose is None else f"not installed; only {purpose} needs it"
        return Finding(name, missing, False, needed=purpose is None)


def _gpu() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("GPU", f"torch cannot be imported ({error})", False)
    if torch.cuda.is_available():
        return Finding("GPU", torch.cuda.get_device_name(), True, needed=False)
    return Finding("GPU", "none that torch can use; the processor works too", False, needed=False)


def _models() -> list[Finding]:
    try:
        installed = list_models()
    except InputError as error:
        return [Finding("models", str(error), False)]
    found = [
        Finding(
            f"model {model.card.name}",
            f"{model.card.task}, {model.card.modality}, "
            + ("intact" if model.intact else "its file is missing or changed"),
            model.intact,
        )
        for model in installed
    ]
    needed = {("segmentation", "MR"), ("segmentation", "TRUS"), ("registration", "MR-TRUS")}
    missing = needed - {(model.card.task, model.card.modality) for model in installed}
    return found + [
        Finding(f"{task} model for {modality}", "none is installed", False)
        for task, modality in sorted(missing)
    ]


def _temporary_folder() -> Finding:
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile():
            return Finding("temporary folder", folder, True)
    except OSError as error:
        return Finding("temporary folder", f"{folder} cannot be written to ({error.strerror})", False)
