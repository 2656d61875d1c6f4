"""What goes wrong, clicked through: each fault gives a sentence that helps, and nothing decided is lost."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest
from opened_module import MODULE, column, make_sample, open_tab
from small_cases import small_image, small_labels

from SAM2IterativeLib.errors import ResourceError
from SAM2IterativeLib.messages import Ready
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import write_label_map, write_volume


@pytest.fixture
def labelled(pretending: Any, tmp_path: Path) -> Any:
    """A sample project after a pretended round 0."""
    from SAM2IterativeGUI.pretended_worker import label_case

    project = make_sample(pretending, tmp_path / "p")
    for case in project.cases("unlabelled"):
        label_case(project, case, 0)
    pretending.widget.session.notify("rounds")
    return pretending


def _full_disk(*_arguments: Any, **_named: Any) -> None:
    raise ResourceError("the disk is full.", cure="Free some space, then try again.")


def test_without_a_gpu_the_reason_and_the_device_are_told(pretending: Any, tmp_path: Path) -> None:
    make_sample(pretending, tmp_path / "p")
    ui, worker = open_tab(pretending, "Setup"), pretending.widget.session.worker
    harness.click(ui.estimateButton)
    worker._client._messages.append(Ready("0", "processor (CPU)", "No graphics card was found."))
    harness.wait_until(lambda: "No graphics card" in ui.deviceLabel.text, "the device")
    assert "processor (CPU)" in ui.deviceLabel.text


def test_a_slicer_that_is_too_old_says_so_and_nothing_else(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import slicer.util

    ast.parse(MODULE.read_text(encoding="utf-8"), feature_version=(3, 9))  # else that Slicer would not even come so far
    for name in ("session", "sample_data", "project_panel"):
        monkeypatch.setitem(sys.modules, f"SAM2IterativeGUI.{name}", None)  # cannot be imported without tomllib
    monkeypatch.setitem(sys.modules, "SampleData", None)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 9, 10, "final", 0))
        loaded = harness.load_module(MODULE)
        loaded.enter()
        monkeypatch.setitem(sys.modules, "SampleData", object())
        loaded.code.register_sample_data()
        label = slicer.util.findChild(loaded.parent, "tooOldLabel")
        assert not label.isHidden() and "needs Slicer 5.10 or newer" in label.text and "Python is 3.9" in label.text
        loaded.leave()
        slicer.mrmlScene.Clear(0)
        loaded.unload()


def test_a_folder_that_nobody_may_write_to(module: Any) -> None:
    if not Path("/sys/kernel").is_dir():
        pytest.skip("no folder here that even an administrator may not write to")
    harness.dialogs.answer("/sys/kernel/project")
    harness.click(module.widget.ui.createButton)
    (said,) = harness.dialogs.texts("error")
    assert said.startswith("The project could not be opened.") and "writ" in said.lower(), said
    assert module.widget.session.project is None


def test_a_label_map_without_its_volume_is_named_and_the_others_come_in(module: Any, tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", small_image(number))
    for name in ("a", "stranger"):
        write_label_map(tmp_path / "labels" / f"{name}.nii.gz", small_labels())
    ui = module.widget.ui
    harness.dialogs.answer(str(tmp_path / "new"))
    harness.click(ui.createButton)
    ui.imagesEdit.setCurrentPath(str(tmp_path / "images"))
    harness.click(ui.addFolderButton)
    assert column(ui.caseTable, 0) == ["a", "b"]
    assert "Left out: stranger.nii.gz." in ui.importLabel.text and "bears its volume's name" in ui.importLabel.text


def test_a_full_disk_while_deciding_loses_neither_the_stroke_nor_the_decision(labelled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from SAM2IterativeLib import review as review_module

    widget = labelled.widget
    case = widget.session.project.cases("unlabelled")[0]
    widget.goTo("review", case=case.id)
    harness.process_events()
    panel, ui = widget.panels["review"], widget.ui
    drawn = np.zeros(panel.view.scene.geometry.size, bool)
    drawn[2, 5:9, 5:9] = True
    panel.toggle_correcting()
    harness.paint_segment(panel.view.scene.node("proposal"), "segment_of_label_1", drawn, ui.editor)
    harness.type_text(ui.commentLine, "leak")
    with monkeypatch.context() as full:
        full.setattr(review_module, "write_label_map", _full_disk)
        harness.click(ui.acceptButton)
    (said,) = harness.dialogs.texts("error")
    assert said.startswith("The decision could not be saved.") and "disk is full" in said
    review = Review(widget.session.project)
    assert review.status(case) == "waiting" and ui.commentLine.text == "leak"
    harness.click(ui.acceptButton)
    assert review.status(case) == "corrected"
    kept = review.final_labels(case)
    assert kept is not None and (kept.label_map.array[drawn] == 1).all()


def test_a_full_disk_while_exporting(labelled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from SAM2IterativeLib.exchange import exporting

    ui = open_tab(labelled, "Results")
    ui.exportFolderEdit.setCurrentPath(str(tmp_path / "out"))
    monkeypatch.setattr(exporting, "_write", _full_disk)
    harness.click(ui.exportButton)
    (said,) = harness.dialogs.texts("error")
    assert said.startswith("The labels could not be exported.") and "disk is full" in said


def test_a_label_that_is_renamed_or_removed_while_a_case_is_open(labelled: Any) -> None:
    widget, ui = labelled.widget, labelled.widget.ui
    widget.goTo("review", case=widget.session.project.cases("unlabelled")[0].id)
    open_tab(labelled, "Project")
    ui.labelTable.item(0, 2).setText("liver")
    harness.process_events()
    names = [label.name for label in widget.panels["review"].view.scene.labels]
    assert names[0] == "liver"
    ui.labelTable.setCurrentCell(1, 2)
    harness.click(ui.removeLabelButton)
    assert "label 2 is used by case" in harness.dialogs.texts("error")[0], "refused, and the case stays open"
    assert [label.name for label in widget.panels["review"].view.scene.labels] == ["liver", "gland"]


def test_a_volume_that_was_changed_behind_the_project(labelled: Any) -> None:
    widget = labelled.widget
    first, second = widget.session.project.cases("unlabelled")[:2]
    widget.goTo("review", case=first.id)
    content = bytearray(second.image.read_bytes())
    content[-5] ^= 1
    second.image.write_bytes(content)
    widget.goTo("review", case=second.id)
    (said,) = harness.dialogs.texts("error")
    assert said.startswith("The case could not be opened.") and second.id in said
    assert widget.panels["review"].view.material.case.id == first.id


def test_a_worker_that_freezes_is_told(labelled: Any) -> None:
    ui, session = open_tab(labelled, "Rounds"), labelled.widget.session
    harness.click(ui.startButton)
    session.worker._timer.stop()
    session.worker._client.unresponsive = True
    labelled.widget.panels["rounds"]._on_watch()
    assert "no sign of life" in ui.problemLabel.text and "Stop now" in ui.problemLabel.text
    harness.click(ui.stopButton)
    assert not session.worker.running and ui.startButton.isEnabled()


def test_a_worker_that_cannot_be_started(labelled: Any) -> None:
    from SAM2IterativeLib.worker_client import WorkerClient

    ui, session = open_tab(labelled, "Rounds"), labelled.widget.session
    session.worker.make_client, session.worker._command = WorkerClient, ["no-such-python"]
    harness.click(ui.startButton)
    (said,) = harness.dialogs.texts("error")
    assert said.startswith("The rounds could not begin.") and "could not be started" in said
    assert ui.startButton.isEnabled()
