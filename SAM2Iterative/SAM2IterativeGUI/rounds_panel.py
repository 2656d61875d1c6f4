"""The tab Rounds: start, pause, stop; where the run is; what came out of each round."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.messages import (
    Message,
    Progress,
    Refused,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    StageStarted,
    StartRun,
    Warned,
    WorkerEnded,
)
from SAM2IterativeLib.presets import weights_in_use
from SAM2IterativeLib.review import Review

from . import installation
from .explaining import Explained, plain_table
from .guarding import guarded
from .round_plot import RoundPlot, values_of
from .run_state import RunState, log_text, old_log, run_state, stage_text
from .session import Session
from .setup_panel import ask_and_install
from .weights_choice import weights_problem
from .wording import duration

_WATCH_MILLISECONDS = 2000
_STOP_POLITE = 1.0
"""Seconds that 'Stop now' leaves the worker to go by itself."""


class RoundsPanel:
    """Everything in the third tab.

    Args:
        widget: from SAM2IterativeRounds.ui.
        session: shared with the other tabs.
        runner: what installs missing packages; Slicer's own by default.
    """

    def __init__(self, widget: Any, session: Session, runner: installation.Runner | None = None) -> None:
        self.widget, self.session, self.runner = widget, session, runner
        self.ui = slicer.util.childWidgetVariables(widget)
        plain_table(self.ui.roundTable)
        self.plot = RoundPlot()
        self._plot_view: Any = None
        self._run: RunStarted | None = None
        self._problem = ""
        self._pausing = self._stopping = False
        self._went_on = False
        """Whether a dead worker was replaced since a round was finished or a person pressed the button."""
        self._explained = Explained(
            self.ui.runWhyLabel, self.ui.startButton, self.ui.pauseButton, self.ui.stopButton, self.ui.plotInLayoutButton
        )
        self._explained_choices = Explained(None, self.ui.roundsBox, self.ui.untilConvergedBox)
        self._watch = qt.QTimer()
        self._watch.setInterval(_WATCH_MILLISECONDS)
        self._connect()
        session.observe(self.refresh)
        session.worker.observe(self._on_message)
        self.refresh("project")

    def _connect(self) -> None:
        ui = self.ui
        actions: dict[Any, Callable[[], object]] = {
            ui.startButton: self.start,
            ui.pauseButton: self.pause,
            ui.stopButton: self.stop,
            ui.plotInLayoutButton: self.show_plot_large,
            ui.copyLogButton: lambda: slicer.app.clipboard().setText(ui.logEdit.plainText),
        }
        for button, action in actions.items():
            button.connect("clicked(bool)", lambda _checked, action=action: action())
        ui.roundsBox.connect("valueChanged(int)", self._on_rounds)
        self._watch.connect("timeout()", self._on_watch)

    # Life

    def enter(self) -> None:
        """The tab is opened."""
        if self._plot_view is None:
            self._plot_view = slicer.qMRMLPlotView()
            self._plot_view.setMRMLScene(slicer.mrmlScene)
            self.ui.plotHolder.layout().addWidget(self._plot_view)
        self.refresh()
        self._watch.start()

    def exit(self) -> None:
        """The tab is left; a run goes on."""
        self._watch.stop()

    def cleanup(self) -> None:
        """The module is closed."""
        self._watch.stop()
        self.session.unobserve(self.refresh)
        self.session.worker.unobserve(self._on_message)
        self.onSceneStartClose()
        self.plot.remove()

    def onSceneStartClose(self) -> None:
        """The plot's nodes are about to go."""
        if self._plot_view is not None:
            self._plot_view.setMRMLPlotViewNode(None)

    def onSceneEndClose(self) -> None:
        """Plot again."""
        if self._plot_view is not None:
            self._show_numbers()

    # Actions

    def start(self) -> None:
        """Start a run, or continue the unfinished one; packages that are missing are installed first, after asking."""
        if installation.missing("rounds") and not ask_and_install(self.runner):
            self._explain()
            return
        self._went_on = False
        self._begin()

    def _begin(self) -> None:
        project, ui = self.session.require_project(), self.ui
        request = StartRun(str(project.folder), ui.roundsBox.value, ui.untilConvergedBox.checked)
        self._say_problem("")
        self._pausing = self._stopping = False
        if guarded(lambda: self.session.worker.request(request), _("The rounds could not begin.")):
            self._write_log(_("Starting …"))
            self._say(_("Starting …"), _("Loading PyTorch and checking the cases; the first time this takes a little longer."))
        self.session.notify("run")

    def pause(self) -> None:
        """Stop at the next safe point."""
        self._pausing = True
        self.session.worker.stop_run()
        self._say(self.ui.stateLabel.text, _("Pausing: the step at hand is being finished …"))
        self._explain()

    def stop(self) -> None:
        """End the worker at once; the step at hand will be done again."""
        self._stopping = True
        self.session.worker.end(_STOP_POLITE)
        self.session.notify("run")

    def show_plot_large(self) -> None:
        """Show the chart among Slicer's views."""
        chart = self.plot.chart()
        if chart is not None:
            slicer.modules.plots.logic().ShowChartInLayout(chart)

    # What is shown

    def refresh(self, topic: str = "") -> None:
        """Show what is; ``topic`` says what changed."""
        if topic in ("closing", "reviewer", "decisions"):
            return
        project = self.session.project
        if topic == "project":
            self._run = None
            self._say_problem("")
            self.ui.logEdit.setPlainText("\n".join(old_log(project)) if project else "")
            self.ui.logEdit.moveCursor(qt.QTextCursor.End)  # what happened last is what a person looks for
            self._set_progress(self.ui.stageProgress, 0.0)
        if topic in ("", "project", "rounds"):
            self._show_numbers()
        if not self.session.worker.busy:
            self._show_waiting()
        self._explain()

    def _show_waiting(self) -> None:
        project = self.session.project
        if project is None:
            self._say(_("No project is open."), "")
            return
        state = run_state(project)
        self._say(state.sentence, "")
        self.ui.timeLabel.setText("")
        self.ui.startButton.setText(_("Continue") if state.unfinished else _("Start"))
        self._set_progress(self.ui.runProgress, _fraction(state))
        self.ui.stageProgress.setVisible(False)
        self.ui.runProgress.setVisible(state.unfinished)

    def _show_numbers(self) -> None:
        project = self.session.project
        rounds = project.journal.rounds() if project else {}
        if self._plot_view is not None:
            self._plot_view.setMRMLPlotViewNode(self.plot.show(rounds))
        self.ui.introLabel.setVisible(not rounds)
        self.ui.plotSection.setVisible(bool(rounds))
        table = self.ui.roundTable
        table.setRowCount(len(rounds))
        for row, number in enumerate(sorted(rounds)):
            numbers = rounds[number]
            values = values_of(numbers)
            cells = [str(number), str(numbers.get("cases", ""))]
            cells += [_three(values[name]) for name in ("uncertainty", "agreement", "stability", "dice")]
            cells.append(duration(float(numbers.get("seconds") or 0.0)))
            for column, cell in enumerate(cells):
                table.setItem(row, column, qt.QTableWidgetItem(cell))
        table.resizeColumnsToContents()

    def _explain(self) -> None:
        ui, session = self.ui, self.session
        worker = session.worker
        running = worker.busy
        state = run_state(session.project) if session.project else None
        going = _("The rounds are going on.") if running else ""
        unfinished = _("The unfinished run first goes on to where it was going.") if state and state.unfinished else ""
        self._explained_choices.set({ui.roundsBox: going or unfinished, ui.untilConvergedBox: going})
        pausing = _("It pauses as soon as the step at hand is done.") if self._pausing and running else ""
        idle = "" if running else _("Nothing runs.")
        self._explained.set(
            {
                ui.startButton: _("The rounds are going on, or something else computes.") if running else self._why_not_start(),
                ui.pauseButton: pausing or idle,
                ui.stopButton: idle,
                ui.plotInLayoutButton: "" if session.project and session.project.journal.rounds() else _("There are no numbers yet."),
            }
        )
        said = pausing if running else self._why_not_start()
        ui.runWhyLabel.setText(said)
        ui.runWhyLabel.setVisible(bool(said))

    def _why_not_start(self) -> str:
        project = self.session.project
        if project is None:
            return _("Open or make a project first, in the tab Project.")
        if project.read_only:
            return _("This project is open for reading only.")
        if not Review(project).has_labels():
            return _("Add at least one case with its label map first, in the tab Project, or correct one in the review.")
        if not project.cases("unlabelled", "validation", usable=True):
            return _("There is no case to label: add volumes without label maps.")
        return weights_problem(weights_in_use(project.settings.foundation.weights, project.models_folder))

    def _on_rounds(self, rounds: int) -> None:
        self.session.rounds = int(rounds)

    def _on_watch(self) -> None:
        """Another program may work on this project; a worker may have frozen."""
        frozen = _("The background process gives no sign of life. Wait a little, or press 'Stop now' and then 'Continue'.")
        if self.session.worker.unresponsive:
            self._say_problem(frozen)
        elif self._problem == frozen:
            self._say_problem("")
        if self.session.project is not None and self.session.read_only:
            self.refresh()

    # What the worker says

    def _on_message(self, message: Message) -> None:
        text = log_text(message)
        if text:
            self._write_log(text)
        if isinstance(message, WorkerEnded):
            self._worker_ended(message)
        if isinstance(message, (RunFinished, RunFailed, WorkerEnded)):
            self._run = None  # a prediction or an estimate may follow, which are no rounds
        if isinstance(message, RunStarted):
            self._run = message
        elif isinstance(message, StageStarted):
            self._show_stage(message)
        elif isinstance(message, Progress):
            self._show_progress(message)
        elif isinstance(message, Warned):
            self._say_problem(message.sentence)
        elif isinstance(message, (RunFailed, Refused)) and message.request == "StartRun":
            self._say_problem(_("The run could not go on: {sentence}").format(sentence=message.sentence))
        elif isinstance(message, RoundFinished):
            self._went_on = False
        elif isinstance(message, RunFinished):
            self._pausing = False

    def _worker_ended(self, message: WorkerEnded) -> None:
        """A dead worker's run goes on by itself once, since nobody may sit here at night; dead again, it waits for a person."""
        if not message.expected:
            sentence, again, _rest = message.sentence.partition(": start the run again")  # here a button does that
            sentence += "." * bool(again)
            if self._run is not None and not self._pausing and not self._went_on:
                self._went_on = True
                self._write_log(_("The rounds go on by themselves, this once."))
                qt.QTimer.singleShot(0, self._go_on)  # when everybody has heard of this worker's end
            else:
                self._say_problem(_("{sentence} Press 'Continue' to go on from there.").format(sentence=sentence))
        self._pausing = False

    def _go_on(self) -> None:
        if self.session.project is not None and not self.session.read_only and not self.session.worker.busy:
            self._begin()

    def _show_stage(self, message: StageStarted) -> None:
        case = (
            _(" · case {case} ({n} of {total})").format(case=message.case, n=message.done + 1, total=message.total) if message.case else ""
        )
        self._say(self._round_text(message.round), stage_text(message.stage)[:1].upper() + stage_text(message.stage)[1:] + case)
        for bar in (self.ui.stageProgress, self.ui.runProgress):
            bar.setVisible(True)
        self._set_progress(self.ui.stageProgress, message.done / max(message.total, 1))
        self._show_overall(message.round, message.stage, message.done / max(message.total, 1))

    def _show_progress(self, message: Progress) -> None:
        if self._run is None:  # a prediction or an estimate: other tabs show it
            return
        self._set_progress(self.ui.stageProgress, message.fraction)
        self._show_overall(message.round, message.stage, message.fraction)
        left = _("About {time} left.").format(time=duration(message.seconds_left)) if message.seconds_left is not None else ""
        self.ui.timeLabel.setText(left or _("The time left is known after the first round."))
        if message.text:
            self.ui.stageLabel.setText(f"{stage_text(message.stage)[:1].upper()}{stage_text(message.stage)[1:]} · {message.text}")

    def _show_overall(self, round: int, stage: str, fraction: float) -> None:
        if self._run is not None:
            parts = [part for part in self._run.stages if part != "adaptation" or round == 0]
            within = (parts.index(stage) + fraction) / len(parts) if stage in parts else fraction
            self._set_progress(self.ui.runProgress, (round + within) / (self._run.last + 1))

    def _round_text(self, round: int) -> str:
        if round == 0:
            return _("First training, on your labels alone")
        last = self._run.last if self._run else round
        return _("Round {round} of {last}").format(round=round, last=last)

    def _say(self, state: str, stage: str) -> None:
        self.ui.stateLabel.setText(state)
        self.ui.stageLabel.setText(stage)
        self.ui.stageLabel.setVisible(bool(stage))
        self.ui.timeLabel.setVisible(bool(stage))

    def _say_problem(self, text: str) -> None:
        self._problem = text
        self.ui.problemLabel.setText(f"⚠ {text}" if text else "")
        self.ui.problemLabel.setVisible(bool(text))

    def _write_log(self, text: str) -> None:
        self.ui.logEdit.appendPlainText(text)

    def _set_progress(self, bar: Any, fraction: float) -> None:
        bar.setValue(round(100 * min(max(fraction, 0.0), 1.0)))


def _fraction(state: RunState) -> float:
    if state.target is None:
        return 1.0 if state.finished is not None else 0.0
    done = 0 if state.finished is None else state.finished + 1
    return done / (state.target + 1)


def _three(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
