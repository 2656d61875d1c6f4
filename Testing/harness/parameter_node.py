"""Stands in for ``slicer.parameterNodeWrapper``: typed parameters over a real vtkMRMLScriptedModuleNode, bound to widgets.

Written anew after Slicer's developer guide (parameter nodes). Understood are int, float, str, bool, Path, enumerations, lists and
tuples of these, nodes, parameter packs, and ``| None`` of these; the annotations WithinRange, Minimum, Maximum, Choice, NotNone,
Default, Decimals and SingleStep. As in Slicer, a widget binds by its exact class, a slider needs a range, a combo box needs
Choice, and a frozen dataclass cannot be a parameter pack.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util

from .parameter_annotations import Choice, Decimals, Default, Maximum, Minimum, NotNone, SingleStep, WithinRange
from .parameter_bindings import Binding, binding_of

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Maximum",
    "Minimum",
    "NotNone",
    "SingleStep",
    "WithinRange",
    "isParameterNodeWrapper",
    "isParameterPack",
    "parameterNodeWrapper",
    "parameterPack",
]

_NAME_PROPERTY = "SlicerParameterName"


@dataclass(frozen=True)
class _Parameter:
    """One typed entry: ``annotated`` is as written, ``kind`` without annotations."""

    name: str
    annotated: Any
    kind: Any
    annotations: tuple[Any, ...]
    default: Any

    @classmethod
    def of(cls, owner: type, name: str, annotated: Any) -> _Parameter:
        annotations: tuple[Any, ...] = ()
        kind = annotated
        if typing.get_origin(annotated) is typing.Annotated:
            kind, *rest = typing.get_args(annotated)
            annotations = tuple(rest)
        default = next((a.value for a in annotations if isinstance(a, Default)), _empty(kind))
        if name in vars(owner):
            default = vars(owner)[name]
        made = cls(name, annotated, kind, annotations, default)
        if default is not None:
            made.validate(default)
        return made

    def validate(self, value: Any) -> None:
        if not _is_of(value, self.kind):
            raise ValueError(f"{self.name} must be {self.kind}, not {value!r}")
        for annotation in self.annotations:
            if value is not None and hasattr(annotation, "validate"):
                annotation.validate(value)


def _empty(kind: Any) -> Any:
    if _optional(kind) or _is_node(kind):
        return None
    if typing.get_origin(kind) in (list, tuple):
        return typing.get_origin(kind)()
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    if kind in (int, float, str, bool, Path) or isParameterPack(kind):
        return kind()
    raise TypeError(f"a parameter cannot be of type {kind}")


def _optional(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType) and type(None) in typing.get_args(kind)


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


def _is_of(value: Any, kind: Any) -> bool:
    if _optional(kind):
        return value is None or any(_is_of(value, inner) for inner in typing.get_args(kind) if inner is not type(None))
    if _is_node(kind):
        return value is None or isinstance(value, kind)
    if kind is float:
        return isinstance(value, (int, float))
    origin = typing.get_origin(kind)
    return isinstance(value, origin or kind)


def _to_text(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    return json.dumps(value, default=_to_text)


def _of_text(kind: Any, text: str) -> Any:
    if _optional(kind):
        inner = next(inner for inner in typing.get_args(kind) if inner is not type(None))
        return None if text == "null" else _of_text(inner, text)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind[text]
    if kind is Path:
        return Path(text)
    value = json.loads(text)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (list, tuple):
        kinds = [inner[0]] * len(value) if origin is list or inner[-1] is Ellipsis else inner
        plain = (int, float, str, bool)
        return origin(v if k in plain else _of_text(k, v) for k, v in zip(kinds, value, strict=True))
    return kind(value)


def isParameterPack(kind: Any) -> bool:
    """Whether a class or object is a parameter pack."""
    return getattr(kind, "_is_parameter_pack", False) is True


def parameterPack(kind: Any = None) -> Any:
    """Class decorator: a group of typed values that can be one parameter.

    Raises:
        TypeError: the class is a frozen dataclass, into which Slicer's own decorator cannot write either.
    """
    if kind is None:
        return parameterPack
    if getattr(getattr(kind, "__dataclass_params__", None), "frozen", False):
        raise TypeError(f"{kind.__name__} is frozen; a parameter pack must be writable")
    hints = typing.get_type_hints(kind, include_extras=True)
    parameters = {name: _Parameter.of(kind, name, hint) for name, hint in hints.items()}

    def initialise(self: Any, *values: Any, **named: Any) -> None:
        given = dict(zip(parameters, values, strict=False)) | named
        unknown = given.keys() - parameters.keys()
        if unknown:
            raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        for name, parameter in parameters.items():
            setattr(self, name, given.get(name, parameter.default))

    def same(self: Any, other: Any) -> bool:
        return isinstance(other, kind) and all(getattr(self, name) == getattr(other, name) for name in parameters)

    for name in parameters:
        setattr(kind, name, _pack_property(parameters[name]))
    kind._is_parameter_pack, kind.allParameters = True, parameters
    kind.__init__, kind.__eq__, kind.__hash__ = initialise, same, None
    kind.getValue, kind.setValue, kind.dataType = _pack_get, _pack_set, staticmethod(lambda name: _typed(parameters, name))
    return kind


def _pack_property(parameter: _Parameter) -> property:
    key = f"_pack_{parameter.name}"

    def write(self: Any, value: Any) -> None:
        parameter.validate(value)
        setattr(self, key, value)
        changed = self.__dict__.get("_changed")
        if changed:
            changed()

    return property(lambda self: getattr(self, key), write)


def _pack_get(self: Any, name: str) -> Any:
    first, _, rest = name.partition(".")
    value = getattr(self, first)
    return _pack_get(value, rest) if rest else value


def _pack_set(self: Any, name: str, value: Any) -> None:
    first, _, rest = name.partition(".")
    if rest:
        _pack_set(getattr(self, first), rest, value)
    else:
        setattr(self, first, value)


def _typed(parameters: dict[str, _Parameter], name: str) -> Any:
    first, _, rest = name.partition(".")
    if first not in parameters:
        raise ValueError(f"no parameter {first}; known are {', '.join(parameters)}")
    parameter = parameters[first]
    return _typed(parameter.kind.allParameters, rest) if rest else parameter.annotated


def parameterNodeWrapper(kind: Any = None) -> Any:
    """Class decorator: a class whose annotated names become parameters of the node given to its constructor."""
    if kind is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(kind, include_extras=True)
    parameters = {name: _Parameter.of(kind, name, hint) for name, hint in hints.items()}
    body = {name: found for name, found in vars(kind).items() if name not in parameters and name not in ("__dict__", "__weakref__")}
    for name in parameters:
        body[name] = property(
            lambda self, name=name: self.getValue(name),  # type: ignore[misc]
            lambda self, value, name=name: self.setValue(name, value),  # type: ignore[misc]
        )
    return type(kind.__name__, (ParameterNode,), {**body, "allParameters": parameters})


class ParameterNode:
    """What ``parameterNodeWrapper`` makes of a class."""

    allParameters: typing.ClassVar[dict[str, _Parameter]] = {}

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._bound: dict[int, list[Binding]] = {}
        self._observed: dict[int, int] = {}
        self._from_node = False
        for name, parameter in self.allParameters.items():
            if not self._is_in(name, parameter.kind):
                self._write(name, parameter.kind, parameter.default)

    def getValue(self, name: str) -> Any:
        """A parameter's value; ``pack.name`` reaches into a pack."""
        first, _, rest = name.partition(".")
        self.dataType(name)
        value = self._read(first, self.allParameters[first].kind)
        return value.getValue(rest) if rest else value

    def setValue(self, name: str, value: Any) -> None:
        """Change a parameter; ``pack.name`` reaches into a pack."""
        first, _, rest = name.partition(".")
        self.dataType(name)
        parameter = self.allParameters[first]
        if rest:
            self.getValue(first).setValue(rest, value)
            return
        parameter.validate(value)
        with slicer.util.NodeModify(self.parameterNode):
            self._write(first, parameter.kind, value)

    @classmethod
    def dataType(cls, name: str) -> Any:
        """A parameter's annotated type."""
        return _typed(cls.allParameters, name)

    def default(self, name: str) -> Default:
        """A parameter's default, wrapped."""
        self.dataType(name)
        return Default(self.allParameters[name].default)

    def connectGui(self, gui: Any) -> int:
        """Bind every widget that names a parameter in its dynamic property SlicerParameterName; a tag for ``disconnectGui``."""
        widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "isWidgetType") else vars(gui).values()
        named = {widget.property(_NAME_PROPERTY): widget for widget in widgets if widget.property(_NAME_PROPERTY)}
        return self.connectParametersToGui(named)

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Bind widgets to parameters by name; a tag for ``disconnectGui``."""
        tag = max(self._bound, default=-1) + 1
        bindings = [binding_of(name, widget, self.dataType(name)) for name, widget in mapping.items()]
        self._bound[tag] = bindings
        for binding in bindings:
            binding.write(self.getValue(binding.name))
            binding.listen(self._widget_changed)
        self._observed[tag] = self.AddObserver("ModifiedEvent", lambda *_: self._show())
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        """Undo one ``connectGui``."""
        for binding in self._bound.pop(typing.cast(int, tag), ()):
            binding.stop()
        if tag in self._observed:
            self.RemoveObserver(self._observed.pop(tag))

    def StartModify(self) -> Any:
        """Hold events back."""
        return self.parameterNode.StartModify()

    def EndModify(self, was: Any) -> Any:
        """Let events go."""
        return self.parameterNode.EndModify(was)

    def AddObserver(self, event: Any, callback: Callable[..., None], priority: float = 0.0) -> int:
        """Observe the node."""
        return int(self.parameterNode.AddObserver(event, callback, priority))

    def RemoveObserver(self, tag: int) -> None:
        """Stop observing the node."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """Tell the node's observers."""
        self.parameterNode.Modified()

    def _widget_changed(self, binding: Binding) -> None:
        if not self._from_node:
            self.setValue(binding.name, binding.read())

    def _show(self) -> None:
        if self._from_node:
            return
        self._from_node = True
        try:
            for bindings in list(self._bound.values()):
                for binding in bindings:
                    binding.write(self.getValue(binding.name))
        finally:
            self._from_node = False

    def _is_in(self, name: str, kind: Any) -> bool:
        if isParameterPack(kind):
            return any(self._is_in(f"{name}.{inner}", p.kind) for inner, p in kind.allParameters.items())
        return bool(self.parameterNode.HasParameter(name)) or _is_node(kind)

    def _write(self, name: str, kind: Any, value: Any) -> None:
        if isParameterPack(kind):
            for inner, parameter in kind.allParameters.items():
                self._write(f"{name}.{inner}", parameter.kind, getattr(value, inner))
        elif _is_node(kind):
            self.parameterNode.SetNodeReferenceID(name, value.GetID() if value is not None else None)
        else:
            self.parameterNode.SetParameter(name, _to_text(value))

    def _read(self, name: str, kind: Any) -> Any:
        if isParameterPack(kind):
            pack = kind(**{inner: self._read(f"{name}.{inner}", p.kind) for inner, p in kind.allParameters.items()})
            pack._changed = lambda: self._write_pack(name, kind, pack)
            return pack
        if _is_node(kind):
            return self.parameterNode.GetNodeReference(name)
        return _of_text(kind, self.parameterNode.GetParameter(name))

    def _write_pack(self, name: str, kind: Any, pack: Any) -> None:
        with slicer.util.NodeModify(self.parameterNode):
            self._write(name, kind, pack)


def isParameterNodeWrapper(found: Any) -> bool:
    """Whether a class or object came from ``parameterNodeWrapper``."""
    return isinstance(found, ParameterNode) or (isinstance(found, type) and issubclass(found, ParameterNode))
