"""What all panels share: the open project, who reviews, the worker, and word of what changed.

Nothing is kept here that the project folder does not hold; a session can be dropped at any moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import qt
from slicer.i18n import tr as _

from SAM2IterativeLib.decisions import user_name
from SAM2IterativeLib.errors import ProjectError, SettingsError
from SAM2IterativeLib.messages import (
    CaseSetAside,
    Message,
    Refused,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    StageFinished,
    WorkerEnded,
)
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.settings import Label, Settings

from .observable import Observable
from .worker_process import WorkerProcess

Topic = Literal["closing", "project", "cases", "rounds", "settings", "run", "decisions", "reviewer"]
"""What happened: the project is about to be closed, or another one is open; what changed: cases, finished rounds, settings or labels,
what the worker does, decisions, who reviews."""

_REVIEWER = "SAM2Iterative/reviewer"
_TOPICS: dict[type[Message], tuple[Topic, ...]] = {
    RunStarted: ("run",),
    StageFinished: ("run",),
    CaseSetAside: ("cases",),
    Refused: ("run",),
    RoundFinished: ("rounds", "cases"),
    RunFinished: ("run", "rounds", "cases"),
    RunFailed: ("run", "rounds", "cases"),
    WorkerEnded: ("run", "rounds", "cases"),
}


class Session(Observable[Topic]):
    """One open module.

    Args:
        worker: does the rounds, the estimate and predictions; it starts with its first request.
        corrector: a second one for corrections, so that a person can review while the rounds go on.

    Attributes:
        project: the open project; None where none is.
        rounds: how many rounds the person wants to do next, as the tab Rounds has it.
        may_close: whether the project may be closed; it asks the person where something would be lost.
        go_to: ``go_to(tab, case="")`` opens a tab ("project", "setup", "rounds", "review", "results"), with a case in the review.
    """

    def __init__(self, worker: WorkerProcess | None = None, corrector: WorkerProcess | None = None) -> None:
        super().__init__()
        self.project: Project | None = None
        self.worker = worker or WorkerProcess()
        self.corrector = corrector or WorkerProcess()
        self.rounds = 3
        self.may_close: Callable[[], bool] = lambda: True
        self.go_to: Callable[..., object] = lambda tab, case="": None
        self.worker.observe(self._on_message)

    # The project

    def open(self, folder: str | Path) -> Project:
        """Open a project in place of the one before; for reading only where another program has it.

        Raises:
            ProjectError, SettingsError: see ``Project.open``; the project before stays open.
        """
        if self.project is not None and Path(folder).resolve() == self.project.folder:
            self.close()
        return self._take(Project.open(folder))

    def create(self, folder: str | Path, labels: Sequence[Label] = (), settings: Settings | None = None) -> Project:
        """Make a new project in an empty or new folder and open it in place of the one before.

        Args:
            folder: the project folder.
            labels: may be empty: the first import with labels brings them.
            settings: in place of the defaults; its labels count if ``labels`` is empty.
        """
        settings = settings or Settings()
        return self._take(Project.create(folder, replace(settings, labels=tuple(labels)) if labels else settings))

    def close(self) -> None:
        """Close the project, the workers with it; what they had finished is kept. Nothing happens where none is open."""
        if self.project is None:
            return
        self._close_project()
        self.notify("project")

    def require_project(self) -> Project:
        """The open project.

        Raises:
            ProjectError: none is open.
        """
        if self.project is None:
            raise ProjectError(_("no project is open."), cure=_("Create or open one in the tab Project."))
        return self.project

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed: no project, or one that another program has."""
        return self.project is None or self.project.read_only

    @property
    def notice(self) -> str:
        """What the person should know about the open project, e.g. why it is read-only; "" for nothing."""
        return "" if self.project is None else self.project.notice

    @property
    def why_fixed(self) -> str:
        """Why what a run depends on cannot be changed now; "" where it can."""
        return _("The rounds are going on. Pause them to change this.") if self.worker.busy else ""

    def require_free(self) -> None:
        """Refuse what would disturb a run.

        Raises:
            ProjectError: rounds, a prediction or an estimate are going on.
        """
        if self.worker.busy:
            raise ProjectError(_("the rounds are going on."), cure=_("Pause them in the tab Rounds first."))

    # The reviewer

    @property
    def reviewer(self) -> str:
        """Who reviews, as it is written beside each decision; at first the name of the computer's user."""
        kept = str(qt.QSettings().value(_REVIEWER, "") or "").strip()
        return kept or user_name()

    @reviewer.setter
    def reviewer(self, name: str) -> None:
        if name.strip() != self.reviewer:
            qt.QSettings().setValue(_REVIEWER, name.strip())
            self.notify("reviewer")

    # Word of changes

    def cleanup(self) -> None:
        """The application ends."""
        self._observers.clear()
        self._close_project()
        self.worker.unobserve(self._on_message)

    def _take(self, project: Project) -> Project:
        self._close_project()
        self.project = project
        self.notify("project")
        return project

    def _close_project(self) -> None:
        if self.project is not None:
            self.notify("closing")
        for process in (self.worker, self.corrector):
            process.end()
        if self.project is not None:
            self.project.close()
            self.project = None

    def _on_message(self, message: Message) -> None:
        if isinstance(message, (StageFinished, RunFinished, RunFailed, WorkerEnded)) and self._settings_changed():
            self.notify("settings")
        for topic in _TOPICS.get(type(message), ()):
            self.notify(topic)

    def _settings_changed(self) -> bool:
        """Whether the worker, which adapts SAM2, or a person wrote other settings into the project's file."""
        with contextlib.suppress(SettingsError):  # a half-edited file: whoever changes a setting here is told
            return self.project is not None and self.project.reread_settings()
        return False
