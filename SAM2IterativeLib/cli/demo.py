"""The main job on generated volumes, in minutes: few labels, three rounds, a table against references, a report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..device import choose_device
from ..errors import ProjectError, Stopped
from ..evaluation import evaluate
from ..exchange import import_any
from ..iteration import Iteration, run_safely
from ..messages import Reporter
from ..phantom import LABEL_NAMES, write_phantom_dataset
from ..project import Project
from ..report import write_report
from ..settings import DedicatedSettings, FoundationSettings, RoundSettings, Settings
from .next_steps import command
from .result_commands import show_scores

CASES, LABELLED, SEED, ROUNDS = 12, 3, 7, 2
_STEPS = DedicatedSettings(first_steps=160, round_steps=100)
_ADAPTED = FoundationSettings(adaptation_steps=25)
"""Few steps, so that the demo ends within minutes on two cores; the project's own defaults are larger."""

_REFERENCES = "references"
ReporterFor = Callable[[Project], AbstractContextManager[Reporter]]


def run_demo(folder: Path, device: str, reporter_for: ReporterFor, stop_asked: Callable[[], bool], console: Console) -> None:
    """Generate volumes, run the rounds, print the table, write the report. Run again, it continues where it was stopped.

    Raises:
        Stopped: a person asked to stop.
        ProjectError: the folder holds something else, or the run failed.
    """
    if folder.exists() and not (folder / "project" / "project.toml").is_file():
        raise ProjectError("the folder exists and is no demo.", where=folder.name, cure="Choose another with --folder.")
    if not folder.exists():
        console.print(f"Generating {CASES} volumes, {LABELLED} of them labelled ...")
        _generate(folder)
    with Project.open(folder / "project") as project:
        with reporter_for(project) as report:
            rounds = ROUNDS - max(project.journal.rounds(), default=0)
            if rounds > 0:
                chosen = choose_device(device)
                if run_safely(lambda: Iteration(project, chosen, report, stop_asked).run(rounds), report) is None:
                    if stop_asked():
                        raise Stopped
                    raise ProjectError("the demo's run failed, see above.", where=folder.name)
        scores = evaluate(project, folder / _REFERENCES)
        show_scores(scores, console)
        path = write_report(project, None, scores, folder / _REFERENCES)
    console.print(f"Report: [bold]{escape(str(path))}[/]  (open it in a browser)", soft_wrap=True, highlight=False)
    console.print(f"Try: {command('status', folder / 'project')}", soft_wrap=True, highlight=False)


def _generate(folder: Path) -> None:
    """Volumes, references and a project; the folder gets its name last, so that a demo that is cut off here can be begun anew."""
    begun = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(begun, ignore_errors=True)
    write_phantom_dataset(begun / "data", CASES, LABELLED, SEED, begun / _REFERENCES)
    with Project.create(begun / "project", _settings()) as project:
        import_any(project, begun / "data" / "images", begun / "data" / "labels", label_names=("background", *LABEL_NAMES[:2]))
    begun.rename(folder)


def _settings() -> Settings:
    return Settings(name="Demo", seed=SEED, dedicated=_STEPS, foundation=_ADAPTED, rounds=RoundSettings(maximum=ROUNDS))
