"""The tab Rounds with a worker that pretends: start, pause, continue, stop, and what is shown meanwhile and afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
import pytest
from opened_module import column, make_sample, open_tab

from SAM2IterativeLib.messages import Message, Progress, Refused, RunFailed, RunFinished, RunStarted, WorkerEnded
from SAM2IterativeLib.project import Project


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that stands for weights; the pretended worker does not read it."""
    path = tmp_path / "weights.pt"
    path.write_bytes(b"none")
    return path


@pytest.fixture
def opened(pretending: Any, tmp_path: Path, weights: Path) -> Any:
    """A sample project whose weights are there, with the tab Rounds open."""
    from SAM2IterativeLib.settings import replaced

    project = make_sample(pretending, tmp_path / "p")
    project.change_settings(replaced(project.settings, "foundation.weights", str(weights)))
    pretending.widget.session.notify("settings")
    open_tab(pretending, "Rounds")
    return pretending


def _finish(module: Any) -> None:
    harness.wait_until(lambda: not module.widget.session.worker.busy, "the end of the run", seconds=30)
    harness.process_events()


def test_without_a_project_start_says_what_is_missing(module: Any) -> None:
    ui = open_tab(module, "Rounds")
    assert "tab Project" in ui.runWhyLabel.text and not ui.runWhyLabel.isHidden()
    with pytest.raises(AssertionError, match="tab Project"):
        harness.click(ui.startButton)


def test_weights_that_are_not_there_are_told_before_the_start(pretending: Any, tmp_path: Path, weights: Path) -> None:
    from SAM2IterativeLib.settings import replaced

    project = make_sample(pretending, tmp_path / "p")
    project.change_settings(replaced(project.settings, "foundation.weights", str(tmp_path / "gone.pt")))
    pretending.widget.session.notify("settings")
    ui = open_tab(pretending, "Rounds")
    assert "gone.pt is not there any more" in ui.runWhyLabel.text
    assert not ui.startButton.isEnabled()


def test_the_first_run_takes_one_click_here(opened: Any) -> None:
    ui = opened.widget.ui
    assert not ui.introLabel.isHidden()
    ui.roundsBox.setValue(2)
    harness.click(ui.startButton)
    assert not ui.startButton.isEnabled() and ui.pauseButton.isEnabled() and ui.stopButton.isEnabled()
    assert not ui.roundsBox.isEnabled()
    harness.wait_until(lambda: "case phantom_003" in ui.stageLabel.text, "stage and case are shown")
    assert not ui.stageProgress.isHidden()
    _finish(opened)
    assert column(ui.roundTable, 0) == ["0", "1", "2"]
    assert column(ui.roundTable, 2) == ["0.400", "0.200", "0.133"]
    assert column(ui.roundTable, 4)[0] == "–", "nothing to compare round 0 with"
    assert ui.stateLabel.text.startswith("Round 2 is done.")
    assert ui.startButton.text == "Start" and ui.startButton.isEnabled()
    assert "The run ended" in ui.logEdit.plainText


def test_the_plot_is_mrml_and_grows_round_by_round(opened: Any) -> None:
    import slicer

    ui = opened.widget.ui
    harness.click(ui.startButton)
    harness.wait_until(lambda: ui.roundTable.rowCount >= 2, "two rounds")
    view = opened.widget.panels["rounds"]._plot_view
    curves = {name: points for name, points, _colour in view.curves()}
    assert [y for _x, y in curves["Uncertainty"][:2]] == pytest.approx([0.4, 0.2])
    assert curves["Unchanged"][0][0] == 1, "from round 1 on"
    assert "Dice (validation)" not in curves, "no validation cases"
    _finish(opened)
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")) == 1
    assert not any(node.GetSaveWithScene() for node in slicer.util.getNodesByClass("vtkMRMLPlotSeriesNode"))
    harness.click(ui.plotInLayoutButton)
    slicer.mrmlScene.Clear(0)
    harness.process_events()
    assert len(view.curves()) == 3, "plotted again in the new scene"


