"""The report's numbers: how many cases, what waits, did the labels settle, how good are they, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..learning import learning_of, validation_remarks
from ..project import Project
from ..review import Review
from ..round_files import LABEL_MAPS
from ..vocabulary import LABEL_MAP_NAMES
from ..wording import counted, listed, number

STAGE_NAMES = {name: text.capitalize() for name, text in LABEL_MAP_NAMES.items()}


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
        cases: what tells whether two rounds were scored on the same cases, by round: equal for the same ones.
        finds_errors: the rank correlation of doubt and error by round; empty where it is not known.
        with_people: Dice of the pseudo-labels over all ``everyone`` cases, those too in which people had a hand; empty where there are
            none such.
        by_people: people had a hand in every case, so this says nothing about the loop.
    """

    rounds: dict[int, dict[str, Mapping[str, Any]]]
    title: str
    source: str
    cases: Mapping[int, object]
    finds_errors: Mapping[int, float | None] = field(default_factory=dict)
    with_people: Mapping[int, float | None] = field(default_factory=dict)
    everyone: int = 0
    by_people: bool = False

    def dice(self, name: str) -> dict[int, float | None]:
        """Mean Dice per round of one label map."""
        return {round: found.get(name, {}).get("dice") for round, found in self.rounds.items()}

    def latest(self, name: str = "pseudo_label") -> tuple[int, Mapping[str, Any]] | None:
        """The newest round with a Dice for a label map, and its summary."""
        known = [(r, found[name]) for r, found in sorted(self.rounds.items()) if found.get(name, {}).get("dice") is not None]
        return known[-1] if known else None


def reference_scores(evaluation: Mapping[str, Any]) -> Scores:
    """The scores of an evaluation's result: of the cases that compare rounds, of all only where people had a hand in every one."""
    entries = {int(entry["round"]): entry for entry in evaluation["rounds"]}
    touched, late, compared = (set(evaluation[f"{name}_cases"]) for name in ("touched", "late", "compared"))
    others = len(compared)
    shown = {r: entry["compared"] if others else entry for r, entry in entries.items()}
    rounds = {r: {name: found[name] for name in LABEL_MAPS} for r, found in shown.items()}
    cases = {
        r: set(entry["pseudo_label"]["per_case"]) & (compared or set(entry["pseudo_label"]["per_case"])) for r, entry in entries.items()
    }
    which = ["no person touched"] * bool(touched) + ["every round labelled"] * bool(late - touched - compared)
    source = f"{counted(others, 'reference')} that the loop never saw" + (f", of cases that {' and '.join(which)}" if which else "")
    if not others:
        source = f"{counted(evaluation['cases'], 'reference')} of cases in all of which people had a hand"
    with_people = {r: entry["pseudo_label"]["dice"] for r, entry in entries.items()} if touched and others else {}
    finds_errors = {r: found["uncertainty_error_spearman"] for r, found in shown.items()}
    return Scores(rounds, "Against references", source, cases, finds_errors, with_people, evaluation["cases"], by_people=not others)


def validation_scores(project: Project) -> Scores | None:
    """The scores of the validation cases as the rounds recorded them; None where there are none.

    The rounds leave out cases that something had learned from; older versions did not, and nothing is known of what theirs learned from.
    """
    scored = {r: numbers for r, numbers in project.journal.rounds().items() if numbers.get("validation")}
    if not scored:
        return None
    rounds = {r: numbers["validation"] for r, numbers in scored.items()}
    today = len(project.cases("validation", usable=True))
    counts = sorted({numbers.get("validation_cases", today) for numbers in scored.values()})
    span = f"{counts[0]} to " if len(counts) > 1 else ""  # some joined between rounds
    learning = learning_of(project)
    known = learning.complete and all("validation_scored" in numbers for numbers in scored.values())
    left_out = listed([case for case, _ in validation_remarks(project)])
    source = f"{span}{counted(counts[-1], 'validation case')} of the project"
    if known:
        source += ", never trained on" + (f", without {left_out}, which the models learned from" if left_out else "")
    else:
        source += f" (older rounds kept no record of what they learned from{f', most likely from {left_out} too' if left_out else ''})"
    cases = {r: numbers.get("validation_scored", numbers.get("validation_cases")) for r, numbers in scored.items()}
    return Scores(rounds, "On validation cases", source, cases)


def cards(project: Project, scores: Sequence[Scores]) -> Iterator[Card]:
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


def _quality_card(project: Project, scores: Sequence[Scores]) -> Card:
    question = "How good are the labels?"
    for each in scores:
        if not each.by_people and each.latest():
            return _measured_card(question, each)
    for each in scores:
        if latest := each.latest():
            helped = f"with their help the pseudo-labels of round {latest[0]} have Dice {number(latest[1]['dice'])}"
            return Card(question, "not measured", f"only {each.source}; {helped}")
    agreement = [n["agreement"] for n in project.journal.rounds().values() if n.get("agreement") is not None]
    if not agreement:
        return Card(question, "not known", "no round is finished")
    left_out = [case for case, _ in validation_remarks(project)]
    without = f"no references but {listed(left_out)}, which the models learned from" if left_out else "no references"
    hint = "agreement is no proof: import some cases with their label maps for validation to know"
    return Card(question, "not measured", f"{without}; network and SAM2 agree with Dice {number(agreement[-1])}; {hint}")


def _measured_card(question: str, scores: Scores) -> Card:
    latest = scores.latest()
    assert latest is not None  # the caller looked
    last, summary = latest
    everyone = scores.with_people.get(last)
    beside = f" (over all {scores.everyone}, those too in which people had a hand: {number(everyone)})" if everyone is not None else ""
    first = scores.dice("pseudo_label").get(0)
    same = last > 0 and first is not None and scores.cases.get(0) == scores.cases.get(last) is not None
    compared = f"; those of round 0 had {number(first)}" if same else ""
    missed = counted(summary["missed"], "structure") + " missed"
    detail = f"pseudo-labels of round {last} against {scores.source}{beside}{compared}; {missed}"
    return Card(question, f"Dice {number(summary['dice'])}", detail)
