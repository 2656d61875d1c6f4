"""The command line as a person uses it: exit codes, sentences, files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from small_projects import run_rounds, small_project, tiny_weights
from typer.testing import CliRunner

from SAM2IterativeLib.cli import app
from SAM2IterativeLib.cli.console import remark
from SAM2IterativeLib.cli.run_commands import stop_on_interrupt
from SAM2IterativeLib.errors import DataError, ProjectError, SettingsError
from SAM2IterativeLib.iteration import Iteration
from SAM2IterativeLib.learning import note_training
from SAM2IterativeLib.messages import Log, RoundFinished, RunFailed, RunFinished, from_line
from SAM2IterativeLib.phantom import phantom_case, write_phantom_dataset
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.settings import Label, Settings, replaced
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume, read_label_map, read_volume, write_label_map

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, references and a project after two rounds, all made through the command line."""
    folder = tmp_path_factory.mktemp("walk")
    torch.set_num_threads(1)
    write_phantom_dataset(folder / "data", 4, 2, 3, folder / "references", size=(8, 32, 32))
    data = ("--images", folder / "data/images", "--labels", folder / "data/labels")
    made = call("new", folder / "p", *data, "--label-names", "background,organ,gland")
    assert "4 cases added, 2 of them with a label map" in made
    with Project.open(folder / "p") as project:
        settings = replaced(project.settings, "foundation.weights", str(tiny_weights(folder)))
        settings = replaced(settings, "foundation.adaptation_steps", 2)
        for name, value in (("first_steps", 6), ("round_steps", 3), ("batch", 4), ("snapshots", 1)):
            settings = replaced(settings, f"dedicated.{name}", value)
        project.change_settings(settings)
    call("run", folder / "p", "--rounds", "1", "--device", "cpu")
    return folder


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_status_lists_cases_rounds_and_disk(walk: Path) -> None:
    text = call("status", walk / "p", "--cases")
    assert "1 organ, 2 gland" in text and "Rounds" in text and "2 cases wait for review" in text and "Disk:" in text


def test_events_are_messages(walk: Path) -> None:
    lines = call("run", walk / "p", "--rounds", "1", "--events").splitlines()
    messages = [from_line(line) for line in lines if line.startswith("{")]
    assert any(isinstance(m, RoundFinished) for m in messages) and isinstance(messages[-1], RunFinished)
    assert (walk / "p" / "log.txt").read_text().count("RunFinished") >= 2


def test_what_keeps_a_run_from_beginning_is_an_event_too(walk: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "SAM2IterativeLib", "run", str(walk / "p"), "--events"]
    with Project.open(walk / "p"):  # held by this process
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    [event] = map(from_line, run.stdout.splitlines())
    assert isinstance(event, RunFailed) and "in use by process" in event.sentence