def test_pause_and_continue_and_the_project_opened_again_in_between(opened: Any, tmp_path: Path) -> None:
    ui, session = opened.widget.ui, opened.widget.session
    harness.click(ui.startButton)
    harness.wait_until(lambda: "case phantom" in ui.stageLabel.text, "a first case")
    harness.click(ui.pauseButton)
    assert "pauses as soon as" in ui.runWhyLabel.text or not session.worker.busy
    _finish(opened)
    assert ui.startButton.text == "Continue"
    assert ui.stateLabel.text.startswith("Waiting")
    assert not ui.roundsBox.isEnabled(), "the unfinished run goes where it was going"
    session.close()
    assert ui.stateLabel.text == "No project is open."
    session.open(tmp_path / "p")
    assert ui.stateLabel.text.startswith("Waiting")
    assert ui.logEdit.textCursor().atEnd(), "the newest lines are seen"
    harness.click(ui.startButton)
    _finish(opened)
    assert ui.stateLabel.text.startswith("Round 3 is done.") or ui.startButton.text == "Start"


def test_stop_now_ends_the_worker_at_once(opened: Any) -> None:
    ui, session = opened.widget.ui, opened.widget.session
    harness.click(ui.startButton)
    harness.wait_until(lambda: "case phantom" in ui.stageLabel.text, "a first case")
    harness.click(ui.stopButton)
    assert not session.worker.running
    assert ui.startButton.isEnabled() and ui.startButton.text == "Continue"
    assert ui.problemLabel.isHidden(), "it was asked for"


def test_a_worker_that_dies_says_why_and_continue_continues(opened: Any) -> None:
    ui, session = opened.widget.ui, opened.widget.session
    harness.click(ui.startButton)
    harness.wait_until(lambda: "case phantom" in ui.stageLabel.text, "a first case")
    died = WorkerEnded(False, "The worker died while it worked on training, round 0. Kept: start the run again to continue.")
    first = _kill(opened, died)
    harness.wait_until(lambda: session.worker._client is not first and "case phantom" in ui.stageLabel.text, "going on by itself")
    assert ui.problemLabel.isHidden() and "by themselves, this once" in ui.logEdit.plainText
    _kill(opened, died)
    harness.wait_until(lambda: not ui.problemLabel.isHidden(), "the reason")
    assert "died while it worked on training" in ui.problemLabel.text and "Continue" in ui.problemLabel.text
    assert "start the run again" not in ui.problemLabel.text, "one cure, not two"
    assert "unfinished run" in ui.roundsBox.toolTip and not ui.roundsBox.isEnabled()
    assert ui.startButton.text == "Continue"
    harness.click(ui.startButton)
    _finish(opened)
    assert ui.problemLabel.isHidden()
    assert ui.roundTable.rowCount == 4


def test_a_worker_that_dies_while_it_was_to_pause_is_not_replaced(opened: Any) -> None:
    ui, session = opened.widget.ui, opened.widget.session
    harness.click(ui.startButton)
    harness.wait_until(lambda: "case phantom" in ui.stageLabel.text, "a first case")
    opened.widget.panels["rounds"]._pausing = True
    client = _kill(opened, WorkerEnded(False, "The worker died."))
    harness.wait_until(lambda: not ui.problemLabel.isHidden(), "the reason")
    assert session.worker._client is client and ui.startButton.text == "Continue"


def _kill(opened: Any, last_words: WorkerEnded) -> Any:
    """Let the worker end as one that the system killed; returns its client."""
    client = opened.widget.session.worker._client
    client._job, client.running = None, False
    client._messages.append(last_words)
    return client


def test_an_error_is_a_sentence_and_not_a_dialog_in_the_way(opened: Any) -> None:
    ui, session = opened.widget.ui, opened.widget.session
    harness.click(ui.startButton)
    session.worker._client._job = None
    session.worker._client._messages.append(RunFailed("the disk is full.", "ResourceError", "", "StartRun"))
    harness.wait_until(lambda: "the disk is full" in ui.problemLabel.text, "the sentence")
    assert harness.dialogs.texts("error") == []
    assert ui.startButton.isEnabled()


