"""Reads .ui files as Slicer does: with CTK's and Slicer's widgets, and with the connections between them.

Stricter than Qt, which only writes a warning or nothing: an unknown widget class, a property that a widget does not have and a
connection to a signal or slot that does not exist are errors.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any, ClassVar

from PySide6 import QtCore, QtUiTools

from .qt_module import qt, signal_of


class UiError(RuntimeError):
    """A .ui file that would not work in Slicer."""


class QUiLoader(QtUiTools.QUiLoader):
    """Stands in for ``qt.QUiLoader``."""

    stand_ins: ClassVar[dict[str, type]] = {}
    """The widgets of CTK and Slicer by name."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._problems: list[str] = []
        self._failure: Exception | None = None

    def load(self, device: Any, parent: Any = None) -> Any:
        """The widget that a .ui file describes.

        Args:
            device: an open QFile or QBuffer.
            parent: of the widget.

        Raises:
            UiError: everything in the file that Slicer's own widgets would not understand.
        """
        self._problems, self._failure = [], None
        form = ElementTree.fromstring(bytes(device.readAll().data()))
        connections = form.findall("connections/connection")
        for holder in form.findall("connections"):
            form.remove(holder)
        by_hand = self._enumerations(form)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(form))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer, parent)
        if self._failure is not None:
            raise self._failure
        if widget is not None:
            self._check_properties(form, widget)
            for name, setter, value in by_hand:
                getattr(_named(widget, name), setter)(value)
            for connection in connections:
                self._connect(widget, connection)
        if self._problems:
            raise UiError("; ".join(self._problems))
        return widget

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        """Called by Qt for each widget of the form."""
        kind = self.stand_ins.get(class_name) or getattr(qt, class_name, None)
        if kind is None:
            self._problems.append(f"no widget class {class_name} (for {name})")
            kind = qt.QWidget
        try:
            widget = kind(parent) if parent is not None else kind()
        except Exception as error:  # Qt, which calls this, cannot pass it on and would crash: ``load`` does
            self._failure = error
            widget = qt.QWidget(parent)
        widget.setObjectName(name)
        return widget

    def createAction(self, parent: Any = None, name: str = "") -> Any:
        """Called by Qt for each action of the form."""
        action = qt.QAction(parent)
        action.setObjectName(name)
        return action

    def _enumerations(self, form: ElementTree.Element) -> list[tuple[str, str, Any]]:
        """Take values such as ``ctkPathLineEdit::Dirs`` out of the form, which Qt could not resolve; (widget, setter, value)."""
        found = []
        for element in form.iter("widget"):
            kind = self.stand_ins.get(element.get("class", ""))
            for entry in element.findall("property") if kind else ():
                text = entry.findtext("set") or entry.findtext("enum") or ""
                if not text.startswith(("ctk", "qMRML", "qSlicer")):
                    continue
                value = 0
                for part in text.split("|"):
                    value |= self._enumerator(kind, part.rpartition("::")[2])
                name = entry.get("name", "")
                found.append((element.get("name", ""), f"set{name[:1].upper()}{name[1:]}", value))
                element.remove(entry)
        return found

    def _enumerator(self, kind: type | None, name: str) -> int:
        value = getattr(kind, name, None)
        if not isinstance(value, int):
            self._problems.append(f"{kind.__name__ if kind else None} has no {name}")
            return 0
        return value

    def _check_properties(self, form: ElementTree.Element, top: Any) -> None:
        for element in form.iter("widget"):
            widget = _named(top, element.get("name", ""))
            for entry in element.findall("property"):
                name = entry.get("name", "")
                if entry.get("stdset") != "0" and widget is not None and widget.metaObject().indexOfProperty(name) < 0:
                    self._problems.append(f"{element.get('class')} has no property {name} ({element.get('name')})")

    def _connect(self, top: Any, connection: ElementTree.Element) -> None:
        part = {key: connection.findtext(key, "") for key in ("sender", "signal", "receiver", "slot")}
        sender, receiver = _named(top, part["sender"]), _named(top, part["receiver"])
        slot = getattr(receiver, part["slot"].partition("(")[0], None)
        try:
            if slot is None:
                raise AttributeError(f"no {part['receiver']}.{part['slot']}")
            signal_of(sender, part["signal"]).connect(slot)
        except AttributeError as error:
            self._problems.append(f"connection {part['sender']}.{part['signal']}: {error}")


def _named(top: Any, name: str) -> Any:
    return top if top.objectName == name else top.findChild(QtCore.QObject, name)
