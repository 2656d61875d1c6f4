"""Decisions: kept, never overwritten, and what training makes of them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_cases import OBLIQUE, small_image, small_labels

from SAM2IterativeLib import review as reviews
from SAM2IterativeLib.agreement import comparisons, contested
from SAM2IterativeLib.decisions import Decision, Layers
from SAM2IterativeLib.errors import DataError, GeometryError, ProjectError
from SAM2IterativeLib.files import sha256_of
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import PROPOSAL, Review
from SAM2IterativeLib.volumes import LabelMap, write_label_map


def propose(project: Project, case: str, round: int = 1, shift: int = 0, uncertainty: float = 0.5) -> Path:
    """What a round leaves behind for review."""
    path = project.artefact(round, case, PROPOSAL)
    write_label_map(path, small_labels(shift))
    project.journal.finish_unit(round, "fuse", case, [path], numbers={"uncertainty": uncertainty})
    return path


@pytest.fixture
def review(project: Project) -> Review:
    propose(project, "b", uncertainty=0.2)
    propose(project, "c", uncertainty=0.6)
    return Review(project)


def test_the_queue_starts_with_the_most_uncertain(review: Review) -> None:
    review.project.add_case("d", review.project.read_case_image(review.project.case("a")))
    assert [(e.case.id, e.uncertainty) for e in review.queue()] == [("c", 0.6), ("b", 0.2), ("d", None)]
    assert [e.case.id for e in review.queue("certainty")] == ["b", "c", "d"]
    assert [e.case.id for e in review.queue("name")] == ["b", "c", "d"]
    review.project.set_role("c", "excluded")
    assert [e.case.id for e in review.queue("imported")] == ["b", "d"]


def test_a_newer_round_changes_the_order(review: Review) -> None:
    propose(review.project, "b", round=2, uncertainty=0.9)
    assert [(e.case.id, e.round) for e in review.queue()] == [("b", 2), ("c", 1)]


def test_accepting_counts_everywhere_and_outlives_the_round(review: Review) -> None:
    case = review.project.case("b")
    decision = review.accept(case, reviewer="Ada", comment="fine")
    assert (decision.round, decision.kind, decision.whole) == (1, "accepted", True)
    propose(review.project, "b", round=1, shift=2)
    labels = review.training_labels(case)
    assert labels is not None and labels.complete
    assert np.array_equal(labels.labels.array, small_labels().array)
    merged, weights = labels.over(small_labels(2).array, np.full(OBLIQUE.size, 0.3))
    assert np.array_equal(merged, small_labels().array) and (weights == 1).all()
    assert [e.case.id for e in review.queue()] == ["c"]
    assert [e.status for e in review.queue(decided=True)] == ["waiting", "accepted"]


def test_deciding_reads_no_more_of_the_image_than_its_grid(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Project, "read_case_image", None)
    case = review.project.case("b")
    review.correct(case, small_labels(), reviewer="Ada")
    review.reject(case, reviewer="Ada", slices=(1,))
    with pytest.raises(DataError, match="are not among the 6 slices"):
        review.reject(case, reviewer="Ada", slices=(6,))


def test_corrections_are_new_revisions(review: Review) -> None:
    case = review.project.case("b")
    first = review.correct(case, small_labels(1), reviewer="Ada")
    digest = sha256_of(review.project.folder / first.label_file)
    second = review.correct(case, small_labels(2), reviewer="Ada")
    assert first.label_file != second.label_file
    assert sha256_of(review.project.folder / first.label_file) == digest == first.label_sha256
    assert np.array_equal(review.label_map(first).array, small_labels(1).array)
    labels = review.training_labels(case)
    assert labels is not None and np.array_equal(labels.labels.array, small_labels(2).array)
    assert review.status(case) == "corrected"


def test_a_file_left_by_a_crash_is_not_overwritten(review: Review) -> None:
    orphan = review.project.folder / "cases" / "b" / "reviews" / "1.nrrd"
    write_label_map(orphan, small_labels(2))
    before = orphan.read_bytes()
    decision = review.correct(review.project.case("b"), small_labels(1), reviewer="Ada")
    assert orphan.read_bytes() == before and decision.label_file.endswith("1-2.nrrd")


def test_others_may_decide_while_a_revision_is_written(review: Review, monkeypatch: pytest.MonkeyPatch) -> None:
    case = review.project.case("b")
    between: list[Decision] = []

    def slowly(path: Path, label_map: LabelMap) -> None:
        write_label_map(path, label_map)
        monkeypatch.setattr(reviews, "write_label_map", write_label_map)
        with Project.open(review.project.folder, shared_with=os.getpid()) as other:
            between.append(Review(other).correct(case, small_labels(2), reviewer="Ben"))

    review.project.journal._database.execute("PRAGMA busy_timeout = 10")
    monkeypatch.setattr(reviews, "write_label_map", slowly)
    decision = review.correct(case, small_labels(1), reviewer="Ada")
    assert [Path(d.label_file).name for d in (*between, decision)] == ["1.nrrd", "2.nrrd"]
    assert [d.reviewer for d in review.decisions(case)] == ["Ben", "Ada"]
    for d, shift in zip(review.decisions(case), (2, 1), strict=True):
        assert np.array_equal(review.label_map(d).array, small_labels(shift).array)


@pytest.mark.parametrize(("begin", "left"), [("BEGIN IMMEDIATE", []), ("BEGIN", ["1.nrrd"])])
def test_a_decision_that_cannot_be_recorded_leaves_no_trace_that_counts(review: Review, begin: str, left: list[str]) -> None:
    case, folder = review.project.case("b"), review.project.folder
    review.project.journal._database.execute("PRAGMA busy_timeout = 10")
    with contextlib.closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as other:
        other.execute(begin)
        other.execute("SELECT * FROM cases").fetchall()
        with pytest.raises(ProjectError, match="another program is writing"):
            review.correct(case, small_labels(1), reviewer="Ada")
    assert [path.name for path in (folder / "cases" / "b" / "reviews").iterdir()] == left
    assert not review.decisions(case)
    decision = review.correct(case, small_labels(2), reviewer="Ada")
    assert decision.number == 1 and np.array_equal(review.label_map(decision).array, small_labels(2).array)


def test_what_is_rejected_is_not_trained_on(review: Review) -> None:
    case = review.project.case("b")
    review.reject(case, reviewer="Ada", reason="wrong organ")
    labels = review.training_labels(case)
    assert labels is not None and labels.rejected
    _, weights = labels.over(small_labels().array, np.ones(OBLIQUE.size))
    assert not weights.any()
    assert review.final_labels(case) is None
    assert review.status(case) == "rejected"
    review.accept(case, reviewer="Ada")
    again = review.training_labels(case)
    assert again is not None and not again.rejected and again.complete


def test_slices_corrected_after_a_rejection_count(review: Review) -> None:
    case = review.project.case("b")
    review.reject(case, reviewer="Ada", reason="wrong organ")
    review.correct(case, small_labels(), reviewer="Ada", slices=[2])
    said = review.training_labels(case)
    assert said is not None and said.rejected
    _, weights = said.over(small_labels().array, np.ones(OBLIQUE.size))
    assert (weights[2] == 1).all() and not np.delete(weights, 2, axis=0).any()


def test_a_rejected_case_whose_every_slice_was_corrected_is_corrected(review: Review) -> None:
    case = review.project.case("b")
    review.reject(case, reviewer="Ada", reason="wrong organ")
    review.correct(case, small_labels(), reviewer="Ada", slices=[0, 1, 2])
    assert review.status(case) == "rejected" and review.final_labels(case) is None
    review.correct(case, small_labels(), reviewer="Ada", slices=range(3, OBLIQUE.slices))
    said = review.training_labels(case)
    assert said is not None and said.complete and not said.rejected
    final = review.final_labels(case)
    assert review.status(case) == "corrected" and final is not None and final.by_person
    assert "b" in [found.id for found, _ in review.vouched(9)]


def test_no_proposal_takes_the_place_of_a_label_map(review: Review) -> None:
    propose(review.project, "a", shift=1)
    with pytest.raises(ProjectError, match="a: it has a label map of its own"):
        review.accept(review.project.case("a"), reviewer="Ada")
    review.correct(review.project.case("a"), small_labels(1), reviewer="Ada")


def test_the_label_map_of_a_case_made_unlabelled_is_not_looked_at(review: Review) -> None:
    project = review.project
    assert [case.id for case, _ in review.vouched(9)] == ["a"]
    project.set_role("a", "unlabelled")
    assert review.training_labels(project.case("a")) is None and not list(review.vouched(9))


def test_what_people_labelled_goes_before_what_they_decided_and_comes_last(review: Review) -> None:
    review.accept(review.project.case("b"), reviewer="Ada")
    review.accept(review.project.case("c"), reviewer="Ada")
    assert [case.id for case, _ in review.vouched(9)] == ["b", "c", "a"]
    assert [case.id for case, _ in review.vouched(2)] == ["b", "a"]
    assert [case.id for case, _ in review.vouched(1)] == ["a"]


def test_an_empty_label_map_vouches_for_nothing_that_could_be_shown(review: Review) -> None:
    case = review.project.case("b")
    empty = LabelMap(np.zeros(OBLIQUE.size, np.uint8), OBLIQUE)
    review.correct(case, empty, reviewer="Ada")
    assert [case.id for case, _ in review.vouched(9)] == ["a"]


def test_one_segment_alone_can_be_accepted(review: Review) -> None:
    case = review.project.case("b")
    review.accept(case, reviewer="Ada", segments=[2])
    assert review.status(case) == "partly decided"
    labels = review.training_labels(case)
    assert labels is not None and not labels.complete
    later = small_labels(1).array
    merged, weights = labels.over(later, np.full(OBLIQUE.size, 0.25))
    accepted = small_labels().array == 2
    assert (merged[accepted] == 2).all() and (weights[accepted] == 1).all()
    stray = (later == 2) & ~accepted
    assert stray.any() and not weights[stray].any(), "label 2 elsewhere is known to be wrong"
    assert not merged[stray].any(), "and is not proposed again"
    rest = ~accepted & ~stray
    assert np.array_equal(merged[rest], later[rest]) and (weights[rest] == 0.25).all()
    final = review.final_labels(case)
    assert final is not None and not final.by_person


def test_one_segment_can_be_rejected(review: Review) -> None:
    case = review.project.case("b")
    review.reject(case, reviewer="Ada", segments=[1])
    labels = review.training_labels(case)
    assert labels is not None and not labels.rejected
    merged, weights = labels.over(small_labels().array, np.ones(OBLIQUE.size))
    assert not weights[small_labels().array == 1].any()
    assert weights[small_labels().array == 2].all()
    assert np.array_equal(merged, small_labels().array), "a later round may propose it again, better"


def test_a_corrected_segment_over_an_accepted_case(review: Review) -> None:
    case = review.project.case("b")
    review.accept(case, reviewer="Ada")
    smaller = small_labels().array.copy()
    smaller[:, :, 1] = 0
    review.correct(case, LabelMap(smaller, OBLIQUE), reviewer="Ada", segments=[1])
    labels = review.training_labels(case)
    assert labels is not None and labels.complete, "what the segment gave up is known too"
    assert np.array_equal(labels.labels.array, smaller)
    assert review.status(case) == "corrected"


def test_single_slices(review: Review) -> None:
    case = review.project.case("b")
    review.correct(case, small_labels(1), reviewer="Ada", slices=[2])
    labels = review.training_labels(case)
    assert labels is not None
    merged, weights = labels.over(small_labels().array, np.zeros(OBLIQUE.size))
    assert np.array_equal(merged[2], small_labels(1).array[2]) and (weights[2] == 1).all()
    assert not weights[[0, 1, 3, 4, 5]].any()
    assert np.array_equal(merged[3], small_labels().array[3])


def test_the_last_decision_can_be_taken_back(review: Review) -> None:
    case = review.project.case("b")
    review.accept(case, reviewer="Ada")
    review.correct(case, small_labels(1), reviewer="Bo")
    assert review.take_back_last(case).kind == "corrected"
    current = review.current(case)
    assert current is not None and current.kind == "accepted"
    assert review.take_back_last(reviewer="Ada").kind == "accepted"
    assert review.current(case) is None and review.training_labels(case) is None
    kept = review.decisions(case, withdrawn=True)
    assert len(kept) == 2 and all(d.withdrawn_at for d in kept)
    assert np.array_equal(review.label_map(kept[1]).array, small_labels(1).array)
    with pytest.raises(ProjectError, match="no decision to take back"):
        review.take_back_last()


def test_a_second_reviewer_stands_beside_the_first(review: Review) -> None:
    case = review.project.case("b")
    review.accept(case, reviewer="Ada")
    assert [e.case.id for e in review.queue(reviewer="Bo")] == ["c", "b"]
    review.correct(case, small_labels(1), reviewer="Bo")
    (pair,) = comparisons(review, case)
    assert pair.reviewers == ("Ada", "Bo") and pair.statuses == ("accepted", "corrected") and pair.verdict == "differ"
    assert not contested(review, case), "they differ, but both gave labels"
    for value in (1, 2):
        first, second = small_labels().array == value, small_labels(1).array == value
        assert pair.dice[value] == pytest.approx(2 * (first & second).sum() / (first.sum() + second.sum()))
    ada = review.training_labels(case, "Ada")
    assert ada is not None and np.array_equal(ada.labels.array, small_labels().array)


def test_two_reviewers_agree_differ_or_contradict(review: Review) -> None:
    case = review.project.case("b")

    def verdict() -> str:
        (pair,) = comparisons(review, case)
        return pair.verdict

    review.accept(case, reviewer="Ada")
    review.correct(case, small_labels(), reviewer="Bo")
    assert verdict() == "agree", "the same mask, whatever the button was"
    review.correct(case, small_labels(1), reviewer="Bo")
    assert verdict() == "differ" and not contested(review, case)
    review.reject(case, reviewer="Bo")
    assert verdict() == "contradict" and contested(review, case)
    review.reject(case, reviewer="Ada")
    assert verdict() == "agree" and not contested(review, case)


def test_a_labelled_case_brings_its_own_labels_and_can_be_corrected(review: Review) -> None:
    case = review.project.case("a")
    own = review.training_labels(case)
    assert own is not None and own.complete
    before = sha256_of(review.project.folder / "cases" / "a" / "label.nrrd")
    review.correct(case, small_labels(2), reviewer="Ada")
    corrected = review.training_labels(case)
    assert corrected is not None and np.array_equal(corrected.labels.array, small_labels(2).array)
    assert sha256_of(review.project.folder / "cases" / "a" / "label.nrrd") == before
    assert review.training_labels(review.project.case("c")) is None


def test_a_label_map_does_not_join_a_case_that_was_decided(review: Review) -> None:
    review.reject(review.project.case("b"), reviewer="Ada")
    with pytest.raises(ProjectError, match=r"b: a reviewer decided on this case already.*as a correction"):
        review.project.add_label(review.project.case("b"), small_labels())
    review.take_back_last()
    assert review.project.add_label(review.project.case("b"), small_labels()).role == "labelled"


def test_a_decision_about_a_label_that_is_gone_says_nothing_about_the_others() -> None:
    layers = Layers(OBLIQUE, (1, 3))
    layers.lay(Decision(1, "b", 1, "accepted", "Ada"), small_labels(values=(1, 3)))
    layers.lay(Decision(2, "b", 1, "rejected", "Ada", segments=(2,)), None)
    assert layers.result().complete


def test_a_label_that_is_gone_does_not_become_another() -> None:
    """257 is 1 in eight bits."""
    layers = Layers(OBLIQUE, (1,))
    drawn = small_labels().array.astype(np.uint16)
    drawn[drawn == 2] = 257
    layers.lay(Decision(1, "b", 1, "corrected", "Ada"), LabelMap(drawn, OBLIQUE))
    assert np.array_equal(layers.result().labels.array, drawn)
    layers.lay(Decision(2, "b", 1, "accepted", "Ada"), small_labels(values=(1, 1)))
    assert layers.result().labels.array.dtype == np.uint8


def test_bad_decisions_are_refused(review: Review) -> None:
    case = review.project.case("b")
    with pytest.raises(ProjectError, match="needs the reviewer's name"):
        review.accept(case, reviewer=" ")
    with pytest.raises(DataError, match=r"\[9\] are no labels"):
        review.accept(case, reviewer="Ada", segments=[9])
    with pytest.raises(DataError, match=r"\[9\] are no labels"):
        review.correct(case, small_labels(values=(1, 9)), reviewer="Ada")
    with pytest.raises(GeometryError, match="b: the label map does not lie on its image"):
        review.correct(case, replace(small_labels(), geometry=replace(OBLIQUE, spacing=(1.0, 1.0, 1.0))), reviewer="Ada")
    with pytest.raises(ProjectError, match="no pseudo-label to review yet"):
        review.accept(review.project.add_case("new", small_image()), reviewer="Ada")
    with pytest.raises(DataError, match=r"slices \[6\]"):
        review.reject(case, reviewer="Ada", slices=[6])
    assert not review.decisions()


def test_a_changed_proposal_is_not_accepted(review: Review) -> None:
    write_label_map(review.project.artefact(1, "b", PROPOSAL), small_labels(2))
    with pytest.raises(ProjectError, match="missing or was changed"):
        review.accept(review.project.case("b"), reviewer="Ada")


def test_a_changed_revision_is_noticed(review: Review) -> None:
    case = review.project.case("b")
    decision = review.accept(case, reviewer="Ada")
    write_label_map(review.project.folder / decision.label_file, small_labels(2))
    with pytest.raises(ProjectError, match="decision 1 is missing or was changed"):
        review.training_labels(case)


def test_reading_only(review: Review) -> None:
    with Project.open(review.project.folder) as second:
        assert [e.case.id for e in Review(second).queue()] == ["c", "b"]
        with pytest.raises(ProjectError, match="in use by process"):
            Review(second).accept(second.case("b"), reviewer="Ada")
