"""Accepting, correcting and rejecting: what a person decides is on disk before the buttons come back."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from SAM2IterativeLib.agreement import Comparison, comparisons
from SAM2IterativeLib.decisions import Decision
from SAM2IterativeLib.drafts import Locks
from SAM2IterativeLib.errors import ProjectError
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import LabelMap

from .explaining import Explained
from .review_case import CaseView
from .review_material import Material, others_of
from .review_queue import status_text
from .scene import CaseScene, Status
from .scene.segmentations import segment_id_of, value_of
from .session import Session

_MARKS: dict[str, Status] = {"accepted": "completed", "corrected": "completed", "rejected": "flagged"}


class Decisions:
    """The decisions about the open case.

    Args:
        ui: the form's widgets by name.
        session: what all panels share; it tells the others when something was decided.
        view: the open case.
    """

    def __init__(self, ui: Any, session: Session, view: CaseView) -> None:
        self._ui, self._session, self._view = ui, session, view
        self._explained = Explained(
            ui.hintLabel,
            *(ui.acceptButton, ui.rejectButton, ui.acceptSegmentButton, ui.rejectSegmentButton, ui.lockButton, ui.takeBackButton),
        )
        self._compared: tuple[tuple[Decision, ...], tuple[Comparison, ...]] = ((), ())
        for reason in ("", *_reasons()):
            ui.reasonCombo.addItem(reason)
        ui.segmentsTable.connect("selectionChanged(QItemSelection,QItemSelection)", lambda *_change: self.refresh())

    # Deciding

    def accept(self, value: int | None = None) -> Decision:
        """The case, or the segment of a label value, is right as it is on the screen: accepted, or corrected where a person changed it.

        Raises:
            ProjectError: no case is open, there is nothing to accept, no reviewer named, or the project is read-only.
            DataError: a person added a segment that is none of the project's labels.
        """
        scene, material, review = self._open()
        shown = scene.proposal()
        if material.proposal is None and not shown.array.any():
            raise ProjectError(
                _("there is nothing to accept yet."), where=material.case.id, cure=_("Draw the labels, or run a round first.")
            )
        told = self._told(material, value)
        if self.changed(shown, value):
            decision = review.correct(material.case, shown, **told)
        else:
            decision = review.accept(material.case, label_map=shown, **told)
        return self._decided(decision)

    def save_slices(self, slices: tuple[int, ...]) -> Decision:
        """Keep only some slices (k) of a corrected map; raises as ``accept``."""
        scene, material, review = self._open()
        decision = review.correct(
            material.case,
            scene.proposal(),
            reviewer=self._session.reviewer,
            comment=self._comment(),
            slices=slices,
            round=material.round or None,
        )
        return self._decided(decision)

    def reject(self, value: int | None = None) -> Decision:
        """The case, or one segment, cannot be used.

        Raises:
            ProjectError: no reason given, and as ``accept``.
        """
        _scene, material, review = self._open()
        reason = self.reason()
        if not reason:
            raise ProjectError(_("a rejection needs a reason."), where=material.case.id, cure=_("Choose or type one, then reject again."))
        told = self._told(material, value)
        return self._decided(review.reject(material.case, reason=reason, **told))

    def take_back(self) -> Decision:
        """Withdraw this reviewer's newest decision, on whichever case.

        Raises:
            ProjectError: there is none, or the project is read-only.
        """
        decision = Review(self._session.require_project()).take_back_last(reviewer=self._session.reviewer)
        self.mark_segments()
        self._session.notify("decisions")
        return decision

    def changed(self, shown: LabelMap, value: int | None = None) -> bool:
        """Whether a map (or one segment of it) is another than what the round proposed."""
        material = self._view.material
        if material is None or material.proposal is None:
            return True
        if value is None:
            return not np.array_equal(shown.array, material.proposal.array)
        return not np.array_equal(shown.array == value, material.proposal.array == value)

    def name_accepting(self, shown: LabelMap) -> None:
        """Say on the button whether accepting means the proposal, or what a person made of it."""
        material = self._view.material
        corrected = material is not None and self.changed(shown)
        self._ui.acceptButton.text = _("Save corrected case (A)") if corrected else _("Accept case (A)")

    # Segments

    def selected_value(self) -> int | None:
        """The label value of the one selected segment; None where none or several are selected."""
        node = self._node()
        chosen: tuple[str, ...] = self._ui.segmentsTable.selectedSegmentIDs() if node is not None else ()
        segment = node.GetSegmentation().GetSegment(chosen[0]) if len(chosen) == 1 else None
        return value_of(segment) if segment is not None else None

    def select(self, value: int) -> None:
        """Select the segment of a label value."""
        node = self._node()
        segment_id = segment_id_of(node, value) if node is not None else None
        if segment_id is not None:
            self._ui.segmentsTable.setSelectedSegmentIDs([segment_id])

    def toggle_lock(self) -> bool | None:
        """Lock the selected segment, or unlock it, until this reviewer says otherwise.

        Returns:
            Whether it is locked now; None where no single segment is selected.

        Raises:
            ResourceError: this could not be kept; nothing was changed.
        """
        scene, value = self._view.scene, self.selected_value()
        if scene is None or value is None:
            return None
        locked = value not in scene.locked()
        if self._view.material is not None and not self._session.read_only:
            kept = set(scene.locked()) ^ {value}
            Locks(self._session.require_project()).set(self._view.material.case, self._session.reviewer, kept)
        scene.lock(value, locked)
        self.refresh()
        return locked

    def lock_as_before(self) -> None:
        """Lock the segments that this reviewer had locked when the case was open before."""
        scene, material = self._view.scene, self._view.material
        if scene is not None and material is not None:
            for value in Locks(self._session.require_project()).of(material.case, self._session.reviewer):
                scene.lock(value, True)

    def mark_segments(self) -> None:
        """Show in the segments' status what this reviewer decided about them; whatever a click or an undo made of it."""
        scene, material = self._view.scene, self._view.material
        if scene is None or scene.case is None or material is None or scene.node("proposal") is None:
            return
        marks: dict[int, tuple[Status, str]] = {}
        for decision in Review(self._session.require_project()).decisions(material.case):
            if decision.reviewer == self._session.reviewer and not decision.slices:
                about = decision.segments or tuple(label.value for label in scene.labels)
                marks |= dict.fromkeys(about, (_MARKS[decision.kind], decision.reviewer))
        scene.mark(marks)

    # Showing

    def refresh(self) -> None:
        """Say what can be decided now, and what was."""
        ui, material = self._ui, self._view.material
        no_case = "" if material is not None else _("Open a case first.")
        writable = no_case or self._not_writable() or ("" if self._session.reviewer else _("Enter the reviewer's name first."))
        value = self.selected_value() if material is not None else None
        segment = writable or ("" if value is not None else _("Select one segment to decide about it alone or to lock it."))
        self._explained.set(
            {
                ui.acceptButton: writable,
                ui.rejectButton: writable,
                ui.acceptSegmentButton: segment,
                ui.rejectSegmentButton: segment,
                ui.lockButton: no_case or ("" if value is not None else _("Select one segment to decide about it alone or to lock it.")),
                ui.takeBackButton: self._nothing_to_take_back(),
            }
        )
        self._name_buttons(value)
        ui.historyLabel.text = self._history()

    def _name_buttons(self, value: int | None) -> None:
        ui, scene = self._ui, self._view.scene
        name = next((label.name for label in scene.labels if label.value == value), "") if scene is not None else ""
        ui.acceptSegmentButton.text = _("Accept '{name}'").format(name=name) if name else _("Accept segment")
        ui.rejectSegmentButton.text = _("Reject '{name}'").format(name=name) if name else _("Reject segment")
        locked = scene is not None and value is not None and value in scene.locked()
        ui.lockButton.checked = locked
        lock = _("Unlock '{name}' (L)") if locked else _("Lock '{name}' (L)")
        ui.lockButton.text = lock.format(name=name) if name else _("Lock segment (L)")

    def _history(self) -> str:
        """The open case's decisions and how reviewers compare, as HTML; what others said only once this reviewer has decided too."""
        material = self._view.material
        if material is None:
            return ""
        review = Review(self._session.require_project())
        decisions = review.decisions(material.case)
        seen = others_of(review, material.case, material.reviewer).seen
        lines = [self._sentence(decision) for decision in decisions if seen or decision.reviewer == material.reviewer]
        if not seen and (names := sorted({decision.reviewer for decision in decisions} - {material.reviewer})):
            hidden = _("{names} decided; what was said shows once you have decided about the whole case.")
            lines.append(hidden.format(names=", ".join(f"<b>{escape(name)}</b>" for name in names)))
        if seen:
            if decisions != self._compared[0]:  # comparing masks takes long, and this is asked at every click
                self._compared = decisions, comparisons(review, material.case)
            lines += [self._comparison(found) for found in self._compared[1]]
        return "<br>".join(lines) if lines else _("Nobody has decided about this case yet.")

    def _sentence(self, decision: Decision) -> str:
        names = {label.value: label.name for label in self._session.require_project().settings.labels}
        about = ", ".join(names.get(value, str(value)) for value in decision.segments)
        about += (_("slices ") + ", ".join(str(k + 1) for k in decision.slices)) if decision.slices else ""
        time = datetime.fromisoformat(decision.time).astimezone().strftime("%Y-%m-%d %H:%M")
        said = "; ".join(text for text in (decision.reason, decision.comment) if text)
        return f"<b>{escape(decision.reviewer)}</b>, {time}: {status_text(decision.kind)}" + (
            (f" ({escape(about)})" if about else "") + (f" – {escape(said)}" if said else "")
        )

    def _comparison(self, found: Comparison) -> str:
        names = {label.value: label.name for label in self._session.require_project().settings.labels}
        pairs = [f"{escape(names.get(v, str(v)))} {d:.2f}" for v, d in found.dice.items() if d is not None]
        verdicts = {"agree": _("agree"), "differ": _("differ"), "contradict": _("contradict each other")}
        text = verdicts[found.verdict]
        if found.verdict != "agree":
            text += ": " + _("{first} against {second}").format(first=status_text(found.statuses[0]), second=status_text(found.statuses[1]))
        overlap = "; " + _("overlap (Dice): ") + ", ".join(pairs) if pairs else ""
        first, second = (f"<b>{escape(name)}</b>" for name in found.reviewers)
        colour = "#2e7d32" if found.verdict == "agree" else "#b3541e"
        return f'<span style="color: {colour}">{first} / {second} {text}{overlap}</span>'

    # Within

    def _decided(self, decision: Decision) -> Decision:
        self._ui.commentLine.text = ""
        self._ui.reasonCombo.setCurrentIndex(0)
        self.mark_segments()
        self._session.notify("decisions")
        return decision

    def _open(self) -> tuple[CaseScene, Material, Review]:
        scene, material = self._view.scene, self._view.material
        if scene is None or material is None or scene.case is None:
            raise ProjectError(_("no case is open."), cure=_("Open a case of the queue."))
        return scene, material, Review(self._session.require_project())

    def _node(self) -> Any:
        scene = self._view.scene
        return scene.node("proposal") if scene is not None and scene.case is not None else None

    def _told(self, material: Material, value: int | None) -> dict[str, Any]:
        """What every decision is kept with."""
        segments = () if value is None else (value,)
        return {"reviewer": self._session.reviewer, "comment": self._comment(), "segments": segments, "round": material.round or None}

    def _comment(self) -> str:
        return str(self._ui.commentLine.text).strip()

    def reason(self) -> str:
        """Why a person rejects, as chosen or typed; "" for nothing yet."""
        return str(self._ui.reasonCombo.currentText).strip()

    def _not_writable(self) -> str:
        if not self._session.read_only:
            return ""
        return self._session.notice or _("The project is open for reading only.")

    def _nothing_to_take_back(self) -> str:
        project = self._session.project
        if project is None:
            return _("Open a project first.")
        mine = any(decision.reviewer == self._session.reviewer for decision in Review(project).decisions())
        return self._not_writable() or ("" if mine else _("You have decided nothing that could be taken back."))


def _reasons() -> tuple[str, ...]:
    return (
        _("structure missed"),
        _("wrong structure"),
        _("leaks into neighbours"),
        _("border too far off to correct"),
        _("image too poor"),
        _("anatomy that does not belong here"),
    )
