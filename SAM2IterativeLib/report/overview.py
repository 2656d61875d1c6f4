"""The report's numbers: how many cases, what waits, did the labels settle, how good are they, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..project import Project
from ..review import Review
from ..round_files import LABEL_MAPS
from .wording import counted, number

STAGE_NAMES = {"coarse": "Coarse mask", "propagated": "Propagated", "pseudo_label": "Pseudo-label"}


@dataclass(frozen=True)
class Card:
    """One answer at a glance: the question, the answer in a word or number, and what it rests on."""

    question: str
    answer: str
    detail: str
    tone: str = ""


@dataclass(frozen=True)
class Scores:
    """Scores of every round against one set of references.

    Attributes:
        rounds: round -> label map (names of ``LABEL_MAPS``) -> summary with "dice", "hd95_mm", "missed".
        title: what the references are, in two words.
        source: the same with their number.
        raw: the evaluation's entries by round; empty for validation cases.
    """

    rounds: dict[int, dict[str, Mapping[str, Any]]]
    title: str
    source: str
    raw: dict[int, Mapping[str, Any]]

    def dice(self, name: str) -> dict[int, float | None]:
        """Mean Dice per round of one label map."""
        return {round: found.get(name, {}).get("dice") for round, found in self.rounds.items()}

    def latest(self, name: str = "pseudo_label") -> tuple[int, Mapping[str, Any]] | None:
        """The newest round with a Dice for a label map, and its summary."""
        known = [(r, found[name]) for r, found in sorted(self.rounds.items()) if found.get(name, {}).get("dice") is not None]
        return known[-1] if known else None


def reference_scores(evaluation: Mapping[str, Any]) -> Scores:
    """The scores of an evaluation's result."""
    raw = {int(entry["round"]): entry for entry in evaluation["rounds"]}
    rounds = {r: {name: entry[name] for name in LABEL_MAPS if entry.get(name)} for r, entry in raw.items()}
    return Scores(rounds, "Against references", f"{counted(evaluation['cases'], 'reference')} that the loop never saw", raw)


def validation_scores(project: Project) -> Scores | None:
    """The scores of the validation cases as the rounds recorded them; None where there are none."""
    scored = {r: numbers for r, numbers in project.journal.rounds().items() if numbers.get("validation")}
    rounds = {r: numbers["validation"] for r, numbers in scored.items()}
    today = len(project.cases("validation", usable=True))
    cases = sorted({numbers.get("validation_cases", today) for numbers in scored.values()})
    span = f"{cases[0]} to " if len(cases) > 1 else ""  # some joined between rounds
    source = f"{span}{counted(cases[-1] if cases else 0, 'validation case')} of the project, never trained on"
    return Scores(rounds, "On validation cases", source, {}) if rounds else None


def cards(project: Project, scores: Scores | None) -> Iterator[Card]:
    """The answers on top of the page."""
    yield _cases_card(project)
    yield _waiting_card(project)
    yield _settled_card(project)
    yield _quality_card(project, scores)


def _cases_card(project: Project) -> Card:
    cases = project.cases()
    usable = [case for case in cases if case.usable]
    counts = [(role, sum(case.role == role for case in usable)) for role in ("labelled", "unlabelled", "validation")]
    names = {"labelled": "labelled by people", "unlabelled": "to be labelled", "validation": "for validation"}
    parts = [f"{count} {names[role]}" for role, count in counts if count]
    parts += [f"{count} {text}" for count, text in _left_out(project) if count]
    return Card("How many cases?", str(len(cases)), ", ".join(parts) or "none yet")


def _left_out(project: Project) -> list[tuple[int, str]]:
    cases = project.cases()
    return [
        (sum(case.role == "excluded" for case in cases), "excluded"),
        (sum(bool(case.set_aside) and case.role != "excluded" for case in cases), "set aside as unusable"),
    ]


def _waiting_card(project: Project) -> Card:
    review = Review(project)
    every, waiting = review.queue(decided=True), [e for e in review.queue() if e.round is not None]
    proposed = sum(entry.round is not None for entry in every)
    if not every:
        return Card("What waits for review?", "–", "no case is to be labelled")
    if not proposed:
        return Card("What waits for review?", "nothing yet", "no round has proposed labels")
    without = f"; {counted(len(every) - proposed, 'case')} without a proposal yet" if proposed < len(every) else ""
    if not waiting:
        return Card("What waits for review?", "nothing", f"all {proposed} proposals are decided{without}", "good")
    first = ", ".join(entry.case.id for entry in waiting[:3])
    return Card("What waits for review?", f"{len(waiting)} of {proposed}", f"most uncertain first: {first}{without}", "open")


def _settled_card(project: Project) -> Card:
    question, limit = "Did the labels settle?", project.settings.rounds.converged_dice
    rounds = project.journal.rounds()
    known = [(r, numbers["stability"]) for r, numbers in rounds.items() if numbers.get("stability") is not None]
    if not known:
        return Card(question, "too early", "that takes two finished rounds to compare")
    (last, value), before = known[-1], known[-2][1] if len(known) > 1 else None
    trend = "" if before is None else f" (one round earlier {number(before)})"
    detail = f"Dice {number(value)} between the labels of rounds {last - 1} and {last}{trend}; above {limit:g} they stand still"
    settled = rounds[last].get("converged", value > limit)
    if settled and value <= limit:
        detail += ", or where that grows no more, as here"
    return Card(question, "yes", detail, "good") if settled else Card(question, "not yet", detail, "open")


def _quality_card(project: Project, scores: Scores | None) -> Card:
    question = "How good are the labels?"
    latest = scores.latest() if scores else None
    if scores and latest:
        last, summary = latest
        start = scores.dice("coarse").get(0)
        compared = f"; the network of round 0 alone had {number(start)}" if start is not None and last > 0 else ""
        missed = counted(summary["missed"], "structure") + " missed"
        detail = f"pseudo-labels of round {last} against {scores.source}{compared}; {missed}"
        return Card(question, f"Dice {number(summary['dice'])}", detail)
    agreement = [n["agreement"] for n in project.journal.rounds().values() if n.get("agreement") is not None]
    if not agreement:
        return Card(question, "not known", "no round is finished")
    hint = "agreement is no proof: make some labelled cases validation cases to know"
    return Card(question, "not measured", f"no references; network and SAM2 agree with Dice {number(agreement[-1])}; {hint}")
