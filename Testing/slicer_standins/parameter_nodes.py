"""A stand-in for `slicer.parameterNodeWrapper`: typed fields stored in a node, bound to widgets.

Fields are text, numbers, truth values, enumerations (stored by name) and MRML nodes (stored as references).
As in Slicer, a value outside its validator is a `ValueError`, reserved names cannot be fields, and any
modification of the node writes all bound widgets again.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import vtk

from .pythonqt import PythonQtLike

_RESERVED = {
    "allParameters",
    "default",
    "isCached",
    "dataType",
    "getValue",
    "setValue",
    "connectGui",
    "disconnectGui",
    "StartModify",
    "EndModify",
    "AddObserver",
    "RemoveObserver",
    "Modified",
}


@dataclass(frozen=True)
class WithinRange:
    minimum: float
    maximum: float

    def validate(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")


class _Field:
    """One field: reads from and writes to the node that its wrapper holds."""

    def __init__(self, name: str, annotation: Any, owner: type) -> None:
        arguments = typing.get_args(annotation)
        validated = typing.get_origin(annotation) is typing.Annotated
        self.kind = arguments[0] if validated else annotation
        self.validators = arguments[1:] if validated else ()
        self.name = name
        self.is_node = issubclass(self.kind, vtk.vtkObject)
        self.default = getattr(owner, name, None if self.is_node else self._empty())

    def _empty(self) -> Any:
        return next(iter(self.kind)) if issubclass(self.kind, enum.Enum) else self.kind()

    def __get__(self, wrapper: Any, owner: type) -> Any:
        if wrapper is None:
            return self
        node = wrapper.parameterNode
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if issubclass(self.kind, enum.Enum):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)

    def __set__(self, wrapper: Any, value: Any) -> None:
        node = wrapper.parameterNode
        if self.is_node:
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if not isinstance(value, self.kind) and not (self.kind is float and isinstance(value, int)):
            raise TypeError(f"{self.name} takes {self.kind.__name__}, not {value!r}")
        for validator in self.validators:
            validator.validate(value)
        node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))

    def is_in(self, node: Any) -> bool:
        return (
            self.is_node or node.HasParameter(self.name)
            if hasattr(node, "HasParameter")
            else (self.is_node or self.name in node.GetParameterNames())
        )


def parameterNodeWrapper(kind: type) -> type:
    """Turn an annotated class into a wrapper of a parameter node."""
    hints = typing.get_type_hints(kind, include_extras=True)
    if taken := _RESERVED.intersection(hints):
        raise ValueError(f"Cannot use reserved name {taken} in a parameterNodeWrapper")
    fields = {name: _Field(name, annotation, kind) for name, annotation in hints.items()}
    for name, field in fields.items():
        setattr(kind, name, field)
    kind.allParameters = fields
    kind.__init__ = _init
    kind.connectGui, kind.disconnectGui = _connect_gui, _disconnect_gui
    kind.AddObserver = lambda self, *arguments: self.parameterNode.AddObserver(*arguments)
    kind.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    kind.StartModify = lambda self: self.parameterNode.StartModify()
    kind.EndModify = lambda self, state: self.parameterNode.EndModify(state)
    return kind


def _init(self: Any, node: Any) -> None:
    self.parameterNode = node
    self._bindings: dict[int, tuple[int, list[_Binding]]] = {}
    for field in self.allParameters.values():
        if not field.is_in(node):
            field.__set__(self, field.default)


def _connect_gui(self: Any, gui: Any) -> int:
    widgets = [w for w in vars(gui).values() if isinstance(w, PythonQtLike)]
    named = [(w.qt_object.property("SlicerParameterName"), w) for w in widgets]
    bindings = [_bind(self, name, widget) for name, widget in named if name]
    tag = self.parameterNode.AddObserver(
        vtk.vtkCommand.ModifiedEvent, lambda caller, event: [binding.update() for binding in bindings]
    )
    self._bindings[tag] = (tag, bindings)
    return tag


def _disconnect_gui(self: Any, tag: int) -> None:
    if tag in self._bindings:
        observer, bindings = self._bindings.pop(tag)
        self.parameterNode.RemoveObserver(observer)
        for binding in bindings:
            binding.active = False


@dataclass
class _Binding:
    """One widget and one field, each changed by the other."""

    wrapper: Any
    field: _Field
    read: Callable[[], Any]
    write: Callable[[Any], None]
    active: bool = True
    updating: bool = False

    def update(self) -> None:
        if self.updating:
            return
        self.updating = True
        self.write(self.field.__get__(self.wrapper, type(self.wrapper)))
        self.updating = False

    def changed(self, *_: object) -> None:
        if self.active and not self.updating:
            self.field.__set__(self.wrapper, self.read())


def _bind(wrapper: Any, name: str, widget: PythonQtLike) -> _Binding:
    field = wrapper.allParameters[name]
    if field.is_node:
        widget.nodeTypes = [field.kind.__name__]
        binding = _Binding(wrapper, field, lambda: widget.currentNode(), lambda v: widget.setCurrentNode(v))
        widget.currentNodeChanged.connect(binding.changed)
    elif issubclass(field.kind, enum.Enum):
        binding = _bind_enum(wrapper, field, widget)
    else:
        binding = _bind_property(wrapper, field, widget)
    binding.update()
    return binding


def _bind_enum(wrapper: Any, field: _Field, widget: PythonQtLike) -> _Binding:
    if widget.className() != "QComboBox":
        raise RuntimeError(f"Unable to create GUI connector from an enum to {widget.className()}")
    members = list(field.kind)
    widget.clear()
    for member in members:
        widget.addItem(member.label() if hasattr(member, "label") else member.name)

    def write(value: Any) -> None:
        widget.currentIndex = members.index(value)

    binding = _Binding(wrapper, field, lambda: members[widget.currentIndex], write)
    widget.currentIndexChanged.connect(binding.changed)
    return binding


# Which property of which widget holds a value of which type, and the signal that says that it changed.
_PROPERTIES = {
    (bool, "QCheckBox"): ("checked", "toggled"),
    (int, "QSpinBox"): ("value", "valueChanged"),
    (float, "ctkSliderWidget"): ("value", "valueChanged"),
    (float, "QDoubleSpinBox"): ("value", "valueChanged"),
    (str, "QLineEdit"): ("text", "textChanged"),
}


def _bind_property(wrapper: Any, field: _Field, widget: PythonQtLike) -> _Binding:
    key = (field.kind, widget.className())
    if key not in _PROPERTIES:
        raise RuntimeError(f"Unable to create GUI connector from datatype {key[0]} to widget type {key[1]}")
    name, signal = _PROPERTIES[key]
    for validator in field.validators:
        widget.minimum, widget.maximum = validator.minimum, validator.maximum
    binding = _Binding(
        wrapper, field, lambda: field.kind(getattr(widget, name)), lambda v: setattr(widget, name, v)
    )
    getattr(widget, signal).connect(binding.changed)
    return binding
