"""Stands in for ``slicer.app``, its layout and module managers, its main window, and ``slicer.modules``.

The scene, the logics, the layout node and the slice and view nodes are Slicer's own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer
import slicer.util
import vtk
from PySide6 import QtCore

from .mrml_widgets import qMRMLSliceWidget, qMRMLThreeDWidget, qMRMLWidget
from .qt_module import qt

VERSION = (5, 12)


class LayoutManager(qt.QObject):
    """``slicer.app.layoutManager()``: the real layout node, and a slice logic for every slice node."""

    layoutChanged = QtCore.Signal(int)

    def __init__(self, scene: Any, application_logic: Any) -> None:
        super().__init__()
        self._scene, self._application_logic = scene, application_logic
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        self._slices: dict[str, qMRMLSliceWidget] = {}
        self._shown = 0
        self._node().AddObserver("ModifiedEvent", self._layout_modified)
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    layout = QtCore.Property(int, lambda self: self._node().GetViewArrangement(), lambda self, number: self.setLayout(number))

    def setLayout(self, number: int) -> None:
        """Show a layout; its missing views are made."""
        self._node().SetViewArrangement(number)
        self._adopt_slices()

    def layoutLogic(self) -> Any:
        """The real logic, whose layout node holds the descriptions."""
        return self._logic

    def sliceViewNames(self) -> tuple[str, ...]:
        """Names of the slice views."""
        return tuple(self._slices)

    def sliceWidget(self, name: str) -> Any:
        """A slice view; None where there is none of that name."""
        return self._slices.get(name)

    def mrmlSliceLogics(self) -> Any:
        """The slice logics as a VTK collection."""
        return self._application_logic.GetSliceLogics()

    @property
    def threeDViewCount(self) -> int:
        """Number of 3-D views."""
        return int(self._scene.GetNumberOfNodesByClass("vtkMRMLViewNode"))

    def threeDWidget(self, number: int) -> qMRMLThreeDWidget:
        """A 3-D view."""
        return qMRMLThreeDWidget(self._scene.GetNthNodeByClass(number, "vtkMRMLViewNode"))

    def resetSliceViews(self) -> None:
        """Fit the slices to their volumes."""
        for widget in self._slices.values():
            widget.sliceLogic().FitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """Nothing is drawn."""

    def _node(self) -> Any:
        return self._logic.GetLayoutNode()

    def _layout_modified(self, _caller: Any, _event: str) -> None:
        self._adopt_slices()
        if self._node().GetViewArrangement() != self._shown:
            self._shown = self._node().GetViewArrangement()
            self.layoutChanged.emit(self._shown)

    def _adopt_slices(self) -> None:
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode", self._scene):
            name = node.GetLayoutName()
            if name and (name not in self._slices or self._slices[name].mrmlSliceNode() is not node):
                self._slices[name] = qMRMLSliceWidget(self._slice_logic(node))

    def _slice_logic(self, node: Any) -> Any:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self._application_logic)
        self._application_logic.GetSliceLogics().AddItem(logic)
        logic.SetMRMLScene(self._scene)
        logic.SetSliceNode(node)
        return logic


class ModuleManager(qt.QObject):
    """``slicer.app.moduleManager()``."""

    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def module(self, name: str) -> Any:
        """A module by its name, in any case; None where there is none."""
        return getattr(slicer.modules, name.lower(), None)

    def factoryManager(self) -> Any:
        """Knows the names of the loaded modules."""
        return SimpleNamespace(loadedModuleNames=lambda: tuple(module.name for module in vars(slicer.modules).values()))


class Module:
    """What ``slicer.modules.<name>`` is."""

    def __init__(self, name: str, path: str = "", logic: Any = None) -> None:
        self.name, self.path, self._logic = name, path, logic
        self.representation: Any = None

    def logic(self) -> Any:
        """The real logic of one of Slicer's modules."""
        return self._logic

    def widgetRepresentation(self) -> Any:
        """The module's panel, once it was made."""
        return self.representation


class ModuleSelector(qt.QObject):
    """``mainWindow().moduleSelector()``: opens modules that the harness loaded."""

    moduleSelected = QtCore.Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.selectedModule = ""

    def selectModule(self, name: str) -> None:
        """Leave the open module and enter another, as the toolbar does."""
        for called, old_name in (("exit", self.selectedModule), ("enter", name)):
            module = getattr(slicer.modules, old_name.lower(), None) if old_name else None
            if module is not None and module.representation is not None:
                getattr(module.representation, called)()
        self.selectedModule = name
        self.moduleSelected.emit(name)


class MainWindow(qt.QMainWindow):
    """A real window that ``slicer.util.mainWindow()`` finds, with the open module in it."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.resize(560, 900)
        self._selector = ModuleSelector()

    def moduleSelector(self) -> ModuleSelector:
        """Opens modules."""
        return self._selector


class ScriptedModuleWidget(qMRMLWidget):
    """``qSlicerScriptedLoadableModuleWidget``: the C++ side of a module's panel, which is the panel's ``parent``."""

    def __init__(self) -> None:
        super().__init__()
        self.setLayout(qt.QVBoxLayout())
        self.isEntered = False
        self._panel: Any = None

    def self(self) -> Any:
        """The module's own widget object."""
        return self._panel

    def hold(self, panel: Any) -> None:
        """Remember the module's own widget object."""
        self._panel = panel

    def enter(self) -> None:
        """A person opens the module."""
        self.isEntered = True
        if hasattr(self._panel, "enter"):
            self._panel.enter()

    def exit(self) -> None:
        """A person opens another module."""
        self.isEntered = False
        if hasattr(self._panel, "exit"):
            self._panel.exit()


