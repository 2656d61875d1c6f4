"""The tab Results: how far it is, report, export, other volumes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import harness
import pytest
from opened_module import column, make_sample, open_tab

from SAM2IterativeLib.messages import FolderPredicted, Progress, RunFailed, RunFinished
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import read_label_map


@pytest.fixture
def labelled(pretending: Any, tmp_path: Path) -> Any:
    """A sample project after a pretended round 0, with the tab Results open."""
    from SAM2IterativeGUI.pretended_worker import label_case

    project = make_sample(pretending, tmp_path / "p")
    for case in project.cases("unlabelled"):
        label_case(project, case, 0)
    project.journal.finish_round(0, {"cases": 2, "uncertainty": 0.4, "seconds": 1.0, "verdict": "the pseudo-labels still change."})
    open_tab(pretending, "Results")
    return pretending


def test_before_the_first_round_buttons_say_what_they_wait_for(module: Any, tmp_path: Path) -> None:
    make_sample(module, tmp_path / "p")
    ui = open_tab(module, "Results")
    for button in (ui.reportButton, ui.applyButton):
        with pytest.raises(AssertionError, match="Run the first round"):
            harness.click(button)
    assert "Choose a folder" in ui.exportWhyLabel.text


def test_convergence_and_review_in_words(labelled: Any) -> None:
    ui, project = labelled.widget.ui, labelled.widget.session.project
    assert "The first training is done." in ui.convergenceLabel.text
    assert "0 of 2 cases are reviewed." in ui.convergenceLabel.text
    assert "validation cases" in ui.scoreLabel.text, "how to learn how good it is"
    assert "did not learn from" in ui.scoreLabel.text, "a case that was trained on does not tell"
    Review(project).accept(project.case("phantom_003"), reviewer="Ada")
    labelled.widget.session.notify("decisions")
    assert "1 of 2 cases are reviewed." in ui.convergenceLabel.text


def test_scores_of_validation_cases_in_a_table(labelled: Any) -> None:
    project, ui = labelled.widget.session.project, labelled.widget.ui
    scores = {
        "coarse": {"dice": 0.5, "hd95_mm": 9.0, "missed": 1},
        "propagated": {"dice": None, "hd95_mm": None, "missed": 0},
        "pseudo_label": {"dice": 0.75, "hd95_mm": 4.25, "missed": 2},
    }
    project.journal.finish_round(1, {"cases": 2, "stability": 0.875, "validation": scores, "verdict": "x"})
    labelled.widget.session.notify("rounds")
    assert [column(ui.scoreTable, n)[0] for n in range(6)] == ["1", "0.500", "–", "0.750", "4.2 mm", "2"]
    assert "0.875" in ui.convergenceLabel.text


def test_a_case_that_rounds_learned_from_gives_no_score_and_is_named(labelled: Any) -> None:
    project, ui = labelled.widget.session.project, labelled.widget.ui
    learned = project.cases("labelled")[0].id
    project.set_role(learned, "validation")
    labelled.widget.session.notify("rounds")
    assert f"{learned}: round 0 most likely learned from it" in ui.scoreLabel.text
    assert "add cases that the rounds did not learn from" in ui.scoreLabel.text


def test_the_report_opens_in_the_browser(labelled: Any) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    harness.click(labelled.widget.ui.reportButton)
    assert harness.dialogs.texts("error") == []
    (url,) = harness.dialogs.texts("url")
    assert url.endswith("report.html")
    assert labelled.widget.session.project.report_path.is_file()


@pytest.mark.parametrize(("number", "suffix"), [(0, ".seg.nrrd"), (1, ".nii.gz"), (2, "dataset.json")])
def test_labels_are_exported(labelled: Any, tmp_path: Path, number: int, suffix: str) -> None:
    ui = labelled.widget.ui
    harness.choose(ui.formatCombo, ui.formatCombo.itemText(number))
    ui.exportFolderEdit.setCurrentPath(str(tmp_path / "out"))
    harness.click(ui.exportButton)
    assert harness.dialogs.texts("error") == []
    written = list((tmp_path / "out").rglob(f"*{suffix}"))
    assert len(written) == (1 if number == 2 else 5)
    assert "files written" in ui.exportLabel.text


def test_dicom_export_waits_for_its_package(labelled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from SAM2IterativeGUI import installation

    dicom = tuple(component for component in installation.COMPONENTS if component.purpose == "dicom")
    monkeypatch.setattr(installation, "missing", lambda *purposes: dicom if "dicom" in purposes or not purposes else ())
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.delitem(sys.modules, "SAM2IterativeLib.exchange.dicom_segmentation", raising=False)
    ui = labelled.widget.ui
    harness.choose(ui.formatCombo, "DICOM segmentation (.dcm)")
    ui.exportFolderEdit.setCurrentPath(str(tmp_path / "out"))
    harness.dialogs.answer(False)
    harness.click(ui.exportButton)
    assert harness.dialogs.texts("error") == []
    assert "needs the package highdicom" in ui.exportLabel.text and not (tmp_path / "out").exists()


def test_only_what_a_person_vouches_for(labelled: Any, tmp_path: Path) -> None:
    ui = labelled.widget.ui
    harness.choose(ui.formatCombo, "NIfTI (.nii.gz)")
    ui.exportFolderEdit.setCurrentPath(str(tmp_path / "out"))
    harness.click(ui.onlyReviewedBox)
    harness.click(ui.exportButton)
    written = sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    assert written == [f"phantom_00{n}.nii.gz" for n in range(3)]
    assert "phantom_003" in ui.exportLabel.text, "what was left out is named"
    project = labelled.widget.session.project
    exported, own = read_label_map(tmp_path / "out" / written[0]), project.read_case_label(project.case("phantom_000"))
    assert (exported.array == own.array).all()


def test_nothing_is_overwritten(labelled: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    ui = labelled.widget.ui
    ui.exportFolderEdit.setCurrentPath(str(tmp_path / "out"))
    harness.click(ui.exportButton)
    assert "not empty" in harness.dialogs.texts("error")[0]
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


class TestOtherVolumes:
    @pytest.fixture
    def ui(self, labelled: Any, tmp_path: Path) -> Any:
        ui, case = labelled.widget.ui, labelled.widget.session.project.cases()[0]
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "one.nrrd").write_bytes(case.image.read_bytes())
        ui.applyImagesEdit.setCurrentPath(str(tmp_path / "other"))
        ui.applyOutputEdit.setCurrentPath(str(tmp_path / "labels"))
        return ui

    def test_progress_and_result_are_told(self, labelled: Any, ui: Any) -> None:
        harness.click(ui.applyButton)
        panel = labelled.widget.panels["results"]
        assert not ui.applyProgress.isHidden() and ui.applyStopButton.isEnabled()
        panel._on_message(Progress(0, "prediction", 0.5, None, "1 of 2: one"))
        assert (ui.applyProgress.value, ui.applyLabel.text) == (50, "1 of 2: one")
        panel._on_message(FolderPredicted(1, {"two.nrrd": "it is damaged."}, 75.0))
        assert "1 volumes labelled in 1 min." in ui.applyLabel.text and "two.nrrd: it is damaged." in ui.applyLabel.text
        assert ui.applyProgress.isHidden() and ui.applyButton.isEnabled()

    def test_the_last_word_of_a_run_before_is_not_taken_for_its_own(self, labelled: Any, ui: Any) -> None:
        harness.click(ui.applyButton)
        panel = labelled.widget.panels["results"]
        panel._on_message(RunFinished(1, False, "all rounds are done.", "StartRun"))
        assert not ui.applyProgress.isHidden(), "the prediction goes on"
        panel._on_message(RunFinished(0, False, "stopped.", "PredictFolder"))
        assert ui.applyProgress.isHidden() and "Stopped" in ui.applyLabel.text

    def test_a_failure_is_a_sentence(self, labelled: Any, ui: Any) -> None:
        harness.click(ui.applyButton)
        labelled.widget.panels["results"]._on_message(RunFailed("no network is trained yet.", "ProjectError", "", "PredictFolder"))
        assert "no network is trained" in ui.applyLabel.text

    def test_a_folder_without_volumes_is_refused_at_once(self, labelled: Any, ui: Any, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        ui.applyImagesEdit.setCurrentPath(str(tmp_path / "empty"))
        harness.click(ui.applyButton)
        assert harness.dialogs.texts("error")[0].startswith("These volumes cannot be labelled.")
        assert ui.applyProgress.isHidden()
