"""The page: everything that the template shows, gathered from the project."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from .. import __version__
from ..agreement import comparisons
from ..errors import DataError, ProjectError
from ..exchange.importing import unusable_files
from ..learning import learning_of
from ..project import Case, Project
from ..project.journal import now
from ..references import match_references, read_reference
from ..review import Review
from ..round_files import LABEL_MAPS, RoundFiles
from ..round_method import method_of_round
from ..vocabulary import TERMS, legend, method_words
from ..volumes import LabelMap
from ..wording import counted, number
from .case_pictures import CasePictures, case_pictures, css_colour
from .charts import Chart, curves, dots, scatter
from .drawing import uncertainty_scale
from .overview import STAGE_NAMES, Scores, cards, reference_scores, validation_scores
from .provenance import changed_settings, plan_rows, plan_table, provenance_of, time_table
from .surface import surfaces_available
from .wording import unpathed

_MOST_UNCERTAIN, _RANDOM = 3, 3


@dataclass(frozen=True)
class ShownCase:
    """A case with pictures: ``facts`` are pairs of a name and a value."""

    id: str
    why: str
    facts: list[tuple[str, str]]
    pictures: CasePictures


def rendered(project: Project, evaluation: Mapping[str, Any] | None = None, references: Path | None = None) -> str:
    """The report's HTML; see ``write_report``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__.partition(".")[0]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "counted": counted, "unpathed": unpathed}
    environment.globals["legend"] = legend
    return environment.get_template("report.html").render(_content(project, evaluation, references))


def _content(project: Project, evaluation: Mapping[str, Any] | None, references: Path | None) -> dict[str, Any]:
    scores = [found for found in (reference_scores(evaluation) if evaluation else None, validation_scores(project)) if found]
    plan = plan_table(project)
    return {
        "title": project.settings.name,
        "made_at": now().replace("T", " ").replace("+00:00", " UTC"),
        "version": __version__,
        "labels": [(label.name, css_colour(label)) for label in project.settings.labels],
        "cards": list(cards(project, scores)),
        "rounds": project.journal.rounds(),
        "scores": scores,
        "stage_names": STAGE_NAMES,
        "terms": TERMS,
        "evaluation": evaluation,
        "charts": _charts(project, scores, evaluation),
        "cases": _shown_cases(project, evaluation, references, str(plan.get("orientation", ""))),
        "surfaces": surfaces_available(),
        "scale": uncertainty_scale(),
        "review": _review(project),
        "left_out": [(c.id, unpathed(c.set_aside.removeprefix(f"{c.id}: "))) for c in project.cases() if not c.usable],
        "not_imported": len(unusable_files(project)),
        "changed_settings": changed_settings(project.settings),
        "plan": plan_rows(plan),
        "provenance": provenance_of(project),
        "adaptation": next((unpathed(event.text) for event in reversed(project.journal.events("adaptation"))), ""),
        "times": time_table(project),
        "disk_gigabytes": sum(project.disk_used().values()) / 1e9,
        "seed": project.settings.seed,
        "method": project.settings.method,
        "words": method_words(method_of_round(project, max(project.journal.rounds(), default=0))),
    }


def _charts(project: Project, scores: list[Scores], evaluation: Mapping[str, Any] | None) -> list[tuple[Chart, str]]:
    """Charts and their captions; those without anything to show are left out."""
    rounds = project.journal.rounds()
    uncertainty = {r: _numbers(project, r, "uncertainty") for r in rounds}
    found = [
        (
            curves(each.title, "mean Dice", {STAGE_NAMES[name]: each.dice(name) for name in LABEL_MAPS}),
            f"Dice with {each.source}: 1 is perfect overlap, 0 none; a missed structure counts as 0. Curves that rise from round to "
            "round mean that the loop teaches itself; a propagated curve below the coarse one means that SAM2 does not help here.",
        )
        for each in scores
    ]
    told = {TERMS[key].name.capitalize(): key for key in ("agreement", "stability")}
    found.append(
        (
            curves("Agreement and change", "Dice", {text: {r: n.get(key) for r, n in rounds.items()} for text, key in told.items()}),
            f"{legend('agreement', 'stability')} High values "
            "say that the labels settled, not that they are right: two models can agree on an error.",
        )
    )
    found.append(
        (
            dots("Uncertainty of the cases", "mean uncertainty", uncertainty),
            "Each dot is a case: the mean uncertainty in and around its structures, from 0 (sure) to 1. Dots far above the others "
            "are where a look pays off most.",
        )
    )
    found.append(
        (
            _trust(evaluation, uncertainty),
            f"Does the uncertainty tell which cases are worst? Then the dots fall from left to right. Within a case, "
            f"“{TERMS['finds_errors'].name}” in the "
            "table tells whether it finds the worst slices; one may hold without the other, and few cases or a narrow range say little.",
        )
    )
    return [(chart, caption) for chart, caption in found if chart is not None]


