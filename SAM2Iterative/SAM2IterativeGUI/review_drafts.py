"""Keeping what a reviewer has not finished: saved while they draw, and offered when the case is opened again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import qt
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.drafts import Draft, Drafts
from SAM2IterativeLib.errors import SAM2IterativeError
from SAM2IterativeLib.project import Case, Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import LabelMap

from .review_case import CaseView
from .review_material import starting_map
from .session import Session

_SAVE_MILLISECONDS = 5000
"""Pause after a stroke before it is saved."""


class DraftKeeping:
    """The draft of the open case.

    Args:
        ui: the form's widgets by name.
        session: whose project keeps the drafts.
        view: the open case.
    """

    def __init__(self, ui: Any, session: Session, view: CaseView) -> None:
        self._ui, self._session, self._view = ui, session, view
        self._start: LabelMap | None = None
        self._saved: np.ndarray | None = None
        self._draft: Draft | None = None
        self._offered: Draft | None = None
        self._reviewer = ""
        self._told = ""
        self._remarked: frozenset[str] = frozenset()
        self._given_up = False
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SAVE_MILLISECONDS)
        self._timer.connect("timeout()", self.keep)
        self._show_offer()

    # The case

    def opened(self) -> None:
        """Another case is shown: offer its draft."""
        material, project = self._view.material, self._session.require_project()
        assert material is not None
        self._start, self._saved, self._draft = material.start, material.start.array, None
        self._reviewer, self._remarked, self._given_up = self._session.reviewer, frozenset(), False
        self._offered = None if project.read_only else Drafts(project).newest(material.case, self._reviewer)
        self._show_offer()

    def left(self) -> None:
        """The case is gone; what was unfinished was kept before, or the person gave it up."""
        self._timer.stop()
        self._start = self._saved = self._draft = self._offered = None
        self._show_offer()

    def settled(self, vouched: LabelMap | None = None) -> LabelMap | None:
        """Something was decided, or taken back: what is unfinished now is what opening the case again would not show.

        Args:
            vouched: the map that the reviewer just vouched for as a whole, which is what opening the case again would show.

        Returns:
            What opening it again would show; None where no case is open.

        Raises:
            ProjectError, ResourceError: the draft could not be saved.
        """
        scene, material, project = self._view.scene, self._view.material, self._session.project
        if scene is None or scene.case is None or material is None or project is None:
            return None
        start = vouched if vouched is not None else starting_map(Review(project), material, self._reviewer)
        self._start, self._saved = start, None
        self._save()
        return self._start

    # Saving

    def drawn(self) -> None:
        """The mask was changed: save it soon."""
        self._given_up = False
        self._timer.start()

    def keep_if_drawn(self) -> None:
        """Save what was drawn since the last time, without waiting for the pause."""
        if self._timer.isActive():
            self.keep()

    def keep(self) -> None:
        """Save the draft. A person is told once if it cannot be saved; every stroke tries again."""
        problem = self._try_to_save()
        if problem and problem != self._told:
            slicer.util.errorDisplay(_not_kept(problem))
        self._told = problem

    def may_leave(self) -> bool:
        """Save before the case goes; where that fails, ask every time whether it may go all the same."""
        problem = self._try_to_save()
        if not problem:
            return True
        question = _("Leave the case without saving? If you stay, nothing is lost.")
        self._given_up = slicer.util.confirmYesNoDisplay(_not_kept(problem) + "\n\n" + question)
        return self._given_up

    def keep_at_last(self) -> None:
        """Save while the case goes, which nobody can stop: a person is told what is lost, unless they gave it up already."""
        problem = self._try_to_save()
        if problem and not self._given_up:
            slicer.util.errorDisplay(_not_kept(problem))

    def _try_to_save(self) -> str:
        """Save; the sentence of what went wrong, "" for nothing."""
        self._timer.stop()
        try:
            self._save()
        except SAM2IterativeError as error:
            return error.sentence
        return ""

    def _save(self) -> None:
        """Keep the mask in the project folder if opening the case again would show another one."""
        scene, material, project = self._view.scene, self._view.material, self._session.project
        if scene is None or scene.case is None or material is None or project is None or self._start is None or project.read_only:
            return
        if scene.node("proposal") is None:  # the person deleted the mask: there is nothing left to save
            return
        self._save_mask(project, material.case, material.round, scene.proposal(skip_foreign=True), self._start)
        self._remark_on(scene.foreign_segments())

    def _save_mask(self, project: Project, case: Case, round: int, shown: LabelMap, start: LabelMap) -> None:
        if self._saved is not None and np.array_equal(shown.array, self._saved):
            return
        drafts = Drafts(project)
        if not np.array_equal(shown.array, start.array):
            self._draft = drafts.save(case, shown, reviewer=self._reviewer, round=round, instead_of=self._draft)
        elif self._draft is not None:
            drafts.remove(case, self._draft)
            self._draft = None
        self._saved = shown.array

    def _remark_on(self, foreign: tuple[str, ...]) -> None:
        """Segments that are none of the labels cannot be kept; each is remarked on once."""
        new = [name for name in foreign if name not in self._remarked]
        self._remarked = frozenset(foreign)
        if new:
            text = _(
                "These segments belong to none of the project's labels and are not kept with the unfinished correction: {names}.\n\n"
                "Add their voxels to a segment of the project, or add labels of these names to the project first."
            )
            slicer.util.warningDisplay(text.format(names=", ".join(new)))

    # What was kept

    def go_on(self) -> None:
        """Put the offered draft onto the case, locked segments included; one undo takes it back.

        Raises:
            ProjectError: it is missing or was changed.
        """
        scene, material = self._view.scene, self._view.material
        if self._offered is None or scene is None or material is None:
            return
        label_map = Drafts(self._session.require_project()).read(material.case, self._offered)
        locked = scene.locked()  # they were locked as the draft has them
        for value in locked:
            scene.lock(value, False)
        scene.write_result(label_map)
        for value in locked:
            scene.lock(value, True)
        self._draft, self._offered, self._saved = self._offered, None, scene.proposal(skip_foreign=True).array
        self._show_offer()

    def discard(self) -> None:
        """Delete the offered draft, after asking."""
        material = self._view.material
        if self._offered is None or material is None:
            return
        if slicer.util.confirmYesNoDisplay(_("Delete the unfinished correction of {case}?").format(case=material.case.id)):
            Drafts(self._session.require_project()).remove(material.case, self._offered)
            self._offered = None
            self._show_offer()

    def _show_offer(self) -> None:
        self._ui.draftFrame.setVisible(self._offered is not None)
        if self._offered is not None:
            time = datetime.fromisoformat(self._offered.time).astimezone().strftime("%Y-%m-%d %H:%M")
            text = _("A correction of this case was not finished ({time}). Go on with it?")
            self._ui.draftLabel.text = text.format(time=time)


def _not_kept(problem: str) -> str:
    return _("The unfinished correction could not be kept.") + "\n\n" + problem
