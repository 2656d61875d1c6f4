"""Loads a scripted module as Slicer does: the file, its description, its panel in the main window."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import slicer
import slicer.util

from .application import Module, ScriptedModuleWidget
from .pointing import process_events
from .qt_module import qt


@dataclass
class LoadedModule:
    """A module whose panel stands in the main window.

    Attributes:
        code: the imported file.
        description: its object of the class named as the module (title, categories, help).
        parent: Slicer's side of the panel, a widget.
        widget: the panel, an object of the file's ``...Widget`` class; its ``ui`` holds the named widgets.
    """

    code: ModuleType
    description: Any
    parent: Any
    widget: Any

    def enter(self) -> None:
        """Open the module."""
        slicer.util.selectModule(self.description.moduleName)
        process_events()

    def leave(self) -> None:
        """Open another module."""
        slicer.util.selectModule("")
        process_events()

    def unload(self) -> None:
        """As at Slicer's end: the module is left, cleaned up, and its panel deleted."""
        name = self.description.moduleName
        if self.parent.isEntered:
            self.leave()
        slicer.app.moduleManager().moduleAboutToBeUnloaded.emit(name)
        slicer.util.mainWindow().takeCentralWidget()
        self.parent.deleteLater()
        process_events()
        delattr(slicer.modules, name.lower())
        sys.modules.pop(name, None)


def load_module(path: Path | str) -> LoadedModule:
    """Import a module's file, describe the module, and set its panel up in the main window (not yet entered).

    The file's folder comes onto ``sys.path``, as in Slicer, so that the module finds its packages.
    """
    path = Path(path).resolve()
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    code = _imported(name, path)
    module = Module(name, str(path))
    setattr(slicer.modules, name.lower(), module)
    description = getattr(code, name)(SimpleNamespace(path=str(path), icon=None))
    parent = ScriptedModuleWidget()
    parent.setMRMLScene(slicer.mrmlScene)
    module.representation = parent
    area = qt.QScrollArea()
    area.setWidgetResizable(True)
    area.setWidget(parent)
    slicer.util.mainWindow().setCentralWidget(area)
    widget = getattr(code, f"{name}Widget")(parent)
    parent.hold(widget)
    setattr(slicer.modules, f"{name}Widget", widget)
    widget.setup()
    process_events()
    return LoadedModule(code, description, parent, widget)


def _imported(name: str, path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no Python file")
    code = importlib.util.module_from_spec(specification)
    sys.modules[name] = code
    specification.loader.exec_module(code)
    return code
