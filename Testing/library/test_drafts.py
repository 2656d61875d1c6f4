"""Unfinished corrections: kept, found again, never lost to a later one that fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_cases import OBLIQUE, small_labels

from SAM2IterativeLib import drafts as drafts_module
from SAM2IterativeLib.drafts import Drafts, Locks
from SAM2IterativeLib.errors import GeometryError, ProjectError, ResourceError
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.volumes import Geometry, LabelMap


def _files(project: Project) -> list[str]:
    return sorted(path.name for path in (project.folder / "cases" / "b" / "drafts").glob("*"))


def test_what_was_saved_is_found_again_after_closing(project: Project) -> None:
    drafts, case = Drafts(project), project.case("b")
    assert drafts.newest(case, "Dr. A") is None
    made = drafts.save(case, small_labels(1), reviewer=" Dr. A ", round=2)
    project.close()
    with Project.open(project.folder) as again:
        drafts = Drafts(again)
        found = drafts.newest(again.case("b"), "Dr. A")
        assert found == made and (found.reviewer, found.round) == ("Dr. A", 2)
        read = drafts.read(again.case("b"), found)
        np.testing.assert_array_equal(read.array, small_labels(1).array)
        assert read.geometry.mismatch(OBLIQUE) is None
        assert drafts.cases("Dr. A") == {"b"}


def test_a_later_state_takes_the_place_of_the_earlier_and_bears_a_new_number(project: Project) -> None:
    drafts, case = Drafts(project), project.case("b")
    first = drafts.save(case, small_labels(0), reviewer="A", round=1)
    second = drafts.save(case, small_labels(1), reviewer="A", round=1, instead_of=first)
    assert _files(project) == ["2.json", "2.nrrd"]
    assert drafts.newest(case, "A") == second
    with pytest.raises(ProjectError, match="missing"):
        drafts.read(case, first)


def test_one_reviewer_is_not_offered_another_ones(project: Project) -> None:
    drafts, case = Drafts(project), project.case("b")
    drafts.save(case, small_labels(0), reviewer="A", round=1)
    assert drafts.newest(case, "B") is None and drafts.cases("B") == frozenset()
    nobodys = drafts.save(case, small_labels(1), reviewer="", round=1)
    assert drafts.newest(case, "A") == drafts.newest(case, "B") == nobodys


def test_a_full_disk_costs_the_new_state_only(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts, case = Drafts(project), project.case("b")
    first = drafts.save(case, small_labels(0), reviewer="A", round=1)

    def full(path: Path, text: str) -> None:
        raise ResourceError("the disk is full.")

    monkeypatch.setattr(drafts_module, "write_text", full)
    with pytest.raises(ResourceError):
        drafts.save(case, small_labels(1), reviewer="A", round=1, instead_of=first)
    assert drafts.newest(case, "A") == first
    np.testing.assert_array_equal(drafts.read(case, first).array, small_labels(0).array)


def test_a_changed_or_half_written_one_is_not_believed(project: Project) -> None:
    drafts, case = Drafts(project), project.case("b")
    draft = drafts.save(case, small_labels(0), reviewer="A", round=1)
    folder = project.folder / "cases" / "b" / "drafts"
    (folder / "7.json").write_text('{"reviewer": "A"')
    assert drafts.newest(case, "A") == draft
    (folder / "1.nrrd").write_bytes(b"other")
    with pytest.raises(ProjectError, match="was changed"):
        drafts.read(case, draft)
    assert drafts.save(case, small_labels(0), reviewer="A", round=1).number == 8


def test_one_on_another_grid_is_refused(project: Project) -> None:
    drafts, case = Drafts(project), project.case("b")
    elsewhere = LabelMap(small_labels().array, Geometry(OBLIQUE.size))
    draft = drafts.save(case, elsewhere, reviewer="A", round=1)
    with pytest.raises(GeometryError):
        drafts.read(case, draft)


def test_removing_twice_is_harmless_and_leaves_other_drafts(project: Project) -> None:
    drafts, case = Drafts(project), project.case("b")
    first, second = (drafts.save(case, small_labels(shift), reviewer="A", round=1) for shift in (0, 1))
    drafts.remove(case, second)
    drafts.remove(case, second)
    assert drafts.newest(case, "A") == first


def test_a_project_that_is_read_only_gets_none(project: Project) -> None:
    with Project.open(project.folder, read_only=True) as reading:
        drafts = Drafts(reading)
        with pytest.raises(ProjectError, match="reading"):
            drafts.save(reading.case("b"), small_labels(), reviewer="A", round=1)
    assert _files(project) == []


def test_locks_are_kept_for_each_reviewer_and_for_labels_that_there_are(project: Project) -> None:
    locks, case = Locks(project), project.case("b")
    locks.set(case, " A ", (2, 1, 99))
    locks.set(case, "B", (2,))
    project.close()
    with Project.open(project.folder) as again:
        locks, case = Locks(again), again.case("b")
        assert (locks.of(case, "A"), locks.of(case, "B"), locks.of(case, "C")) == ((1, 2), (2,), ())
        locks.set(case, "B", ())
        assert locks.of(case, "B") == ()
        (again.folder / "cases" / "b" / "locks.json").write_text("half a")
        assert locks.of(case, "A") == ()
    with Project.open(project.folder, read_only=True) as reading, pytest.raises(ProjectError):
        Locks(reading).set(reading.case("b"), "A", (1,))
