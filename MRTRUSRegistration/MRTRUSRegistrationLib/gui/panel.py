"""The panel: its sections, the case they look at, and what they know in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from ..job_runner import JobRunner
from .case_section import CaseSection
from .choices import Accepted, Initial
from .correct_section import CorrectSection
from .export_section import ExportSection
from .marking import attach_chosen
from .messages import show_error, shown_errors
from .readiness import Situation
from .register_section import RegisterSection
from .review_section import ReviewSection
from .timers import qt_timer
from .versions_section import VersionsSection
from .worker_environment import WorkerSetup

if TYPE_CHECKING:
    from ..mrml.case_nodes import CaseNodes
    from .section import Section


class Panel:
    """Between the parameter node and the widgets of the .ui file."""

    def __init__(self, ui: Any, *, runner: JobRunner | None = None, setup: WorkerSetup | None = None) -> None:
        self.ui = ui
        self.runner = runner or JobRunner(timer=qt_timer)
        self.setup = setup or WorkerSetup()
        self.parameters: Any = None
        self._refreshing = False
        self.registration = RegisterSection(ui, self)
        self.review = ReviewSection(ui, self)
        self.sections: tuple[Section, ...] = (
            CaseSection(ui, self),
            self.registration,
            self.review,
            CorrectSection(ui, self),
            VersionsSection(ui, self),
            ExportSection(ui, self),
        )

    @property
    def scene(self) -> Any:
        return slicer.mrmlScene

    def set_parameters(self, parameters: Any) -> None:
        """Look at another parameter node; `None` while a scene is closed."""
        self.parameters = parameters
        if parameters is not None:
            self.refresh()

    def refresh(self) -> None:
        """Bring every widget up to date; a parameter that changes meanwhile does not start it again."""
        if self._refreshing or self.parameters is None:
            return
        self._refreshing = True
        try:
            attach_chosen(self.parameters, self.case)
            now = self.situation()
            for section in self.sections:
                section.refresh(now)
        finally:
            self._refreshing = False

    @contextmanager
    def changing(self) -> Iterator[Any]:
        """Change several parameters with one refresh at the end."""
        state = self.parameters.StartModify()
        try:
            yield self.parameters
        finally:
            self.parameters.EndModify(state)
        self.refresh()

    @property
    def case(self) -> CaseNodes | None:
        """The version of a case that the sections Review, Correct and Export work on."""
        if self.parameters is None or self.parameters.caseNode is None:
            return None
        from ..mrml.case_nodes import case_nodes

        return case_nodes(self.parameters.caseNode)

    def select_case(self, case: CaseNodes | None) -> None:
        """Show a version, and let the other versions of its case disappear."""
        from ..mrml.versions import activate

        if case is not None and not case.active:
            activate(case)
        with self.changing() as parameters:
            parameters.caseNode = case.node if case is not None else None
            if case is not None:
                parameters.accepted = _accepted(case)
        self.review.show_again()

    def situation(self) -> Situation:
        """The facts that decide which buttons can act."""
        parameters, case = self.parameters, self.case
        mr, trus = parameters.mrVolume, parameters.trusVolume
        return Situation(
            mr=mr is not None,
            trus=trus is not None,
            same_volume=mr is not None and mr is trus,
            running=self.runner.running or self.setup.installing,
            initial_missing=parameters.initial is Initial.TRANSFORM and parameters.initialTransform is None,
            case=case is not None,
            stages=_stages(case),
            older_version=case is not None and case.version > 1,
            confidence_runs=parameters.confidenceRuns,
            pairs=min(_count(parameters.pairMr), _count(parameters.pairTrus)),
            use_pairs=parameters.usePairs,
            targets=parameters.targets is not None or parameters.lesions is not None,
            folder=parameters.exportFolder,
            chosen_files=any(getattr(parameters, name) for name in EXPORT_CHOICES),
            trus_axes=parameters.trusAxes,
            packages=self.setup.packages.current() is not None,
            complete=self.setup.ready,
        )

    def use_keys(self, widget: Any) -> list[Any]:
        """The keys 1, 2 and 3 for the stages; the caller switches them on and off with the module."""
        import qt

        keys = []
        for key, stage in (("1", "before"), ("2", "rigid"), ("3", "deformable")):
            shortcut = qt.QShortcut(widget)
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.connect("activated()", lambda stage=stage: self.review.on_stage(stage))
            shortcut.enabled = False
            keys.append(shortcut)
        return keys

    def scene_closing(self) -> None:
        """A run whose images go away is stopped, and the user is told why nothing comes of it."""
        self.review.stop()
        if self.runner.running:
            self.runner.stop_silently()
            self.registration.show_idle(_("Stopped."))
            text = _(
                "The scene was closed, so the registration was stopped; load the images and start again."
            )
            show_error(text)
        self.parameters = None
        for section in self.sections:
            section.scene_closed()

    def close(self) -> None:
        """Stop everything that runs, when the module is unloaded or Slicer quits."""
        with shown_errors(_("The registration cannot be stopped")):
            self.review.stop()
            self.runner.stop_silently()
            self.setup.cancel()
            for section in self.sections:
                section.scene_closed()


# The parameters that say which files are exported.
EXPORT_CHOICES = ("exportScene", "exportTransforms", "exportMr", "exportTargets", "exportReport")


def _accepted(case: CaseNodes) -> Accepted:
    """The result that counts for a case, which the case itself says from now on."""
    from ..mrml.stages import accepted_stage

    if not case.attribute("Accepted"):
        accepted = Accepted.RIGID if accepted_stage(case) == "rigid" else Accepted.DEFORMABLE
        case.set_attribute("Accepted", accepted.name)
    return Accepted[case.attribute("Accepted")]


def _stages(case: CaseNodes | None) -> tuple[str, ...]:
    from ..errors import InputError

    if case is None:
        return ()
    from ..mrml.stages import stages_of

    try:
        return tuple(stages_of(case))
    except InputError:
        return ()


def _count(points: Any) -> int:
    return points.GetNumberOfControlPoints() if points is not None else 0
