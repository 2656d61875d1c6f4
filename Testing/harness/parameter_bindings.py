"""Which widget binds to which type of parameter: by the widget's exact class, as in Slicer."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer

from .parameter_annotations import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange


class Binding:
    """One widget bound to one parameter."""

    def __init__(self, name: str, widget: Any, signal: Any, read: Callable[[], Any], write: Callable[[Any], None]) -> None:
        self.name, self.widget, self.read, self.write = name, widget, read, write
        self._signal = signal
        self._slot: Callable[..., None] | None = None

    def listen(self, changed: Callable[[Binding], None]) -> None:
        """Call ``changed`` whenever the person changes the widget."""
        if self._signal is not None:
            self._slot = lambda *_: changed(self)
            self._signal.connect(self._slot)

    def stop(self) -> None:
        """The reverse of ``listen``."""
        if self._slot is not None:
            self._signal.disconnect(self._slot)
            self._slot = None


def binding_of(name: str, widget: Any, annotated: Any) -> Binding:
    kind, annotations = annotated, []
    if typing.get_origin(annotated) is typing.Annotated:
        kind, *annotations = typing.get_args(annotated)
    for fits, bind in _BINDERS:
        if fits(type(widget), kind):
            return bind(name, widget, kind, annotations)
    raise RuntimeError(f"no binding from {type(widget).__name__} ({widget.name}) to {annotated}")


def _found(annotations: list[Any], kind: type) -> Any:
    return next((a for a in annotations if isinstance(a, kind)), None)


def _attribute(attribute: str, signal: str, convert: Callable[[Any], Any] = lambda value: value) -> Callable[..., Binding]:
    def bind(name: str, widget: Any, kind: Any, _annotations: list[Any]) -> Binding:
        def read() -> Any:
            return kind(getattr(widget, attribute))

        def write(value: Any) -> None:
            if convert(value) != getattr(widget, attribute):
                setattr(widget, attribute, convert(value))

        return Binding(name, widget, getattr(widget, signal) if signal else None, read, write)

    return bind


def _number(name: str, widget: Any, kind: Any, annotations: list[Any]) -> Binding:
    limits = _found(annotations, WithinRange)
    low, high = _found(annotations, Minimum), _found(annotations, Maximum)
    if limits is None and not (low and high) and type(widget) in (qt.QSlider, ctk.ctkSliderWidget, slicer.qMRMLSliderWidget):
        raise RuntimeError(f"a slider needs a range ({widget.name})")
    widest = (-(2**31), 2**31 - 1) if type(widget) in (qt.QSlider, qt.QSpinBox) else (float("-inf"), float("inf"))
    if kind is int and type(widget) not in (qt.QSlider, qt.QSpinBox):
        widget.decimals = 0
    elif _found(annotations, Decimals):
        widget.decimals = _found(annotations, Decimals).value
    if _found(annotations, SingleStep):
        widget.singleStep = _found(annotations, SingleStep).value
    widget.minimum = limits.minimum if limits else (low.minimum if low else widest[0])
    widget.maximum = limits.maximum if limits else (high.maximum if high else widest[1])
    return _attribute("value", "valueChanged")(name, widget, kind, annotations)


def _choice(name: str, widget: Any, kind: Any, annotations: list[Any]) -> Binding:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        label = getattr(kind, "label", lambda member: member.name)
        values, texts = list(kind), [label(member) for member in kind]
    else:
        choice = _found(annotations, Choice)
        if choice is None:
            raise RuntimeError(f"a combo box needs the annotation Choice ({widget.name})")
        values, texts = list(choice.choices), [str(value) for value in choice.choices]
    widget.clear()
    for text in texts:
        widget.addItem(text)

    def write(value: Any) -> None:
        widget.currentIndex = values.index(value)

    return Binding(name, widget, widget.currentIndexChanged, lambda: values[widget.currentIndex], write)


def _text(name: str, widget: Any, _kind: Any, _annotations: list[Any]) -> Binding:
    return Binding(name, widget, widget.textChanged, widget.toPlainText, widget.setPlainText)


def _node(name: str, widget: Any, kind: Any, _annotations: list[Any]) -> Binding:
    widget.nodeTypes = [kind.__name__]
    return Binding(name, widget, widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)


def _of(*widgets: Any) -> Callable[[Any], bool]:
    return lambda kind: kind in widgets


def _fits(widgets: tuple[Any, ...], kinds: Callable[[Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda widget, kind: widget in widgets and kinds(kind)


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


_BINDERS: list[tuple[Callable[[Any, Any], bool], Callable[..., Binding]]] = [
    (_fits((qt.QCheckBox, ctk.ctkCheckBox, qt.QPushButton), _of(bool)), _attribute("checked", "toggled")),
    (_fits((qt.QSlider, qt.QSpinBox), _of(int)), _number),
    (
        _fits(
            (qt.QDoubleSpinBox, ctk.ctkSliderWidget, ctk.ctkDoubleSpinBox, slicer.qMRMLSliderWidget, slicer.qMRMLSpinBox),
            _of(int, float),
        ),
        _number,
    ),
    (_fits((qt.QComboBox, ctk.ctkComboBox), lambda kind: kind in (int, float, str, bool) or _is_enum(kind)), _choice),
    (_fits((qt.QLineEdit,), _of(str)), _attribute("text", "textChanged")),
    (_fits((qt.QLabel,), _of(str)), _attribute("text", "")),
    (_fits((qt.QTextEdit,), _of(str)), _text),
    (_fits((ctk.ctkPathLineEdit,), _of(Path)), _attribute("currentPath", "currentPathChanged", str)),
    (_fits((ctk.ctkDirectoryButton,), _of(Path)), _attribute("directory", "directoryChanged", str)),
    (_fits((slicer.qMRMLNodeComboBox,), _is_node), _node),
]
