"""The parts of desktop Slicer's `slicer.app`, `slicer.util`, `qt` and `ctk` that the module asks for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer
import slicer.util
from PySide6 import QtCore, QtGui, QtWidgets

from . import modules, parameter_nodes, widgets
from .pythonqt import PythonQtLike, factory

MODULE_FILE = Path(__file__).resolve().parents[2] / "MRTRUSRegistration" / "MRTRUSRegistration.py"


@dataclass
class Desktop:
    """What the user would see: every dialog is noted, and questions are answered as `answer` says."""

    scene: Any
    qt_app: QtWidgets.QApplication
    errors: list[str] = field(default_factory=list)
    reloaded: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    answer: bool = True
    selected_module: str = ""
    startup: list[Callable[[], None]] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    editor: dict[str, Any] = field(default_factory=dict)
    replaced: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)

    def process_events(self) -> None:
        # QApplication.processEvents of PySide6 6.12 gives one reference to None too many back: after some ten
        # thousand calls the interpreter ends.
        QtCore.QEventLoop().processEvents()

    def put(self, place: dict[str, Any], name: str, value: Any) -> None:
        """Set a name and note what was there."""
        self.replaced.append((place, name, place.get(name, _ABSENT)))
        place[name] = value

    def uninstall(self) -> None:
        """Put everything back, for the other tests in this process."""
        for place, name, value in reversed(self.replaced):
            if value is _ABSENT:
                place.pop(name, None)
            else:
                place[name] = value
        self.replaced.clear()


_ABSENT = object()


def install(scene: Any) -> Desktop:
    """Put the stand-ins where `import` and `slicer.…` find them; `scene` becomes Slicer's scene."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    QtCore.qInstallMessageHandler(_log_message)
    qt_app = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
    desktop = Desktop(scene, qt_app)  # type: ignore[arg-type]
    desktop.put(vars(slicer), "mrmlScene", scene)
    desktop.put(vars(slicer), "app", _application(desktop))
    editor = SimpleNamespace(
        setSegmentationNode=lambda node: desktop.editor.update(segmentation=node),
        setSourceVolumeNode=lambda node: desktop.editor.update(volume=node),
    )
    desktop.put(vars(slicer), "modules", SimpleNamespace(SegmentEditorWidget=SimpleNamespace(editor=editor)))
    _install_util(desktop)
    _install_modules(desktop)
    return desktop


def _log_message(kind: Any, context: Any, message: str) -> None:
    """Qt's own words, without those about connections that the stand-ins make by themselves."""
    if "QObject::connect" not in message and "propagateSizeHints" not in message:
        print(message, file=sys.stderr)


def _application(desktop: Desktop) -> SimpleNamespace:
    def connect(signal: str, callback: Callable[[], None]) -> None:
        assert signal == "startupCompleted()"
        desktop.startup.append(callback)

    return SimpleNamespace(
        applicationName="Slicer",
        connect=connect,
        layoutManager=lambda: None,
        processEvents=desktop.process_events,
        testingEnabled=lambda: False,
        startupEnvironment=None,
    )


def _install_util(desktop: Desktop) -> None:
    def ask(text: str, **_: object) -> bool:
        desktop.questions.append(text)
        return desktop.answer

    def select(module: str) -> None:
        desktop.selected_module = module

    made: dict[str, Any] = {
        "errorDisplay": lambda text, **_: desktop.errors.append(text),
        "confirmOkCancelDisplay": ask,
        "confirmYesNoDisplay": ask,
        "selectModule": select,
        "modulePath": lambda name: str(MODULE_FILE),
        "openAddDataDialog": lambda: select("AddDataDialog"),
        "loadUI": lambda path: PythonQtLike(widgets.load_ui(path)),
        "childWidgetVariables": _named_children,
        "reloadScriptedModule": lambda name: desktop.reloaded.append(name),
    }
    for name, value in made.items():
        desktop.put(vars(slicer.util), name, value)


def _named_children(widget: PythonQtLike) -> SimpleNamespace:
    children = widget.qt_object.findChildren(QtCore.QObject)
    return SimpleNamespace(
        **{c.objectName(): PythonQtLike(c) for c in children if c.objectName().isidentifier()}
    )


def _install_modules(desktop: Desktop) -> None:
    qt_classes = {"QTimer": factory(QtCore.QTimer), "QShortcut": factory(QtGui.QShortcut)}
    qt_classes["QKeySequence"] = QtGui.QKeySequence
    wrapper = parameter_nodes.parameterNodeWrapper
    made: dict[str, dict[str, Any]] = {
        "qt": qt_classes,
        "ctk": {kind.__name__: kind for kind in widgets.CUSTOM if kind.__name__.startswith("ctk")},
        "slicer.i18n": {"tr": lambda text: text, "translate": lambda context, text: text},
        "slicer.ScriptedLoadableModule": {
            name: getattr(modules, name) for name in dir(modules) if name.startswith("ScriptedLoadable")
        },
        "slicer.parameterNodeWrapper": {
            "parameterNodeWrapper": wrapper,
            "WithinRange": parameter_nodes.WithinRange,
        },
        "SampleData": {"SampleDataLogic": _sample_data(desktop)},
    }
    for name, members in made.items():
        module = ModuleType(name)
        vars(module).update(members)
        desktop.put(sys.modules, name, module)


def _sample_data(desktop: Desktop) -> type:
    """Registers sample data, and reads what the registered source names from local files."""

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(*, sampleName: str, **source: Any) -> None:
            desktop.samples[sampleName] = source

        def downloadSamples(self, name: str) -> list[Any]:
            source = desktop.samples[name]
            entries = zip(source["uris"], source["nodeNames"], source["loadFileType"], strict=True)
            return [_load(desktop.scene, *entry) for entry in entries]

    return SampleDataLogic


def _load(scene: Any, uri: str, name: str, kind: str) -> Any:
    path = Path(url2pathname(urlparse(uri).path))
    node_class, storage_class = _STORAGE[kind]
    node = scene.AddNewNodeByClass(node_class, name)
    storage = getattr(slicer, storage_class)()
    storage.SetFileName(str(path))
    assert storage.ReadData(node)
    node.CreateDefaultDisplayNodes()
    return node


_STORAGE = {
    "VolumeFile": ("vtkMRMLScalarVolumeNode", "vtkMRMLVolumeArchetypeStorageNode"),
    "MarkupsFile": ("vtkMRMLMarkupsFiducialNode", "vtkMRMLMarkupsJsonStorageNode"),
}
