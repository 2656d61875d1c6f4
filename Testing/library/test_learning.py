"""What the journal remembers of learning, and that no score is of a case that something learned from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_cases import small_labels
from small_projects import run_rounds, small_project, tiny_weights

from SAM2IterativeLib.learning import learning_of, note_adaptation, note_training, validation_remarks
from SAM2IterativeLib.messages import Message, Warned
from SAM2IterativeLib.metrics import score_case, summarise
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import read_label_map


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def trained(project: Project, round: int, cases: list[str], from_people: list[str]) -> None:
    note_training(project, round, cases, from_people)
    project.journal.finish_unit(round, "training", "", [])


def test_what_learned_from_a_case_is_told_in_words(project: Project) -> None:
    for round in range(3):
        trained(project, round, ["a", "b"], ["a"])
        project.journal.finish_round(round, {})
    note_adaptation(project, ["a"])
    learning = learning_of(project)
    assert learning.complete and learning.gap == ""
    assert learning.teachers_of("a") == "rounds 0 to 2 and the adaptation of SAM2"
    assert (learning.teachers_of("b"), learning.teachers_of("c")) == ("rounds 0 to 2", "")
    assert learning.from_people(2) == {"a"}


def test_a_training_that_was_stopped_taught_nothing(project: Project) -> None:
    note_training(project, 0, ["a", "b"], ["a", "b"])
    assert learning_of(project).teachers_of("b") == ""
    trained(project, 0, ["a"], ["a"])  # begun anew without b
    assert (learning_of(project).teachers_of("a"), learning_of(project).teachers_of("b")) == ("round 0", "")


def test_of_older_rounds_is_presumed_what_they_did_not_label(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path), labelled=2, unlabelled=1, validation=1) as project:
        for case in ("case_2", "case_3"):
            project.journal.finish_unit(0, "coarse", case, [])
        project.journal.finish_round(0, {})
        for case in ("case_0", "case_1"):
            project.set_role(case, "validation")
        late, label = phantom_case(9, size=(8, 32, 32))
        with project.journal.writing() as database:
            database.execute("UPDATE units SET finished_at = '2020-01-01T00:00:00+00:00'")
            database.execute("UPDATE cases SET added_at = '2019-01-01T00:00:00+00:00'")
        project.add_case("late", late, label, role="validation")
        assert [case for case, _ in validation_remarks(project)] == ["case_0", "case_1"]
        assert "round 0 most likely learned from it" in validation_remarks(project)[0][1]


def test_rounds_of_older_versions_are_told_apart(project: Project) -> None:
    for round in range(2):
        project.journal.finish_round(round, {})
    trained(project, 2, ["a"], ["a"])
    learning = learning_of(project)
    assert not learning.complete and learning.unrecorded == (0, 1)
    assert learning.gap == "An older version kept no record of which cases rounds 0 and 1 learned from."
    project.journal.note("adaptation", "SAM2 was adapted by an older version.")
    assert "and the adaptation of SAM2 learned from" in learning_of(project).gap


def test_a_labelled_case_that_becomes_a_validation_case_is_left_out_of_the_scores(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path), labelled=2, unlabelled=1, validation=1) as project:
        run_rounds(project, 1)
        learning = learning_of(project)
        assert learning.complete and learning.teachers_of("case_3") == ""
        assert {case: learning.teachers_of(case) for case in ("case_0", "case_2")} == {"case_0": "rounds 0 and 1", "case_2": "round 1"}
        assert learning.from_people(1) == {"case_0", "case_1"}
        project.set_role("case_1", "validation")
        assert [case for case, _ in validation_remarks(project)] == ["case_1"]
        checked = project.case("case_3")
        own = project.read_case_label(checked)
        corrected = replace(own, array=np.roll(own.array, 3, axis=2))
        Review(project).correct(checked, corrected, reviewer="Ada")
        messages: list[Message] = []
        run_rounds(project, 1, messages)
        numbers = project.journal.rounds()[2]
        found = read_label_map(project.artefact(2, checked, "coarse.nii.gz")).array
        dice = [
            summarise({"": score_case(found, labels.array, own.geometry.spacing, project.values)})["dice"] for labels in (own, corrected)
        ]
        assert dice[0] != dice[1]
        assert numbers["validation"]["coarse"]["dice"] == dice[1], "the label map as a person corrected it is the truth"
        assert (numbers["validation_cases"], numbers["validation_scored"], numbers["validation_left_out"]) == (1, ["case_3"], ["case_1"])
        assert any(isinstance(m, Warned) and "case_1: rounds 0 and 1 learned from it" in m.sentence for m in messages)


def test_a_pseudo_label_of_which_a_person_decided_a_part_is_from_people(tmp_path: Path) -> None:
    with small_project(tmp_path / "p", tiny_weights(tmp_path), labelled=2, unlabelled=2) as project:
        run_rounds(project, 1)
        Review(project).accept(project.case("case_2"), reviewer="Ada", slices=(1, 2))
        run_rounds(project, 1)
        assert learning_of(project).from_people(1) == {"case_0", "case_1"}
        assert learning_of(project).from_people(2) == {"case_0", "case_1", "case_2"}


def test_only_an_adaptation_of_before_a_round_reaches_it(project: Project) -> None:
    trained(project, 0, ["a"], ["a"])
    project.journal.finish_round(0, {})
    project.add_label(project.case("b"), small_labels())
    note_adaptation(project, ["a", "b"])
    assert (learning_of(project).from_people(0), learning_of(project).from_people(1)) == ({"a"}, {"a", "b"})
