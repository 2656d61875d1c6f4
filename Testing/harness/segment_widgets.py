"""Stand-ins for Slicer's segment table and Segment Editor, over real segmentations and a real undo history.

The editor's effects do nothing; ``paint_segment`` makes the change that a brush stroke would make.
"""
# ruff: noqa: N801  the names are Slicer's

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import slicer
import slicer.util
from PySide6 import QtCore

from .mrml_widgets import qMRMLWidget
from .observing import Observations
from .qt_module import qt
from .stand_in import stand_in, stored

_COLUMNS = ("", "", "Name", "Status")
EFFECTS = ("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Fill between slices", "Margin", "Smoothing",
           "Scissors", "Islands", "Logical operators", "Mask volume")  # fmt: skip
"""As Slicer orders them; the first ten have the keys 1-9 and 0."""
EDITOR_KEYS = (*"1234567890", *(f"Shift+{digit}" for digit in "1234567890"), "Esc", "Space", "Z", "Ctrl+Z", "Y", "Ctrl+Y",
               *"QW/*,.><", "I")  # fmt: skip
"""The keys that Slicer's Segment Editor installs (qMRMLSegmentEditorWidget::installKeyboardShortcuts)."""


@stand_in
class qMRMLSegmentsTableView(qMRMLWidget):
    """The segments of a segmentation: shown or not, colour, name, status."""

    selectionChanged = QtCore.Signal(object, object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._observations, self._scene_observations = Observations(self), Observations(self)
        self._table = qt.QTableWidget(0, len(_COLUMNS), self)
        self._table.setHorizontalHeaderLabels(list(_COLUMNS))
        self._table.verticalHeader().setVisible(False)
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self._table.setColumnWidth(0, 24)
        self._table.setColumnWidth(1, 24)
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._table)
        self._table.selectionModel().selectionChanged.connect(lambda *change: self.selectionChanged.emit(*change))
        self._table.itemChanged.connect(self._toggled)

    selectionMode = QtCore.Property(
        int, lambda self: int(self._table.selectionMode.value), lambda self, mode: self._table.setSelectionMode(_mode(mode))
    )
    headerVisible = stored("headerVisible", bool, True)
    visibilityColumnVisible = stored("visibilityColumnVisible", bool, True)
    colorColumnVisible = stored("colorColumnVisible", bool, True)
    opacityColumnVisible = stored("opacityColumnVisible", bool, True)
    statusColumnVisible = stored("statusColumnVisible", bool, True)
    layerColumnVisible = stored("layerColumnVisible", bool, False)
    readOnly = stored("readOnly", bool, False)
    filterBarVisible = stored("filterBarVisible", bool, False)
    textFilter = stored("textFilter", str, "")
    jumpToSelectedSegmentEnabled = stored("jumpToSelectedSegmentEnabled", bool, False)
    segmentCount = QtCore.Property(int, lambda self: self._table.rowCount)

    def segmentationNode(self) -> Any:
        """The segmentation that is shown."""
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        """Show a segmentation."""
        self._observations.clear()
        self._node = node
        if node is not None:
            self._observations.add(node, "ModifiedEvent", self._changed)
            for event in ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SegmentsOrderModified"):
                self._observations.add(node.GetSegmentation(), getattr(slicer.vtkSegmentation, event), self._changed)
        self._fill()

    def setMRMLScene(self, scene: Any) -> None:
        """A closed scene's segmentation is let go."""
        super().setMRMLScene(scene)
        self._scene_observations.clear()
        if scene is not None:
            self._scene_observations.add(scene, scene.StartCloseEvent, self._let_go)

    def tableWidget(self) -> Any:
        """The table within."""
        return self._table

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        """The selected rows' segments."""
        rows = sorted({index.row() for index in self._table.selectionModel().selectedRows()})
        return tuple(self.segmentIDForRow(row) for row in rows)

    def setSelectedSegmentIDs(self, ids: Any) -> None:
        """Select rows."""
        self._table.clearSelection()
        for segment_id in ids:
            self._table.selectRow(self.rowForSegmentID(segment_id))

    def clearSelection(self) -> None:
        """Select nothing."""
        self._table.clearSelection()

    def segmentIDForRow(self, row: int) -> str:
        """The segment of a row."""
        return str(self._table.item(row, 2).data(qt.Qt.UserRole))

    def rowForSegmentID(self, segment_id: str) -> int:
        """The row of a segment, -1 where there is none."""
        rows = [row for row in range(self._table.rowCount) if self.segmentIDForRow(row) == segment_id]
        return rows[0] if rows else -1

    def _changed(self, _caller: Any, _event: str) -> None:
        self._fill()

    def _let_go(self, _caller: Any, _event: str) -> None:
        self.setSegmentationNode(None)

    def _toggled(self, item: Any) -> None:
        if item.column() == 0 and self._node is not None:
            shown = item.checkState() == qt.Qt.Checked
            self._node.GetDisplayNode().SetSegmentVisibility(self.segmentIDForRow(item.row()), shown)

    def _fill(self) -> None:
        chosen = self.selectedSegmentIDs()
        self._table.blockSignals(True)
        segmentation: Any = self._node.GetSegmentation() if self._node else None
        ids = segmentation.GetSegmentIDs() if segmentation else ()
        self._table.setRowCount(len(ids))
        for row, segment_id in enumerate(ids):
            self._fill_row(row, segment_id, segmentation.GetSegment(segment_id))
        self._table.blockSignals(False)
        if chosen != self.selectedSegmentIDs():
            self.setSelectedSegmentIDs([segment_id for segment_id in chosen if segment_id in ids])

    def _fill_row(self, row: int, segment_id: str, segment: Any) -> None:
        display = self._node.GetDisplayNode()
        eye = qt.QTableWidgetItem()
        eye.setCheckState(qt.Qt.Checked if display and display.GetSegmentVisibility(segment_id) else qt.Qt.Unchecked)
        colour = qt.QTableWidgetItem()
        colour.setBackground(qt.QColor.fromRgbF(*segment.GetColor()))
        colour.setFlags(qt.Qt.ItemIsEnabled)  # the mark of the selected row would hide it
        name = qt.QTableWidgetItem(segment.GetName())
        name.setData(qt.Qt.UserRole, segment_id)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        status = qt.QTableWidgetItem(logic.GetSegmentStatusAsHumanReadableString(logic.GetSegmentStatus(segment)))
        for column, item in enumerate((eye, colour, name, status)):
            self._table.setItem(row, column, item)


