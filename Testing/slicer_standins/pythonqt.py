"""PythonQt's way of speaking to Qt objects, on top of PySide6.

In PythonQt a Qt property is an attribute (`button.enabled = True`), a misspelt one is an error, and signals
are connected by their signature (`button.connect("clicked()", f)`), which decides what arguments `f` gets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6 import QtCore


class PythonQtLike:
    """One Qt object as PythonQt shows it."""

    def __init__(self, qt_object: QtCore.QObject) -> None:
        object.__setattr__(self, "qt_object", qt_object)

    def __getattr__(self, name: str) -> Any:
        if self.qt_object.metaObject().indexOfProperty(name) >= 0:
            return wrapped(self.qt_object.property(name))
        return _wrapped_member(getattr(self.qt_object, name))

    def __setattr__(self, name: str, value: Any) -> None:
        if self.qt_object.metaObject().indexOfProperty(name) < 0:
            raise AttributeError(f"{self.className()} has no property {name!r}")
        self.qt_object.setProperty(name, unwrapped(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PythonQtLike) and other.qt_object is self.qt_object

    def __hash__(self) -> int:
        return hash(self.qt_object)

    def className(self) -> str:
        return str(self.qt_object.metaObject().className())

    def connect(self, signature: str, callback: Callable[..., object]) -> None:
        name, _, arguments = signature.partition("(")
        _Signal(getattr(self.qt_object, name), _count(arguments)).connect(callback)

    def findChildren(self, kind: type) -> list[PythonQtLike]:
        return [PythonQtLike(child) for child in self.qt_object.findChildren(kind)]


class _Signal:
    """A signal that hands on as many arguments as its signature names."""

    def __init__(self, signal: Any, arguments: int | None = None) -> None:
        self._signal, self._arguments = signal, arguments

    def connect(self, callback: Callable[..., object]) -> None:
        def slot(*values: object) -> None:
            callback(*[wrapped(value) for value in values[: self._arguments]])

        self._signal.connect(slot)

    def emit(self, *values: object) -> None:
        self._signal.emit(*[unwrapped(value) for value in values])


def _count(arguments: str) -> int:
    inside = arguments.rstrip(")").strip()
    return len(inside.split(",")) if inside else 0


def wrapped(value: Any) -> Any:
    return PythonQtLike(value) if isinstance(value, QtCore.QObject) else value


def unwrapped(value: Any) -> Any:
    return value.qt_object if isinstance(value, PythonQtLike) else value


def _wrapped_member(member: Any) -> Any:
    if isinstance(member, QtCore.SignalInstance):
        return _Signal(member)
    if not callable(member):
        return member

    def call(*values: Any, **named: Any) -> Any:
        return wrapped(member(*[unwrapped(v) for v in values], **{k: unwrapped(v) for k, v in named.items()}))

    return call


def factory(kind: type[QtCore.QObject]) -> Callable[..., PythonQtLike]:
    """A constructor that returns the object as PythonQt shows it."""

    def create(*values: Any) -> PythonQtLike:
        return PythonQtLike(kind(*[unwrapped(value) for value in values]))

    return create
