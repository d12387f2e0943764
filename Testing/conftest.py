"""Fixtures that several files of tests share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def case_files(tmp_path_factory: pytest.TempPathFactory):
    """The small case of `cases` on disk; tests read it and write elsewhere."""
    from cases import CaseFiles

    return CaseFiles.write(tmp_path_factory.mktemp("case"))


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]):
    """Run `mrtrus` in this process: `run_cli(arguments)` gives exit code, standard output and error."""
    from MRTRUSRegistrationLib.cli import app
    from MRTRUSRegistrationLib.cli_support import run_app

    def run(arguments: list[str | Path]) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_app(app, [str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory):
    """An empty disk of 4 MB of its own; skipped where this user may not mount one."""
    from disks import mounted_disk

    with mounted_disk(tmp_path_factory.mktemp("disk"), size_mb=4) as folder:
        yield folder
