"""Undo for a segmentation: Slicer's own history, whether the Segment Editor keeps it or we do."""

from __future__ import annotations

from typing import Any, Protocol

import slicer
import slicer.util

STATES = 10
"""As many as the Segment Editor keeps."""


class UndoHistory(Protocol):
    """The states of one mask."""

    @property
    def can_undo(self) -> bool:
        """Whether there is a state before."""

    def saveStateForUndo(self) -> None:
        """Keep the state as it is now."""

    def undo(self) -> None:
        """Return to the state before; nothing happens where there is none."""


class EditorHistory:
    """What the Segment Editor's widget keeps: one undo takes back strokes and AI results alike.

    Args:
        editor: a qMRMLSegmentEditorWidget. Its states last as long as it has the same segmentation.
    """

    def __init__(self, editor: Any) -> None:
        self._editor = editor
        # The one place where the widget tells whether there is a state; without it, undoing can be tried at any time.
        self._buttons = slicer.util.findChildren(editor, name="UndoButton")

    @property
    def can_undo(self) -> bool:
        """Whether there is a state before."""
        return all(button.isEnabledTo(self._editor) for button in self._buttons)

    def saveStateForUndo(self) -> None:
        """Keep the state as it is now."""
        self._editor.saveStateForUndo()

    def undo(self) -> None:
        """Return to the state before; nothing happens where there is none."""
        self._editor.undo()


class SegmentationHistory:
    """The same without an editor. It keeps the segmentation alive, so it must be let go when the scene closes."""

    def __init__(self, segmentation_node: Any) -> None:
        self._history = slicer.vtkSegmentationHistory()
        self._history.SetMaximumNumberOfStates(STATES)
        self._history.SetSegmentation(segmentation_node.GetSegmentation())

    @property
    def can_undo(self) -> bool:
        """Whether there is a state before."""
        return bool(self._history.IsRestorePreviousStateAvailable())

    def saveStateForUndo(self) -> None:
        """Keep the state as it is now."""
        self._history.SaveState()

    def undo(self) -> None:
        """Return to the state before; nothing happens where there is none."""
        if self.can_undo:
            self._history.RestorePreviousState()