class Application(qt.QObject):
    """``slicer.app``."""

    startupCompleted = QtCore.Signal()
    aboutToQuit = QtCore.Signal()

    def __init__(self, qt_application: Any) -> None:
        super().__init__()
        self._qt = qt_application
        self.applicationName, self.organizationName = "Slicer", "slicer.org"
        self.majorVersion, self.minorVersion = VERSION
        self.applicationVersion = f"{VERSION[0]}.{VERSION[1]}.0"
        self.revision = "0"
        self.os = "linux"
        self.temporaryPath = tempfile.mkdtemp(prefix="slicer-harness-")
        self.slicerHome = self.temporaryPath
        self.documentationBaseUrl = "https://slicer.readthedocs.io/"
        self.testing = False
        self._scene = slicer.vtkMRMLScene()
        self._logic = _application_logic(self._scene, self.temporaryPath)
        self._module_manager = ModuleManager()
        self._layout_manager: LayoutManager | None = None

    def finish(self) -> None:
        """The second half of starting, once ``slicer.app`` and ``slicer.mrmlScene`` are set."""
        self._layout_manager = LayoutManager(self._scene, self._logic)

    def mrmlScene(self) -> Any:
        """The scene."""
        return self._scene

    def applicationLogic(self) -> Any:
        """The real application logic."""
        return self._logic

    def layoutManager(self) -> LayoutManager | None:
        """The layout manager."""
        return self._layout_manager

    def moduleManager(self) -> ModuleManager:
        """The module manager."""
        return self._module_manager

    def settings(self) -> Any:
        """Settings of this run only; each harness starts with none."""
        return qt.QSettings()

    userSettings = revisionUserSettings = settings

    def testingEnabled(self) -> bool:
        """Whether Slicer was started to test itself; then it shows no dialogs."""
        return self.testing

    def processEvents(self, flags: Any = None) -> None:
        """Let Qt work off what waits, or of that what the flags of ``QEventLoop`` let through."""
        self._qt.processEvents(*(() if flags is None else (flags,)))

    def topLevelWidgets(self) -> list[Any]:
        """Windows."""
        return list(self._qt.topLevelWidgets())

    def translate(self, _context: str, text: str) -> str:
        """No translation is installed."""
        return text

    def setOverrideCursor(self, cursor: Any) -> None:
        """Show a cursor."""
        self._qt.setOverrideCursor(qt.QCursor(cursor))

    def restoreOverrideCursor(self) -> None:
        """The reverse of ``setOverrideCursor``."""
        self._qt.restoreOverrideCursor()

    def clipboard(self) -> Any:
        """The real clipboard of the offscreen platform."""
        return self._qt.clipboard()

    def palette(self) -> Any:
        """The colours of Qt's style."""
        return self._qt.palette()

    def moduleDocumentationUrl(self, name: str) -> str:
        """Where a module's documentation would be."""
        return f"{self.documentationBaseUrl}{name}"

    def restart(self) -> None:
        """A test must not get here unasked."""
        raise AssertionError("the module restarted the application")

    exit = quit = restart


def _application_logic(scene: Any, folder: str) -> Any:
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetTemporaryPath(folder)
    logic.SetHomeDirectory(folder)
    logic.SetShareDirectory("share")
    _write_generic_colours(Path(folder) / "share" / "ColorFiles")
    logic.SetMRMLScene(scene)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    colours = slicer.vtkSlicerColorLogic()
    colours.SetMRMLApplicationLogic(logic)
    colours.SetMRMLScene(scene)
    logic.SetColorLogic(colours)
    logic.SetModuleLogic("Colors", colours)
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    return logic


def _write_generic_colours(folder: Path) -> None:
    """The table that Slicer gives to new label volumes comes with the application; here is one of that name."""
    folder.mkdir(parents=True)
    rows = [f"{n} label{n} {n * 67 % 256} {n * 131 % 256} {n * 197 % 256} 255\n" for n in range(1, 256)]
    (folder / "GenericColors.txt").write_text("0 background 0 0 0 0\n" + "".join(rows), encoding="utf-8")


_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Models": "vtkSlicerModelsLogic",
}
"""Slicer's own modules whose logics a module may ask for."""


def slicer_modules(app: Application) -> SimpleNamespace:
    """``slicer.modules``: Slicer's own modules with their real logics."""
    modules = SimpleNamespace()
    for name, class_name in _LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(app.applicationLogic())
        logic.SetMRMLScene(app.mrmlScene())
        app.applicationLogic().SetModuleLogic(name, logic)
        setattr(modules, name.lower(), Module(name, logic=logic))
    modules.colors = Module("Colors", logic=app.applicationLogic().GetColorLogic())
    return modules


def isolated_settings(folder: Path) -> None:
    """Settings go into a folder of this run, never into the person's own."""
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    for scope in (qt.QSettings.UserScope, qt.QSettings.SystemScope):
        qt.QSettings.setPath(qt.QSettings.IniFormat, scope, str(folder))
