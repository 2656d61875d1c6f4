"""The cases in a table: what each is used for, how far it is, and who reviewed it."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from SAM2IterativeLib.project import Case
from SAM2IterativeLib.review import Review

from .explaining import plain_table
from .session import Session

_CASE, _USE, _STATE, _ROUND, _UNCERTAINTY, _REVIEWER = range(6)
_NARROWEST, _WIDEST = 60, 260
"""Pixels of a column."""


class CaseTable:
    """Fills a QTableWidget with the six columns."""

    def __init__(self, table: Any, session: Session) -> None:
        self._table, self._session = table, session
        self._cases: tuple[Case, ...] = ()
        plain_table(table)
        header = table.horizontalHeader()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(_NARROWEST)
        header.setMaximumSectionSize(_WIDEST)
        for column in range(table.columnCount):
            header.setSectionResizeMode(column, qt.QHeaderView.Stretch if column == _REVIEWER else qt.QHeaderView.ResizeToContents)

    def refresh(self) -> None:
        """Show the cases as they are; the selection stays."""
        chosen = {case.id for case in self.selected()}
        project = self._session.project
        self._cases = project.cases() if project else ()
        self._table.setRowCount(len(self._cases))
        if project is None:
            return
        review = Review(project)
        uncertainty = project.journal.latest_numbers("uncertainty")
        for row, case in enumerate(self._cases):
            reviewers = sorted({decision.reviewer for decision in review.decisions(case)})
            round, value = uncertainty.get(case.id, (None, None))
            self._set(row, _CASE, case.id, case.source)
            self._set(row, _USE, *use_of(case))
            self._set(row, _STATE, *state_of(case, review))
            self._set(row, _ROUND, "" if round is None else str(round))
            self._set(row, _UNCERTAINTY, "" if value is None else f"{value:.2f}")
            self._set(row, _REVIEWER, ", ".join(reviewers))
        for row, case in enumerate(self._cases):
            if case.id in chosen:
                self._select(row, True)

    def selected(self) -> tuple[Case, ...]:
        """The selected cases."""
        rows = sorted({item.row() for item in self._table.selectedItems()})
        return tuple(self._cases[row] for row in rows if row < len(self._cases))

    def select(self, id: str) -> None:
        """Select one case and show it."""
        self._table.clearSelection()
        for row, case in enumerate(self._cases):
            if case.id == id:
                self._select(row, True)
                self._table.scrollToItem(self._table.item(row, _CASE))

    def _select(self, row: int, selected: bool) -> None:
        for column in range(self._table.columnCount):
            self._table.item(row, column).setSelected(selected)

    def _set(self, row: int, column: int, text: str, tip: str = "") -> None:
        item = qt.QTableWidgetItem(text)
        item.setToolTip(tip)
        self._table.setItem(row, column, item)


def use_of(case: Case) -> tuple[str, str]:
    """What a case is used for, and what that means."""
    if case.set_aside:
        return _("nothing"), case.set_aside
    return {
        "labelled": (_("training"), _("Its label map teaches the network.")),
        "unlabelled": (_("to be labelled"), _("The rounds label it; you review it.")),
        "validation": (_("validation"), _("No round learns from it. Each is measured on it, unless an earlier one learned from it.")),
        "excluded": (_("nothing"), _("Taken out. 'Use again' takes it back.")),
    }[case.role]


def state_of(case: Case, review: Review) -> tuple[str, str]:
    """How far a case is, and the longer story."""
    if case.set_aside:
        return _("set aside"), case.set_aside
    if case.role == "excluded":
        return _("taken out"), ""
    status = review.status(case)
    if status != "waiting":
        return {
            "accepted": (_("accepted"), _("A reviewer accepted the labels.")),
            "corrected": (_("corrected"), _("A reviewer corrected the labels.")),
            "rejected": (_("rejected"), _("A reviewer rejected the labels; nothing learns from them.")),
            "partly decided": (_("partly reviewed"), _("Some segments or slices are decided.")),
        }[status]
    if case.has_own_labels:
        return _("labelled by hand"), _("It came with a label map.")
    if review.proposal_round(case) is not None:
        return _("waits for review"), _("A round labelled it.")
    return _("not labelled yet"), _("Run the rounds.")
