"""By which method each round was made. A round is finished by the method that began it: another one would miss the files that it reads."""

from __future__ import annotations

from .errors import SettingsError
from .project import Project

_METHOD = "method"
"""Events of this kind: a round's number and the method by which it went on, whenever that changed."""


def note_method(project: Project, round: int) -> None:
    """The round goes on by the project's method."""
    text = f"{round} {project.settings.method}"
    events = project.journal.events(_METHOD)
    if not events or events[-1].text != text:
        project.journal.note(_METHOD, text)


def method_under_way(project: Project) -> tuple[int, str] | None:
    """The unfinished round of which something is computed already, and its method; None where there is no such round."""
    round = max(project.journal.rounds(), default=-1) + 1
    if not project.journal.units(round):
        return None
    noted = [event.text.partition(" ") for event in project.journal.events(_METHOD)]
    return next(((round, name) for number, _, name in reversed(noted) if int(number) == round), None)


def method_of_round(project: Project, round: int) -> str:
    """The method by which a finished round was made; the project's where the round does not say."""
    numbers = project.journal.rounds().get(round, {})
    return str(numbers.get("provenance", {}).get("method", project.settings.method))


def require_method(project: Project, method: str) -> None:
    """Raise where another method's round is under way.

    Raises:
        SettingsError: says which, and what to do.
    """
    found = method_under_way(project)
    if found is not None and found[1] != method:
        round, began = found
        cure = f"Finish that round first, with method = '{began}'; the next one may follow '{method}'."
        raise SettingsError(f"round {round} was begun with '{began}' and is not finished.", where="method", cure=cure)