def _trust(evaluation: Mapping[str, Any] | None, uncertainty: Mapping[int, Mapping[str, float]]) -> Chart | None:
    """Uncertainty against Dice per case in which no person had a hand, newest round."""
    if evaluation is None:
        return None
    newest = evaluation["rounds"][-1]
    last, doubt = newest["round"], uncertainty.get(newest["round"], {})
    dice = {case: found["dice"] for case, found in newest["pseudo_label"]["per_case"].items() if case not in evaluation["touched_cases"]}
    points = {case: (doubt[case], value) for case, value in dice.items() if case in doubt and value is not None}
    return scatter(f"Uncertainty and error, round {last}", "mean uncertainty", "Dice", points)


def _numbers(project: Project, round: int, name: str) -> dict[str, float]:
    """A journal number of all usable cases that have it."""
    found = {case.id: project.journal.numbers(round, case.id).get(name) for case in project.cases(usable=True)}
    return {case: value for case, value in found.items() if value is not None}


def _shown_cases(project: Project, evaluation: Mapping[str, Any] | None, references: Path | None, orientation: str) -> list[ShownCase]:
    """The most uncertain cases, and some drawn by lot so that the reader also sees what is usual."""
    review, files, learning = Review(project), RoundFiles(project), learning_of(project)
    matched = match_references(project, references).of_case if references else {}
    cases = project.cases("unlabelled", "validation", usable=True)
    rounds = {case.id: newest for case in cases if (newest := review.proposal_round(case)) is not None}
    doubt = {id: project.journal.numbers(newest, id).get("uncertainty") for id, newest in rounds.items()}
    ranked = sorted((case for case in cases if case.id in rounds), key=lambda case: -(doubt[case.id] or 0.0))
    rest = ranked[_MOST_UNCERTAIN:]
    lot = random.Random(project.settings.seed).sample(rest, min(_RANDOM, len(rest)))
    why = {case.id: "drawn by lot" for case in lot}
    shown = []
    for rank, case in enumerate(ranked, 1):
        if rank <= _MOST_UNCERTAIN or case in lot:
            learned = f", but {who} learned from it" if (who := learning.teachers_of(case.id)) else ""
            status = [("review", review.status(case))] if case.role == "unlabelled" else [("role", f"validation{learned}")]
            facts = [*status, *_facts(project, rounds[case.id], case, evaluation)]
            pictures = case_pictures(project, files, rounds[case.id], case, orientation, _reference(project, case, matched))
            text = why.get(case.id, f"uncertainty rank {rank} of {len(ranked)}")
            shown.append(ShownCase(case.id, text, facts, pictures))
    return shown


def _reference(project: Project, case: Case, matched: Mapping[str, tuple[Case, Path]]) -> LabelMap | None:
    """What a case truly shows, if a reference was ``matched`` with it and can be used; evaluating names those that cannot."""
    try:
        return read_reference(project, *matched[case.id])[0] if case.id in matched else None
    except (DataError, ProjectError):
        return None


def _facts(project: Project, round: int, case: Case, evaluation: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """A case's numbers in words."""
    numbers = project.journal.numbers(round, case.id)
    terms = ("uncertainty", "agreement", "stability")
    facts = [(TERMS[key].name, TERMS[key].text(numbers[key])) for key in terms if numbers.get(key) is not None]
    entry = next((entry for entry in evaluation["rounds"] if entry["round"] == round), None) if evaluation else None
    scored = entry["pseudo_label"]["per_case"].get(case.id) if entry else None
    return [*facts, ("Dice with the reference", TERMS["dice"].text(scored["dice"]))] if scored else facts


def _review(project: Project) -> dict[str, Any]:
    """Decisions, oldest first, and reviewers compared where several decided."""
    review = Review(project)
    names = dict(zip(project.values, project.label_names, strict=True))
    return {
        "names": names,
        "decisions": review.decisions(),
        "withdrawn": sum(bool(decision.withdrawn_at) for decision in review.decisions(withdrawn=True)),
        "compared": [(case.id, pair) for case in project.cases() for pair in comparisons(review, case)],
    }
