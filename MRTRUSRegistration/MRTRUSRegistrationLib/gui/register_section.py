"""The section Register: the method, one button, progress and Cancel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from ..job_runner import Listener
from ..mrml.job_inputs import Inputs, write_inputs
from ..mrml.stale import remember_glands
from ..mrml.target_carrying import carry
from .choices import Accepted
from .job_inputs import chosen_inputs
from .marking import ask_about, hide_landmarks
from .messages import show_error, shown_errors
from .methods import Method, methods
from .readiness import Situation, why_not_install, why_not_register, why_not_remove
from .section import Section
from .worker_environment import worker_python

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes
    from .panel import Panel


class RegisterSection(Section):
    """Starts runs, shows how far they are, and commits what they made."""

    def __init__(self, ui: Any, panel: Panel) -> None:
        super().__init__(ui, panel)
        self._methods: tuple[Method, ...] = ()
        self._filled_for: str | None = None
        ui.methodComboBox.connect("currentIndexChanged(int)", self.on_method)
        ui.modelsPathLineEdit.connect("currentPathChanged(QString)", self.on_models_folder)
        ui.registerButton.connect("clicked()", self.on_register)
        ui.cancelButton.connect("clicked()", self.on_cancel)
        ui.installButton.connect("clicked()", self.on_install)
        ui.removePackagesButton.connect("clicked()", self.on_remove_packages)

    def refresh(self, now: Situation) -> None:
        parameters = self.panel.parameters
        if self._filled_for != parameters.modelsFolder:
            self._fill_methods(parameters.modelsFolder)
        self._show_method(parameters.method)
        if self.ui.modelsPathLineEdit.currentPath != parameters.modelsFolder:
            self.ui.modelsPathLineEdit.currentPath = parameters.modelsFolder
        self.allow("registerButton", why_not_register(now))
        self.allow("cancelButton", "" if now.running else _("Nothing is running."))
        self.allow("installButton", why_not_install(now))
        self.allow("removePackagesButton", why_not_remove(now))
        self.ui.packagesLabel.text = self.panel.setup.state()

    def _fill_methods(self, folder: str) -> None:
        self._filled_for = folder
        self._methods = methods(Path(folder) if folder else None)
        combo = self.ui.methodComboBox
        blocked = combo.blockSignals(True)
        combo.clear()
        for method in self._methods:
            combo.addItem(method.label)
        combo.blockSignals(blocked)

    def _show_method(self, name: str) -> None:
        """A method whose model is gone stays chosen, so that registering says what is missing."""
        names = [method.name for method in self._methods]
        combo = self.ui.methodComboBox
        blocked = combo.blockSignals(True)
        combo.currentIndex = names.index(name) if name in names else -1
        combo.blockSignals(blocked)
        chosen = next((method for method in self._methods if method.name == name), None)
        missing = _("The model {name} is not installed.").format(name=name)
        self.ui.methodLabel.text = chosen.description if chosen else missing

    def on_method(self, index: int) -> None:
        if 0 <= index < len(self._methods):
            self.panel.parameters.method = self._methods[index].name

    def on_models_folder(self, folder: str) -> None:
        if self.panel.parameters is not None:
            self.panel.parameters.modelsFolder = folder

    def on_register(self) -> None:
        with shown_errors(_("The registration cannot start")):
            self.start(chosen_inputs(self.panel.parameters), previous=None)

    def on_cancel(self) -> None:
        with shown_errors(_("The run cannot be cancelled")):
            self.panel.setup.cancel()
            self.panel.runner.cancel()

    def start(self, inputs: Inputs, *, previous: CaseNodes | None) -> None:
        """Run once everything is installed; `previous` is the version that is registered again."""
        from ..mrml.readers import check_pair

        check_pair(inputs.mr, inputs.trus)
        ask_about(inputs)

        def go(ready: bool) -> None:
            if ready:
                with shown_errors(_("The registration cannot start")):
                    self._launch(inputs, previous)
            else:
                self.show_idle(_("Nothing was installed, so nothing was registered."))

        self.panel.setup.ensure(tell=self._tell, then=go)
        self.panel.refresh()

    def _tell(self, line: str) -> None:
        self.ui.stageLabel.text = line[:120]

    def _launch(self, inputs: Inputs, previous: CaseNodes | None) -> None:
        name = previous.name if previous is not None else _case_name(inputs)
        options = {**self._options(), "case_name": name}
        listener = Listener(
            progress=self.show_progress,
            done=lambda folder: self._commit(folder, inputs, name, previous),
            failed=self._failed,
            cancelled=lambda: self.show_idle(_("Cancelled; the scene is as it was.")),
            still_wanted=lambda: _gone(self.panel.scene, inputs.node_ids()),
        )
        self.show_progress("", 0.0, _("Writing the images …"))
        try:
            self.panel.runner.start(
                lambda folder: write_inputs(inputs, folder, options),
                listener,
                python=worker_python(),
                environment=self.panel.setup.environment(),
            )
        except BaseException:
            self.show_idle("")
            raise
        self.panel.refresh()

    def _options(self) -> dict[str, Any]:
        parameters = self.panel.parameters
        return {
            "method": parameters.method,
            "models": Path(parameters.modelsFolder) if parameters.modelsFolder else None,
            "device": parameters.device.value,
            "seed": parameters.seed,
            "confidence": parameters.confidenceRuns,
        }

    def show_progress(self, stage: str, fraction: float, message: str) -> None:
        self.ui.progressBar.value = round(100 * fraction)
        text = _STAGES.get(stage, lambda: stage)()
        self.ui.stageLabel.text = f"{text}: {message}" if text and message else text or message

    def show_idle(self, text: str) -> None:
        self.ui.progressBar.value = 0
        self.ui.stageLabel.text = text
        self.panel.refresh()

    def _failed(self, message: str) -> None:
        self.show_idle(_("Failed; the scene is as it was."))
        show_error(message)

    def _commit(self, folder: Path, inputs: Inputs, name: str, previous: CaseNodes | None) -> None:
        """Add the result to the scene in one step and show it."""
        self.show_idle("")
        with shown_errors(_("The result cannot be added to the scene")):
            from ..mrml.result_folder import add_result

            images = {"mr_node": inputs.mr, "trus_node": inputs.trus}
            case = add_result(self.panel.scene, folder, name=name, previous=previous, **images)
            remember_glands(case)
            hide_landmarks(inputs)
            accepted = Accepted.RIGID if case.deformation is None else Accepted.DEFORMABLE
            case.set_attribute("Accepted", accepted.name)
            with shown_errors(_("The targets cannot be carried to the TRUS")):
                carry(case, (inputs.targets, inputs.lesions))
            self.show_idle(_("Done."))
            for section in ("reviewCollapsibleButton", "correctCollapsibleButton", "exportCollapsibleButton"):
                getattr(self.ui, section).collapsed = False
            self.panel.select_case(case)

    def on_install(self) -> None:
        def finished(success: bool) -> None:
            self.show_idle(_("Everything is installed.") if success else _("Nothing was installed."))

        with shown_errors(_("The packages cannot be installed")):
            self.panel.setup.ensure(tell=self._tell, then=finished)
            self.panel.refresh()

    def on_remove_packages(self) -> None:
        packages = self.panel.setup.packages
        question = _("Delete {folder} with the packages that this module installed?").format(
            folder=packages.root
        )
        if slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Remove packages")):
            with shown_errors(_("The packages cannot be removed")):
                packages.remove()
            self.panel.refresh()


def _case_name(inputs: Inputs) -> str:
    return f"{inputs.mr.GetName()} – {inputs.trus.GetName()}"


def _gone(scene: Any, node_ids: tuple[str, ...]) -> str:
    """Why a run has become pointless: one of its images was deleted."""
    if all(scene.GetNodeByID(node_id) is not None for node_id in node_ids):
        return ""
    return _("The MR or the TRUS was deleted, so the registration was stopped; load it and register again.")


# Functions, because a translation may change while Slicer runs.
_STAGES = {
    "segment MR": lambda: _("Finding the gland in the MR"),
    "segment TRUS": lambda: _("Finding the gland in the TRUS"),
    "align": lambda: _("Aligning rigidly"),
    "deform": lambda: _("Deforming"),
    "resample": lambda: _("Resampling the MR"),
    "measure": lambda: _("Measuring"),
    "confidence": lambda: _("Estimating the confidence"),
    "write": lambda: _("Writing the result"),
}
