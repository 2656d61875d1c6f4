"""Correcting with the Segment Editor, carrying the correction on with SAM2, and keeping it while it is unfinished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import qt
import slicer
import slicer.util
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAM2IterativeLib.drafts import Draft, Drafts
from SAM2IterativeLib.errors import ProjectError, SAM2IterativeError
from SAM2IterativeLib.messages import CorrectionPropagated, Message, Refused, RunFailed, RunFinished, WorkerEnded
from SAM2IterativeLib.project import Case
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import LabelMap, read_label_map
from SAM2IterativeLib.worker_client import correction_request

from .explaining import Explained
from .guarding import guarded
from .review_case import CaseView
from .review_changes import Baseline, Change, merged
from .review_material import starting_map
from .session import Session

_EDITOR_TAG = "SAM2Iterative"
_LOOK_MILLISECONDS, _SAVE_MILLISECONDS = 300, 5000
"""Pause after a stroke before it is looked at, and before it is saved as a draft."""


@dataclass(frozen=True)
class _Sent:
    """A correction that SAM2 works on."""

    case: str
    shown: LabelMap


class Correction(VTKObservationMixin):
    """The correction of the open case.

    Args:
        ui: the form's widgets by name.
        session: its ``corrector`` does the propagation.
        view: the open case.
        looked: called with the mask on the screen after it changed.
    """

    def __init__(self, ui: Any, session: Session, view: CaseView, looked: Callable[[LabelMap], object]) -> None:
        VTKObservationMixin.__init__(self)
        self._ui, self._session, self._view, self._looked = ui, session, view, looked
        self._baseline: Baseline | None = None
        self._start: LabelMap | None = None
        self._saved: np.ndarray | None = None
        self._draft: Draft | None = None
        self._offered: Draft | None = None
        self._sent: _Sent | None = None
        self._change: Change | None = None
        self._problem = ""
        self._told = ""
        self._slice: int | None = None
        self._editing = False
        self._explained = Explained(ui.correctionLabel, ui.propagateButton, ui.undoButton, ui.saveSlicesButton)
        self._look, self._save = _single_shot(_LOOK_MILLISECONDS, self.look), _single_shot(_SAVE_MILLISECONDS, self.keep)
        ui.workingBar.setVisible(False)
        ui.editor.connect("currentSegmentIDChanged(QString)", self._segment_changed)
        ui.segmentsTable.connect("selectionChanged(QItemSelection,QItemSelection)", lambda *_change: self._row_selected())
        session.corrector.observe(self._on_message)
        self._show_offer()
        self.refresh()

    # The case

    def opened(self) -> None:
        """Another case is shown: begin to watch it, and offer its draft."""
        scene, material = self._view.scene, self._view.material
        assert scene is not None and material is not None
        self._start = material.start
        self._baseline = Baseline(material.start)
        self._saved, self._draft, self._change = material.start.array, None, None
        segmentation = scene.node("proposal").GetSegmentation()
        for event in ("SegmentModified", "SourceRepresentationModified", "SegmentAdded", "SegmentRemoved"):
            self.addObserver(segmentation, getattr(slicer.vtkSegmentation, event), self._drawn)
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            self.addObserver(node, "ModifiedEvent", self._scrolled)
        project = self._session.require_project()
        self._offered = None if project.read_only else Drafts(project).newest(material.case, self._session.reviewer)
        self._show_offer()
        self.refresh()

    def leave_case(self) -> None:
        """The case is about to go from the scene: keep what is unfinished, and let go of its nodes."""
        self.keep()
        self.end_editing()
        self.removeObservers()
        self._look.stop()
        self._save.stop()
        self._start = self._baseline = self._saved = self._draft = self._offered = self._change = None
        self._show_offer()
        self.refresh()

    def cleanup(self) -> None:
        """The application ends."""
        self.leave_case()
        self._session.corrector.unobserve(self._on_message)

    # The Segment Editor

    @property
    def editing(self) -> bool:
        """Whether the Segment Editor works on the case."""
        return self._editing

    def begin_editing(self) -> None:
        """Give the mask to the Segment Editor, which from now on also keeps the undo states.

        Raises:
            ProjectError: no case is open.
        """
        scene, editor = self._view.scene, self._ui.editor
        if scene is None or scene.case is None or scene.node("proposal") is None:
            raise ProjectError(_("no case is open."), cure=_("Open a case of the queue."))
        if self._editing:
            return
        editor.setMRMLScene(slicer.mrmlScene)
        editor.setMRMLSegmentEditorNode(_editor_node())
        editor.setSegmentationNode(scene.node("proposal"))
        editor.setSourceVolumeNode(scene.image_node())
        scene.use_editor_history(editor)
        editor.setupViewObservations()
        editor.installKeyboardShortcuts(slicer.util.mainWindow())
        self._editing = True
        self._row_selected()
        self.refresh()

    def end_editing(self) -> None:
        """Take the Segment Editor's hands off the mask; strokes stay."""
        if not self._editing:
            return
        self._editing = False
        editor = self._ui.editor
        editor.setActiveEffect(None)
        editor.uninstallKeyboardShortcuts()
        editor.removeViewObservations()
        editor.setSegmentationNode(None)
        editor.setSourceVolumeNode(None)
        _editor_node().SetSelectedSegmentID("")  # another case's segment bears the same name
        if self._view.scene is not None:
            self._view.scene.keep_own_history()
        self.refresh()

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
        other_axis = _("You drew in another view than that of the image's own slices.")
        along = "" if self._change is None or self._change.axis == 0 else other_axis
        nobody = "" if session.reviewer else _("Enter the reviewer's name first.")
        self._explained.set(
            {
                ui.propagateButton: no_case or reading or working or nothing,
                ui.undoButton: no_case,
                ui.saveSlicesButton: no_case or reading or nobody or nothing or along,
            }
        )
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
            ProjectError: nothing was corrected, SAM2 is still at work, or the project is read-only.
            WorkerError: the worker cannot be started.
        """
        self.look()
        scene, material, project = self._view.scene, self._view.material, self._session.require_project()
        if scene is None or material is None or self._change is None or self._baseline is None:
            raise ProjectError(_("nothing was corrected yet."), cure=_("Correct a slice first: choose a segment and draw."))
        if self._sent is not None:
            raise ProjectError(_("SAM2 works on your correction."), cure=_("Wait until it is done."))
        project.require_writable()
        shown = scene.proposal()
        values = [value for value in self._change.values if value not in scene.locked()]
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
        self._sent = _Sent(material.case.id, shown)
        slicer.util.showStatusMessage(_("SAM2 carries your correction on; the first time it has to be loaded."), 10000)
        self.refresh()

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
        if scene is None or project is None or scene.case != sent.case or self._baseline is None:
            slicer.util.showStatusMessage(_("SAM2 answered, but the case is no longer open: nothing was changed."), 5000)
            return
        result = read_label_map(project.folder / answer.label_map)
        shown = scene.proposal()
        scene.write_result(merged(result, sent.shown, shown))
        written = scene.proposal().array  # locked segments are in it as they were
        later = sent.shown.array != shown.array
        self._baseline.result_came(shown, LabelMap(np.where(later, result.array, written).astype(written.dtype), result.geometry))
        self._view.refresh_surfaces()
        self.look()
        text = _("SAM2 changed {count} slices in {seconds:.1f} s. One undo takes it back.")
        slicer.util.showStatusMessage(text.format(count=len(answer.slices), seconds=answer.seconds), 8000)

    # Drafts

    def save_draft(self) -> None:
        """Keep the mask in the project folder if opening the case again would show another one; never raises for lack of a case."""
        scene, material, project = self._view.scene, self._view.material, self._session.project
        if scene is None or scene.case is None or material is None or project is None or self._start is None or project.read_only:
            return
        shown = scene.proposal()
        if self._saved is not None and np.array_equal(shown.array, self._saved):
            return
        drafts = Drafts(project)
        if np.array_equal(shown.array, self._start.array):
            self._forget_draft(drafts, material.case)
        else:
            reviewer, round = self._session.reviewer, material.round
            self._draft = drafts.save(material.case, shown, reviewer=reviewer, round=round, instead_of=self._draft)
        self._saved = shown.array

    def keep(self) -> None:
        """Save the draft. A person is told once if it cannot be saved; every stroke tries again."""
        self._save.stop()
        try:
            self.save_draft()
        except SAM2IterativeError as error:
            if error.sentence != self._told:
                slicer.util.errorDisplay(_("The unfinished correction could not be kept.") + "\n\n" + error.sentence)
            self._told = error.sentence
        else:
            self._told = ""

    def settle(self, whole: bool) -> None:
        """Something was decided, or taken back: what is unfinished now is what opening the case again would not show."""
        scene, material, project = self._view.scene, self._view.material, self._session.project
        if scene is None or scene.case is None or material is None or project is None:
            return
        self._start = starting_map(Review(project), material, self._session.reviewer)
        shown = scene.proposal()
        if whole and self._baseline is not None and np.array_equal(shown.array, self._start.array):
            self._baseline.decided(shown)
        self._saved = None
        self.save_draft()
        self.look()

    def continue_draft(self) -> None:
        """Put the offered draft onto the case; one undo takes it back.

        Raises:
            ProjectError: it is missing or was changed.
        """
        scene, material = self._view.scene, self._view.material
        if self._offered is None or scene is None or material is None:
            return
        label_map = Drafts(self._session.require_project()).read(material.case, self._offered)
        scene.write_result(label_map)
        self._draft, self._offered, self._saved = self._offered, None, scene.proposal().array
        self._view.refresh_surfaces()
        self._show_offer()
        self.look()

    def discard_draft(self) -> None:
        """Delete the offered draft, after asking."""
        material = self._view.material
        if self._offered is None or material is None:
            return
        if slicer.util.confirmYesNoDisplay(_("Delete the unfinished correction of {case}?").format(case=material.case.id)):
            Drafts(self._session.require_project()).remove(material.case, self._offered)
            self._offered = None
            self._show_offer()

    def _forget_draft(self, drafts: Drafts, case: Case) -> None:
        if self._draft is not None:
            drafts.remove(case, self._draft)
            self._draft = None

    def _show_offer(self) -> None:
        self._ui.draftFrame.setVisible(self._offered is not None)
        if self._offered is not None:
            time = datetime.fromisoformat(self._offered.time).astimezone().strftime("%Y-%m-%d %H:%M")
            text = _("A correction of this case was not finished ({time}). Go on with it?")
            self._ui.draftLabel.text = text.format(time=time)

    # What Slicer tells

    def _drawn(self, _caller: Any, _event: Any) -> None:
        self._look.start()
        self._save.start()

    def _scrolled(self, _caller: Any, _event: Any) -> None:
        if self._view.material is None:
            return
        k = self._view.current_slice()
        if k != self._slice:
            self._slice = k
            self._view.show_slice()
            if self._save.isActive():  # drawn on since the last time
                self.keep()

    def _segment_changed(self, segment_id: str) -> None:
        if self._editing and segment_id and tuple(self._ui.segmentsTable.selectedSegmentIDs()) != (segment_id,):
            self._ui.segmentsTable.setSelectedSegmentIDs([segment_id])
        if self._save.isActive():
            self.keep()

    def _row_selected(self) -> None:
        """The table and the Segment Editor have the same segment selected."""
        chosen = self._ui.segmentsTable.selectedSegmentIDs()
        if self._editing and len(chosen) == 1 and self._ui.editor.currentSegmentID() != chosen[0]:
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


def _single_shot(milliseconds: int, action: Any) -> Any:
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.connect("timeout()", action)
    return timer
