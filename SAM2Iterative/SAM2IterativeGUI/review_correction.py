"""Correcting: what a person changed in the mask, and SAM2 that carries it to the other slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import qt
import slicer
import slicer.util
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAM2IterativeLib.decisions import Decision
from SAM2IterativeLib.errors import ProjectError, SAM2IterativeError
from SAM2IterativeLib.messages import CorrectionPropagated, Message, Refused, RunFailed, RunFinished, WorkerEnded
from SAM2IterativeLib.volumes import LabelMap, read_label_map
from SAM2IterativeLib.worker_client import correction_request

from .explaining import Explained
from .guarding import guarded
from .review_case import CaseView
from .review_changes import Baseline, Change, merged
from .review_drafts import DraftKeeping
from .review_editing import Editing
from .session import Session

_LOOK_MILLISECONDS = 300
"""Pause after a stroke before it is looked at."""


@dataclass(frozen=True)
class _Sent:
    """A correction that SAM2 works on.

    Attributes:
        baseline: of the case as it was open then; another one means another case, reviewer or opening.
        shown: the mask that was sent.
    """

    baseline: Baseline
    shown: LabelMap


class Correction(VTKObservationMixin):
    """The correction of the open case.

    Args:
        ui: the form's widgets by name.
        session: its ``corrector`` does the propagation.
        view: the open case.
        looked: called with the mask on the screen after it changed.

    Attributes:
        editing: the Segment Editor on the case.
        drafts: keeps what is unfinished.
    """

    def __init__(self, ui: Any, session: Session, view: CaseView, looked: Callable[[LabelMap], object]) -> None:
        VTKObservationMixin.__init__(self)
        self._ui, self._session, self._view, self._looked = ui, session, view, looked
        self._baseline: Baseline | None = None
        self._sent: _Sent | None = None
        self._change: Change | None = None
        self._problem = ""
        self._slice: int | None = None
        self.drafts = DraftKeeping(ui, session, view)
        self.editing = Editing(ui, view, self.drafts.keep_if_drawn)
        self._explained = Explained(ui.correctionLabel, ui.propagateButton, ui.saveSlicesButton)
        self._explained_undo = Explained(None, ui.undoButton)
        self._look = qt.QTimer()
        self._look.setSingleShot(True)
        self._look.setInterval(_LOOK_MILLISECONDS)
        self._look.connect("timeout()", self.look)
        ui.workingBar.setVisible(False)
        session.corrector.observe(self._on_message)
        self.refresh()

    # The case

    def opened(self) -> None:
        """Another case is shown: begin to watch it, and offer its draft."""
        scene, material = self._view.scene, self._view.material
        assert scene is not None and material is not None
        self._baseline, self._change = Baseline(material.start), None
        self.editing.opened()
        segmentation = scene.node("proposal").GetSegmentation()
        for event in ("SegmentModified", "SourceRepresentationModified", "SegmentAdded", "SegmentRemoved"):
            self.addObserver(segmentation, getattr(slicer.vtkSegmentation, event), self._drawn)
        self.watch_views()
        self.drafts.opened()
        self.refresh()

    def watch_views(self) -> None:
        """Follow the slice views that there are; those of the comparison come when it is first shown."""
        if self._view.material is None:
            return
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if not self.hasObserver(node, "ModifiedEvent", self._scrolled):
                self.addObserver(node, "ModifiedEvent", self._scrolled)

    def leave_case(self) -> None:
        """The case is about to go from the scene: keep what is unfinished, and let go of its nodes."""
        self.drafts.keep_at_last()
        self.editing.left()
        self.removeObservers()
        self._look.stop()
        self._baseline = self._change = None
        self.drafts.left()
        self.refresh()

    def cleanup(self) -> None:
        """The application ends."""
        self.leave_case()
        self._session.corrector.unobserve(self._on_message)

    def undo(self) -> None:
        """Take the last stroke or result back."""
        if self._view.scene is not None:
            self._view.scene.undo()  # surfaces, too, are as they were; making them anew would count as a change that cannot be undone
            self.look()

    # What was changed

    @property
    def change(self) -> Change | None:
        """What the person corrected so far; None for nothing."""
        return self._change

    def look(self) -> None:
        """Look at the mask: undo strokes over locked segments, and say what is corrected."""
        self._look.stop()
        scene = self._view.scene
        if scene is None or scene.case is None or self._baseline is None:
            return
        try:
            if scene.locked() and scene.restore_locked():
                slicer.util.showStatusMessage(_("Locked segments were left as they are."), 4000)
            shown = scene.proposal()
        except SAM2IterativeError as error:  # a segment of the person's own, or none left; saving says so as well
            self._change, self._problem = None, error.sentence
        else:
            self._change, self._problem = self._baseline.change(shown), ""
            self._looked(shown)
        self.refresh()

    def refresh(self) -> None:
        """Say what can be done now."""
        ui, session = self._ui, self._session
        no_case = "" if self._view.material is not None else _("Open a case first.")
        reading = (session.notice or _("The project is open for reading only.")) if session.read_only and not no_case else ""
        working = _("SAM2 works on your correction.") if self._sent is not None else ""
        nothing = "" if self._change is not None else _("Correct a slice first: choose a segment and draw.")
        locked = _locked_sentence() if self._change is not None and not self._unlocked(self._change) else ""
        other_axis = _("You drew in another view than that of the image's own slices.")
        along = "" if self._change is None or self._change.axis == 0 else other_axis
        nobody = "" if session.reviewer else _("Enter the reviewer's name first.")
        self._explained.set(
            {
                ui.propagateButton: no_case or reading or working or nothing or locked,
                ui.saveSlicesButton: no_case or reading or nobody or nothing or along,
            }
        )
        undoable = self._view.scene is not None and self._view.scene.can_undo
        self._explained_undo.set({ui.undoButton: no_case or ("" if undoable else _("Nothing was drawn since the case was opened."))})
        ui.workingBar.setVisible(self._sent is not None)
        ui.editor.enabled = not no_case
        ui.changesLabel.text = self._changes_text()

    def _changes_text(self) -> str:
        scene = self._view.scene
        if self._change is None or scene is None:
            return self._problem
        names = ", ".join(label.name for label in scene.labels if label.value in self._change.values)
        numbers = [str(k + 1) for k in self._change.slices]
        shown = ", ".join(numbers[:8]) + (_(" and {count} more").format(count=len(numbers) - 8) if len(numbers) > 8 else "")
        where = ("", _(" (rows)"), _(" (columns)"))[self._change.axis]
        return _("Corrected: {names} on slice {slices}{where}").format(names=names, slices=shown, where=where)

    # Propagating

    def propagate(self) -> None:
        """Send the corrected slices to SAM2, which carries them to the others.

        Raises:
            ProjectError: nothing was corrected, or only what is locked; SAM2 is still at work; or the project is read-only.
            WorkerError: the worker cannot be started.
        """
        self.look()
        scene, material, project = self._view.scene, self._view.material, self._session.require_project()
        if scene is None or material is None or self._change is None or self._baseline is None:
            raise ProjectError(_("nothing was corrected yet."), cure=_("Correct a slice first: choose a segment and draw."))
        if self._sent is not None:
            raise ProjectError(_("SAM2 works on your correction."), cure=_("Wait until it is done."))
        project.require_writable()
        values = self._unlocked(self._change)
        if not values:  # which would mean all labels
            raise ProjectError(_locked_sentence())
        shown = scene.proposal()
        request = correction_request(
            project,
            material.case,
            shown,
            self._change.slices,
            values,
            before=self._baseline.label_map,
            axis=self._change.axis,
            reach=int(self._ui.reachBox.value),
        )
        self._session.corrector.request(request)
        self._sent = _Sent(self._baseline, shown)
        slicer.util.showStatusMessage(_("SAM2 carries your correction on; the first time it has to be loaded."), 10000)
        self.refresh()

    def _unlocked(self, change: Change) -> tuple[int, ...]:
        """The corrected labels that SAM2 may carry on."""
        locked = self._view.scene.locked() if self._view.scene is not None else ()
        return tuple(value for value in change.values if value not in locked)

    def _on_message(self, message: Message) -> None:
        if self._sent is None:
            return
        sent = self._sent
        if isinstance(message, (CorrectionPropagated, RunFailed, Refused, WorkerEnded, RunFinished)):
            self._sent = None
        if isinstance(message, CorrectionPropagated):
            guarded(lambda: self._take_result(message, sent), _("The correction could not be carried on."))
        elif isinstance(message, (RunFailed, Refused)) or (isinstance(message, WorkerEnded) and not message.expected):
            slicer.util.errorDisplay(_("The correction could not be carried on.") + "\n\n" + message.sentence)
        self.refresh()

    def _take_result(self, answer: CorrectionPropagated, sent: _Sent) -> None:
        scene, project = self._view.scene, self._session.project
        if scene is None or project is None or self._baseline is not sent.baseline:
            text = _("SAM2 answered, but the case is no longer open as it was sent: the answer was discarded.")
            slicer.util.showStatusMessage(text, 8000)
            return
        result = read_label_map(project.folder / answer.label_map)
        shown = scene.proposal()
        scene.write_result(merged(result, sent.shown, shown))
        written = scene.proposal().array  # locked segments are in it as they were
        later = sent.shown.array != shown.array
        sent.baseline.result_came(shown, LabelMap(np.where(later, result.array, written).astype(written.dtype), result.geometry))
        self._view.refresh_surfaces()
        self.look()
        text = _("SAM2 changed {count} slices in {seconds:.1f} s. One undo takes it back.")
        slicer.util.showStatusMessage(text.format(count=len(answer.slices), seconds=answer.seconds), 8000)

    # Decisions and drafts

    def settle(self, decision: Decision | None) -> None:
        """Something was decided about the open case, or (None) a decision was taken back."""
        scene = self._view.scene
        there = scene is not None and scene.case is not None and scene.node("proposal") is not None
        whole = decision is not None and decision.whole and there
        vouched = scene.proposal() if scene is not None and whole and decision is not None and decision.kind != "rejected" else None
        start = self.drafts.settled(vouched)
        if start is None:
            return
        if whole and self._baseline is not None and scene is not None:
            shown = scene.proposal(skip_foreign=True)
            if np.array_equal(shown.array, start.array):
                self._baseline.decided(shown)
        self.look()

    def continue_draft(self) -> None:
        """Put the offered draft onto the case; raises as ``DraftKeeping.go_on``."""
        self.drafts.go_on()
        self._view.refresh_surfaces()
        self.look()

    # What Slicer tells

    def _drawn(self, _caller: Any, _event: Any) -> None:
        self._look.start()
        self.drafts.drawn()

    def _scrolled(self, _caller: Any, _event: Any) -> None:
        if self._view.material is None:
            return
        k = self._view.current_slice()
        if k != self._slice:
            self._slice = k
            self._view.show_slice()
            self.drafts.keep_if_drawn()


def _locked_sentence() -> str:
    return _("What you corrected is locked: unlock it first.")
