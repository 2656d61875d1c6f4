"""The project's labels in a table: value, colour, name, terminology; every change is written to the project at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import qt
from slicer.i18n import tr as _

from SAM2IterativeLib.project import label_of
from SAM2IterativeLib.settings import Label

from .explaining import plain_table
from .session import Session
from .terminology_choices import choices, name_of

_VALUE, _COLOUR, _NAME, _TERMINOLOGY = range(4)


class LabelTable:
    """Shows and changes the labels.

    Args:
        table: a QTableWidget with the four columns.
        session: whose project's labels these are.
        guarded: runs an action and tells a person what goes wrong.
    """

    def __init__(self, table: Any, session: Session, guarded: Callable[[Callable[[], object]], bool]) -> None:
        self._table, self._session, self._guarded = table, session, guarded
        self._filling = False
        plain_table(table)
        table.connect("cellChanged(int,int)", self._on_changed)
        table.connect("cellDoubleClicked(int,int)", self._on_double_click)

    def refresh(self) -> None:
        """Show the labels as they are."""
        project = self._session.project
        labels = project.settings.labels if project else ()
        self._filling = True
        self._table.setRowCount(len(labels))
        for row, label in enumerate(labels):
            self._show(row, label)
        self._table.resizeColumnsToContents()
        self._filling = False

    def add(self) -> None:
        """Add a label with the next free value."""
        project = self._session.require_project()
        value = max(project.values, default=0) + 1
        self._change((*project.settings.labels, label_of(value)))

    def remove(self) -> None:
        """Remove the selected label."""
        row = self._table.currentRow()
        labels = self._session.require_project().settings.labels
        if 0 <= row < len(labels):
            self._change((*labels[:row], *labels[row + 1 :]))

    def _show(self, row: int, label: Label) -> None:
        fixed = qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled
        cells = {_VALUE: str(label.value), _COLOUR: "", _NAME: label.name}
        for column, text in cells.items():
            item = qt.QTableWidgetItem(text)
            if column != _NAME or self._session.read_only:
                item.setFlags(fixed)
            if column == _COLOUR:
                item.setBackground(qt.QBrush(qt.QColor(*label.colour)))
                item.setToolTip(_("Double-click to choose another colour."))
            self._table.setItem(row, column, item)
        self._table.setCellWidget(row, _TERMINOLOGY, self._terminology_box(row, label))

    def _terminology_box(self, row: int, label: Label) -> Any:
        box = qt.QComboBox()
        known = choices()
        own = name_of(label.terminology)
        if label.terminology not in known.values():
            known[own] = label.terminology
        for name, entry in known.items():
            box.addItem(name, entry)
        box.setCurrentIndex(list(known.values()).index(label.terminology))
        box.setEnabled(not self._session.read_only)
        box.setToolTip(_("What the structure is, as a code (SNOMED CT) that other programs understand."))
        box.connect("activated(int)", lambda number: self._replace(row, terminology=list(known.values())[number]))
        return box

    def _on_changed(self, row: int, column: int) -> None:
        if self._filling or column != _NAME:
            return
        name = self._table.item(row, column).text().strip()
        if name:
            self._replace(row, name=name)
        else:
            self.refresh()

    def _on_double_click(self, row: int, column: int) -> None:
        if column != _COLOUR or self._session.read_only:
            return
        label = self._session.require_project().settings.labels[row]
        colour = qt.QColorDialog.getColor(qt.QColor(*label.colour), self._table.window(), _("Colour of {name}").format(name=label.name))
        if colour.isValid():
            self._replace(row, colour=(colour.red(), colour.green(), colour.blue()))

    def _replace(self, row: int, **changes: Any) -> None:
        labels = list(self._session.require_project().settings.labels)
        labels[row] = replace(labels[row], **changes)
        self._change(tuple(labels))

    def _change(self, labels: tuple[Label, ...]) -> None:
        project = self._session.require_project()
        self._guarded(lambda: project.change_settings(replace(project.settings, labels=labels)))
        self._session.notify("settings")
