"""The tab Results: how far it is, the report, export, and other volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any, get_args

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.exchange import ExportFormat, ExportReport, export_labels
from SAM2IterativeLib.exchange.new_images import new_images
from SAM2IterativeLib.learning import validation_remarks
from SAM2IterativeLib.messages import FolderPredicted, Message, PredictFolder, Progress, Refused, RunFailed, RunFinished, WorkerEnded
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.report import write_report
from SAM2IterativeLib.review import Review

from . import installation
from .explaining import Explained, plain_table
from .guarding import guarded
from .run_state import run_state
from .session import Session
from .setup_panel import ask_and_install
from .wording import duration

_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
_STAGES = ("coarse", "propagated", "pseudo_label")
_NAMED = 6


class ResultsPanel:
    """Everything in the fifth tab.

    Args:
        widget: from SAM2IterativeResults.ui.
        session: shared with the other tabs.
        runner: what installs the packages of the report; Slicer's own by default.
    """

    def __init__(self, widget: Any, session: Session, runner: installation.Runner | None = None) -> None:
        self.widget, self.session, self.runner = widget, session, runner
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        self._predicting = False
        plain_table(ui.scoreTable)
        self._explained_report = Explained(ui.reportWhyLabel, ui.reportButton)
        self._explained_export = Explained(ui.exportWhyLabel, ui.exportButton)
        self._explained_apply = Explained(ui.applyWhyLabel, ui.applyButton, ui.applyStopButton)
        for label in (ui.reportLabel, ui.exportLabel, ui.applyLabel):
            label.setVisible(False)
        ui.applyProgress.hide()
        self._connect()
        session.observe(self.refresh)
        session.worker.observe(self._on_message)
        self.refresh()

    def _connect(self) -> None:
        ui = self.ui
        actions: dict[Any, Callable[[], object]] = {
            ui.reportButton: self.write_report,
            ui.exportButton: self.export,
            ui.applyButton: self.apply,
            ui.applyStopButton: self.session.worker.stop_run,
        }
        for button, action in actions.items():
            button.connect("clicked(bool)", lambda _checked, action=action: action())
        for edit in (ui.exportFolderEdit, ui.applyImagesEdit, ui.applyOutputEdit):
            edit.connect("currentPathChanged(QString)", lambda _path: self._explain())
            edit.connect("validInputChanged(bool)", lambda _valid: self._explain())  # all that an emptied line says

    # Life

    def enter(self) -> None:
        """The tab is opened."""
        self.refresh()

    def exit(self) -> None:
        """The tab is left; a prediction goes on."""

    def cleanup(self) -> None:
        """The module is closed."""
        self.session.unobserve(self.refresh)
        self.session.worker.unobserve(self._on_message)

    # What is shown

    def refresh(self, topic: str = "") -> None:
        """Show what is; ``topic`` says what changed."""
        if topic in ("closing", "reviewer"):
            return
        project, ui = self.session.project, self.ui
        if topic == "project":
            for label in (ui.reportLabel, ui.exportLabel, ui.applyLabel):
                label.setVisible(False)
        ui.convergenceLabel.setText(_("No project is open.") if project is None else convergence_text(project))
        self._show_scores(project.journal.rounds() if project else {})
        self._explain()

    def _show_scores(self, rounds: Mapping[int, Mapping[str, Any]]) -> None:
        scored = {number: numbers["validation"] for number, numbers in sorted(rounds.items()) if numbers.get("validation")}
        table = self.ui.scoreTable
        table.setVisible(bool(scored))
        table.setRowCount(len(scored))
        for row, (number, scores) in enumerate(scored.items()):
            last = scores.get("pseudo_label") or {}
            cells = [str(number), *(_number((scores.get(stage) or {}).get("dice"), 3) for stage in _STAGES)]
            cells += [_number(last.get("hd95_mm"), 1, " mm"), str(last.get("missed", ""))]
            for column, cell in enumerate(cells):
                table.setItem(row, column, qt.QTableWidgetItem(cell))
        table.resizeColumnsToContents()

    def _explain(self) -> None:
        ui, project = self.ui, self.session.project
        closed = "" if project else _("No project is open.")
        rounds = project.journal.rounds() if project else {}
        untrained = closed or ("" if rounds else _("Run the first round before."))
        busy = _("The rounds are going on, or something else computes. Wait, or pause it.") if self.session.worker.busy else ""
        folder = closed or ("" if ui.exportFolderEdit.currentPath else _("Choose a folder to export to."))
        images = ui.applyImagesEdit.currentPath and ui.applyOutputEdit.currentPath
        missing = _("Install what is missing in the tab Setup.") if installation.missing("rounds") else ""
        apply = untrained or busy or missing or ("" if images else _("Choose both folders."))
        self._explained_report.set({ui.reportButton: untrained})
        self._explained_export.set({ui.exportButton: folder})
        self._explained_apply.set({ui.applyButton: apply, ui.applyStopButton: "" if self._predicting else _("Nothing is being applied.")})
        ui.applyWhyLabel.setText("" if self._predicting else apply)
        unscored = bool(rounds) and not any(numbers.get("validation") for numbers in rounds.values())
        self._tell(ui.scoreLabel, "\n".join(_about_scores(project, unscored)) if project else "")

    # The report

    def write_report(self) -> None:
        """Write the report and show it in the browser; what it needs is installed first, after asking."""
        if installation.missing("report"):
            ask_and_install(self.runner)
        project = self.session.require_project()
        written: list[Path] = []
        target = Path(slicer.app.temporaryPath) / "report.html" if project.read_only else None
        if guarded(lambda: written.append(write_report(project, target)), _("The report could not be written.")):
            self._tell(self.ui.reportLabel, _("Written: {file}").format(file=written[0]))
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(written[0])))

    # Export

    def export(self) -> None:
        """Write the labels."""
        project, ui = self.session.require_project(), self.ui
        form = _FORMATS[ui.formatCombo.currentIndex]
        if form == "dicom" and installation.missing("dicom"):
            if installation.installable("dicom"):
                ask_and_install(self.runner)
            reasons = [component.why_not_here or _("it is not installed") for component in installation.missing("dicom")]
            if reasons:
                text = _("Nothing was exported: DICOM needs the package highdicom ({reason}).")
                self._tell(ui.exportLabel, text.format(reason=reasons[0]))
                return
        reports: list[ExportReport] = []
        folder = ui.exportFolderEdit.currentPath

        def write() -> None:
            if not folder:
                raise DataError(_("no folder is chosen."), cure=_("Choose a folder to export to."))
            reports.append(export_labels(project, folder, form, pseudo_labels=not ui.onlyReviewedBox.checked, on_case=self._on_case))

        if guarded(write, _("The labels could not be exported.")):
            self._tell(ui.exportLabel, exported(reports[0], Path(folder)))

    def _on_case(self, done: int, total: int, name: str) -> None:
        self._tell(self.ui.exportLabel, _("{done} of {total}: {name}").format(done=done + 1, total=total, name=name))
        self.ui.exportLabel.repaint()

    # Other volumes

    def apply(self) -> None:
        """Label the volumes of another folder in the background."""
        project, ui = self.session.require_project(), self.ui
        images, output = Path(ui.applyImagesEdit.currentPath), Path(ui.applyOutputEdit.currentPath)
        chosen = ui.applyImagesEdit.currentPath and ui.applyOutputEdit.currentPath

        def ask() -> None:
            if not chosen:
                raise DataError(_("a folder is not chosen."), cure=_("Choose both folders."))
            new_images(images)  # refuses a folder without volumes before anything is loaded
            self.session.worker.request(PredictFolder(str(project.folder), str(images), str(output)))

        if guarded(ask, _("These volumes cannot be labelled.")):
            self._predicting = True
            ui.applyProgress.setValue(0)
            ui.applyProgress.show()
            self._tell(ui.applyLabel, _("Labelling …"))
            self.session.notify("run")

    def _on_message(self, message: Message) -> None:
        if not self._predicting:
            return
        mine = isinstance(message, WorkerEnded) or getattr(message, "request", "") == "PredictFolder"
        if isinstance(message, Progress):
            self.ui.applyProgress.setValue(round(100 * message.fraction))
            self._tell(self.ui.applyLabel, message.text or _("Labelling …"))
        elif isinstance(message, FolderPredicted):
            self._predicted(predicted(message))
        elif isinstance(message, (RunFailed, Refused, WorkerEnded)) and mine:
            self._predicted(message.sentence)
        elif isinstance(message, RunFinished) and mine:  # a run's own last word may still be on its way
            self._predicted(_("Stopped; what was written stays."))

    def _predicted(self, text: str) -> None:
        self._predicting = False
        self.ui.applyProgress.hide()
        self._tell(self.ui.applyLabel, text)
        self.session.notify("run")

    def _tell(self, label: Any, text: str) -> None:
        label.setText(text)
        label.setVisible(bool(text))


def _about_scores(project: Project, unscored: bool) -> list[str]:
    """Why there are no scores, and which validation cases are not in them."""
    remarks = validation_remarks(project)
    lines = [f"{case}: {sentence}" for case, sentence in remarks[:_NAMED]]
    if len(remarks) > _NAMED:
        lines.append(_("… and {count} more were left out.").format(count=len(remarks) - _NAMED))
    if unscored:
        cure = _("To see how good the labels are, add cases that the rounds did not learn from, with label maps, as validation cases.")
        lines.append(cure)
    return lines


def convergence_text(project: Project) -> str:
    """How far the project is, in three lines."""
    state = run_state(project)
    review = Review(project)
    cases = project.cases("unlabelled", usable=True)
    decided = sum(review.status(case) in ("accepted", "corrected", "rejected") for case in cases)
    lines = [f"<b>{escape(state.sentence)}</b>"]
    if cases:
        lines.append(_("{decided} of {total} cases are reviewed.").format(decided=decided, total=len(cases)))
    numbers = project.journal.rounds().get(state.finished) if state.finished is not None else None
    if numbers and numbers.get("stability") is not None:
        text = _("The labels agree with those of the round before by a Dice of {value:.3f}; 1 means that nothing changed.")
        lines.append(text.format(value=numbers["stability"]))
    return "<br/>".join(lines)


def exported(report: ExportReport, folder: Path) -> str:
    """What became of an export."""
    lines = [_("{count} files written to {folder}.").format(count=len(report.written), folder=folder)]
    lines += [f"{name}: {sentence}" for name, sentence in report.refused[:_NAMED]]
    if len(report.refused) > _NAMED:
        lines.append(_("… and {count} more were left out.").format(count=len(report.refused) - _NAMED))
    return "\n".join(lines)


def predicted(message: FolderPredicted) -> str:
    """What became of a prediction."""
    text = _("{count} volumes labelled in {time}.").format(count=message.written, time=duration(message.seconds))
    left_out = [f"{name}: {sentence}" for name, sentence in list(message.set_aside.items())[:_NAMED]]
    return "\n".join([text, *left_out])


def _number(value: Any, digits: int, unit: str = "") -> str:
    return "–" if value is None else f"{float(value):.{digits}f}{unit}"
