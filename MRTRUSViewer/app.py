"""The app of one visitor: a scene, its views, and the sections that work on it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trame.app import TrameApp
from trame_slicer.core import SlicerApp
from vtkmodules.vtkCommonCore import vtkObject

from MRTRUSRegistrationLib.mrml.case_nodes import CaseNodes, case_nodes
from MRTRUSRegistrationLib.mrml.hierarchy import remove_node
from MRTRUSRegistrationLib.mrml.versions import activate

from .case_section import CaseSection
from .correct_section import CorrectSection
from .export_section import ExportSection
from .files import AWAY_S, FileRoutes
from .messages import Messages
from .opening import Opening
from .page import build_page
from .register_section import RegisterSection
from .review_section import ReviewSection
from .views import Views

_ASSETS = Path(__file__).with_name("assets")


_CASE_CLASSES = (
    *("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLMarkupsNode", "vtkMRMLModelNode"),
    *("vtkMRMLTransformNode", "vtkMRMLTableNode", "vtkMRMLTextNode"),
)


class Viewer(TrameApp):
    """Between the page and the scene; the sections know each other only through it."""

    def __init__(self, *, folder: Path, secret: str, opening: Opening) -> None:
        super().__init__(None)
        # What the registration writes lies in the session's folder, whoever set it before.
        tempfile.tempdir = str(folder)
        self.folder, self.secret = folder, secret
        self.server.enable_module(
            {"serve": {"mrtrus": str(_ASSETS)}, "scripts": ["mrtrus/page.js"], "styles": ["mrtrus/page.css"]}
        )
        self.slicer = SlicerApp()
        # What fails is told by return values; the views of trame-slicer warn of a renamed event.
        vtkObject.GlobalWarningDisplayOff()
        self.messages = Messages(self.state)
        self.views = Views(self.server, self.slicer)
        self.case: CaseNodes | None = None
        self.case_section = CaseSection(self, opening)
        self.registering = RegisterSection(self)
        self.review = ReviewSection(self)
        self.correct = CorrectSection(self)
        self.export = ExportSection(self)
        self.sections = (self.case_section, self.registering, self.review, self.correct, self.export)
        self.files = FileRoutes(self)
        build_page(self)
        self.server.controller.on_server_ready.add(self._open)

    @property
    def scene(self) -> Any:
        return self.slicer.scene

    def serve(self) -> None:
        """Listen on a free port of this machine until nobody has been there for a while."""
        self.server.start(
            port=0, host="127.0.0.1", timeout=AWAY_S, open_browser=False, show_connection_info=False
        )

    def close(self) -> None:
        """End what runs."""
        self.registering.close()

    def action(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """The callback as what a button does: its errors are shown, and the page follows what it changed."""

        def act(*arguments: Any, **_: Any) -> None:
            with self.state, self.messages.shown_errors():
                callback(*arguments)

        return act

    def select(self, case: CaseNodes | None) -> None:
        """Look at a version of a case; `None` where there is no result yet."""
        if case is not None and not case.active:
            activate(case)
        self.case = case
        self.refresh()

    def refresh(self) -> None:
        """Bring every section up to date after the case or its nodes changed."""
        with self.state as state:
            state.has_case = self.case is not None
            for section in self.sections:
                section.refresh(self.case)

    def nodes(self) -> list[Any]:
        """The nodes that belong to a case: what is shown in views or tables, but not the views."""
        collection = self.scene.GetNodes()
        every = [collection.GetItemAsObject(n) for n in range(collection.GetNumberOfItems())]
        return [node for node in every if case_nodes(node) or _is_data(node)]

    def remove(self, nodes: list[Any]) -> None:
        """Remove the nodes of a case that another one has replaced."""
        for node in nodes:
            if node.GetScene() is not None:
                remove_node(node)

    def _open(self, **_: Any) -> None:
        self.server.protocol.updateSecret(self.secret)
        self.action(self.case_section.open_first)()


def _is_data(node: Any) -> bool:
    """The models that slice views and brushes are drawn with are hidden from editors."""
    return not node.GetHideFromEditors() and any(node.IsA(kind) for kind in _CASE_CLASSES)
