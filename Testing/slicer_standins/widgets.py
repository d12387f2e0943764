"""Stand-ins for the widgets of CTK and Slicer that the panel uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import vtk
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

Property, Signal = QtCore.Property, QtCore.Signal
_HEADER_PX = 26
_UNLIMITED_PX = 16777215


class qMRMLWidget(QtWidgets.QWidget):
    """The root: hands its scene on to the widgets that are connected in the .ui file."""

    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        self.mrmlSceneChanged.emit(scene)


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A section under a header that opens and closes it."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(0, _HEADER_PX, 0, 0)

    def _set_text(self, text: str) -> None:
        self._text = text

    def _set_collapsed(self, collapsed: bool) -> None:
        changed = collapsed != self._collapsed
        self._collapsed = collapsed
        self.setMaximumHeight(_HEADER_PX if collapsed else _UNLIMITED_PX)
        if changed:
            self.contentsCollapsed.emit(collapsed)

    text = Property(str, lambda self: self._text, _set_text)
    collapsed = Property(bool, lambda self: self._collapsed, _set_collapsed)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        header = QtCore.QRect(0, 0, self.width(), _HEADER_PX - 3)
        painter.fillRect(header, self.palette().button().color().darker(108))
        sign = "▸" if self._collapsed else "▾"
        painter.drawText(
            header.adjusted(8, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, f"{sign} {self._text}"
        )


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group whose contents can be folded away."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = False

    def _set_collapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        self.setMaximumHeight(_HEADER_PX - 4 if collapsed else _UNLIMITED_PX)

    collapsed = Property(bool, lambda self: self._collapsed, _set_collapsed)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box of the same floating-point value."""

    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setRange(0, 1000)
        self._box = QtWidgets.QDoubleSpinBox()
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._slider.valueChanged.connect(self._on_slider)
        self._box.valueChanged.connect(self._on_box)

    def _on_slider(self, position: int) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        self._box.setValue(low + (high - low) * position / 1000)

    def _on_box(self, value: float) -> None:
        low, high = self._box.minimum(), self._box.maximum()
        blocked = self._slider.blockSignals(True)
        self._slider.setValue(round(1000 * (value - low) / max(high - low, 1e-9)))
        self._slider.blockSignals(blocked)
        self.valueChanged.emit(value)

    value = Property(float, lambda self: self._box.value(), lambda self, v: self._box.setValue(v))
    minimum = Property(float, lambda self: self._box.minimum(), lambda self, v: self._box.setMinimum(v))
    maximum = Property(float, lambda self: self._box.maximum(), lambda self, v: self._box.setMaximum(v))
    singleStep = Property(
        float, lambda self: self._box.singleStep(), lambda self, v: self._box.setSingleStep(v)
    )
    decimals = Property(int, lambda self: self._box.decimals(), lambda self, v: self._box.setDecimals(v))


class ctkPathLineEdit(QtWidgets.QWidget):
    """A path and a button to browse for it."""

    Files, Dirs = 2, 1
    currentPathChanged = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._filters = self.Files
        self._edit = QtWidgets.QLineEdit()
        browse = QtWidgets.QToolButton()
        browse.setText("…")
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._edit)
        row.addWidget(browse)
        self._edit.textChanged.connect(self.currentPathChanged.emit)

    def _set_filters(self, filters: int) -> None:
        self._filters = filters

    currentPath = Property(str, lambda self: self._edit.text(), lambda self, path: self._edit.setText(path))
    filters = Property(int, lambda self: self._filters, _set_filters)


def _node_option(name: str) -> Any:
    """A switch of a node selector, such as whether it offers "None"."""

    def write(self: Any, value: bool) -> None:
        self._options[name] = value
        self._fill()

    return Property(bool, lambda self: self._options.get(name, False), write)


