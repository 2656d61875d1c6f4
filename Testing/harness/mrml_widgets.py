"""Stand-ins for Slicer's widgets that show MRML nodes: same names, properties and signals, over the real scene.

Checked against Slicer's headers (Libs/MRML/Widgets, Base/QTGUI).
"""
# ruff: noqa: N801  the names are Slicer's

from __future__ import annotations

from typing import Any

import slicer
from PySide6 import QtCore

from .ctk_widgets import ctkDoubleSpinBox, ctkRangeWidget, ctkSliderWidget
from .observing import Observations
from .qt_module import qt
from .stand_in import stand_in, stored


class qMRMLWidget(qt.QWidget):
    """A widget that knows the scene."""

    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        """The scene; None before ``setMRMLScene``."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """Tell this widget and, through the form's connections, the widgets within."""
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qSlicerWidget(qMRMLWidget):
    """The same, under the name that some forms use."""


@stand_in
class qMRMLNodeComboBox(qMRMLWidget):
    """Chooses a node of certain types."""

    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeActivated = QtCore.Signal(object)
    nodeAdded = QtCore.Signal(object)
    nodeAddedByUser = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._attributes: dict[tuple[str, str], Any] = {}
        self._combo = qt.QComboBox(self)
        row = qt.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._combo)
        self._observations = Observations(self)
        self._shown_id = ""
        self._combo.currentIndexChanged.connect(self._announce)
        self._combo.activated.connect(lambda _index: self.nodeActivated.emit(self.currentNode()))

    def _set_types(self, names: Any) -> None:
        self._types = list(names)
        self._fill()

    def _set_none(self, enabled: bool) -> None:
        self._none = enabled
        self._fill()

    nodeTypes = QtCore.Property("QStringList", lambda self: list(self.__dict__.get("_types", ())), _set_types)
    noneEnabled = QtCore.Property(bool, lambda self: self.__dict__.get("_none", False), _set_none)
    showHidden = stored("showHidden", bool, False)
    showChildNodeTypes = stored("showChildNodeTypes", bool, True)
    addEnabled = stored("addEnabled", bool, True)
    removeEnabled = stored("removeEnabled", bool, True)
    editEnabled = stored("editEnabled", bool, False)
    renameEnabled = stored("renameEnabled", bool, False)
    selectNodeUponCreation = stored("selectNodeUponCreation", bool, True)
    baseName = stored("baseName", str, "")
    noneDisplay = stored("noneDisplay", str, "")
    currentNodeID = QtCore.Property(str, lambda self: self._combo.currentData or "", lambda self, node_id: self.setCurrentNode(node_id))

    def setMRMLScene(self, scene: Any) -> None:
        """Offer the scene's nodes."""
        self._observations.clear()
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
                self._observations.add(scene, event, self._scene_changed)
        super().setMRMLScene(scene)
        self._fill()

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        """Offer only nodes of that type with this attribute (and value)."""
        self._attributes[node_type, name] = value
        self._fill()

    def removeAttribute(self, node_type: str, name: str) -> None:
        """The reverse of ``addAttribute``."""
        self._attributes.pop((node_type, name), None)
        self._fill()

    def nodes(self) -> list[Any]:
        """The nodes on offer."""
        if self._scene is None:
            return []
        found = []
        for number in range(self._scene.GetNumberOfNodes()):
            node = self._scene.GetNthNode(number)
            if (self.showHidden or not node.GetHideFromEditors()) and self._fits(node):
                found.append(node)
        return found

    def nodeCount(self) -> int:
        """Number of nodes on offer."""
        return len(self.nodes())

    def nodeFromIndex(self, index: int) -> Any:
        """The node on offer at a place."""
        return self.nodes()[index]

    def currentNode(self) -> Any:
        """The chosen node, or None."""
        return self._scene.GetNodeByID(self.currentNodeID) if self._scene and self.currentNodeID else None

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node, given itself or by its id; None or "" chooses nothing."""
        node_id = node if isinstance(node, str) or node is None else node.GetID()
        self._combo.setCurrentIndex(self._combo.findData(node_id or ""))

    def setCurrentNodeID(self, node_id: str) -> None:
        """Choose by id."""
        self.setCurrentNode(node_id)

    def setCurrentNodeIndex(self, index: int) -> None:
        """Choose by place."""
        self.setCurrentNode(self.nodeFromIndex(index))

    def addNode(self, node_type: str = "") -> Any:
        """As "Create new": a node of the first type, chosen."""
        node = self._scene.AddNewNodeByClass(node_type or self.nodeTypes[0], self.baseName)
        for (kind, name), value in self._attributes.items():
            if node.IsA(kind):
                node.SetAttribute(name, str(value))
        self._fill()
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def _fits(self, node: Any) -> bool:
        kinds = [kind for kind in self.nodeTypes if node.IsA(kind)]
        if not self.showChildNodeTypes:
            kinds = [kind for kind in kinds if node.GetClassName() == kind]
        if not kinds:
            return False
        for (kind, name), value in self._attributes.items():
            if node.IsA(kind) and (node.GetAttribute(name) is None or (value is not None and node.GetAttribute(name) != str(value))):
                return False
        return True

    def _scene_changed(self, _caller: Any, _event: str) -> None:
        self._fill()

    def _fill(self) -> None:
        nodes, chosen = self.nodes(), self.currentNodeID
        self._combo.blockSignals(True)
        self._combo.clear()
        if self.noneEnabled or not nodes:
            self._combo.addItem(self.noneDisplay or "None", "")
        for node in nodes:
            self._combo.addItem(node.GetName(), node.GetID())
        # As in Slicer, the first node is chosen where "none" is not allowed.
        self._combo.setCurrentIndex(max(0, self._combo.findData(chosen)))
        self._combo.blockSignals(False)
        self._announce()

    def _announce(self, _index: int = 0) -> None:
        if self.currentNodeID != self._shown_id:
            self._shown_id = self.currentNodeID
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(self._shown_id)


@stand_in
class qMRMLSliderWidget(ctkSliderWidget):
    """A slider with a unit."""

    quantity = stored("quantity", str, "")

    def setMRMLScene(self, scene: Any) -> None:
        """Units are not imitated."""


@stand_in
class qMRMLSpinBox(ctkDoubleSpinBox):
    """A spin box with a unit."""

    quantity = stored("quantity", str, "")

    def setMRMLScene(self, scene: Any) -> None:
        """Units are not imitated."""


class qMRMLRangeWidget(ctkRangeWidget):
    """Two values with a unit."""

    def setMRMLScene(self, scene: Any) -> None:
        """Units are not imitated."""


class qMRMLSliceWidget(qMRMLWidget):
    """A slice view's place in the layout; the picture itself is drawn by ``SliceView``."""

    def __init__(self, logic: Any) -> None:
        super().__init__()
        self._logic = logic

    def sliceLogic(self) -> Any:
        """The real slice logic."""
        return self._logic

    def mrmlSliceNode(self) -> Any:
        """The real slice node."""
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        """The node that holds the layers."""
        return self._logic.GetSliceCompositeNode()


