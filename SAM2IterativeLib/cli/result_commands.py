"""``evaluate`` and ``report``: how good it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from .console import ProjectFolder, console, opened, remark
from .tables import scores_legend, scores_table


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("evaluate")(evaluate)
    app.command("report")(report)


def evaluate(
    project: ProjectFolder,
    references: Annotated[Path, typer.Option("--references", help="Folder of true label maps that the rounds never saw.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare every round with references."""
    from ..evaluation import evaluate as evaluated

    with opened(project, to_write=False) as found:
        result = evaluated(found, references)
    if as_json:
        print(json.dumps(result, allow_nan=False))
    else:
        show_scores(result)


def show_scores(result: dict[str, Any], to: Console = console) -> None:
    """The table, and everything that was left out of it."""
    to.print(scores_table(result))
    to.print(escape(scores_legend(result)), style="dim", highlight=False)
    for name in ("errors", "remarks"):
        for case, sentence in dict(result.get(name) or {}).items():
            remark(case, sentence, to)
    for name, title in (
        ("cases_without_reference", "Cases without a reference"),
        ("references_without_case", "References without a case"),
        ("labelled_cases", "Labelled cases, not scored"),
    ):
        if result.get(name):
            remark(title, ", ".join(result[name]), to)


def report(
    project: ProjectFolder,
    output: Annotated[Path | None, typer.Option("--output", help="The HTML file; default: report.html in the project.")] = None,
    references: Annotated[Path | None, typer.Option("--references", help="True label maps, to show scores and outlines.")] = None,
) -> None:
    """Write one self-contained HTML file about the rounds."""
    from ..evaluation import evaluate as evaluated
    from ..report import write_report

    with opened(project, to_write=output is None) as found:
        scores = evaluated(found, references) if references else None
        path = write_report(found, output, scores, references)
    console.print(f"Report: {escape(str(path))}", soft_wrap=True, highlight=False)