def test_a_fault_that_nobody_foresaw_is_in_the_log_and_an_event(walk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(self: Iteration, *arguments: object, **named: object) -> None:
        warnings.warn("something is odd", stacklevel=1)
        raise ValueError("a stride is negative")

    monkeypatch.setattr(Iteration, "run", fault)
    said, event = (from_line(line) for line in call("run", walk / "p", "--events", code=1).splitlines())
    assert isinstance(said, Log) and "something is odd" in said.text
    assert isinstance(event, RunFailed) and "unexpected fault (ValueError: a stride is negative)" in event.sentence
    assert "in fault" in event.details and "a stride is negative" in (walk / "p" / "log.txt").read_text()
    assert "a stride is negative" in call("run", walk / "p", code=1)


def test_label_names_are_told_and_checked(walk: Path, tmp_path: Path) -> None:
    data = ("--images", walk / "data/images", "--labels", walk / "data/labels")
    said = call("new", tmp_path / "p", *data, "--label-names", "organ,gland,vessel")
    assert "Labels: 1 organ, 2 gland, 3 vessel" in said and "label 3 (vessel) occurs in no label map" in said
    for names, what in (("backgroud,organ,gland", "every other name would move by one"), ("organ,,gland", "empty or doubled")):
        with pytest.raises(SettingsError, match=what):
            call("new", tmp_path / "q", *data, "--label-names", names)


def test_a_white_mask_corrects_a_project_of_one_label(tmp_path: Path) -> None:
    with Project.create(tmp_path / "p", Settings(labels=(Label(3, "cell"),))) as project:
        geometry = Geometry((1, 8, 8), planar=True)
        project.add_case("pic", Volume(np.zeros(geometry.size, np.uint8), geometry))
    mask = np.zeros(geometry.size, np.uint8)
    mask[0, 2:5, 2:5] = 255
    write_label_map(tmp_path / "mask.png", LabelMap(mask, geometry))
    call("review", "correct", tmp_path / "p", "pic", "--labels", tmp_path / "mask.png", "--reviewer", "Ann")
    with Project.open(tmp_path / "p", read_only=True) as project:
        final = Review(project).final_labels(project.case("pic"))
        assert final is not None and np.array_equal(final.label_map.array == 3, mask > 0)


def test_evaluate_prints_one_json_object(walk: Path) -> None:
    scores = json.loads(call("evaluate", walk / "p", "--references", walk / "references", "--json"))
    assert scores["cases"] == 2 and len(scores["rounds"]) >= 2
    first = scores["rounds"][0]
    assert {"round", "coarse", "propagated", "pseudo_label", "uncertainty_error_spearman"} <= set(first)
    assert {"dice", "hd95_mm", "per_class", "per_case"} <= set(first["coarse"])


def test_predict_keeps_names_and_geometry(walk: Path, tmp_path: Path) -> None:
    call("predict", walk / "p", "--images", walk / "data" / "images", "--output", tmp_path / "out", "--device", "cpu")
    for image in sorted((walk / "data" / "images").iterdir()):
        assert read_label_map(tmp_path / "out" / image.name).geometry.mismatch(read_volume(image).geometry) is None


def test_report_is_one_file(walk: Path, tmp_path: Path) -> None:
    call("report", walk / "p", "--output", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<html" in text and 'src="http' not in text and str(walk) not in text


@pytest.mark.parametrize("kind", ["nrrd", "nifti", "nnunet"])
def test_export(walk: Path, tmp_path: Path, kind: str) -> None:
    text = call("export", walk / "p", tmp_path / kind, "--format", kind)
    assert "files written" in text and any((tmp_path / kind).rglob("*"))
    assert "not yet decided by a person" in text


def test_review_from_list_to_take_back(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path), unlabelled=2) as project:
        run_rounds(project, 1)
        proposal = project.artefact(1, "case_3", "pseudo_label.nii.gz")
    folder = tmp_path / "p"
    assert "case_2" in call("review", "list", folder)
    assert "accepted" in call("review", "accept", folder, "case_2", "--reviewer", "Ann", "--comment", "fine")
    assert "corrected" in call("review", "correct", folder, "case_3", "--labels", proposal, "--reviewer", "Bob")
    shown = call("review", "show", folder, "case_2")
    assert "Ann" in shown and "fine" in shown
    assert "case_2" not in call("review", "list", folder)
    said = call("review", "reject", folder, "case_3", "--reviewer", "Ann", "--reason", "leaks")
    assert "rejected by Ann. Reviewers contradict" in said and ", contradicted" in call("review", "list", folder, "--all")
    assert "contradict (rejected and corrected)" in call("review", "show", folder, "case_3")
    assert "Reviewers contradict each other on: case_3" in call("status", folder)
    assert "Taken back: corrected on case_3 by Bob" in call("review", "take-back", folder, "case_3", "--reviewer", "Bob")
    assert "Taken back: rejected on case_3 by Ann" in call("review", "take-back", folder, "--anyone")
    nobody = CliRunner().invoke(app, ["review", "take-back", str(folder), "--reviewer", "Eve"])
    assert isinstance(nobody.exception, ProjectError) and "no decision by Eve to take back. Decided have Ann" in str(nobody.exception)


def test_problems_are_sentences_with_exit_code_1(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "SAM2IterativeLib", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.nii.gz").write_bytes(b"no image")
    found = run("new", tmp_path / "p", "--images", tmp_path / "images")
    assert found.returncode == 1 and "Problem:" in found.stderr and "broken.nii.gz" in found.stdout and "Traceback" not in found.stderr
    missing = run("status", tmp_path / "nowhere")
    assert missing.returncode == 1 and "Problem:" in missing.stderr and "Traceback" not in missing.stderr
    assert run("models", "download", "no-such-model", "--yes").returncode == 1
    (tmp_path / "file").write_text("no folder")
    for words in (("new", tmp_path / "file", "--images", tmp_path), ("status", tmp_path / "file")):
        wrong = run(*words)
        assert wrong.returncode == 1 and "Problem:" in wrong.stderr and "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("name", "sentence", "shown"),
    [
        ("a", "a: it is empty.", "a: it is empty.\n"),
        ("a (set aside)", "a: it is empty.", "a (set aside): it is empty.\n"),
        (
            "DICOM series of X (3 files) (set aside)",
            "DICOM series of X (3 files): it is bad.",
            "DICOM series of X (3 files) (set aside): it is bad.\n",
        ),
    ],
)
def test_a_remark_says_a_name_once(capsys: pytest.CaptureFixture[str], name: str, sentence: str, shown: str) -> None:
    remark(name, sentence, Console(file=sys.stdout))
    assert capsys.readouterr().out == shown


def test_a_mistake_in_an_option_is_not_kept(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", "compact") as project:
        before = project.settings
    for option in (("--device", "gpu"), ("--method", "magic")):
        with pytest.raises(SettingsError):
            call("run", tmp_path / "p", *option)
    with Project.open(tmp_path / "p", read_only=True) as project:
        assert project.settings == before


def test_a_run_leaves_what_a_person_wrote_into_the_settings(walk: Path, tmp_path: Path) -> None:
    shutil.copytree(walk / "p", tmp_path / "p")
    file = tmp_path / "p" / "project.toml"
    file.write_text("# my own words\n" + file.read_text())
    call("run", tmp_path / "p", "--rounds", "1")
    assert "my own words" in file.read_text()


def test_a_failed_new_leaves_nothing_in_the_way(walk: Path, tmp_path: Path) -> None:
    data = ("--images", walk / "data/images", "--labels", walk / "data/labels")
    with pytest.raises(SettingsError):
        call("new", tmp_path / "p", *data, "--label-names", "background,organ")
    assert not (tmp_path / "p").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(DataError):
        call("new", tmp_path / "mine", "--images", tmp_path / "nowhere")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert "known methods are" in call("new", tmp_path / "p", *data, "--method", "magic", code=2)
    assert "4 cases added" in call("new", tmp_path / "p", *data, "--label-names", "background,organ,gland")


def test_without_a_terminal_every_unit_is_a_line(walk: Path, tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path), unlabelled=1):
        pass
    text = call("run", tmp_path / "p", "--rounds", "1", "--device", "cpu")
    assert "Round 0 · training:" in text and "Round 1 · pseudo-label case_2:" in text


def test_every_table_fits_80_columns_and_says_what_it_shows(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    with small_project(folder, tiny_weights(tmp_path), labelled=1, unlabelled=2, validation=1, steps=2) as project:
        for case in project.cases():
            _, label = phantom_case(int(case.id[-1]), size=(8, 32, 32))
            write_label_map(tmp_path / "references" / f"{case.id}.nii.gz", label)
    text = call("run", folder, "--rounds", "1", "--device", "cpu")
    assert "Round 0 trains 2 steps on the labelled cases, each later round 1." in text
    assert "unchanged" in text and "Dice on 1 validation case: coarse mask 0." in text and "The round took" in text
    assert text.count("Dice between the network's masks and SAM2's") == 1, "once a run"
    call("review", "accept", folder, "case_1", "--reviewer", "Ann")
    call("run", folder, "--rounds", "1")
    texts = [call("status", folder, "--cases"), call("evaluate", folder, "--references", tmp_path / "references"), text]
    assert all(len(line) <= 80 for text in texts for line in text.splitlines() if set(line) & set("│┃━"))
    assert not any("…" in text for text in texts)
    assert "validation cases" not in texts[0] and "decided: cases that people had" in texts[0] and "stability" not in texts[0]
    assert "2 cases that no person touched, of 3 with references; HD95 in mm" in texts[1]
    assert "all 3" in texts[1] and "A person touched case_1" in texts[1] and "finds" in texts[1] and "Spear-" not in texts[1]


def test_a_case_without_a_proposal_does_not_wait(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path)):
        pass
    text = call("status", tmp_path / "p", "--cases")
    assert "0 cases wait for review, 2 without a proposal yet, 0 decided." in text
    assert text.count("no proposal yet") == 2 and "waiting" not in text
    assert call("review", "list", tmp_path / "p").count("no proposal yet") == 2


def test_a_case_that_rounds_learned_from_is_no_judge(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path)) as project:
        note_training(project, 0, ["case_0", "case_1"], ["case_0", "case_1"])
        project.journal.finish_unit(0, "training", "", [])
    assert "case_0: round 0 learned from it, so it is left out" in call("role", tmp_path / "p", "case_0", "validation")
    assert "case_0: round 0 learned from it, so it is left out" in call("status", tmp_path / "p")


