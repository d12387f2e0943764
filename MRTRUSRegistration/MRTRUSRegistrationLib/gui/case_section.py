"""The section Case: which images, and what else is known about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import slicer
from slicer.i18n import tr as _

from .messages import shown_errors
from .readiness import Situation, why_not_turn
from .sample_data import load_sample
from .section import Section

if TYPE_CHECKING:
    from .panel import Panel


class CaseSection(Section):
    """Loading, choosing, and saying how the TRUS lies."""

    def __init__(self, ui: Any, panel: Panel) -> None:
        super().__init__(ui, panel)
        ui.loadFilesButton.connect("clicked()", self.on_load_files)
        ui.dicomButton.connect("clicked()", self.on_dicom)
        ui.sampleCaseButton.connect("clicked()", self.on_sample_case)
        ui.trusAxesButton.connect("clicked()", self.on_turn_trus)

    def refresh(self, now: Situation) -> None:
        self.allow("trusAxesButton", why_not_turn(now))

    def on_load_files(self) -> None:
        slicer.util.openAddDataDialog()

    def on_dicom(self) -> None:
        slicer.util.selectModule("DICOM")

    def on_sample_case(self) -> None:
        with shown_errors(_("The sample case cannot be loaded")):
            nodes = load_sample()
            with self.panel.changing() as parameters:
                parameters.mrVolume, parameters.trusVolume = nodes[:2]
                parameters.mrLandmarks, parameters.trusLandmarks = nodes[2:4]

    def on_turn_trus(self) -> None:
        """Make a copy of the TRUS whose axes lie as the user says; the original is an input and stays."""
        from ..geometry import with_orientation
        from ..mrml.readers import image_of
        from ..mrml.volumes import add_volume

        parameters = self.panel.parameters
        with shown_errors(_("The axes of the TRUS cannot be changed")):
            code = parameters.trusAxes.upper()
            turned = with_orientation(image_of(parameters.trusVolume, what="TRUS"), code)
            name = f"{parameters.trusVolume.GetName()} ({code})"
            parameters.trusVolume = add_volume(self.panel.scene, turned, name)
