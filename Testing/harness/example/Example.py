"""A small scripted module in the manner of Slicer's template, to try the harness on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import qt
import slicer
import slicer.util
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper, parameterPack
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Example(ScriptedLoadableModule):
    """What Slicer knows before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Example")
        self.parent.categories = ["Examples"]


@parameterPack
class Smoothing:
    """A group of choices."""

    radius: Annotated[int, WithinRange(0, 9)] = 2
    kind: Annotated[str, Choice(["mean", "median"])] = "mean"


@parameterNodeWrapper
class ExampleParameterNode:
    """The panel's choices."""

    inputVolume: vtkMRMLScalarVolumeNode
    threshold: Annotated[float, WithinRange(-100, 500)] = 100
    invert: bool = False
    folder: Path = Path()
    smoothing: Smoothing


class ExampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self._parameterNode: Any = None
        self._tag: Any = None
        self.cleaned = False

    def setup(self) -> None:
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        form = slicer.util.loadUI(self.resourcePath("UI/Example.ui"))
        self.layout.addWidget(form)
        self.ui = slicer.util.childWidgetVariables(form)
        form.setMRMLScene(slicer.mrmlScene)
        self.logic = ExampleLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """The application ends: the parameter node, which stays, must not reach for widgets that are gone."""
        self.setParameterNode(None)
        self.removeObservers()
        self.cleaned = True

    def enter(self) -> None:
        """The module is opened."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Another module is opened."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """The parameter node is about to go."""
        self.setParameterNode(None)

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        """The open module begins anew."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Get or make the parameter node."""
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, node: Any) -> None:
        """Bind the panel to a parameter node, or to none."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._tag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
        self._parameterNode = node
        if node:
            self._tag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._checkCanApply)
            self._checkCanApply()

    def _checkCanApply(self, caller: Any = None, event: Any = None) -> None:
        ready = self._parameterNode is not None and self._parameterNode.inputVolume is not None
        self.ui.applyButton.enabled = ready
        self.ui.applyButton.toolTip = _("Count the voxels") if ready else _("Choose a volume first")

    def onApply(self) -> None:
        """Count, and say the result."""
        with slicer.util.tryWithErrorDisplay(_("Counting failed."), waitCursor=True):
            count = self.logic.count(self._parameterNode.inputVolume, self._parameterNode.threshold, self._parameterNode.invert)
            self.ui.resultLabel.text = str(count)
        if slicer.util.confirmYesNoDisplay(_("Keep the result?")):
            qt.QSettings().setValue("Example/Count", count)


class ExampleLogic(ScriptedLoadableModuleLogic):
    """What the module can do without its panel."""

    def getParameterNode(self) -> ExampleParameterNode:
        """The wrapped parameter node."""
        return ExampleParameterNode(super().getParameterNode())  # type: ignore[call-arg]

    def count(self, volume: Any, threshold: float, invert: bool) -> int:
        """Number of voxels above (or below) a threshold."""
        voxels = slicer.util.arrayFromVolume(volume)
        if not voxels.any():
            raise ValueError("the volume is empty")
        return int(((voxels > threshold) != invert).sum())


class ExampleTest(ScriptedLoadableModuleTest):
    """The module's self test."""

    def setUp(self) -> None:
        """An empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run it."""
        self.setUp()
        self.test_name()

    def test_name(self) -> None:
        """The logic knows its module."""
        self.delayDisplay("looking at the name")
        self.assertEqual(ExampleLogic().moduleName, "Example")
