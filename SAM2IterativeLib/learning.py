"""Which cases the models of a project learned from, as the journal remembers it: only others can tell how good the labels are."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .project import Project
from .wording import listed, rounds_in_words

TRAINING = "training"
"""The stage of a round that learns; a round's lesson counts once this is done."""
_KIND = "learned from"
_ADAPTED = "adaptation"


@dataclass(frozen=True)
class Lesson:
    """What one training took in.

    Attributes:
        round: whose training it was; of an adaptation of SAM2 the first round that could use it.
        cases: ids of all cases that it learned from, be it from a pseudo-label.
        from_people: ids of those whose labels a person made or vouched for, wholly or in part.
        adaptation: it was SAM2 that learned, not the round's network.
    """

    round: int
    cases: frozenset[str]
    from_people: frozenset[str]
    adaptation: bool


@dataclass(frozen=True)
class Learning:
    """What the models of a project learned from so far.

    Attributes:
        lessons: of the trainings that were recorded, and of the others what they must have learned from.
        unrecorded: rounds of a version that kept no record, ascending: of these it is not known whether there is more.
        adaptations_recorded: whether every adaptation of SAM2 was recorded.
    """

    lessons: tuple[Lesson, ...]
    unrecorded: tuple[int, ...]
    adaptations_recorded: bool

    @property
    def complete(self) -> bool:
        """Whether nothing was learned that the journal does not tell of; only then "never" may be said of a case."""
        return not self.unrecorded and self.adaptations_recorded

    def teachers_of(self, case: str) -> str:
        """What learned from a case, in words: "rounds 0 to 2 and the adaptation of SAM2"; empty if nothing did."""
        rounds = sorted({lesson.round for lesson in self.lessons if case in lesson.cases and not lesson.adaptation})
        adapted = any(case in lesson.cases for lesson in self.lessons if lesson.adaptation)
        return listed([rounds_in_words(rounds)] * bool(rounds) + ["the adaptation of SAM2"] * adapted)

    def from_people(self, until: int) -> frozenset[str]:
        """The cases whose labels by people the models of round ``until`` had learned from."""
        return frozenset[str]().union(*(lesson.from_people for lesson in self.lessons if lesson.round <= until))

    @property
    def gap(self) -> str:
        """What is not known, as a sentence; empty where everything is recorded."""
        if self.complete:
            return ""
        who = [rounds_in_words(self.unrecorded)] * bool(self.unrecorded) + ["the adaptation of SAM2"] * (not self.adaptations_recorded)
        return f"An older version kept no record of which cases {listed(who)} learned from."


def note_training(project: Project, round: int, cases: Collection[str], from_people: Collection[str]) -> None:
    """Remember what the training of a round learns from; see ``Lesson``. Said again, the newest word counts."""
    _note(project, round, cases, from_people, adaptation=False)


def note_adaptation(project: Project, cases: Collection[str]) -> None:
    """Remember the labelled cases that SAM2, as the rounds use it from now on, was adapted to or chosen by; none if it stays as it was."""
    _note(project, max(project.journal.rounds(), default=-1) + 1, cases, cases, adaptation=True)


def learning_of(project: Project) -> Learning:
    """What the journal knows."""
    noted = [json.loads(event.text) for event in project.journal.events(_KIND)]
    trained = {unit.round for unit in project.journal.units() if unit.stage == TRAINING}
    # A training that was stopped left no network: what it would have learned from counts only when it is done.
    lessons = {e["round"]: _lesson(e) for e in noted if not e["adaptation"] and e["round"] in trained}
    adaptations = [_lesson(e) for e in noted if e["adaptation"]]
    finished = set(project.journal.rounds())
    unrecorded = sorted((trained | finished) - set(lessons))
    presumed = [_presumed(project, round) for round in unrecorded if round in finished]
    known = len(adaptations) >= len(project.journal.events(_ADAPTED))
    return Learning((*presumed, *lessons.values(), *adaptations), tuple(unrecorded), known)


def validation_remarks(project: Project) -> list[tuple[str, str]]:
    """Ids and sentences of the validation cases that cannot judge, since something learned from them."""
    cases = project.cases("validation", usable=True)
    if not cases:
        return []
    learning = learning_of(project)
    found = [(case.id, learning.teachers_of(case.id)) for case in cases]
    learned = "learned" if learning.complete else "most likely learned"
    return [(case, f"{who} {learned} from it, so it is left out of the validation scores.") for case, who in found if who]


def _note(project: Project, round: int, cases: Collection[str], from_people: Collection[str], *, adaptation: bool) -> None:
    table = {"round": round, "cases": sorted(cases), "from_people": sorted(from_people), "adaptation": adaptation}
    project.journal.note(_KIND, json.dumps(table, sort_keys=True))


def _presumed(project: Project, round: int) -> Lesson:
    """What a round that kept no record must have learned from: the cases that were there with a label map and that it did not label."""
    units = project.journal.units(round)
    labelled_by_it = {unit.case for unit in units}
    began = min((unit.finished_at for unit in units), default="")
    rows = project.journal.read("SELECT id FROM cases WHERE label IS NOT NULL AND added_at <= ? ORDER BY id", (began,))
    cases = frozenset(row["id"] for row in rows) - labelled_by_it
    return Lesson(round, cases, cases, adaptation=False)


def _lesson(table: Mapping[str, Any]) -> Lesson:
    return Lesson(table["round"], frozenset(table["cases"]), frozenset(table["from_people"]), table["adaptation"])
