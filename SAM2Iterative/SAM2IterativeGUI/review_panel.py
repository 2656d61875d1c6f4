"""The tab Review: the queue, the case in the views, the decision, the correction. Here they are put together, with the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import slicer.util
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from SAM2IterativeLib.decisions import Decision
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import LabelMap

from .guarding import guarded
from .review_case import CaseView
from .review_correction import Correction
from .review_decisions import Decisions
from .review_material import read_material
from .review_queue import Queue, status_text
from .session import Session
from .shortcuts import Shortcuts

_SWITCHES = ("coarse", "propagated", "proposal", "other", "uncertainty", "prompts", "outlines", "compare")
"""Actions that press the button of their name."""


class ReviewPanel(VTKObservationMixin):
    """The tab Review. It works without torch and without a GPU; only "propagate my correction" needs them.

    Args:
        widget: made from ``SAM2IterativeReview.ui``.
        session: what all panels share.
    """

    def __init__(self, widget: Any, session: Session) -> None:
        VTKObservationMixin.__init__(self)
        self.widget, self.session = widget, session
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.shortcuts = Shortcuts(self._actions())
        self._show_keys()
        self.view = CaseView(self.ui)
        self.queue = Queue(self.ui, session, self.open_case)
        self.decisions = Decisions(self.ui, session, self.view)
        self.correction = Correction(self.ui, session, self.view, self._looked_at)
        self.correction.editing.effect_chosen = self.shortcuts.rest
        self._connect()
        session.may_close = self.correction.drafts.may_leave
        session.observe(self.refresh)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self._scene_closes)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self._scene_closed)
        self.refresh("project")

    # Coming and going

    def enter(self) -> None:
        """The tab is opened: its keys work, and it shows the present state."""
        self.shortcuts.install()
        self.refresh()

    def exit(self) -> None:
        """Another tab or module is opened: keys and layout are given back, what is unfinished is kept. The case stays in the views."""
        self.shortcuts.remove()
        self.correction.drafts.keep()
        self._fold_correction(True)
        self.view.leave()

    def cleanup(self) -> None:
        """The application ends."""
        self.exit()
        self.correction.cleanup()
        self.session.unobserve(self.refresh)
        self.removeObservers()

    def refresh(self, topic: str = "") -> None:
        """Show the present state after a change; see ``Session``."""
        if topic == "closing":
            self.close_case()
            return
        if topic == "run":
            return
        ui, session = self.ui, self.session
        ui.noticeLabel.text = self._notice()
        ui.noticeLabel.setVisible(bool(ui.noticeLabel.text))
        if ui.reviewerLine.text.strip() != session.reviewer:
            ui.reviewerLine.text = session.reviewer
        if topic == "settings" and self.view.material is not None and self._labels_changed():
            self.reopen()
        if topic == "decisions":
            self.view.offer_others()
        self.queue.refresh()
        self.decisions.refresh()
        self.correction.refresh()
        self._show_case_title()

    # Cases

    def open_case(self, case: str) -> bool:
        """Show a case in place of the one before, whose unfinished correction is kept; whether it is shown.

        It is not where it cannot be read, or where the correction cannot be kept and the person stays with it.
        """
        if not self.correction.drafts.may_leave():
            self.queue.refresh()  # the row of the case that stays is marked again
            return False
        return guarded(lambda: self._open(case), _("The case could not be opened."))

    def reopen(self) -> bool:
        """Read the open case anew, for instance because another round made a new proposal; whether it was, see ``open_case``."""
        return self.view.material is not None and self.open_case(self.view.material.case.id)

    def close_case(self) -> None:
        """Take the case out of the views; its unfinished correction is kept."""
        self.correction.leave_case()
        self._fold_correction(True)
        self._empty_table()
        self.view.close()
        self.queue.mark_open(None)
        self.decisions.refresh()
        self._show_case_title()

    def step(self, step: int) -> None:
        """Open the next case of the queue (1), or the one that was open before (-1)."""
        case = self.queue.next if step > 0 else self.queue.previous
        if case is not None:
            self.open_case(case)
        else:
            self._say(_("There is no further case in the list.") if step > 0 else _("There is no case before this one."))

    def _open(self, case: str) -> None:
        project = self.session.require_project()
        material = read_material(project, project.case(case), self.session.reviewer)
        self.correction.leave_case()
        self._empty_table()
        scene = self.view.open(project, material)
        self.ui.segmentsTable.setSegmentationNode(scene.node("proposal"))
        self.decisions.mark_segments()
        self.decisions.lock_as_before()
        self.correction.opened()
        if not self.ui.correctionSection.collapsed:
            self.correction.editing.begin()
            self._make_room_for_editing()
        self.queue.mark_open(case)
        self.decisions.name_accepting(material.start)
        self.decisions.select(scene.labels[0].value)
        self.decisions.refresh()
        self._show_case_title()

    def _empty_table(self) -> None:
        """Without a selection: Slicer would look for the selected segment where there is none any more, and log an error."""
        self.ui.segmentsTable.clearSelection()
        self.ui.segmentsTable.setSegmentationNode(None)

    # Deciding

    def accept(self, value: int | None = None) -> None:
        """Accept the case, or one segment, as it is on the screen."""
        self._decide(lambda: self.decisions.accept(value), _("The decision could not be saved."))

    def reject(self, value: int | None = None) -> None:
        """Reject the case, or one segment, for the reason given; without one, ask for it."""
        if self.view.material is not None and not self.decisions.reason():
            self.ui.reasonCombo.setFocus()
            self._say(_("Choose or type a reason, then reject again."))
            return
        self._decide(lambda: self.decisions.reject(value), _("The decision could not be saved."))

    def save_slices(self) -> None:
        """Vouch for the corrected slices only."""
        self.correction.look()
        change = self.correction.change
        if change is not None and change.axis == 0:
            self._decide(lambda: self.decisions.save_slices(change.slices), _("The decision could not be saved."))

    def take_back(self) -> None:
        """Withdraw the reviewer's newest decision."""
        self._decide(self.decisions.take_back, _("Nothing was taken back."))

    def _decide(self, action: Callable[[], Decision], failure: str) -> None:
        """Decide, keep what remains unfinished, and say what was decided. What is decided stays so whatever becomes of the rest."""
        made: list[Decision] = []
        if not guarded(lambda: made.append(action()), failure):
            return
        withdrawn = action == self.decisions.take_back
        done = _("The decision is taken back") if withdrawn else _("The decision is saved")
        unsettled = _("{done}, but what is still unfinished could not be kept.").format(done=done)
        guarded(lambda: self.correction.settle(None if withdrawn else made[0]), unsettled)
        text = _("Taken back: {case}, {kind}.") if withdrawn else _("Saved: {case}, {kind}.")
        self._say(text.format(case=made[0].case, kind=status_text(made[0].kind)))
        if not withdrawn and made[0].whole and self.ui.advanceBox.checked:
            self.step(1)

    # Correcting

    def toggle_correcting(self) -> None:
        """Open the Segment Editor on the mask, or close it."""
        self._fold_correction(self.correction.editing.active)

    def propagate(self) -> None:
        """Let SAM2 carry the corrected slices to the others."""
        guarded(self.correction.propagate, _("The correction could not be carried on."))

    def _fold_correction(self, folded: bool) -> None:
        if self.ui.correctionSection.collapsed != folded:
            self.ui.correctionSection.collapsed = folded  # which calls ``_correction_folded``
        elif folded:
            self.correction.editing.end()

    def _correction_folded(self, folded: bool) -> None:
        if folded:
            self.correction.editing.end()
        elif self.view.material is not None:
            guarded(self.correction.editing.begin)
        self._make_room_for_editing()
        if self.correction.editing.active:
            self.ui.queueSection.collapsed = True

    def _make_room_for_editing(self) -> None:
        """The Segment Editor has a list of segments of its own."""
        self.ui.segmentsTable.setVisible(not self.correction.editing.active)

    # Wiring

    def _connect(self) -> None:
        ui, clicked = self.ui, "clicked(bool)"
        for button, action in (
            (ui.previousCaseButton, lambda: self.step(-1)),
            (ui.nextCaseButton, lambda: self.step(1)),
            (ui.acceptButton, self.accept),
            (ui.rejectButton, self.reject),
            (ui.acceptSegmentButton, lambda: self.accept(self.decisions.selected_value())),
            (ui.rejectSegmentButton, lambda: self.reject(self.decisions.selected_value())),
            (ui.lockButton, self._toggle_lock),
            (ui.takeBackButton, self.take_back),
            (ui.continueDraftButton, lambda: guarded(self.correction.continue_draft, _("The correction could not be continued."))),
            (ui.discardDraftButton, lambda: guarded(self.correction.drafts.discard)),
            (ui.propagateButton, self.propagate),
            (ui.undoButton, self.correction.undo),
            (ui.saveSlicesButton, self.save_slices),
        ):
            button.connect(clicked, lambda _checked=False, action=action: action())
        ui.correctionSection.connect("contentsCollapsed(bool)", self._correction_folded)
        ui.compareButton.connect("toggled(bool)", lambda _on: self.correction.watch_views())
        ui.reviewerLine.connect("editingFinished()", self._reviewer_typed)

    def _actions(self) -> dict[str, Callable[[], object]]:
        def toggles(name: str) -> Callable[[], object]:
            return lambda: self._press(getattr(self.ui, f"{name}Button"))

        return {
            **{name: toggles(name) for name in _SWITCHES},
            "next_uncertain": lambda: self.view.jump(1),
            "previous_uncertain": lambda: self.view.jump(-1),
            "accept": lambda: self._press(self.ui.acceptButton),
            "reject": lambda: self._press(self.ui.rejectButton),
            "correct": self.toggle_correcting,
            "propagate": lambda: self._press(self.ui.propagateButton),
            "lock": lambda: self._press(self.ui.lockButton),
            "next_case": lambda: self.step(1),
            "previous_case": lambda: self.step(-1),
            "take_back": lambda: self._press(self.ui.takeBackButton),
            "legend": self._toggle_legend,
        }

    def _show_keys(self) -> None:
        """Write each key on its button, and all of them into the legend."""
        ui = self.ui
        for name, action in (
            *((f"{name}Button", name) for name in _SWITCHES),
            ("nextUncertainButton", "next_uncertain"),
            ("previousUncertainButton", "previous_uncertain"),
            ("previousCaseButton", "previous_case"),
            ("nextCaseButton", "next_case"),
            ("acceptButton", "accept"),
            ("rejectButton", "reject"),
            ("lockButton", "lock"),
            ("takeBackButton", "take_back"),
            ("propagateButton", "propagate"),
        ):
            button = getattr(ui, name)
            button.text = self.shortcuts.tip(action, button.text)
        ui.legendLabel.text = self.shortcuts.legend()

    def _press(self, button: Any) -> None:
        """What a key does that stands for a button: click it, or say why it cannot be clicked."""
        if button.enabled:
            button.click()
        else:
            self._say(_why(button))

    def _toggle_lock(self) -> None:
        if not guarded(self.decisions.toggle_lock, _("The lock could not be kept.")):
            self.decisions.refresh()  # the button shows what is, not what was wanted
        self.correction.refresh()

    def _toggle_legend(self) -> None:
        self.ui.legendSection.collapsed = not self.ui.legendSection.collapsed

    def _reviewer_typed(self) -> None:
        before = self.session.reviewer
        self.session.reviewer = self.ui.reviewerLine.text
        # Each reviewer sees their own decisions and drafts.
        if self.session.reviewer != before and self.view.material is not None and not self.reopen():
            self.session.reviewer = before

    # Showing

    def _looked_at(self, shown: LabelMap) -> None:
        """The mask may have changed, and with it, by a click on a status or an undo, what the segments say of decisions."""
        self.decisions.name_accepting(shown)
        self.decisions.mark_segments()

    def _say(self, text: str) -> None:
        self.ui.statusLabel.text = text
        slicer.util.showStatusMessage(text, 5000)

    def _notice(self) -> str:
        session = self.session
        if session.project is None:
            return _("Open a project first, in the tab Project.")
        if session.read_only:
            return (session.notice or _("The project is open for reading only.")) + " " + _("You can look, but not decide.")
        return session.notice

    def _labels_changed(self) -> bool:
        scene, project = self.view.scene, self.session.project
        return scene is not None and project is not None and scene.labels != project.settings.labels

    def _show_case_title(self) -> None:
        material, project = self.view.material, self.session.project
        if material is None or project is None:
            self.ui.caseLabel.text = _("No case is open. Click one in the queue, or press N.")
            return
        newest = Review(project).proposal_round(material.case) or 0
        if material.case.has_own_labels:
            text = _("the labels that came with it.")
        elif material.round == 0:
            text = _("no round has proposed labels for it yet: draw them yourself, or run a round first.")
        else:
            text = _("proposal of round {round}.").format(round=material.round)
        if newest > material.round:
            text += " " + _("Round {round} has made a newer one: click the case again to see it.").format(round=newest)
        self.ui.caseLabel.text = f"<b>{material.case.id}</b> – {text}"

    # Slicer's scene

    def _scene_closes(self, _caller: Any, _event: Any) -> None:
        self.correction.leave_case()
        self._fold_correction(True)
        self._empty_table()
        self.view.forget()

    def _scene_closed(self, _caller: Any, _event: Any) -> None:
        self.queue.mark_open(None)
        self.decisions.refresh()
        self.correction.refresh()
        self._show_case_title()


def _why(button: Any) -> str:
    """The reason in a disabled button's tooltip, which ``Explained`` put first."""
    return str(button.toolTip).partition("</p>")[0].replace("<p>", "")
