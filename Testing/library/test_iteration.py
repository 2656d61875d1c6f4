"""Rounds: what a person sees, resume, faults, and that nothing hidden is ever looked at."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_projects import CPU, artefact_hashes, run_rounds, small_project

from SAM2IterativeLib import round_numbers
from SAM2IterativeLib.dedicated import training
from SAM2IterativeLib.dedicated.cases import TrainingCase, prepare_labels
from SAM2IterativeLib.dedicated.weights import save_weights
from SAM2IterativeLib.errors import DataError, ResourceError, SettingsError, Stopped
from SAM2IterativeLib.files import sha256_of
from SAM2IterativeLib.geometry import Geometry
from SAM2IterativeLib.iteration import Iteration, run_safely
from SAM2IterativeLib.messages import CaseSetAside, Message, RoundFinished, RunFailed, RunFinished, StageFinished, Warned
from SAM2IterativeLib.methods.ifdl import IFDL
from SAM2IterativeLib.methods.method import Outcome, RunContext
from SAM2IterativeLib.methods.training_set import _Shelf, training_cases
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.preparation import Preparation
from SAM2IterativeLib.project import Case, Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.settings import Label, Settings, replaced
from SAM2IterativeLib.volumes import LabelMap, Volume, write_label_map

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, dict[str, str], list[Message]]:
    """A project after rounds 0 and 1, never interrupted: folder, hashes, messages."""
    torch.set_num_threads(1)  # before any test's own fixture
    folder = tmp_path_factory.mktemp("finished") / "project"
    messages: list[Message] = []
    with small_project(folder, weights, validation=1) as project:
        run_rounds(project, 1, messages)
        return folder, artefact_hashes(project), messages


def test_a_round_leaves_its_files_numbers_and_messages(finished: tuple[Path, dict[str, str], list[Message]]) -> None:
    folder, hashes, messages = finished
    for name in ("coarse", "propagated", "uncertainty", "pseudo_label"):
        assert f"rounds/1/case_2/{name}.nii.gz" in hashes
    rounds = [m for m in messages if isinstance(m, RoundFinished)]
    assert [m.round for m in rounds] == [0, 1]
    assert isinstance(messages[-1], RunFinished)
    numbers = rounds[1].numbers
    assert 0 <= numbers["uncertainty"] <= 1 and 0 <= numbers["agreement"] <= 1 and 0 <= numbers["stability"] <= 1
    assert set(numbers["validation"]) == {"coarse", "propagated", "pseudo_label"}
    assert numbers["provenance"]["seed"] == 0 and len(numbers["provenance"]["plan_sha256"]) == 64
    with Project.open(folder, read_only=True) as project:
        assert {entry.case.id for entry in Review(project).queue()} == {"case_2", "case_3"}


def test_probabilities_of_older_rounds_are_cleared(finished: tuple[Path, dict[str, str], list[Message]]) -> None:
    folder, _, _ = finished
    assert not list((folder / "rounds" / "0").rglob("*.npz"))
    assert list((folder / "rounds" / "1").rglob("history.npz"))


def test_interrupted_at_every_unit_it_ends_with_the_same_files(
    tmp_path: Path, weights: Path, finished: tuple[Path, dict[str, str], list[Message]]
) -> None:
    class Crash(BaseException):
        """Not an error of ours: nothing may catch it."""

    units = sum(isinstance(m, StageFinished) for m in finished[2])

    def crash(message: Message) -> None:
        if isinstance(message, StageFinished):
            raise Crash

    with small_project(tmp_path / "project", weights, validation=1) as project:
        for _ in range(units):
            with pytest.raises(Crash):
                Iteration(project, CPU, crash).run(1)
        run_rounds(project, 1)
        assert max(project.journal.rounds()) == 1, "the same command goes where the interrupted one was going, no further"
        assert artefact_hashes(project) == finished[1]


def test_killed_from_outside_it_continues_to_the_same_files(
    tmp_path: Path, weights: Path, finished: tuple[Path, dict[str, str], list[Message]]
) -> None:
    folder = tmp_path / "project"
    small_project(folder, weights, validation=1).close()
    script = textwrap.dedent(
        """
        import os, signal, sys, torch
        torch.set_num_threads(1)
        from small_projects import CPU
        from SAM2IterativeLib.iteration import Iteration
        from SAM2IterativeLib.messages import StageStarted
        from SAM2IterativeLib.project import Project
        def report(message):
            if isinstance(message, StageStarted) and message.stage == "propagation":
                os.kill(os.getpid(), signal.SIGKILL)
        Iteration(Project.open(sys.argv[1]), CPU, report).run(1)
        """
    )
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    child = subprocess.run([sys.executable, "-c", script, str(folder)], env={**os.environ, "PYTHONPATH": paths}, check=False)
    assert child.returncode == -signal.SIGKILL
    with Project.open(folder) as project:
        assert not project.read_only, "the lock of a dead process holds nobody up"
        run_rounds(project, 1)
        assert artefact_hashes(project) == finished[1]


def test_hidden_references_are_never_looked_at(tmp_path: Path, weights: Path, finished: tuple[Path, dict[str, str], list[Message]]) -> None:
    """Validation labels replaced by garbage change nothing but the scores; nor does a label map of a case made unlabelled."""
    with small_project(tmp_path / "project", weights, validation=1) as project:
        case = project.case("case_4")
        truth = project.read_case_label(case)
        garbage = np.random.default_rng(1).integers(0, 3, truth.array.shape).astype(np.uint8)
        assert case.label is not None
        write_label_map(case.label, LabelMap(garbage, truth.geometry))
        with project.journal.writing() as database:
            database.execute("UPDATE cases SET label_sha256 = ? WHERE id = 'case_4'", (sha256_of(case.label),))
        for name in ("case_2", "case_3"):
            project.add_label(project.case(name), LabelMap(garbage, project.read_case_image(project.case(name)).geometry))
            project.set_role(name, "unlabelled")
        run_rounds(project, 1)
        assert artefact_hashes(project) == finished[1]


def test_stop_keeps_what_is_done(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        seen: list[Message] = []
        stop = lambda: sum(isinstance(m, StageFinished) for m in seen) >= 2  # noqa: E731
        with pytest.raises(Stopped):
            Iteration(project, CPU, seen.append, stop).run(1)
        assert len(project.journal.units()) == 2
        done_before = project.journal.units()[0].finished_at
        run_rounds(project, 1)
        assert project.journal.units()[0].finished_at == done_before


def test_a_damaged_case_is_set_aside_and_the_others_go_on(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, unlabelled=3) as project:
        run_rounds(project, 1)
        image = project.case("case_3").image
        data = bytearray(image.read_bytes())
        data[len(data) // 2] ^= 0xFF
        image.write_bytes(bytes(data))
        messages: list[Message] = []
        run_rounds(project, 1, messages)
        aside = [m for m in messages if isinstance(m, CaseSetAside)]
        assert [m.case for m in aside] == ["case_3"] and "changed since" in aside[0].sentence
        assert project.artefact(2, "case_2", "pseudo_label.nii.gz").is_file()
        assert max(project.journal.rounds()) == 2


@pytest.mark.parametrize("full", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_case_that_memory_does_not_suffice_for_is_named_and_tried_again(
    full: Exception, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = IFDL.ask

    def too_large(self: IFDL, round: int, case: Case) -> Outcome:
        if case.id == "case_3":
            raise full
        return ask(self, round, case)

    with small_project(tmp_path / "project", weights) as project:
        messages: list[Message] = []
        with monkeypatch.context() as short:
            short.setattr(IFDL, "ask", too_large)
            run_rounds(project, 1, messages)
        [aside] = [m for m in messages if isinstance(m, CaseSetAside)]
        assert aside.case == "case_3" and aside.sentence.startswith("case_3: the memory of ") and max(project.journal.rounds()) == 1
        run_rounds(project, 1)
        assert not project.case("case_3").set_aside and project.artefact(2, "case_3", "pseudo_label.nii.gz").is_file()


def test_a_case_whose_file_is_back_is_used_again(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        image = project.case("case_3").image
        image.rename(tmp_path / "away.nrrd")
        run_rounds(project, 1)
        assert project.case("case_3").set_aside
        (tmp_path / "away.nrrd").rename(image)
        run_rounds(project, 1)
        assert not project.case("case_3").set_aside and project.artefact(2, "case_3", "pseudo_label.nii.gz").is_file()


def test_edited_label_values_end_the_run_before_anything_is_learned(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        file = project.folder / "project.toml"
        file.write_text(file.read_text().replace("value = 1\n", "value = 7\n"))
    with Project.open(tmp_path / "project") as project:
        with pytest.raises(SettingsError, match=r"project\.toml: case_0: the label map holds \(1\)"):
            run_rounds(project, 1)
        assert not project.journal.units() and not any(case.set_aside for case in project.cases())


def test_a_decision_about_a_label_that_is_gone_sets_its_case_aside_and_the_others_go_on(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        file = project.folder / "project.toml"
        without_vessel = file.read_text()
        project.add_labels((Label(257, "vessel"),))
        case = project.case("case_2")
        drawn = np.full(project.read_case_image(case).array.shape, 257, np.uint16)
        drawn[2:4] = 1
        Review(project).correct(case, LabelMap(drawn, project.read_case_image(case).geometry), reviewer="A")
        with_vessel = file.read_text()
        file.write_text(without_vessel)
    with Project.open(tmp_path / "project") as project:
        assert project.values == (1, 2)
        messages: list[Message] = []
        Preparation(project, CPU, messages.append).ready()
        [aside] = [m for m in messages if isinstance(m, CaseSetAside)]
        assert aside.case == "case_2"
        assert aside.sentence.startswith("case_2: what people decided about it holds (257); known labels are (1, 2). Give project.toml")
        assert [case.id for case in project.cases(usable=True)] == ["case_0", "case_1", "case_3"]
        file.write_text(with_vessel)
        project.plan_path.unlink()
    with Project.open(tmp_path / "project") as project:
        Preparation(project, CPU, lambda m: None).ready()
        assert not project.case("case_2").set_aside


@pytest.mark.parametrize("gone", [False, True])
def test_an_altered_pseudo_label_of_a_finished_round_is_not_learned_from(tmp_path: Path, weights: Path, gone: bool) -> None:
    with small_project(tmp_path / "project", weights) as project:
        project.change_settings(replaced(project.settings, "rounds.shares", [1.0]))
        run_rounds(project, 1)
        path = project.artefact(1, "case_2", "pseudo_label.nii.gz")
        labels = Review(project).proposal(project.case("case_2"))[1]
        path.unlink()
        if not gone:
            write_label_map(path, LabelMap(np.ones_like(labels.array), labels.geometry))
        messages: list[Message] = []
        run_rounds(project, 1, messages)
        first, second = [m.sentence for m in messages if isinstance(m, Warned)]
        assert "case_2" in first and "learns nothing from it" in first
        assert "case_2" in second and "its history begins anew" in second
        assert "stability" not in project.journal.numbers(2, "case_2")
        assert path.parent.parent.with_name("2").joinpath("case_2", path.name).is_file()


def test_an_altered_artefact_is_made_again(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        seen: list[Message] = []
        with pytest.raises(Stopped):
            Iteration(project, CPU, seen.append, lambda: any(isinstance(m, StageFinished) and m.stage == "propagation" for m in seen)).run(
                1
            )
        path = project.artefact(0, "case_2", "coarse.nii.gz")
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        run_rounds(project, 1)
        assert path.read_bytes() == whole


def test_decisions_reach_the_next_round(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, unlabelled=3) as project:
        run_rounds(project, 1)
        review, shape = Review(project), project.read_case_image(project.case("case_2")).array.shape
        drawn = np.zeros(shape, np.uint8)
        drawn[2:5, 8:20, 8:20] = 2
        geometry = project.read_case_image(project.case("case_2")).geometry
        review.correct(project.case("case_2"), LabelMap(drawn, geometry), reviewer="A")
        review.reject(project.case("case_3"), reviewer="A", reason="nonsense")
        iteration = Iteration(project, CPU, lambda m: None)
        cases = {c.name: c for c in training_cases(RunContext(project, iteration.plan(), CPU, lambda m: None), 2, 1.0)}
        assert cases["case_2"].labelled and (cases["case_2"].weights == 1).all() and (cases["case_2"].labels == drawn).all()
        assert "case_3" not in cases
        assert not cases["case_4"].labelled
        run_rounds(project, 1)
        assert (review.proposal(project.case("case_2"))[1].array == drawn).all(), "what a person drew is never overwritten"


def test_cases_may_join_later_and_come_back(tmp_path: Path, weights: Path) -> None:
    """Neither has a history: the rounds begin one for them."""
    with small_project(tmp_path / "project", weights, unlabelled=3) as project:
        run_rounds(project, 1)
        project.set_role("case_4", "excluded")
        run_rounds(project, 1)
        project.set_role("case_4", "unlabelled")
        project.add_case("late", phantom_case(7, size=(8, 32, 32))[0], None)
        messages: list[Message] = []
        run_rounds(project, 2, messages)
        assert not [m for m in messages if isinstance(m, CaseSetAside)]
        for name in ("late", "case_4"):
            assert "stability" not in project.journal.numbers(3, name) and "stability" in project.journal.numbers(4, name)
            assert project.artefact(4, name, "pseudo_label.nii.gz").is_file()


def test_a_case_that_joins_during_a_round_waits_for_the_next(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:

        def join(message: Message) -> None:
            if isinstance(message, StageFinished) and message.stage == "coarse" and message.case == "case_3":
                project.add_case("late", phantom_case(7, size=(8, 32, 32))[0], None)
                project.add_case("checked", *phantom_case(8, size=(8, 32, 32)), role="validation")

        Iteration(project, CPU, join).run(1)
        assert {unit.case for unit in project.journal.units(0)} == {"", "case_2", "case_3"}
        assert project.artefact(1, "late", "pseudo_label.nii.gz").is_file()
        assert project.journal.rounds()[1]["validation"]


def test_a_colour_picture_among_grey_volumes_is_set_aside(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        colour = np.zeros((1, 32, 32, 3), np.uint8)
        project.add_case("photo", Volume(colour, Geometry(colour.shape[:3], planar=True)), None)
        messages: list[Message] = []
        run_rounds(project, 1, messages)
        assert [(m.case, "it has 3 channels" in m.sentence) for m in messages if isinstance(m, CaseSetAside)] == [("photo", True)]
        assert max(project.journal.rounds()) == 1


def test_files_that_the_next_round_would_need_may_be_lost(tmp_path: Path, weights: Path) -> None:
    """A case without its history begins a new one; a case without a reviewer's label map is set aside; the others go on."""
    with small_project(tmp_path / "project", weights, unlabelled=3) as project:
        run_rounds(project, 1)
        project.artefact(1, "case_2", "history.npz").unlink()
        decision = Review(project).accept(project.case("case_3"), reviewer="A")
        (project.folder / decision.label_file).unlink()
        messages: list[Message] = []
        run_rounds(project, 1, messages)
        [warning] = [m.sentence for m in messages if isinstance(m, Warned)]
        assert "case_2: files of round 1 are missing" in warning
        [aside] = [m for m in messages if isinstance(m, CaseSetAside)]
        assert aside.case == "case_3" and "the label map of decision 1 is missing" in aside.sentence
        assert {"case_2", "case_4"} <= {unit.case for unit in project.journal.units(2)}