class qMRMLNodeComboBox(QtWidgets.QComboBox):
    """A selector of the scene's nodes of some classes; it follows nodes that come and go."""

    currentNodeChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene, self._tags = None, []
        self._types: list[str] = []
        self._options: dict[str, bool] = {"noneEnabled": False, "addEnabled": True}
        self.currentIndexChanged.connect(lambda _: self.currentNodeChanged.emit(self.currentNode()))
        self._fill()

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent) if scene else ()
        self._tags = [scene.AddObserver(event, lambda caller, name: self._fill()) for event in events]
        self._fill()

    def currentNode(self) -> Any:
        node_id = self.currentData()
        return self._scene.GetNodeByID(node_id) if node_id and self._scene else None

    def setCurrentNode(self, node: Any) -> None:
        index = self.findData(node.GetID()) if node is not None else 0
        self.setCurrentIndex(max(index, 0))

    def addNode(self) -> Any:
        node = self._scene.AddNewNodeByClass(self._types[0])
        self.setCurrentNode(node)
        return node

    def _fill(self) -> None:
        chosen = self.currentData()
        blocked = self.blockSignals(True)
        self.clear()
        self.addItem("None" if self._options["noneEnabled"] else "", None)
        for node in self._nodes():
            self.addItem(node.GetName(), node.GetID())
        self.setCurrentIndex(max(self.findData(chosen), 0) if chosen else 0)
        self.blockSignals(blocked)
        if self.currentData() != chosen:
            self.currentNodeChanged.emit(self.currentNode())

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        nodes = [
            self._scene.GetNthNode(n)
            for n in range(self._scene.GetNumberOfNodes())
            if self._scene.GetNthNode(n).GetClassName() in self._types
        ]
        return [node for node in nodes if not node.GetHideFromEditors()]

    def _set_types(self, types: list[str]) -> None:
        self._types = list(types)
        self._fill()

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)
    noneEnabled = _node_option("noneEnabled")
    addEnabled = _node_option("addEnabled")
    removeEnabled = _node_option("removeEnabled")
    renameEnabled = _node_option("renameEnabled")
    showChildNodeTypes = _node_option("showChildNodeTypes")
    selectNodeUponCreation = _node_option("selectNodeUponCreation")


class qMRMLTableView(QtWidgets.QTableView):
    """A view of a table node."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node = None

    def setMRMLScene(self, scene: Any) -> None:
        if scene is None or (self._node and scene.GetNodeByID(self._node.GetID()) is not self._node):
            self.setMRMLTableNode(None)

    def mrmlTableNode(self) -> Any:
        return self._node

    def setMRMLTableNode(self, node: Any) -> None:
        self._node = node
        table = node.GetTable() if node is not None else vtk.vtkTable()
        model = QtGui.QStandardItemModel(table.GetNumberOfRows(), table.GetNumberOfColumns(), self)
        for column in range(table.GetNumberOfColumns()):
            title = table.GetColumn(column).GetName()
            model.setHorizontalHeaderItem(column, QtGui.QStandardItem(title))
            for row in range(table.GetNumberOfRows()):
                model.setItem(row, column, QtGui.QStandardItem(table.GetValue(row, column).ToString()))
        self.setModel(model)


CUSTOM = (
    qMRMLWidget,
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkSliderWidget,
    ctkPathLineEdit,
    qMRMLNodeComboBox,
    qMRMLTableView,
)


def load_ui(path: str | Path) -> QtWidgets.QWidget:
    """Load a .ui file; connections to slots that exist only in Python are made from the file's list."""
    loader = QtUiTools.QUiLoader()
    for kind in CUSTOM:
        loader.registerCustomWidget(kind)
    root = loader.load(str(path))
    for connection in ElementTree.parse(path).iter("connection"):
        sender, signal, receiver, slot = (connection.findtext(key, "") for key in _CONNECTION)
        source = root if root.objectName() == sender else root.findChild(QtCore.QObject, sender)
        target = root.findChild(QtCore.QObject, receiver)
        getattr(source, signal.split("(")[0]).connect(getattr(target, slot.split("(")[0]))
    return root


_CONNECTION = ("sender", "signal", "receiver", "slot")
