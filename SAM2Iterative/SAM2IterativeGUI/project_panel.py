"""The tab Project: a project folder, its volumes, its labels, its cases."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.project import Role
from SAM2IterativeLib.review import Review

from .case_table import CaseTable
from .explaining import Explained
from .guarding import guarded
from .label_table import LabelTable
from .project_folder import last_folder, remember_folder
from .sample_data import free_folder, make_sample_project
from .session import Session
from .thumbnails import Thumbnails
from .volume_adding import VolumeAdding


class ProjectPanel:
    """Everything in the first tab.

    Args:
        widget: from SAM2IterativeProject.ui.
        session: shared with the other tabs.
    """

    def __init__(self, widget: Any, session: Session) -> None:
        self.widget, self.session = widget, session
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        self.adding = VolumeAdding(ui, widget, session)
        self.cases = CaseTable(ui.caseTable, session)
        self.labels = LabelTable(ui.labelTable, session, guarded)
        self.thumbnails = Thumbnails(ui.thumbnailList, session, self.cases.select)
        buttons = (
            ui.closeButton,
            ui.reviewButton,
            ui.takeOutButton,
            ui.validationButton,
            ui.useAgainButton,
        )
        self._explained = Explained(ui.casesWhyLabel, *buttons)
        self._explained_add = Explained(ui.addWhyLabel, ui.addFolderButton, ui.addLoadedButton)
        self._explained_labels = Explained(ui.labelsWhyLabel, ui.addLabelButton, ui.removeLabelButton)
        self._next_tab = "rounds"
        self._connect()
        session.observe(self.refresh)
        self.refresh()

    def _connect(self) -> None:
        ui = self.ui
        actions: dict[Any, Callable[[], object]] = {
            ui.createButton: self.create,
            ui.openButton: self.open,
            ui.sampleButton: self.make_sample,
            ui.closeButton: self.close,
            ui.nextButton: lambda: self.session.go_to(self._next_tab),
            ui.reviewButton: self._review,
            ui.takeOutButton: lambda: self._set_roles(lambda case: "excluded"),
            ui.validationButton: lambda: self._set_roles(lambda case: "validation"),
            ui.useAgainButton: lambda: self._set_roles(lambda case: "labelled" if case.label is not None else "unlabelled"),
            ui.addLabelButton: self.labels.add,
            ui.removeLabelButton: self.labels.remove,
        }
        for button, action in actions.items():
            button.connect("clicked(bool)", lambda _checked, action=action: action())
        for signal in ("itemSelectionChanged()",):
            ui.caseTable.connect(signal, self._explain)
            ui.labelTable.connect(signal, self._explain)
        ui.imagesEdit.connect("currentPathChanged(QString)", lambda _path: self._explain())
        ui.imagesEdit.connect("validInputChanged(bool)", lambda _valid: self._explain())  # all that an emptied line says
        ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", lambda _node: self._explain())

    # Life

    def enter(self) -> None:
        """The tab is opened."""
        self.refresh()

    def exit(self) -> None:
        """The tab is left."""

    def cleanup(self) -> None:
        """The module is closed."""
        self.session.unobserve(self.refresh)
        self.thumbnails.stop()

    # Projects

    def create(self) -> None:
        """Make a project in a folder that the person chooses."""
        folder = qt.QFileDialog.getExistingDirectory(self.widget.window(), _("A new or empty folder for the project"), last_folder())
        if folder:
            self._take(lambda: self.session.create(folder), Path(folder))

    def open(self) -> None:
        """Open a project that the person chooses."""
        folder = qt.QFileDialog.getExistingDirectory(self.widget.window(), _("The folder of a project"), last_folder())
        if folder:
            self._take(lambda: self.session.open(folder), Path(folder))

    def close(self) -> None:
        """Close the project."""
        if self.session.may_close():
            guarded(self.session.close)

    def make_sample(self) -> None:
        """Make the generated project beside the person's other projects."""
        folder = free_folder(Path(last_folder()), _("SAM2Iterative sample"))
        self._take(lambda: make_sample_project(self.session, folder), folder)

    def _take(self, action: Callable[[], object], folder: Path) -> None:
        if self.session.may_close() and guarded(action, _("The project could not be opened.")):
            remember_folder(folder.parent)
            self.ui.importLabel.hide()

    # What is shown

    def refresh(self, topic: str = "") -> None:
        """Show what is; ``topic`` says what changed."""
        if topic in ("closing", "reviewer"):
            return
        if topic == "run":
            self._explain()
            return
        project, ui = self.session.project, self.ui
        ui.welcomeLabel.setVisible(project is None)
        ui.projectLabel.setVisible(project is not None)
        for section in (ui.addSection, ui.casesSection, ui.labelsSection):
            section.setVisible(project is not None)
        for item in (ui.nextLabel, ui.nextButton):
            item.setVisible(project is not None)
        if topic in ("", "project"):
            ui.addSection.collapsed = project is not None and bool(project.cases())
        ui.noticeLabel.setText(self.session.notice)
        ui.noticeLabel.setVisible(bool(self.session.notice))
        ui.labelNamesEdit.setEnabled(project is not None and not project.values)
        if project is not None:
            name, folder = escape(project.settings.name), escape(str(project.folder))
            ui.projectLabel.setText(f"<b>{name}</b><br/><small>{folder}</small>")
            self._say_what_is_next()
        self.labels.refresh()
        self.cases.refresh()
        self.thumbnails.refresh()
        self._explain()

    def _say_what_is_next(self) -> None:
        project, ui = self.session.require_project(), self.ui
        labelled, waiting = project.cases("labelled", usable=True), project.cases("unlabelled", usable=True)
        self._next_tab, action = "rounds", _("Go to the rounds")
        if not project.cases():
            text, self._next_tab = _("This project is empty. Add volumes below."), ""
        elif not Review(project).has_labels():
            text, self._next_tab = _("No case has a label map yet: add at least one, 3 or more are better."), ""
        elif not waiting:
            text, self._next_tab = _("There is no case to label: add volumes without label maps."), ""
        elif not project.journal.rounds():
            text = _("{labelled} labelled cases, {waiting} to be labelled. Everything is ready for the first rounds.")
            if len(labelled) > 1 and not project.cases("validation", usable=True):
                text += "<br/>" + _(
                    "To measure the rounds, use a labelled case for validation before they begin: later it has been learned from."
                )
        else:
            text, self._next_tab, action = _("{waiting} cases were labelled. Review them."), "review", _("Go to the review")
        ui.nextLabel.setText(text.format(labelled=len(labelled), waiting=len(waiting)))
        ui.nextButton.setText(action)
        ui.nextButton.setVisible(bool(self._next_tab))

    def _explain(self) -> None:
        ui, project = self.ui, self.session.project
        chosen = self.cases.selected()
        closed = "" if project else _("No project is open.")
        locked = closed or (_("This project is open for reading only.") if self.session.read_only else "")
        unchosen = locked or ("" if chosen else _("Choose a case in the table."))
        unlabelled = unchosen or ("" if all(case.label for case in chosen) else _("Only a case with a label map can measure others."))
        in_use = unchosen or ("" if any(case.role != "excluded" for case in chosen) else _("It is taken out already."))
        again = unchosen or ("" if any(case.role in ("excluded", "validation") for case in chosen) else _("It is in use already."))
        review = closed or ("" if len(chosen) == 1 and chosen[0].role == "unlabelled" else _("Choose one case that is to be labelled."))
        folder = locked or ("" if ui.imagesEdit.currentPath else _("Choose a folder first."))
        volume = locked or ("" if ui.volumeSelector.currentNode() is not None else _("Choose a loaded volume first."))
        fixed = locked or self._why_fixed_labels()
        label = fixed or ("" if ui.labelTable.currentRow() >= 0 else _("Choose a label in the table."))
        self._explained.set(
            {
                ui.closeButton: closed,
                ui.reviewButton: review,
                ui.takeOutButton: in_use,
                ui.validationButton: unlabelled,
                ui.useAgainButton: again,
            }
        )
        self._explained_add.set({ui.addFolderButton: folder, ui.addLoadedButton: volume})
        self._explained_labels.set({ui.addLabelButton: fixed, ui.removeLabelButton: label})
        said = locked or ("" if chosen else _("Choose a case in the table to review it or to change what it is used for."))
        ui.casesWhyLabel.setText(said)
        ui.casesWhyLabel.setVisible(bool(said))

    def _why_fixed_labels(self) -> str:
        """Why no label can come or go; "" where it can."""
        if self.session.why_fixed:
            return self.session.why_fixed
        planned = self.session.project is not None and self.session.project.plan_path.is_file()
        return _("The network was planned for these labels: other labels need a new project.") if planned else ""

    # Cases

    def _review(self) -> None:
        self.session.go_to("review", case=self.cases.selected()[0].id)

    def _set_roles(self, role_of: Callable[[Any], Role]) -> None:
        project, chosen = self.session.require_project(), self.cases.selected()

        def change() -> None:
            self.session.require_free()
            for case in chosen:
                project.set_role(case, role_of(case))

        guarded(change, _("What the case is used for could not be changed."))
        self.session.notify("cases")
