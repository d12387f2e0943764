"""The module opened in the stand-in desktop, with what a user does to it."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
from PySide6 import QtWidgets

from .application import MODULE_FILE, Desktop, install
from .pythonqt import PythonQtLike
from .widgets import qMRMLWidget


@dataclass
class OpenModule:
    """The module as the application opened it."""

    desktop: Desktop
    parent: qMRMLWidget
    widget: Any

    @property
    def scene(self) -> Any:
        return self.desktop.scene

    @property
    def ui(self) -> Any:
        return self.widget.ui

    @property
    def parameters(self) -> Any:
        return self.widget._parameterNode

    def click(self, name: str) -> None:
        """Press a button; one that is disabled cannot be pressed."""
        button = getattr(self.ui, name)
        assert button.enabled, f"{name} is disabled: {button.toolTip}"
        button.qt_object.click()
        self.desktop.process_events()

    def wait(self, condition: Callable[[], bool], *, seconds: float = 60) -> None:
        """Let the application run until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"nothing happened; dialogs: {self.desktop.errors}"
            self.desktop.process_events()
            time.sleep(0.01)

    def wait_for_run(self) -> None:
        self.wait(lambda: not self.widget.panel.runner.running, seconds=300)

    def picture(self, path: Path) -> None:
        """What the panel looks like."""
        # Twice, because wrapped texts know their height only once they know their width.
        for _ in range(2):
            self.desktop.process_events()
            needed = (self.parent.sizeHint(), self.parent.minimumSizeHint())
            self.parent.resize(500, max(size.height() for size in needed))
        self.desktop.process_events()
        self.parent.grab().save(str(path))

    def close(self) -> None:
        self.widget.exit()
        self.widget.cleanup()
        self.parent.deleteLater()
        self.desktop.process_events()
        self.desktop.uninstall()


def open_module(scene: Any) -> OpenModule:
    """Install the stand-ins, construct the module and its widget, and enter it, as the application does."""
    desktop = install(scene)
    if str(MODULE_FILE.parent) not in sys.path:
        sys.path.insert(0, str(MODULE_FILE.parent))
    # Its classes were made with the stand-ins of an earlier test.
    for name in [name for name in sys.modules if name == "MRTRUSRegistration" or ".gui" in name]:
        if name.startswith("MRTRUSRegistration"):
            del sys.modules[name]
    module = importlib.import_module("MRTRUSRegistration")
    module.MRTRUSRegistration(_ModuleParent(str(MODULE_FILE)))
    for callback in desktop.startup:
        callback()
    parent = qMRMLWidget()
    parent.setLayout(QtWidgets.QVBoxLayout())
    widget = module.MRTRUSRegistrationWidget(PythonQtLike(parent))
    widget.setup()
    widget.enter()
    parent.show()
    desktop.process_events()
    return OpenModule(desktop, parent, widget)


class _ModuleParent:
    """The object that a module class fills in."""

    def __init__(self, path: str) -> None:
        self.path = path


def slicer_scene() -> Any:
    """A scene as the application has it, with three slice views."""
    from MRTRUSRegistrationLib.mrml.scene_file import new_scene

    scene = new_scene()
    for name in ("Red", "Green", "Yellow"):
        node = slicer.vtkMRMLSliceCompositeNode()
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        scene.AddNode(node)
    return scene
