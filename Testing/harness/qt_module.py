"""A module ``qt`` made from PySide6 that follows PythonQt's conventions, so that code written for Slicer runs on it.

PythonQt differs from PySide6 in three things that module code uses all the time:

- properties are attributes: ``button.text = "Run"``, ``box.checked``; the setters and ``isX()`` stay, the getters do not;
- ``name`` is the objectName, and ``className()`` names the class;
- ``widget.connect("clicked(bool)", function)`` takes a signature as text.

The first two are given to PySide6's own classes. The third cannot be (PySide6 answers ``connect`` itself on its own classes), so
``qt`` exports subclasses that have it, and the loader of .ui files makes those, plain widgets included. Objects that Qt itself
makes, such as a table's header, are PySide6's and only understand ``header.sectionClicked.connect(function)``, which works in
Slicer as well.

Not imitated: see README.md beside this file.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

_SOURCES = (QtCore, QtGui, QtWidgets)

_VIRTUAL_GETTERS = {
    ("QWidget", "sizeHint"),
    ("QWidget", "minimumSizeHint"),
    ("QLayout", "spacing"),
    ("QProgressBar", "text"),
    ("QAbstractAnimation", "duration"),
    ("QVariantAnimation", "duration"),
    ("QPauseAnimation", "duration"),
}
"""C++ calls these getters through Python: a property there would call itself without end."""

_NATIVE = {"QCoreApplication", "QGuiApplication", "QApplication"}
"""Exported as they are: there is one object of them, and Qt hands it out."""


class _Attribute:
    """A Qt property as a Python attribute; on the class itself a static function of the same name stays what it was."""

    def __init__(self, name: str, on_class: Any) -> None:
        self.name, self.on_class = name, on_class

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self if self.on_class is None else self.on_class
        value = QtCore.QObject.property(instance, self.name)
        return tuple(value) if isinstance(value, list) else value  # PythonQt gives a QStringList as a tuple

    def __set__(self, instance: Any, value: Any) -> None:
        QtCore.QObject.setProperty(instance, self.name, list(value) if isinstance(value, tuple) else value)


def _build() -> types.ModuleType:
    _give_attributes()
    _find_children_of_native_class()
    module = types.ModuleType("qt", __doc__)
    for source in (*_SOURCES, QtUiTools):
        for name in dir(source):
            if not name.startswith("_"):
                setattr(module, name, getattr(source, name))
    for name, kind in _object_classes():
        if name not in _NATIVE:
            setattr(module, name, _Exported(name, (kind,), {"__module__": "qt"}))
    return module


def connect(self: Any, signature: str, *target: Any) -> None:
    """``connect("clicked(bool)", function)`` or ``connect("clicked(bool)", receiver, "slot(bool)")``."""
    signal_of(self, signature).connect(_slot(target))


def disconnect(self: Any, signature: str, *target: Any) -> None:
    """The reverse of ``connect``."""
    signal_of(self, signature).disconnect(_slot(target))


def signal_of(sender: Any, signature: str) -> Any:
    """The signal that a signature names, e.g. ``currentIndexChanged(int)``.

    Raises:
        AttributeError: the sender has no such signal.
    """
    name, _, types_text = signature.partition("(")
    signal = getattr(sender, name)
    if not hasattr(signal, "emit"):
        raise AttributeError(f"{type(sender).__name__}.{name} is not a signal ({signature})")
    arguments = types_text.rstrip(")")
    try:
        return signal[arguments] if arguments else signal
    except (IndexError, KeyError, TypeError):
        return signal  # a stand-in's signal, whose argument types are Python's


def _slot(target: tuple[Any, ...]) -> Callable[..., Any]:
    if len(target) == 1:
        return target[0]
    receiver, signature = target
    return getattr(receiver, signature.partition("(")[0])


def _give_attributes() -> None:
    for name, kind in _object_classes():
        meta = kind.staticMetaObject
        for number in range(meta.propertyOffset(), meta.propertyCount()):
            attribute = meta.property(number).name()
            if (name, attribute) not in _VIRTUAL_GETTERS:
                setattr(kind, attribute, _Attribute(attribute, _static(kind, attribute)))
    QtCore.QObject.name = _Attribute("objectName", None)
    QtCore.QObject.className = lambda self: self.metaObject().className()


def _static(kind: type, name: str) -> Any:
    """The class's static function of that name, e.g. ``QTimer.singleShot``; None where there is none."""
    found = kind.__dict__.get(name)
    if isinstance(found, staticmethod) or (name, kind.__name__) == ("layoutDirection", "QGuiApplication"):
        return getattr(kind, name)
    return None


_QtClass: Any = type(QtCore.QObject)


class _Exported(_QtClass):
    """The class of ``qt``'s classes: each has the old ``connect``, and PySide6's own objects count as their instances."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _Exported:
        # PySide6 answers ``connect`` itself unless the object's very class has one.
        body.setdefault("connect", connect)
        body.setdefault("disconnect", disconnect)
        return super().__new__(cls, name, bases, body)

    def __instancecheck__(self, instance: Any) -> bool:
        return type.__instancecheck__(native_class(self), instance)

    def __subclasscheck__(self, other: type) -> bool:
        return type.__subclasscheck__(native_class(self), other)


def native_class(kind: type) -> type:
    """PySide6's class behind one of ``qt``'s; any other class itself."""
    return kind.__mro__[1] if kind.__module__ == "qt" else kind


def _find_children_of_native_class() -> None:
    original = QtCore.QObject.findChildren

    def find_children(self: Any, kind: type = QtCore.QObject, *rest: Any) -> list[Any]:
        return list(original(self, native_class(kind), *rest))

    QtCore.QObject.findChildren = find_children


def _object_classes() -> Iterator[tuple[str, Any]]:
    for source in _SOURCES:
        for name in dir(source):
            found = getattr(source, name)
            if isinstance(found, type) and issubclass(found, QtCore.QObject):
                yield name, found


qt: Any = _build()
"""The module, as it goes into ``sys.modules["qt"]``."""
