"""Packages of the worker in a folder of their own: Slicer's numpy, scipy and SimpleITK stay untouched.

A folder is named after what is in it and never changed once it is complete; a pointer file names the current
one and is replaced in one step. Only the worker process looks into it. No Qt, no Slicer.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ..errors import InputError

# What a user is told before agreeing; measured with the pinned versions, rounded up.
DOWNLOAD_MB = 250
DISK_MB = 700
_SPACE_MB = 1500
# 2.13 wheels carry metadata that the PyTorch extension's installer does not read.
TORCH_VERSIONS = ">=2.8,<2.13"


def default_root() -> Path:
    """Where the private folders lie: beside the user's own models, outside the extension."""
    return Path(os.path.expanduser("~/.local/share/mrtrus/packages"))


@dataclass(frozen=True)
class PrivatePackages:
    """The private folders under `root`, made from a list of requirements and the tested versions."""

    root: Path
    requirements: Path
    constraints: Path

    @property
    def name(self) -> str:
        """The name of the folder that these lists make, for this version of Python."""
        content = self.requirements.read_bytes() + self.constraints.read_bytes()
        python = f"{sys.version_info.major}{sys.version_info.minor}"
        return f"py{python}-{hashlib.sha256(content).hexdigest()[:12]}"

    @property
    def _pointer(self) -> Path:
        return self.root / "current.json"

    def current(self) -> Path | None:
        """The complete folder of the wanted versions, or `None`."""
        try:
            name = json.loads(self._pointer.read_text(encoding="utf-8"))["folder"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        folder = self.root / str(name)
        return folder if name == self.name and folder.is_dir() else None

    def prepare(self) -> Path:
        """An empty staging folder; `InputError` where none can be made or the disk is too full."""
        staging = self.root / f".partial-{os.getpid()}"
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            free_mb = shutil.disk_usage(self.root).free / 1e6
        except OSError as error:
            raise InputError(
                f"The folder for packages {self.root} cannot be made ({error.strerror}); check that you may "
                "write there."
            ) from error
        if free_mb < _SPACE_MB:
            self.discard(staging)
            raise InputError(f"The disk of {self.root} has less than {_SPACE_MB} MB left; free some space.")
        return staging

    def command(self, python: str, staging: Path) -> list[str]:
        """The pip command that fills `staging` and nothing else."""
        return [
            *(
                python,
                "-m",
                "pip",
                "install",
                "--target",
                str(staging),
                "--no-input",
                "--progress-bar",
                "off",
            ),
            *("--disable-pip-version-check", "--only-binary", ":all:", "--ignore-installed"),
            *("--constraint", str(self.constraints), "--requirement", str(self.requirements)),
        ]

    def finish(self, staging: Path) -> Path:
        """Make the staging folder the current one; older folders are removed."""
        folder = self.root / self.name
        if folder.is_dir():
            shutil.rmtree(folder)
        staging.rename(folder)
        fresh = self.root / f".current-{os.getpid()}.json"
        fresh.write_text(json.dumps({"folder": self.name}) + "\n", encoding="utf-8")
        os.replace(fresh, self._pointer)
        for other in self._folders():
            if other != folder:
                self.discard(other)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a folder as far as the system lets us: one that is in use may stay until the next time."""
        shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Delete everything that was installed."""
        self._pointer.unlink(missing_ok=True)
        for folder in self._folders():
            self.discard(folder)

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        own = ("py3", ".partial-")
        return [path for path in self.root.iterdir() if path.is_dir() and path.name.startswith(own)]


def missing_requirements(requirements: Path) -> list[str]:
    """The lines of a requirements file that this Python does not meet by itself."""
    from packaging.requirements import Requirement

    lines = (line.split("#")[0].strip() for line in requirements.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not _met(Requirement(line))]


def _met(requirement: object) -> bool:
    try:
        return version(requirement.name) in requirement.specifier  # type: ignore[attr-defined]
    except PackageNotFoundError:
        return False


def torch_installed() -> bool:
    """Whether torch is there, found without importing it."""
    return find_spec("torch") is not None


def install_torch() -> bool:
    """Install torch through the PyTorch extension, which asks the user; `False` if they decline."""
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise InputError(
            "The PyTorch extension is missing; install it in the Extensions Manager, restart Slicer and try "
            "again."
        ) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    installed = logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH_VERSIONS)
    return installed is not None
