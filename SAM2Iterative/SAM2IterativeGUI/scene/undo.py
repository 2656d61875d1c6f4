"""Undo for a segmentation: Slicer's own history, whether the Segment Editor keeps it or we do."""

from __future__ import annotations

from typing import Any, Protocol

import slicer

STATES = 10
"""As many as the Segment Editor keeps."""


class UndoHistory(Protocol):
    """What the Segment Editor's widget offers; with it, one undo takes back strokes and AI results alike."""

    def saveStateForUndo(self) -> None:
        """Keep the state as it is now."""

    def undo(self) -> None:
        """Return to the state before."""


class SegmentationHistory:
    """The same without an editor. It keeps the segmentation alive, so it must be let go when the scene closes."""

    def __init__(self, segmentation_node: Any) -> None:
        self._history = slicer.vtkSegmentationHistory()
        self._history.SetMaximumNumberOfStates(STATES)
        self._history.SetSegmentation(segmentation_node.GetSegmentation())

    def saveStateForUndo(self) -> None:
        """Keep the state as it is now."""
        self._history.SaveState()

    def undo(self) -> None:
        """Return to the state before; nothing happens where there is none."""
        if self._history.IsRestorePreviousStateAvailable():
            self._history.RestorePreviousState()
