"""The rounds' numbers as MRML: a table node, a series each, a chart, and the plot view node that shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from .run_state import dice_of

_PART = "SAM2Iterative.Plot"
"""Node attribute: the part a node plays. The nodes of a case have another one: they come and go with it, these stay."""
_VIEW = "SAM2IterativeRounds"


@dataclass(frozen=True)
class _Curve:
    """A number of the rounds: its column, and its colour (RGB 0-1)."""

    column: str
    colour: tuple[float, float, float]


_CURVES = (
    _Curve("uncertainty", (0.84, 0.37, 0.0)),
    _Curve("agreement", (0.0, 0.45, 0.7)),
    _Curve("stability", (0.0, 0.62, 0.45)),
    _Curve("dice", (0.0, 0.0, 0.0)),
)


def curve_name(column: str) -> str:
    """What the legend calls a curve."""
    return {
        "uncertainty": _("Uncertainty"),
        "agreement": _("Agreement"),
        "stability": _("Unchanged"),
        "dice": _("Dice (validation)"),
    }[column]


def values_of(numbers: Mapping[str, Any]) -> dict[str, float | None]:
    """The plotted numbers of one round."""
    found: dict[str, float | None] = {name: numbers.get(name) for name in ("uncertainty", "agreement", "stability")}
    return {**found, "dice": dice_of(dict(numbers))}


class RoundPlot:
    """Keeps the nodes; they are looked up each time, so a closed scene leaves nothing behind."""

    def show(self, rounds: Mapping[int, Mapping[str, Any]]) -> Any:
        """Plot these rounds; the plot view node."""
        rows = {number: values_of(numbers) for number, numbers in sorted(rounds.items())}
        table = self._node("table", "vtkMRMLTableNode", _("Numbers of the rounds"))
        _fill(table, rows)
        chart = self._node("chart", "vtkMRMLPlotChartNode", _("Rounds"))
        chart.SetXAxisTitle(_("round"))
        chart.SetYAxisTitle(_("0 to 1"))
        chart.SetYAxisRangeAuto(False)
        chart.SetYAxisRange(0.0, 1.0)
        for curve in _CURVES:
            self._series(curve, table, chart, any(row[curve.column] is not None for row in rows.values()))
        view = self._node("view", "vtkMRMLPlotViewNode", _("Rounds"))
        view.SetPlotChartNodeID(chart.GetID())
        return view

    def chart(self) -> Any:
        """The chart node; None before anything was shown."""
        return _find("chart")

    def remove(self) -> None:
        """Take everything out of the scene."""
        for node in slicer.util.getNodesByClass("vtkMRMLNode"):
            if node.GetAttribute(_PART):
                slicer.mrmlScene.RemoveNode(node)

    def _series(self, curve: _Curve, table: Any, chart: Any, wanted: bool) -> None:
        series = self._node(f"series.{curve.column}", "vtkMRMLPlotSeriesNode", curve_name(curve.column))
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName("round")
        series.SetYColumnName(curve.column)
        series.SetPlotType(series.PlotTypeScatter)
        series.SetMarkerStyle(series.MarkerStyleCircle)
        series.SetColor(*curve.colour)
        if wanted and not chart.HasPlotSeriesNodeID(series.GetID()):
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
        elif not wanted and chart.HasPlotSeriesNodeID(series.GetID()):
            chart.RemovePlotSeriesNodeID(series.GetID())

    def _node(self, part: str, kind: str, name: str) -> Any:
        found = _find(part)
        if found is None:
            found = slicer.mrmlScene.CreateNodeByClass(kind)
            found.UnRegister(None)
            if kind == "vtkMRMLPlotViewNode":
                found.SetSingletonTag(_VIEW)
                found.SetLayoutName(_VIEW)
                found.SetDoPropagatePlotChartSelection(False)  # else any other module's chart would take this one's place
                self._keep_out_of_layouts(found)
            found.SetName(name)
            found = slicer.mrmlScene.AddNode(found)
            found.SetAttribute(_PART, part)
            found.SetSaveWithScene(False)
        return found

    def _keep_out_of_layouts(self, view: Any) -> None:
        """A view with a layout node of its own: without one, Slicer's layout makes a second, hidden widget for it."""
        own = slicer.vtkMRMLScriptedModuleNode()
        own.SetName(_VIEW)
        own = slicer.mrmlScene.AddNode(own)
        own.SetAttribute(_PART, "layout")
        own.SetSaveWithScene(False)
        view.SetAndObserveParentLayoutNodeID(own.GetID())


def _find(part: str) -> Any:
    nodes = (slicer.mrmlScene.GetNthNode(number) for number in range(slicer.mrmlScene.GetNumberOfNodes()))
    return next((node for node in nodes if node.GetAttribute(_PART) == part), None)


def _fill(node: Any, rows: Mapping[int, Mapping[str, float | None]]) -> None:
    table = vtk.vtkTable()
    for name in ("round", *(curve.column for curve in _CURVES)):
        column = vtk.vtkFloatArray()
        column.SetName(name)
        for number, row in rows.items():
            value = float(number) if name == "round" else row[name]
            column.InsertNextValue(math.nan if value is None else float(value))
        table.AddColumn(column)
    node.SetAndObserveTable(table)
