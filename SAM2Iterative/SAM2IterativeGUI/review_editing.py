"""The Segment Editor on the mask under review."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import slicer.util
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAM2IterativeLib.errors import ProjectError

from .review_case import CaseView

_EDITOR_TAG = "SAM2Iterative"


class Editing(VTKObservationMixin):
    """Opens and closes the embedded Segment Editor; it and the table of segments have the same segment selected.

    The editor has the mask from the opening of the case to its leaving, whether or not it is at work: its undo states last as long.

    Args:
        ui: the form's widgets by name.
        view: the open case.
        chosen: called when another segment was chosen.

    Attributes:
        effect_chosen: called with whether one of the editor's effects (Paint, Draw, ...) is active, whenever that may have changed.
    """

    def __init__(self, ui: Any, view: CaseView, chosen: Callable[[], object]) -> None:
        VTKObservationMixin.__init__(self)
        self._ui, self._view, self._chosen = ui, view, chosen
        self._active = False
        self._segment = ""
        self.effect_chosen: Callable[[bool], object] = lambda active: None
        ui.segmentsTable.connect("selectionChanged(QItemSelection,QItemSelection)", lambda *_change: self._row_selected())

    @property
    def active(self) -> bool:
        """Whether the Segment Editor works on the case."""
        return self._active

    def opened(self) -> None:
        """Another case is shown: the Segment Editor keeps its undo states."""
        scene, editor = self._view.scene, self._ui.editor
        assert scene is not None
        editor.setMRMLScene(slicer.mrmlScene)
        editor.setMRMLSegmentEditorNode(_editor_node())
        editor.setSegmentationNode(scene.node("proposal"))
        editor.setSourceVolumeNode(scene.image_node())
        scene.use_editor_history(editor)

    def left(self) -> None:
        """The case is about to go: the Segment Editor lets go of its nodes."""
        self.end()
        editor = self._ui.editor
        if editor.mrmlSegmentEditorNode() is None:  # no case was open yet
            return
        editor.setSourceVolumeNode(None)  # which it heeds only while it has a segmentation
        editor.setSegmentationNode(None)
        _editor_node().SetSelectedSegmentID("")  # another case's segment bears the same name

    def begin(self) -> None:
        """Let the Segment Editor work on the mask.

        Raises:
            ProjectError: no case is open.
        """
        scene, editor = self._view.scene, self._ui.editor
        if scene is None or scene.case is None or scene.node("proposal") is None:
            raise ProjectError(_("no case is open."), cure=_("Open a case of the queue."))
        if self._active:
            return
        editor.setupViewObservations()
        editor.installKeyboardShortcuts(slicer.util.mainWindow())
        self._active = True
        self._segment = editor.currentSegmentID()
        self.addObserver(editor.mrmlSegmentEditorNode(), "ModifiedEvent", self._editor_modified)
        self._row_selected()

    def end(self) -> None:
        """Take the Segment Editor's hands off the mask; strokes stay, and can still be undone."""
        if not self._active:
            return
        self._active = False
        editor = self._ui.editor
        self.removeObservers()
        editor.setActiveEffect(None)
        self.effect_chosen(False)
        editor.uninstallKeyboardShortcuts()
        editor.removeViewObservations()

    def _editor_modified(self, editor_node: Any, _event: Any) -> None:
        self.effect_chosen(bool(editor_node.GetActiveEffectName()))
        # The widget's own signal comes with clicks into its table alone, not with its keys (Q, W, comma, full stop, ...).
        segment_id = editor_node.GetSelectedSegmentID() or ""
        if segment_id != self._segment:
            self._segment = segment_id
            if segment_id and tuple(self._ui.segmentsTable.selectedSegmentIDs()) != (segment_id,):
                self._ui.segmentsTable.setSelectedSegmentIDs([segment_id])
            self._chosen()

    def _row_selected(self) -> None:
        chosen = self._ui.segmentsTable.selectedSegmentIDs()
        if self._active and len(chosen) == 1 and self._ui.editor.currentSegmentID() != chosen[0]:
            self._ui.editor.setCurrentSegmentID(chosen[0])


def _editor_node() -> Any:
    """The Segment Editor's node of this module, in this scene."""
    node = slicer.mrmlScene.GetSingletonNode(_EDITOR_TAG, "vtkMRMLSegmentEditorNode")
    if node is None:
        node = slicer.vtkMRMLSegmentEditorNode()
        node.SetSingletonTag(_EDITOR_TAG)
        node.SetSaveWithScene(False)
        node = slicer.mrmlScene.AddNode(node)
    return node
