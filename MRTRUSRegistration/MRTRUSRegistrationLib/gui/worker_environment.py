"""Which Python runs the worker and what it sees; asking and installing before the first run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from ..errors import InputError
from ..job_runner import Timer
from .install import (
    DISK_MB,
    DOWNLOAD_MB,
    PrivatePackages,
    default_root,
    install_torch,
    missing_requirements,
    torch_installed,
)
from .line_process import LineProcess
from .messages import show_error, shown_errors
from .timers import qt_timer

_POLL_MS = 200


def worker_python() -> str:
    """PythonSlicer, which the application puts on the path; this very Python outside of Slicer."""
    return shutil.which("PythonSlicer") or sys.executable


def resources_folder() -> Path:
    """The module's Resources; the packaged one of a headless installation is not asked for here."""
    return Path(__file__).resolve().parents[2] / "Resources"


def worker_environment(private: Path | None) -> dict[str, str]:
    """The variables of the worker: this process's, and where its packages lie.

    The worker itself puts the folder in `MRTRUS_PACKAGES` first on its path, because PythonSlicer puts
    Slicer's own folders before everything in PYTHONPATH.
    """
    environment = dict(os.environ)
    environment.pop("MRTRUS_PACKAGES", None)
    if private is not None:
        environment["MRTRUS_PACKAGES"] = str(private)
    return environment


class WorkerSetup:
    """Knows whether the worker has what it needs, and installs it with the user's consent."""

    def __init__(
        self,
        packages: PrivatePackages | None = None,
        *,
        timer: Callable[[int, Callable[[], None]], Timer] = qt_timer,
    ) -> None:
        lists = [resources_folder() / name for name in ("requirements.txt", "worker-constraints.txt")]
        self.packages = packages or PrivatePackages(default_root(), *lists)
        self._timer = timer(_POLL_MS, self._poll)
        self._process: LineProcess | None = None
        self._staging: Path | None = None
        self._tell: Callable[[str], None] = lambda line: None
        self._then: Callable[[bool], None] = lambda success: None

    @property
    def installing(self) -> bool:
        return self._process is not None

    def missing_packages(self) -> list[str]:
        """The requirements that neither the private folder nor this Python meets."""
        return [] if self.packages.current() else missing_requirements(self.packages.requirements)

    @property
    def ready(self) -> bool:
        return torch_installed() and not self.missing_packages()

    def environment(self) -> dict[str, str]:
        return worker_environment(self.packages.current())

    def state(self) -> str:
        """One sentence for the panel."""
        if not torch_installed():
            return _("PyTorch is not installed; you are asked before it is.")
        folder = self.packages.current()
        if folder is not None:
            return _("Installed for this module alone in {folder}.").format(folder=folder)
        missing = self.missing_packages()
        if missing:
            text = _("Not installed yet ({missing}); you are asked before they are.")
            return text.format(missing=", ".join(missing))
        return _("Everything is there.")

    def ensure(self, *, tell: Callable[[str], None], then: Callable[[bool], None]) -> None:
        """Call `then(True)` once everything is there, `then(False)` if the user declined or it failed.

        Asks first; pip runs in a child process and `tell` gets its lines. In testing mode nothing is
        installed: an `InputError` says what is missing.
        """
        if self.installing:
            raise InputError(_("The packages are being installed; wait for it or cancel it."))
        if self.ready:
            then(True)
            return
        if slicer.app.testingEnabled():
            raise InputError(_("Packages are missing, and nothing is installed in testing mode."))
        if not torch_installed() and not install_torch():
            then(False)
            return
        if self.missing_packages():
            self._ask_and_install(tell, then)
        else:
            then(True)

    def _ask_and_install(self, tell: Callable[[str], None], then: Callable[[bool], None]) -> None:
        question = _(
            "The registration needs ANTs and packages that it depends on: about {download} MB to download "
            "and {disk} MB in {folder}. Only this module uses that folder; Slicer's own packages stay as "
            "they are, and you can remove it at any time in the section Register, Advanced.\n\n"
            "Install them now?"
        ).format(download=DOWNLOAD_MB, disk=DISK_MB, folder=self.packages.root)
        if not slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Install packages")):
            then(False)
            return
        self._staging = self.packages.prepare()
        command = self.packages.command(worker_python(), self._staging)
        self._process = LineProcess(command, environment=worker_environment(None))
        self._tell, self._then = tell, then
        self._timer.start()

    def _poll(self) -> None:
        process = self._process
        if process is None:
            return
        for line in process.poll():
            self._tell(line)
        if process.exit_code is not None:
            self._end(process)

    def _end(self, process: LineProcess) -> None:
        process.poll()
        staging, then = self._close()
        success = False
        with shown_errors(_("The packages cannot be installed")):
            if process.exit_code == 0:
                self.packages.finish(staging)
                success = True
            else:
                self.packages.discard(staging)
                reason = next((line for line in reversed(process.lines) if "ERROR" in line), "")
                show_error(
                    _(
                        "pip could not install the packages ({reason}); check the network or the proxy."
                    ).format(reason=reason.replace("ERROR:", "").strip() or process.exit_code)
                )
        then(success)

    def cancel(self) -> None:
        """Stop pip and remove what it had written."""
        if self._process is not None:
            self._process.kill()
            staging, then = self._close()
            self.packages.discard(staging)
            then(False)

    def _close(self) -> tuple[Path, Callable[[bool], None]]:
        self._timer.stop()
        assert self._staging is not None
        staging, then = self._staging, self._then
        self._process = self._staging = None
        return staging, then
