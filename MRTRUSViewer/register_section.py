"""The section Register: the method, one button, stages, progress and Cancel.

The registration runs in a child process from the same job as the Slicer module's; its result is committed to
the scene in one step, or the scene stays as it was.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MRTRUSRegistrationLib.errors import InputError
from MRTRUSRegistrationLib.job_runner import JobRunner, Listener
from MRTRUSRegistrationLib.models import usable_models
from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes
from MRTRUSRegistrationLib.mrml.job_inputs import Inputs, inputs_of_case, write_inputs
from MRTRUSRegistrationLib.mrml.models import set_visible
from MRTRUSRegistrationLib.mrml.result_folder import add_result
from MRTRUSRegistrationLib.mrml.stale import remember_glands
from MRTRUSRegistrationLib.mrml.target_carrying import carry
from MRTRUSRegistrationLib.pipeline import DEFAULT_METHOD

from .throttle import AsyncTimer

if TYPE_CHECKING:
    from .app import Viewer

_STAGES = {
    "segment MR": "Finding the gland in the MR",
    "segment TRUS": "Finding the gland in the TRUS",
    "align": "Aligning rigidly",
    "deform": "Deforming",
    "resample": "Resampling the MR",
    "measure": "Measuring",
    "confidence": "Estimating the confidence",
    "write": "Writing the result",
}
_BUILT_IN = {
    "syn": "syn: ANTs on the outlines",
    "rigid": "rigid: turn and shift only",
    "centroid": "centroid: shift only",
}
_CONFIDENCE_RUNS = 8


class RegisterSection:
    """Starts runs, shows how far they are, and commits what they made."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._runner = JobRunner(timer=AsyncTimer)
        viewer.state.update(
            {
                "methods": _methods(),
                "method": DEFAULT_METHOD,
                "with_confidence": False,
                "running": False,
                "progress": 0,
                "progress_text": "",
            }
        )

    def register(self) -> None:
        """Register the loaded pair; where it has a result, the new one is the next version."""
        pair = self._viewer.case_section.pair
        if pair is None:
            raise InputError("There is nothing to register: load an MR and a TRUS first.")
        inputs = Inputs(
            mr=pair.mr,
            trus=pair.trus,
            mr_landmarks=pair.mr_landmarks,
            trus_landmarks=pair.trus_landmarks,
            targets=pair.targets,
            lesions=pair.lesions,
        )
        self._start(inputs, name=pair.name, previous=self._viewer.case)

    def register_again(self) -> None:
        """Register the case with its own glands, corrected or not, as its next version."""
        case = self._viewer.case
        if case is None:
            raise InputError("There is no result yet: register first.")
        inputs = replace(inputs_of_case(case), targets=case.mr_targets, lesions=case.mr_target_segments)
        self._start(inputs, name=case.name, previous=case)

    def cancel(self) -> None:
        self._runner.cancel()

    def check_idle(self) -> None:
        """`InputError` while a registration runs: its images must stay."""
        if self._runner.running:
            raise InputError("A registration is running: wait for it or cancel it.")

    def close(self) -> None:
        self._runner.stop_silently()

    def refresh(self, case: CaseNodes | None) -> None:
        """Nothing here depends on the case."""

    def _start(self, inputs: Inputs, *, name: str, previous: CaseNodes | None) -> None:
        self._viewer.correct.done()
        state = self._viewer.state
        options = {
            "method": state.method,
            "confidence": _CONFIDENCE_RUNS if state.with_confidence else 0,
            "case_name": name,
        }
        listener = Listener(
            progress=self._show_progress,
            done=lambda folder: self._commit(folder, inputs, name, previous),
            failed=self._failed,
            cancelled=lambda: self._idle("Cancelled; the scene is as it was."),
            still_wanted=lambda: "",
        )
        self._runner.start(
            lambda folder: write_inputs(inputs, folder, options),
            listener,
            python=sys.executable,
            environment=dict(os.environ),
        )
        state.update({"running": True, "progress": 0, "progress_text": "Starting …"})

    def _show_progress(self, stage: str, fraction: float, message: str) -> None:
        with self._viewer.state as state:
            state.progress = round(100 * fraction)
            text = _STAGES.get(stage, stage)
            state.progress_text = f"{text}: {message}" if text and message else text or message

    def _idle(self, text: str) -> None:
        with self._viewer.state as state:
            state.update({"running": False, "progress": 0, "progress_text": text})

    def _failed(self, message: str) -> None:
        self._idle("Failed; the scene is as it was.")
        self._viewer.messages.show(message)

    def _commit(self, folder: Path, inputs: Inputs, name: str, previous: CaseNodes | None) -> None:
        """Add the result to the scene in one step and show it."""
        self._idle("")
        with self._viewer.messages.shown_errors():
            case = _added(self._viewer.scene, folder, inputs, name, previous)
            # The case has landmarks of its own, which follow the stages.
            for given in (inputs.mr_landmarks, inputs.trus_landmarks):
                set_visible(given, False)
            self._idle("Done.")
            self._viewer.select(case)
            if previous is None:
                self._viewer.views.fit()


def _added(scene: Any, folder: Path, inputs: Inputs, name: str, previous: CaseNodes | None) -> CaseNodes:
    case = add_result(scene, folder, mr_node=inputs.mr, trus_node=inputs.trus, name=name, previous=previous)
    remember_glands(case)
    accepted = "RIGID" if case.deformation is None else "DEFORMABLE"
    case.set_attribute("Accepted", accepted)
    carry(case, (inputs.targets, inputs.lesions))
    return case


def _methods() -> list[dict[str, str]]:
    """The installed networks and the built-in methods, for a list to choose from."""
    networks = {
        model.card.name: f"{model.card.name}: {model.card.title}"
        for model in usable_models()
        if model.card.task == "registration"
    }
    return [{"value": name, "title": title} for name, title in (networks | _BUILT_IN).items()]
