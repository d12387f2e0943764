"""Packages of the worker: into a folder of their own, seen by the worker alone, removable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.gui.install import PrivatePackages, missing_requirements, torch_installed
from MRTRUSRegistrationLib.gui.line_process import LineProcess

RESOURCES = Path(__file__).resolve().parents[1] / "MRTRUSRegistration" / "Resources"
# Slicer's own, which no other package may take the place of.
SLICERS_OWN = {"torch", "torchvision", "simpleitk", "slicer-core", "vtk"}


def write_wheel(folder: Path, *, name: str = "mrtrus_probe", version: str = "1.0") -> Path:
    """A package with one module that says its version."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in (files | {f"{info}/RECORD": record}).items():
            wheel.writestr(file, content)
    return path


def private(root: Path, *, version: str = "1.0") -> PrivatePackages:
    """Lists that ask for the probe package in one version."""
    lists = root / f"lists-{version}"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "requirements.txt").write_text("mrtrus-probe>=1.0\n")
    (lists / "constraints.txt").write_text(f"mrtrus-probe=={version}\n")
    return PrivatePackages(root / "packages", lists / "requirements.txt", lists / "constraints.txt")


def offline(command: list[str], wheels: Path) -> list[str]:
    return [*command, "--no-index", "--find-links", str(wheels)]


def run(command: list[str]) -> LineProcess:
    process = LineProcess(command)
    end = time.monotonic() + 60
    while process.exit_code is None and time.monotonic() < end:
        process.poll()
        time.sleep(0.02)
    process.poll()
    return process


def install(packages: PrivatePackages, wheels: Path) -> Path:
    staging = packages.prepare()
    process = run(offline(packages.command(sys.executable, staging), wheels))
    assert process.exit_code == 0, process.lines
    return packages.finish(staging)


def test_pip_writes_to_the_staging_folder_alone(tmp_path):
    command = private(tmp_path).command("python", tmp_path / "staging")
    assert command[command.index("--target") + 1] == str(tmp_path / "staging")
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert "--upgrade" not in command
    assert "--constraint" in command


def test_a_complete_folder_becomes_the_current_one(tmp_path):
    write_wheel(tmp_path)
    packages = private(tmp_path)
    assert packages.current() is None
    folder = install(packages, tmp_path)
    assert packages.current() == folder
    assert (folder / "mrtrus_probe.py").is_file()
    assert [path.name for path in packages.root.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow
def test_another_list_makes_another_folder_and_removes_the_old_one(tmp_path):
    for version in ("1.0", "1.1"):
        write_wheel(tmp_path, version=version)
    old = install(private(tmp_path), tmp_path)
    newer = private(tmp_path, version="1.1")
    assert newer.current() is None
    folder = install(newer, tmp_path)
    assert folder != old
    assert not old.exists()
    assert newer.current() == folder
    assert private(tmp_path).current() is None


def test_an_interrupted_installation_leaves_the_old_folder(tmp_path):
    write_wheel(tmp_path)
    packages = private(tmp_path)
    folder = install(packages, tmp_path)
    staging = packages.prepare()
    (staging / "half.py").write_text("")
    packages.discard(staging)
    assert packages.current() == folder
    assert not staging.exists()


def test_removal_leaves_nothing_but_foreign_files(tmp_path):
    write_wheel(tmp_path)
    packages = private(tmp_path)
    install(packages, tmp_path)
    (packages.root / "notes.txt").write_text("the user's own")
    packages.remove()
    assert packages.current() is None
    assert [path.name for path in packages.root.iterdir()] == ["notes.txt"]


def test_a_damaged_pointer_means_that_nothing_is_installed(tmp_path):
    packages = private(tmp_path)
    packages.root.mkdir(parents=True)
    for content in ("", "[]", '{"folder": "elsewhere"}', "no json"):
        (packages.root / "current.json").write_text(content)
        assert packages.current() is None


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "packages").write_text("a file in the way")
    with pytest.raises(InputError, match="cannot be made"):
        private(tmp_path).prepare()


def test_only_the_worker_sees_the_folder(tmp_path):
    """The worker puts it before its own packages; this process never imports from it."""
    write_wheel(tmp_path)
    folder = install(private(tmp_path), tmp_path)
    code = (
        "from MRTRUSRegistrationLib import worker; worker._use_private_packages();"
        "import mrtrus_probe; print(mrtrus_probe.__file__)"
    )
    environment = os.environ | {"MRTRUS_PACKAGES": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).parent == folder
    assert str(folder) not in sys.path


def test_missing_requirements_are_named(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("# what is needed\nnumpy>=1.0  # has it\nnumpy>=99\nmrtrus-nowhere>=1\n\n")
    assert missing_requirements(path) == ["numpy>=99", "mrtrus-nowhere>=1"]


def test_torch_is_found_without_importing_it():
    code = (
        "import sys; from MRTRUSRegistrationLib.gui.install import torch_installed;"
        "assert torch_installed(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert torch_installed()


@pytest.mark.slow
def test_a_killed_process_ends_with_its_children():
    import psutil

    code = (
        "import subprocess, sys, time; wait = 'import time; time.sleep(60)';"
        "subprocess.Popen([sys.executable, '-c', wait]); print('on', flush=True); time.sleep(60)"
    )
    process = LineProcess([sys.executable, "-c", code])
    while not process.poll():
        time.sleep(0.02)
    parent = psutil.Process(process._process.pid)
    family = [parent, *parent.children(recursive=True)]
    assert len(family) == 2
    process.kill()
    _gone, alive = psutil.wait_procs(family, timeout=2)
    assert [member for member in alive if member.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.slow
def test_what_would_be_installed_for_slicer(tmp_path):
    """Pip's own plan for Slicer's Python 3.12: ANTs, the numpy and scipy it needs, nothing of Slicer's."""
    packages = PrivatePackages(tmp_path, RESOURCES / "requirements.txt", RESOURCES / "worker-constraints.txt")
    plan = tmp_path / "plan.json"
    command = [
        *packages.command(sys.executable, tmp_path / "target"),
        *("--dry-run", "--quiet", "--report", str(plan), "--python-version", "3.12"),
    ]
    process = run(command)
    if process.exit_code != 0 and any("No matching distribution" in line for line in process.lines):
        pytest.skip("no package index can be reached")
    assert process.exit_code == 0, process.lines
    entries = json.loads(plan.read_text(encoding="utf-8"))["install"]
    versions = {entry["metadata"]["name"].lower(): entry["metadata"]["version"] for entry in entries}
    assert versions["antspyx"] == "0.6.3"
    assert not SLICERS_OWN & set(versions)
    assert tuple(map(int, versions["numpy"].split(".")[:2])) < (2, 4)
    assert tuple(map(int, versions["scipy"].split(".")[:2])) < (1, 16)
    pinned = dict(line.split("==") for line in packages.constraints.read_text().splitlines() if "==" in line)
    # Everything is pinned, so that every user gets what was tested.
    assert {name.replace("_", "-") for name in versions} <= set(pinned)