def test_the_time_left_is_told_once_it_is_known(opened: Any) -> None:
    ui, panel = opened.widget.ui, opened.widget.panels["rounds"]
    stages = ("adaptation", "training", "coarse", "propagation", "pseudo_label")
    panel._on_message(RunStarted(4, 5, "CPU", 0, stages=stages))
    panel._on_message(Progress(1, "coarse", 0.5, None, ""))
    assert "after the first round" in ui.timeLabel.text
    panel._on_message(Progress(1, "coarse", 0.5, 3700.0, ""))
    assert ui.timeLabel.text == "About 1 h 02 min left."
    assert ui.stageProgress.value == 50
    assert ui.runProgress.value == round(100 * (1 + 1.5 / 4) / 4)
    panel._on_message(Progress(0, "coarse", 0.5, None, ""))
    assert ui.runProgress.value == round(100 * (2.5 / 5) / 4), "round 0 adapts SAM2 too"


@pytest.mark.parametrize(
    "end", [RunFinished(1, False, "done"), RunFailed("the disk is full.", "ResourceError", "", "StartRun"), WorkerEnded(False, "It died.")]
)
def test_a_prediction_after_a_run_does_not_move_the_rounds(opened: Any, end: Message) -> None:
    ui, panel = opened.widget.ui, opened.widget.panels["rounds"]
    panel._on_message(RunStarted(2, 5, "CPU", 0))
    panel._on_message(Progress(0, "training", 0.5, None, ""))
    panel._on_message(end)
    before = ui.runProgress.value
    panel._on_message(Progress(0, "predict", 1.0, 3700.0, "a.nii.gz"))
    assert ui.runProgress.value == before and "a.nii.gz" not in ui.stageLabel.text and "About" not in ui.timeLabel.text


def test_a_worker_that_gives_a_sign_of_life_again_is_no_problem_any_more(opened: Any) -> None:
    ui, session, panel = opened.widget.ui, opened.widget.session, opened.widget.panels["rounds"]
    harness.click(ui.startButton)
    session.worker._client.unresponsive = True
    panel._on_watch()
    assert "no sign of life" in ui.problemLabel.text
    session.worker._client.unresponsive = False
    panel._on_watch()
    assert ui.problemLabel.isHidden() and ui.problemLabel.text == ""
    panel._say_problem("Another one.")
    panel._on_watch()
    assert "Another one." in ui.problemLabel.text, "only what is over goes"


def test_a_refused_start_can_be_tried_again(opened: Any) -> None:
    ui, session = opened.widget.ui, opened.widget.session
    harness.click(ui.startButton)
    assert not ui.startButton.isEnabled()
    session.worker._client._job = None
    session.worker._client._messages.append(Refused("StartRun", "The project is in use."))
    session.worker.poll()
    assert "in use" in ui.problemLabel.text and ui.startButton.isEnabled()


def test_a_run_of_another_program_is_shown(opened: Any, tmp_path: Path) -> None:
    session, ui = opened.widget.session, opened.widget.ui
    folder = session.project.folder
    session.close()
    with Project.open(folder) as other:
        session.open(folder)
        assert session.read_only
        assert "reading only" in ui.runWhyLabel.text
        other.journal.finish_round(0, {"uncertainty": 0.3, "cases": 2, "seconds": 5.0, "verdict": "the pseudo-labels still change."})
        opened.widget.panels["rounds"]._on_watch()
        assert column(ui.roundTable, 2) == ["0.300"]
        session.close()


def test_leaving_the_module_lets_the_run_go_on(opened: Any) -> None:
    harness.click(opened.widget.ui.startButton)
    opened.leave()
    _finish(opened)
    opened.enter()
    assert opened.widget.ui.roundTable.rowCount == 4