class qMRMLThreeDWidget(qMRMLWidget):
    """A 3-D view's place in the layout; nothing is drawn."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node

    def mrmlViewNode(self) -> Any:
        """The real view node."""
        return self._node

    def threeDView(self) -> qMRMLThreeDWidget:
        """The view within; here the same."""
        return self

    def resetFocalPoint(self) -> None:
        """Nothing is drawn."""

    def resetCamera(self, *_: Any) -> None:
        """Nothing is drawn."""


@stand_in
class qMRMLPlotView(qMRMLWidget):
    """Draws a plot chart node's line and scatter series, plainly."""

    _MARGIN = 44

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._view: Any = None
        self._observations = Observations(self)
        self.setMinimumHeight(120)

    def mrmlPlotViewNode(self) -> Any:
        """The view node, whose chart is drawn."""
        return self._view

    def setMRMLPlotViewNode(self, node: Any) -> None:
        """Show the chart of this view node."""
        self._view = node
        self._watch()

    def fitToContent(self) -> None:
        """Draw again; the axes always fit."""
        self._watch()

    def curves(self) -> list[tuple[str, list[tuple[float, float]], tuple[float, float, float]]]:
        """What is drawn: (name, points, RGB 0-1) of each series; points that are not a number are left out."""
        found = []
        for series in self._series():
            table: Any = series.GetTableNode().GetTable()
            xs = table.GetColumnByName(series.GetXColumnName()) if series.GetXColumnName() else None
            ys = table.GetColumnByName(series.GetYColumnName()) if series.GetYColumnName() else None
            if ys is None:
                continue
            points = [
                (xs.GetVariantValue(row).ToDouble() if xs else float(row), ys.GetVariantValue(row).ToDouble())
                for row in range(table.GetNumberOfRows())
            ]
            found.append((series.GetName(), [p for p in points if p[1] == p[1]], series.GetColor()))
        return found

    def _series(self) -> list[Any]:
        """The chart's series that have a table."""
        chart: Any = self._view.GetPlotChartNode() if self._view else None
        nodes = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())] if chart else []
        return [series for series in nodes if series and series.GetTableNode()]

    def _watch(self) -> None:
        self._observations.clear()
        chart = self._view.GetPlotChartNode() if self._view else None
        for node in (self._view, chart):
            if node:
                self._observations.add(node, "ModifiedEvent", self._changed)
        for series in self._series():
            self._observations.add(series.GetTableNode(), "ModifiedEvent", self._changed)
        self.update()

    def _changed(self, caller: Any, _event: str) -> None:
        if caller is self._view or caller.IsA("vtkMRMLPlotChartNode"):
            self._watch()
        self.update()

    def paintEvent(self, _event: Any) -> None:
        """Axes with their ranges, the curves, their names."""
        painter = qt.QPainter(self)
        painter.setRenderHint(qt.QPainter.Antialiasing)
        painter.fillRect(self.rect, qt.QColor("white"))
        curves = [curve for curve in self.curves() if curve[1]]
        area = self.rect.adjusted(self._MARGIN, 22, -12, -30)
        painter.setPen(qt.QColor("gray"))
        painter.drawRect(area)
        chart = self._view.GetPlotChartNode() if self._view else None
        if chart and curves:
            self._draw(painter, area, curves, chart)
        painter.end()

    def _draw(self, painter: Any, area: Any, curves: list[Any], chart: Any) -> None:
        points = [point for curve in curves for point in curve[1]]
        (x0, x1), (y0, y1) = (_span([p[axis] for p in points]) for axis in (0, 1))
        if not chart.GetYAxisRangeAuto():
            y0, y1 = chart.GetYAxisRange()

        def place(point: tuple[float, float]) -> Any:
            across, up = (point[0] - x0) / (x1 - x0), (point[1] - y0) / (y1 - y0)
            return qt.QPointF(area.left() + across * area.width(), area.bottom() - up * area.height())

        painter.setPen(qt.QColor("black"))
        painter.drawText(area.left(), 14, chart.GetTitle() or "")
        painter.drawText(2, area.bottom(), f"{y0:.3g}")
        painter.drawText(2, area.top() + 10, f"{y1:.3g}")
        painter.drawText(area.left(), area.bottom() + 14, f"{x0:.3g}")
        painter.drawText(area.right() - 20, area.bottom() + 14, f"{x1:.3g}")
        painter.drawText(area.center().x() - 30, area.bottom() + 26, chart.GetXAxisTitle() or "")
        for row, (name, line, colour) in enumerate(curves):
            pen = qt.QPen(qt.QColor.fromRgbF(*colour))
            pen.setWidth(2)
            painter.setPen(pen)
            painter.drawPolyline([place(point) for point in line])
            for point in line:
                painter.drawEllipse(place(point), 2, 2)
            painter.drawText(area.left() + 8, area.top() + 14 * (row + 1), name)


def _span(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


SLICER_NAMES = ("qMRML", "qSlicer")


def export() -> dict[str, type]:
    """Put this module's stand-ins into ``slicer`` and name them for the loader of forms."""
    found = {name: kind for name, kind in globals().items() if name.startswith(SLICER_NAMES)}
    for name, kind in found.items():
        setattr(slicer, name, kind)
    return found
