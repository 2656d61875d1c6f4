"""Tables of the rounds' numbers, each with a legend below, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..project import Project
from ..round_files import LABEL_MAPS
from ..vocabulary import LABEL_MAP_NAMES, TERMS, legend
from ..wording import counted, number

_OF_ROUNDS = ("uncertainty", "agreement", "stability", "key_frames")


def show_with_legend(console: Console, table: Table, terms: Iterable[str]) -> None:
    """A table, and below it what its columns mean."""
    console.print(table)
    show_legend(console, terms)


def show_legend(console: Console, terms: Iterable[str]) -> None:
    """What columns mean, in grey."""
    console.print(escape(legend(*terms)), style="dim", highlight=False)


def rounds_table(project: Project) -> tuple[Table, list[str]]:
    """All finished rounds, a row each, and the terms of its legend; with validation cases the Dice of their pseudo-labels."""
    rounds = project.journal.rounds()
    dice = {r: validation_dice(numbers, "pseudo_label") for r, numbers in rounds.items()}
    scored = {tuple(numbers["validation_scored"]) for numbers in rounds.values() if "validation_scored" in numbers}
    measured = ["dice", *(["validation_cases"] if len(scored) > 1 else [])] if any(value is not None for value in dice.values()) else []
    terms = [*_OF_ROUNDS, *measured, "decided_cases"]
    table = _table("Rounds", ["round", *(TERMS[key].name for key in terms)])
    for r, numbers in rounds.items():
        values = {**numbers, "dice": dice[r], "decided_cases": numbers.get("decided_cases", 0)}
        table.add_row(str(r), *(TERMS[key].text(values.get(key)) for key in terms))
    return table, terms


def round_table(round: int, numbers: Mapping[str, Any]) -> tuple[Table, list[str]]:
    """One round's numbers in a row, and the terms of its legend."""
    table = _table(f"Round {round}", [TERMS[key].name for key in _OF_ROUNDS])
    table.add_row(*(TERMS[key].text(numbers.get(key)) for key in _OF_ROUNDS))
    return table, list(_OF_ROUNDS)


def validation_line(numbers: Mapping[str, Any]) -> str:
    """The validation cases' Dice of every label map of a round; empty where there is none."""
    if not numbers.get("validation"):
        return ""
    parts = [f"{text} {number(validation_dice(numbers, name))}" for name, text in LABEL_MAP_NAMES.items()]
    return f"Dice on {counted(numbers['validation_cases'], 'validation case')}: {', '.join(parts)}"


def validation_dice(numbers: Mapping[str, Any], label_map: str) -> float | None:
    """Mean Dice of a label map over the validation cases."""
    return ((numbers.get("validation") or {}).get(label_map) or {}).get("dice")


def scores_table(result: Mapping[str, Any]) -> Table:
    """Dice, HD95 and missed structures per round and label map: of the cases that no person touched, with the Dice of all beside them."""
    touched, others = len(result["touched_cases"]), len(result["compared_cases"])
    title = f"{counted(result['cases'], 'case')} with references; HD95 in mm"
    if 0 < others < result["cases"]:
        which = ["no person touched"] * bool(touched) + ["every round labelled"] * bool(_left_out_as_late(result))
        title = f"{counted(others, 'case')} that {' and '.join(which)}, of {result['cases']} with references; HD95 in mm"
    if not others:
        title = f"People had a hand in every case with a reference ({result['cases']}); HD95 in mm"
    table = Table(title=title, title_justify="left", pad_edge=False, show_edge=False)
    table.add_column("round", justify="right")
    for name in LABEL_MAPS:
        table.add_column(f"{LABEL_MAP_NAMES[name]}\nDice  HD95 miss", justify="right", no_wrap=True)
    beside = touched and others
    if beside:
        table.add_column(f"all {result['cases']}\nDice", justify="right")
    table.add_column("finds\nerrors", justify="right")
    for row in result["rounds"]:
        shown = row["compared"] if others else row
        everyone = [TERMS["dice"].text(row["pseudo_label"]["dice"])] if beside else []
        spearman = TERMS["finds_errors"].text(shown["uncertainty_error_spearman"])
        table.add_row(str(row["round"]), *(_cell(shown[name]) for name in LABEL_MAPS), *everyone, spearman)
    return table


def scores_legend(result: Mapping[str, Any]) -> str:
    """What the columns of ``scores_table`` mean."""
    sentences = [legend("dice", "hd95_mm", "missed", "finds_errors").replace("missed: ", "miss: ")]
    if result["touched_cases"]:
        sentences.append(
            f"A person touched {', '.join(result['touched_cases'])}: decided on it before the newest round, or the loop learned from a"
            " person's labels of it. So its score is not the loop's work alone."
        )
    if result["late_cases"]:
        sentences.append(f"Not every round labelled {', '.join(result['late_cases'])}.")
        if not _left_out_as_late(result):
            sentences.append("So the rounds are not compared over the same cases.")
    return " ".join(sentences)


def _left_out_as_late(result: Mapping[str, Any]) -> bool:
    """Whether cases that some round did not label are left out of the table; they are not where there would be none."""
    return not set(result["late_cases"]) <= set(result["touched_cases"]) | set(result["compared_cases"])


def _cell(scores: Mapping[str, Any]) -> str:
    if scores["dice"] is None:
        return "–"
    distance = scores["hd95_mm"]
    return f"{scores['dice']:.3f}  {'–' if distance is None else f'{distance:4.1f}'} {scores['missed']:3d}"


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table
