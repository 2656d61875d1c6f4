"""The list of cases that wait for review, in the order that the person chose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from SAM2IterativeLib.drafts import Drafts
from SAM2IterativeLib.review import QueueEntry, Review

from .explaining import Explained
from .session import Session

_ORDER, _FILTER = "SAM2Iterative/reviewOrder", "SAM2Iterative/reviewFilter"
_MINE, _NOBODYS, _ALL = "mine", "nobodys", "all"


class Queue:
    """Shows the queue, and tells which case a person chose.

    Args:
        ui: the form's widgets by name.
        session: what all panels share.
        chosen: called with a case's id when a person clicks it.
    """

    def __init__(self, ui: Any, session: Session, chosen: Callable[[str], object]) -> None:
        self._ui, self._session, self._chosen = ui, session, chosen
        self._shown: tuple[str, ...] = ()
        self._current: str | None = None
        self._place = 0
        self._before: list[str] = []
        self._explained = Explained(None, ui.nextCaseButton, ui.previousCaseButton)
        _fill(ui.orderCombo, _orders(), _ORDER)
        _fill(ui.filterCombo, _filters(), _FILTER)
        ui.orderCombo.connect("activated(int)", self._choice_made)
        ui.filterCombo.connect("activated(int)", self._choice_made)
        ui.queueTable.setColumnCount(5)
        ui.queueTable.setHorizontalHeaderLabels([_("Case"), _("Uncertainty"), _("Status"), _("Round"), _("Reviewers")])
        ui.queueTable.verticalHeader().setVisible(False)
        for column in range(5):
            mode = qt.QHeaderView.Stretch if column == 0 else qt.QHeaderView.ResizeToContents
            ui.queueTable.horizontalHeader().setSectionResizeMode(column, mode)
        ui.queueTable.connect("cellClicked(int,int)", lambda row, _column: self._chosen(self._shown[row]))

    @property
    def cases(self) -> tuple[str, ...]:
        """The ids in the order of the list; the open case stays in it until another one is opened, though it is decided."""
        return self._shown

    @property
    def next(self) -> str | None:
        """The case after the open one; the first one where none is open; None at the list's end."""
        if self._current not in self._shown:
            return self._shown[0] if self._shown else None
        place = self._shown.index(self._current) + 1
        return self._shown[place] if place < len(self._shown) else None

    @property
    def previous(self) -> str | None:
        """The case that was open before this one, decided or not; where there was none, the one before it in the list."""
        if self._before:
            return self._before[-1]
        place = self._shown.index(self._current) - 1 if self._current in self._shown else -1
        return self._shown[place] if place >= 0 else None

    def mark_open(self, case: str | None) -> None:
        """Say which case is open, so that its row is marked."""
        if case is None:
            self._before.clear()
        elif self._before and case == self._before[-1]:
            self._before.pop()
        elif self._current not in (None, case):
            self._before.append(str(self._current))
        self._current = case
        self.refresh()

    def refresh(self) -> None:
        """Read the queue anew."""
        project = self._session.project
        entries = self._entries() if project is not None else []
        self._shown = tuple(entry.case.id for entry in entries)
        if self._current in self._shown:
            self._place = self._shown.index(self._current)
        drafts = Drafts(project).cases(self._session.reviewer) if project is not None else frozenset()
        table = self._ui.queueTable
        table.setRowCount(len(entries))
        for row, entry in enumerate(entries):
            for column, text in enumerate(_texts(entry, entry.case.id in drafts)):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.clearSelection()
        if self._current in self._shown:
            table.selectRow(self._place)
        self._ui.remainingLabel.text = self._progress()
        # Where the list ends is no news for a line of its own: the button's tooltip says it.
        last, first = (_("This is the last case of the list."), _("This is the first case."))
        last, first = (last, first) if self._shown else (_("There is no case to open."),) * 2
        self._explained.set(
            {
                self._ui.nextCaseButton: "" if self.next is not None else last,
                self._ui.previousCaseButton: "" if self.previous is not None else first,
            }
        )

    def _entries(self) -> list[QueueEntry]:
        review, order, wanted = Review(self._session.require_project()), self._ui.orderCombo.currentData, self._ui.filterCombo.currentData
        reviewer = self._session.reviewer if wanted == _MINE else None
        entries = list(review.queue(order, reviewer=reviewer, decided=wanted == _ALL))
        if self._current is not None and self._current not in {entry.case.id for entry in entries}:
            everything = {entry.case.id: entry for entry in review.queue(order, decided=True)}
            if self._current in everything:
                entries.insert(min(self._place, len(entries)), everything[self._current])
        return entries

    def _progress(self) -> str:
        project = self._session.project
        if project is None:
            return ""
        review = Review(project)
        total, waiting = len(review.queue(decided=True)), len(review.queue(reviewer=self._session.reviewer or None))
        if not total:
            return _("No case waits: all have labels of their own.") if project.cases() else _("The project has no cases yet.")
        return _("{waiting} of {total} wait for you").format(waiting=waiting, total=total)

    def _choice_made(self, _index: int) -> None:
        for combo, key in ((self._ui.orderCombo, _ORDER), (self._ui.filterCombo, _FILTER)):
            qt.QSettings().setValue(key, combo.currentData)
        self.refresh()


def _fill(combo: Any, entries: tuple[tuple[str, str], ...], key: str) -> None:
    for data, text in entries:
        combo.addItem(text, data)
    combo.setCurrentIndex(max(0, combo.findData(qt.QSettings().value(key, entries[0][0]))))


def _orders() -> tuple[tuple[str, str], ...]:
    return (
        ("uncertainty", _("Most uncertain first")),
        ("certainty", _("Most certain first")),
        ("name", _("By name")),
        ("imported", _("As they were added")),
    )


def _filters() -> tuple[tuple[str, str], ...]:
    return ((_MINE, _("What I have not decided")), (_NOBODYS, _("What nobody has decided")), (_ALL, _("All cases")))


def _texts(entry: QueueEntry, draft: bool) -> tuple[str, ...]:
    uncertainty = "–" if entry.uncertainty is None else f"{entry.uncertainty:.3f}"
    status = status_text(entry.status) + (_(", unfinished correction") if draft else "")
    return entry.case.id, uncertainty, status, "–" if entry.round is None else str(entry.round), ", ".join(entry.reviewers)


def status_text(status: str) -> str:
    """A case's status in words."""
    return {
        "waiting": _("waiting"),
        "partly decided": _("partly decided"),
        "accepted": _("accepted"),
        "corrected": _("corrected"),
        "rejected": _("rejected"),
    }[status]