def _mode(number: int) -> Any:
    return qt.QAbstractItemView.SelectionMode(number)


@stand_in
class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The Segment Editor's face and its undo; its effects only look chosen."""

    currentSegmentIDChanged = QtCore.Signal(str)
    segmentationNodeChanged = QtCore.Signal(object)
    sourceVolumeNodeChanged = QtCore.Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._editor_node: Any = None
        self._history: Any = None
        self._effect: Any = None
        self._shortcuts: list[Any] = []
        column = qt.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._table = qMRMLSegmentsTableView(self)
        self._table.setMaximumHeight(130)
        column.addWidget(self._table)
        grid = qt.QGridLayout()
        column.addLayout(grid)
        self._buttons = {}
        for number, name in enumerate(("None", *EFFECTS)):
            button = qt.QToolButton(self)
            button.text, button.checkable = name, True
            button.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
            button.clicked.connect(lambda _checked, name=name: self.setActiveEffectByName(name))
            grid.addWidget(button, number // 4, number % 4)
            self._buttons[name] = button
        self._undo, self._redo = qt.QToolButton(self), qt.QToolButton(self)
        for number, (button, name, action) in enumerate(((self._undo, "Undo", self.undo), (self._redo, "Redo", self.redo))):
            button.setObjectName(f"{name}Button")  # as in qMRMLSegmentEditorWidget.ui
            button.text = name
            button.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
            button.clicked.connect(lambda _checked, action=action: action())
            grid.addWidget(button, 4, number)
        self._history_observation = Observations(self)
        self._telling = True
        self._table.selectionChanged.connect(self._segment_selected)
        self._history_changed(None, "")

    segmentationNodeSelectorVisible = stored("segmentationNodeSelectorVisible", bool, True)
    sourceVolumeNodeSelectorVisible = stored("sourceVolumeNodeSelectorVisible", bool, True)
    maskingSectionVisible = stored("maskingSectionVisible", bool, True)
    specifyGeometryButtonVisible = stored("specifyGeometryButtonVisible", bool, True)
    show3DButtonVisible = stored("show3DButtonVisible", bool, True)
    addRemoveSegmentButtonsVisible = stored("addRemoveSegmentButtonsVisible", bool, True)
    switchToSegmentationsButtonVisible = stored("switchToSegmentationsButtonVisible", bool, True)
    autoShowSourceVolumeNode = stored("autoShowSourceVolumeNode", bool, True)
    undoEnabled = stored("undoEnabled", bool, True)
    readOnly = stored("readOnly", bool, False)
    effectColumnCount = stored("effectColumnCount", int, 2)
    unorderedEffectsVisible = stored("unorderedEffectsVisible", bool, True)
    jumpToSelectedSegmentEnabled = stored("jumpToSelectedSegmentEnabled", bool, False)
    maximumNumberOfUndoStates = stored("maximumNumberOfUndoStates", int, 10)

    def mrmlSegmentEditorNode(self) -> Any:
        """The node that holds the editor's choices."""
        return self._editor_node

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        """Must be set before a segmentation is."""
        self._editor_node = node

    def segmentationNode(self) -> Any:
        """The segmentation that is edited."""
        return self._editor_node.GetSegmentationNode() if self._editor_node else None

    def setSegmentationNode(self, node: Any) -> None:
        """Edit a segmentation; its undo history starts here."""
        if self._editor_node is None:
            raise RuntimeError("setMRMLSegmentEditorNode must come before setSegmentationNode")
        if node is self.segmentationNode() and self._history is not None:
            return
        self._editor_node.SetAndObserveSegmentationNode(node)
        self._history = None
        self._history_observation.clear()
        if node is not None:
            self._history = slicer.vtkSegmentationHistory()
            self._history.SetMaximumNumberOfStates(self.maximumNumberOfUndoStates)
            self._history.SetSegmentation(node.GetSegmentation())
            self._history_observation.add(self._history, "ModifiedEvent", self._history_changed)
        self._history_changed(None, "")
        self._table.setSegmentationNode(node)
        self.segmentationNodeChanged.emit(node)

    def sourceVolumeNode(self) -> Any:
        """The image below."""
        return self._editor_node.GetSourceVolumeNode() if self._editor_node else None

    def setSourceVolumeNode(self, node: Any) -> None:
        """The image below."""
        self._editor_node.SetAndObserveSourceVolumeNode(node)
        self.sourceVolumeNodeChanged.emit(node)

    def currentSegmentID(self) -> str:
        """The segment that effects change."""
        return (self._editor_node.GetSelectedSegmentID() or "") if self._editor_node else ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        """Choose the segment that effects change, as the editor's keys do: the signal comes with clicks into the table alone."""
        self._telling = False
        self._table.setSelectedSegmentIDs([segment_id] if segment_id else [])
        self._telling = True

    def availableEffectNames(self) -> tuple[str, ...]:
        """Names of the effects."""
        return EFFECTS

    def setEffectNameOrder(self, _names: Any) -> None:
        """The order of the buttons is not imitated."""

    def activeEffect(self) -> Any:
        """The chosen effect, with its name; None where none is."""
        return self._effect

    def setActiveEffect(self, effect: Any) -> None:
        """Choose an effect, or None."""
        self.setActiveEffectByName(effect.name if effect else "None")

    def setActiveEffectByName(self, name: str) -> None:
        """Choose an effect; any other name chooses none."""
        self._effect = SimpleNamespace(name=name) if name in EFFECTS else None
        if self._editor_node is not None:
            self._editor_node.SetActiveEffectName(name if self._effect else "")
        for key, button in self._buttons.items():
            button.checked = key == name

    def saveStateForUndo(self) -> None:
        """Keep the segmentation as it is now."""
        if self._history is not None:
            self._history.SaveState()

    def undo(self) -> None:
        """Back to the kept state before."""
        if self._history is not None and self._history.IsRestorePreviousStateAvailable():
            self._history.RestorePreviousState()

    def redo(self) -> None:
        """Forward again."""
        if self._history is not None and self._history.IsRestoreNextStateAvailable():
            self._history.RestoreNextState()

    def installKeyboardShortcuts(self, parent: Any = None) -> None:
        """The editor's keys, as real shortcuts: a second shortcut on the same key makes both dumb, as in Slicer."""
        self.uninstallKeyboardShortcuts()
        for keys in EDITOR_KEYS:
            self._shortcuts.append(qt.QShortcut(qt.QKeySequence(keys), parent if parent is not None else slicer.util.mainWindow()))

    def uninstallKeyboardShortcuts(self) -> None:
        """Give the keys back."""
        while self._shortcuts:
            self._shortcuts.pop().deleteLater()

    def setupViewObservations(self) -> None:
        """Mouse work in the views is not imitated."""

    def removeViewObservations(self) -> None:
        """Mouse work in the views is not imitated."""

    def updateWidgetFromMRML(self) -> None:
        """Show the nodes' state."""
        self._table.setSegmentationNode(self.segmentationNode())

    def rotateSliceViewsToSegmentation(self) -> None:
        """Not imitated."""

    def _history_changed(self, _caller: Any, _event: str) -> None:
        self._undo.setEnabled(self._history is not None and self._history.IsRestorePreviousStateAvailable())
        self._redo.setEnabled(self._history is not None and self._history.IsRestoreNextStateAvailable())

    def _segment_selected(self, *_: Any) -> None:
        chosen = self._table.selectedSegmentIDs()
        segment_id = chosen[0] if chosen else ""
        if self._editor_node is not None and segment_id != self.currentSegmentID():
            self._editor_node.SetSelectedSegmentID(segment_id)
            if self._telling:
                self.currentSegmentIDChanged.emit(segment_id)


def paint_segment(segmentation_node: Any, segment_id: str, mask: np.ndarray, editor: Any = None) -> None:
    """What a stroke in the Segment Editor does: the mask is added to one segment and taken from the others.

    Args:
        segmentation_node: the segmentation.
        segment_id: the segment that is painted.
        mask: (k, j, i) bool on the grid of the segmentation's reference volume.
        editor: a Segment Editor whose undo keeps the state before.
    """
    if editor is not None:
        editor.saveStateForUndo()
    for other in segmentation_node.GetSegmentation().GetSegmentIDs():
        before = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation_node, other).astype(bool)
        after = before | mask if other == segment_id else before & ~mask
        if not np.array_equal(before, after):
            slicer.util.updateSegmentBinaryLabelmapFromArray(after.astype(np.uint8), segmentation_node, other)


def export() -> dict[str, type]:
    """Put this module's stand-ins into ``slicer`` and name them for the loader of forms."""
    found: dict[str, type] = {kind.__name__: kind for kind in (qMRMLSegmentsTableView, qMRMLSegmentEditorWidget)}
    for name, kind in found.items():
        setattr(slicer, name, kind)
    return found
