"""How a stand-in for a widget of CTK or Slicer is written: remembered properties, and the setters that PythonQt shows."""

from __future__ import annotations

from typing import Any, TypeVar

from PySide6 import QtCore

Kind = TypeVar("Kind", bound=type)


def stored(name: str, kind: type | str, default: Any, notify: str | None = None) -> QtCore.Property:
    """A Qt property that is only remembered; ``notify`` names the signal that a new value emits.

    For plain values, and for choices such as ``addEnabled`` that change too little of a stand-in's look to be drawn.
    """
    key = f"_{name}"

    def read(self: Any) -> Any:
        return self.__dict__.get(key, default)

    def write(self: Any, value: Any) -> None:
        if value != read(self):
            self.__dict__[key] = value
            if notify:
                getattr(self, notify).emit(value)

    return QtCore.Property(kind, read, write)


def stand_in(kind: Kind) -> Kind:
    """Class decorator: every property ``value`` gets its ``setValue`` unless the class defines it."""
    for name, found in list(vars(kind).items()):
        setter = f"set{name[0].upper()}{name[1:]}"
        if isinstance(found, QtCore.Property) and setter not in vars(kind):
            setattr(kind, setter, _setter(name))
    return kind


def _setter(name: str) -> Any:
    def assign(self: Any, value: Any) -> None:
        setattr(self, name, value)

    return assign
