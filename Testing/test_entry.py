"""The first moments of the commands."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

import pytest

from MRTRUSRegistrationLib.entry import start


@pytest.mark.parametrize("body", ["raise KeyboardInterrupt", "def main():\n    raise KeyboardInterrupt"])
def test_ctrl_c_is_one_sentence_also_during_imports(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "interrupted_command.py").write_text(body, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "interrupted_command", raising=False)
    with pytest.raises(SystemExit) as ended:
        start("interrupted_command")
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Error: Interrupted.\n"


@pytest.mark.parametrize("command", ["mrtrus", "mrtrus-train"])
def test_the_installed_commands_begin_there(command: str) -> None:
    (installed,) = distributions(name="mrtrus", path=[sysconfig.get_path("purelib")])
    (script,) = installed.entry_points.select(group="console_scripts", name=command)
    imported = f"import sys; from {script.module} import {script.attr}; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert script.module.endswith(".entry")
    assert not loaded & {"typer", "numpy", "SimpleITK", "MRTRUSRegistrationLib.cli", "MRTRUSTraining.cli"}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["MRTRUSRegistrationLib.cli", "MRTRUSTraining.cli"])
def test_help_needs_no_torch(module: str) -> None:
    asked = f"import sys, {module}; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