def test_another_orientation_in_the_plan_begins_the_prompts_records_anew(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        run_rounds(project, 1)
        plan = project.plan_path.read_text()
        assert 'orientation = "SPL"' in plan
        project.plan_path.write_text(plan.replace('orientation = "SPL"', 'orientation = "PSL"'))
        run_rounds(project, 1)
        assert max(project.journal.rounds()) == 2


def test_converged_rounds_still_take_in_what_is_new(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        project.change_settings(replaced(project.settings, "rounds.maximum", 1))
        converged = lambda: Iteration(project, CPU, lambda m: None).run(2, until_converged=True)  # noqa: E731
        converged()
        converged()
        assert max(project.journal.rounds()) == 1
        Review(project).accept(project.case("case_2"), reviewer="A")
        converged()
        assert max(project.journal.rounds()) == 2
        project.add_case("late", phantom_case(7, size=(8, 32, 32))[0], None)
        converged()
        assert project.artefact(3, "late", "pseudo_label.nii.gz").is_file()
        converged()
        assert max(project.journal.rounds()) == 3


def test_a_labelled_case_of_which_a_part_was_rejected_teaches_the_rest(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        Review(project).reject(project.case("case_1"), reviewer="A", slices=[2])
        run = RunContext(project, Iteration(project, CPU, lambda m: None).plan(), CPU, lambda m: None)
        cases = {c.name: c for c in training_cases(run, 0, 1.0)}
        assert cases["case_0"].labelled and cases["case_1"].labelled
        taught = cases["case_1"].weights.reshape(len(cases["case_1"].weights), -1)
        assert not taught[2].any() and taught[4:].all()


def test_what_is_decided_says_nothing_about_converging(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, unlabelled=3) as project:
        run_rounds(project, 1)
        Review(project).accept(project.case("case_2"), reviewer="A")
        run_rounds(project, 1)
        still_open = [project.journal.numbers(2, name)["stability"] for name in ("case_3", "case_4")]
        assert project.journal.numbers(2, "case_2")["stability"] == 1.0
        assert project.journal.rounds()[2]["stability"] == pytest.approx(np.mean(np.array(still_open, float)))


def test_a_review_while_a_training_rests_does_not_block_it(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        run_rounds(project, 1)
        asked = itertools.count()
        with pytest.raises(Stopped):
            Iteration(project, CPU, lambda m: None, lambda: next(asked) > 6).run(1)
        assert list(project.models_folder.glob("round_2_unfinished*"))
        Review(project).accept(project.case("case_2"), reviewer="A")
        run_rounds(project, 1)
        assert max(project.journal.rounds()) == 2 and not list(project.models_folder.glob("*unfinished*"))


def test_a_training_whose_end_could_not_be_noted_is_not_repeated(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advance, steps = training._Training.advance, []
    monkeypatch.setattr(training, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(training._Training, "advance", lambda self: steps.append(advance(self)))

    def full(*arguments: object) -> None:
        raise ResourceError("the disk is full.")

    with small_project(tmp_path / "project", weights, steps=4) as project:
        with monkeypatch.context() as patch:
            patch.setattr(project.journal, "finish_unit", full)
            with pytest.raises(ResourceError):
                run_rounds(project, 1)
        whole = sha256_of(project.models_folder / "round_0.safetensors")
        assert len(steps) == 4 and (project.models_folder / "round_0_unfinished.safetensors").is_file()
        run_rounds(project, 1)
        assert len(steps) == 4 + 2, "those of round 1 alone"
        assert sha256_of(project.models_folder / "round_0.safetensors") == whole
        assert not list(project.models_folder.glob("*unfinished*"))


def test_snapshots_of_an_attempt_that_had_more_are_not_taken_for_this_ones(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, steps=2) as project:
        plan = Iteration(project, CPU, lambda m: None).plan()
        stale, others = (project.models_folder / f"round_{n}_snapshot_7.safetensors" for n in (0, 10))
        for path in (stale, others):
            save_weights(path, {}, {})
        made = IFDL(RunContext(project, plan, CPU, lambda m: None)).train(0, lambda done, text: None)
        assert stale not in made and not stale.exists() and others.exists()


def test_what_is_learned_from_is_mapped_from_a_file_that_nobody_sees(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        Review(project).reject(project.case("case_1"), reviewer="A", slices=[2])
        run = RunContext(project, Iteration(project, CPU, lambda m: None).plan(), CPU, lambda m: None)
        whole, partly = training_cases(run, 0, 1.0)
        assert all(isinstance(array, np.memmap) for array in (whole.labels, partly.labels, partly.weights))
        assert not any(whole.weights.strides), "one number for all voxels"
        own = project.read_case_image(project.case("case_0"))
        labels, _ = prepare_labels(project.read_case_label(project.case("case_0")).classes(project.values), own.geometry, run.plan)
        assert np.array_equal(whole.labels, labels)
        del whole, partly
        assert {path.suffix for path in (project.cache_folder / "prepared").iterdir()} == {".npy", ".sha256"}


def test_arrays_of_any_size_come_back_bit_for_bit(tmp_path: Path) -> None:
    random, shelf = np.random.default_rng(0), _Shelf(tmp_path)
    put = []
    for name, size, labelled in (("a", (3, 5, 7), True), ("b", (1, 1, 1), False), ("c", (2, 9, 4), False)):
        labels, weights = random.integers(0, 9, size, np.uint8), random.random(size, np.float32)
        put.append(TrainingCase(name, np.zeros((1, *size), np.float32), labels, weights, labelled))
    put.append(replace(put[0], name="turned", labels=put[0].labels.transpose(2, 0, 1), weights=put[0].weights.transpose(2, 0, 1)))
    for case in put:
        shelf.add(case)
    for before, after in zip(put, shelf.cases(), strict=True):
        assert (before.name, before.labelled, before.image is after.image) == (after.name, after.labelled, True)
        for one, other in ((before.labels, after.labels), (before.weights, after.weights)):
            assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def test_a_case_that_was_decided_in_part_is_always_learned_from(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, unlabelled=4) as project:
        run_rounds(project, 1)
        run = RunContext(project, Iteration(project, CPU, lambda m: None).plan(), CPU, lambda m: None)
        left_out = next(n for n in ("case_2", "case_3", "case_4", "case_5") if n not in {c.name for c in training_cases(run, 2, 0.75)})
        case = project.case(left_out)
        Review(project).accept(case, reviewer="A", slices=[3])
        [learned] = [c for c in training_cases(run, 2, 0.75) if c.name == left_out]
        assert not learned.labelled and (learned.weights == 1).all((1, 2)).any()


def test_slices_that_a_person_drew_teach_before_there_is_a_pseudo_label(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        image, label = phantom_case(2, size=(8, 32, 32))
        Review(project).correct(project.case("case_2"), label, reviewer="A", slices=[3, 4])
        run = RunContext(project, Iteration(project, CPU, lambda m: None).plan(), CPU, lambda m: None)
        [drawn] = [c for c in training_cases(run, 0, 1.0) if c.name == "case_2"]
        assert drawn.labelled and (drawn.weights == 1).all((1, 2)).any() and (drawn.weights == 0).all((1, 2)).any()
        run_rounds(project, 1)
        late = project.add_case("late", image)
        Review(project).correct(late, label, reviewer="A", slices=[3, 4])
        assert "late" in {c.name for c in training_cases(run, 2, 1.0)}


def test_a_project_may_begin_with_a_case_that_a_person_drew(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, labelled=0, unlabelled=2) as project:
        Review(project).correct(project.case("case_0"), phantom_case(0, size=(8, 32, 32))[1], reviewer="A")
        run_rounds(project, 1)
        assert project.artefact(1, "case_1", "pseudo_label.nii.gz").is_file()


def test_rounds_end_once_people_have_decided_on_every_case(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, unlabelled=1) as project:
        run_rounds(project, 1)
        Review(project).accept(project.case("case_2"), reviewer="A")
        messages: list[Message] = []
        Iteration(project, CPU, messages.append).run(5, until_converged=True)
        assert [m.round for m in messages if isinstance(m, RoundFinished)] == [2], "one round learns from the decision"
        assert messages[-1] == RunFinished(3, True, "people have decided on every case.")


def test_a_damaged_cache_is_made_again(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        run = RunContext(project, Iteration(project, CPU, lambda m: None).plan(), CPU, lambda m: None)
        image = np.array(training_cases(run, 0, 1.0)[0].image)
        for path in (project.cache_folder / "prepared").glob("*.npy"):
            path.write_bytes(path.read_bytes()[:-40])
        assert np.array_equal(training_cases(run, 0, 1.0)[0].image, image)
        for path in (project.cache_folder / "prepared").glob("*.npy"):
            path.write_bytes(path.read_bytes()[:-1] + b"\7")
        assert np.array_equal(training_cases(run, 0, 1.0)[0].image, image)


def test_a_case_whose_spacing_is_in_another_unit_is_set_aside(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        image, _ = phantom_case(9, size=(8, 32, 32))
        micrometres = Geometry(image.geometry.size, tuple(1000 * mm for mm in image.geometry.spacing))  # type: ignore[arg-type]
        project.add_case("far", Volume(image.array, micrometres))
        messages: list[Message] = []
        run_rounds(project, 1, messages)
        [aside] = [m for m in messages if isinstance(m, CaseSetAside)]
        assert aside.case == "far" and "another unit" in aside.sentence
        assert max(project.journal.rounds()) == 1


def test_a_full_memory_ends_the_run_with_a_sentence() -> None:
    messages: list[Message] = []
    assert run_safely(lambda: torch.empty(2**48), messages.append) is None
    assert isinstance(messages[-1], RunFailed) and "memory of this computer" in messages[-1].sentence


@pytest.mark.parametrize("full", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory (MPS …)")])
def test_a_full_device_ends_the_run_with_a_sentence(full: RuntimeError) -> None:
    messages: list[Message] = []

    def action() -> None:
        raise full

    assert run_safely(action, messages.append) is None
    assert isinstance(messages[-1], RunFailed) and "memory of the device" in messages[-1].sentence


def test_a_fault_is_no_full_memory() -> None:
    def action() -> None:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        run_safely(action, [].append)


@pytest.mark.parametrize(
    ("loaded", "version"), [(SimpleNamespace(__version__="1.0"), "1.0"), (SimpleNamespace(), "unknown"), (None, "unknown")]
)
def test_a_package_without_metadata_costs_no_round(monkeypatch: pytest.MonkeyPatch, loaded: object, version: str) -> None:
    """Such as a sam2 that was copied into the folder of packages."""
    if loaded is not None:
        monkeypatch.setitem(sys.modules, "package_without_metadata", loaded)
    assert round_numbers._version("package_without_metadata") == version
    assert round_numbers._version("numpy") == np.__version__


def test_what_cannot_begin_says_why(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "none", weights, labelled=0) as project, pytest.raises(DataError, match="no labelled case"):
        run_rounds(project, 1)
    with small_project(tmp_path / "all", weights, unlabelled=0) as project, pytest.raises(DataError, match="no case to label"):
        run_rounds(project, 1)
    with Project.create(tmp_path / "empty", Settings()) as project, pytest.raises(DataError, match="no labels"):
        run_rounds(project, 1)


def test_label_maps_that_show_nothing_are_nothing_to_learn_from(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, labelled=0) as project:
        image, label = phantom_case(9, size=(8, 32, 32))
        project.add_case("empty", image, LabelMap(np.zeros_like(label.array), label.geometry))
        with pytest.raises(DataError, match="no labelled case shows a label"):
            run_rounds(project, 1)


def test_missing_weights_end_the_run_with_a_sentence(tmp_path: Path) -> None:
    with small_project(tmp_path / "project", tmp_path / "gone.safetensors") as project:
        messages: list[Message] = []
        assert run_safely(lambda: Iteration(project, CPU, messages.append).run(1), messages.append) is None
        failure = messages[-1]
        assert isinstance(failure, RunFailed) and failure.kind == "WeightsError" and "gone.safetensors" in failure.sentence
        assert not project.journal.units(), "hours of training before that are hours lost"


def test_labels_keep_their_classes_whatever_their_order_in_the_file(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        file = project.folder / "project.toml"
        head, first, second = file.read_text().split("[[labels]]")
        file.write_text("[[labels]]".join((head, second, first)))
    with Project.open(tmp_path / "project") as project:
        assert project.values == (1, 2) and project.label_names == ("organ", "gland")


def test_a_label_that_joins_after_round_0_is_refused_before_anything_is_computed(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        run_rounds(project, 1)
        units = project.journal.units()
        file = project.folder / "project.toml"
        file.write_text(file.read_text() + '\n[[labels]]\nvalue = 3\nname = "vessel"\n')
    with Project.open(tmp_path / "project") as project:
        with pytest.raises(SettingsError, match=r"know 2 labels, project\.toml has 3"):
            run_rounds(project, 1)
        assert project.journal.units() == units


def test_settings_that_the_plan_overrules_are_named(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights) as project:
        Iteration(project, CPU, lambda _: None).plan()
        project.change_settings(replaced(project.settings, "dedicated.round_steps", 5))
        messages: list[Message] = []
        run_rounds(project, 1, messages)
        warnings = [m.sentence for m in messages if isinstance(m, Warned)]
        assert [w for w in warnings if "round_steps = 5, plan.toml says 4" in w] == warnings


def test_colour_pictures_and_single_slices_go_through(tmp_path: Path, weights: Path) -> None:
    random = np.random.default_rng(0)
    settings = replaced(replaced(Settings(labels=(Label(1, "polyp"),)), "foundation.weights", str(weights)), "dedicated.first_steps", 4)
    geometry = Geometry((1, 40, 48), planar=True)
    with Project.create(tmp_path / "project", replaced(settings, "dedicated.round_steps", 2)) as project:
        for number in range(4):
            picture = random.integers(0, 60, (1, 40, 48, 3)).astype(np.uint8)
            labels = np.zeros((1, 40, 48), np.uint8)
            labels[:, 10 + number : 25, 12 : 30 + number] = 1
            picture[labels > 0] += np.array([120, 40, 20], np.uint8)
            project.add_case(f"p{number}", Volume(picture, geometry), LabelMap(labels, geometry) if number < 2 else None)
        run_rounds(project, 1)
        assert project.artefact(1, "p3", "pseudo_label.nii.gz").is_file()


def test_cases_that_look_unlike_every_labelled_one_are_named(tmp_path: Path, weights: Path) -> None:
    with small_project(tmp_path / "project", weights, labelled=2, unlabelled=1) as project:
        image = project.read_case_image(project.case("case_2"))
        stretched = np.exp(8 * (image.array - image.array.min()) / np.ptp(image.array))
        project.add_case("dark_with_bright_fat", Volume(stretched.astype(np.float32), image.geometry))
        messages: list[Message] = []
        iteration = Iteration(project, CPU, messages.append)
        assert iteration.plan().augmentation.curve_chance == 0.5
        [warned] = [m.sentence for m in messages if isinstance(m, Warned)]
        assert warned.startswith("The contrast of dark_with_bright_fat is unlike that of every labelled case")
        iteration.plan()
        assert sum(isinstance(m, Warned) for m in messages) == 1, "said once, when the plan is made"