def test_a_run_says_what_comes_next_in_words_to_copy(tmp_path: Path) -> None:
    folder = tmp_path / "my [red] project"
    with small_project(folder, tiny_weights(tmp_path), unlabelled=1, steps=2):
        pass
    text = call("run", folder, "--rounds", "1", "--device", "cpu")
    assert f"Next: sam2-iterative report '{folder}' and sam2-iterative review list '{folder}'" in text
    assert f"sam2-iterative run '{folder}' --estimate tries it out" in text


def test_a_run_can_be_estimated(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path), unlabelled=1, steps=2):
        pass
    text = call("run", tmp_path / "p", "--estimate", "--rounds", "2", "--device", "cpu")
    assert "The rounds asked for take about" in text and "Memory: about" in text and "Disk: at most" in text
    with Project.open(tmp_path / "p", read_only=True) as project:
        assert not project.journal.units() and project.settings.device == "auto" and not project.plan_path.exists()


def test_a_stop_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    with stop_on_interrupt() as stop:
        stop.waits_for = "Round 1 · training"
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "waiting until Round 1 · training can be left safely" in capsys.readouterr().err


def test_status_tells_of_an_unfinished_round(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path)) as project:
        project.journal.finish_unit(0, "training", "", [])
        project.journal.finish_unit(0, "coarse", "case_2", [])
    assert "Round 0 is under way, or was stopped: training done, coarse 1 of 2 cases." in call("status", tmp_path / "p")


def test_show_gives_numbers_and_volumes(walk: Path) -> None:
    with Project.open(walk / "p", read_only=True) as project:
        case = project.cases("unlabelled")[0].id
    text = call("review", "show", walk / "p", case)
    assert "uncertainty 0." in text and "organ: " in text and " ml" in text


def test_models_are_listed() -> None:
    text = call("models", "list")
    assert "compact" in text and "sam2.1-tiny" in text and "medsam2" in text
