"""``review``: look at proposals, accept, correct or reject them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from ..agreement import comparisons, contested
from ..decisions import user_name
from ..exchange import labelled_mask, read_labels
from ..project import Case, Project
from ..review import Review
from ..vocabulary import TERMS, review_state
from .console import ProjectFolder, console, opened
from .tables import show_legend, show_with_legend

app = typer.Typer(
    help="Look at pseudo-labels and accept, correct or reject them. What is decided here reaches the next round; where reviewers"
    " contradict each other, 'list --all' and 'show' say so, and the newest decision counts.",
    no_args_is_help=True,
)

_CaseId = Annotated[str, typer.Argument(metavar="CASE", help="The case's id.", show_default=False)]
_Reviewer = Annotated[
    str, typer.Option("--reviewer", help="Who decides, or decided.", default_factory=user_name, show_default="your user name")
]
_Comment = Annotated[str, typer.Option("--comment")]
_Segments = Annotated[str, typer.Option("--segments", help="Only these labels: values or names by comma.")]
_Slices = Annotated[str, typer.Option("--slices", help="Only these slices: indices by comma, counted from 0.")]


@app.command("list")
def list_cases(
    project: ProjectFolder,
    order: Annotated[str, typer.Option("--order", help="uncertainty, certainty, name or imported.")] = "uncertainty",
    decided: Annotated[bool, typer.Option("--all", help="Decided cases too.")] = False,
) -> None:
    """What waits for review, the most uncertain first."""
    if order not in ("uncertainty", "certainty", "name", "imported"):
        raise typer.BadParameter("uncertainty, certainty, name or imported", param_hint="--order")
    with opened(project, to_write=False) as found:
        table, review = Table(), Review(found)
        for column in ("case", "round", "uncertainty", "status", "reviewers"):
            table.add_column(column)
        for entry in review.queue(order, decided=decided):  # type: ignore[arg-type] # checked above
            contest = ", contradicted" if contested(review, entry.case) else ""
            number = "–" if entry.uncertainty is None else f"{entry.uncertainty:.3f}"
            round_ = "–" if entry.round is None else str(entry.round)
            status = review_state(entry.status, entry.round) + contest
            table.add_row(escape(entry.case.id), round_, number, status, escape(", ".join(entry.reviewers)))
        show_with_legend(console, table, ["uncertainty"])


@app.command()
def show(project: ProjectFolder, case: _CaseId) -> None:
    """A case's proposal, decisions and disagreements."""
    with opened(project, to_write=False) as found:
        review, chosen = Review(found), found.case(case)
        console.print(f"[bold]{escape(chosen.id)}[/]: {review.status(chosen)}")
        newest = review.proposal_round(chosen)
        if newest is not None:
            path = found.artefact(newest, chosen, "pseudo_label.nii.gz")
            console.print(f"Proposal of round {newest}: {escape(str(path))}", soft_wrap=True, highlight=False)
            numbers = found.journal.numbers(newest, chosen.id)
            known = [key for key in ("uncertainty", "agreement", "stability") if numbers.get(key) is not None]
            console.print(f"  {', '.join(f'{TERMS[key].name} {TERMS[key].text(numbers[key])}' for key in known)}", highlight=False)
            show_legend(console, known)
            labels = review.proposal(chosen)[1]
            for label in found.settings.labels:
                millilitres = float((labels.array == label.value).sum() * np.prod(labels.geometry.spacing) / 1000)
                console.print(f"  {escape(label.name)}: {millilitres:.2f} ml", highlight=False)
        for decision in review.decisions(chosen, withdrawn=True):
            taken_back = " (taken back)" if decision.withdrawn_at else ""
            words = " ".join(w for w in (decision.reason, decision.comment) if w)
            console.print(f"  {decision.time} {escape(decision.reviewer)}: {decision.kind}{taken_back} {escape(words)}", highlight=False)
        names = {label.value: label.name for label in found.settings.labels}
        for pair in comparisons(review, chosen):
            shares = ", ".join(f"{names.get(v, v)} {'–' if d is None else f'{d:.3f}'}" for v, d in pair.dice.items())
            words = f"{pair.verdict} ({' and '.join(pair.statuses)}){f'; Dice {shares}' if shares else ''}"
            console.print(f"  {escape(' and '.join(pair.reviewers))} {escape(words)}", highlight=False)


@app.command()
def accept(
    project: ProjectFolder, case: _CaseId, reviewer: _Reviewer, comment: _Comment = "", segments: _Segments = "", slices: _Slices = ""
) -> None:
    """Accept the newest proposal."""
    with opened(project, to_write=True) as found:
        values, chosen = _values(found, segments), found.case(case)
        Review(found).accept(chosen, reviewer=reviewer, comment=comment, segments=values, slices=_indices(slices))
        _tell(found, chosen)


@app.command()
def reject(
    project: ProjectFolder,
    case: _CaseId,
    reviewer: _Reviewer,
    reason: Annotated[str, typer.Option("--reason")] = "",
    comment: _Comment = "",
    segments: _Segments = "",
    slices: _Slices = "",
) -> None:
    """Reject the proposal: it is not learned from."""
    with opened(project, to_write=True) as found:
        values, chosen = _values(found, segments), found.case(case)
        Review(found).reject(chosen, reviewer=reviewer, reason=reason, comment=comment, segments=values, slices=_indices(slices))
        _tell(found, chosen)


@app.command()
def correct(
    project: ProjectFolder,
    case: _CaseId,
    reviewer: _Reviewer,
    labels: Annotated[Path, typer.Option("--labels", help="The corrected label map.")],
    comment: _Comment = "",
    segments: _Segments = "",
    slices: _Slices = "",
) -> None:
    """Keep a corrected label map; it counts like a labelled case."""
    with opened(project, to_write=True) as found:
        values, chosen = _values(found, segments), found.case(case)
        drawn = labelled_mask(read_labels(labels, found.settings.labels), found.settings.labels, labels.name)
        Review(found).correct(chosen, drawn, reviewer=reviewer, comment=comment, segments=values, slices=_indices(slices))
        _tell(found, chosen)


@app.command("take-back")
def take_back(
    project: ProjectFolder,
    reviewer: _Reviewer,
    case: Annotated[str, typer.Argument(metavar="[CASE]", help="Only on this case.", show_default=False)] = "",
    anyone: Annotated[bool, typer.Option("--anyone", help="Whoever decided last, not only the reviewer.")] = False,
) -> None:
    """Take back the reviewer's last decision; the journal remembers both."""
    with opened(project, to_write=True) as found:
        decision = Review(found).take_back_last(found.case(case) if case else None, None if anyone else reviewer)
        console.print(f"Taken back: {decision.kind} on {escape(decision.case)} by {escape(decision.reviewer)}.")


def _tell(project: Project, case: Case) -> None:
    review = Review(project)
    newest = review.current(case)
    by = f" by {newest.reviewer}" if newest else ""
    contest = " Reviewers contradict each other on this case; the newest decision counts." if contested(review, case) else ""
    console.print(f"{escape(case.id)}: {review.status(case)}{escape(by)}.{contest}")


def _values(project: Project, text: str) -> tuple[int, ...]:
    """Label values from values or names by comma."""
    by_name = {label.name.lower(): label.value for label in project.settings.labels}
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word.lower() not in by_name and not word.isdigit()]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]} is none of {', '.join(by_name)}", param_hint="--segments")
    return tuple(by_name[word.lower()] if word.lower() in by_name else int(word) for word in words)


def _indices(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError as error:
        raise typer.BadParameter("whole numbers by comma", param_hint="--slices") from error
