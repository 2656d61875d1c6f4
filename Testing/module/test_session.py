"""What all panels share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from SAM2IterativeLib.errors import ProjectError
from SAM2IterativeLib.messages import Refused, RoundFinished, RunFinished, StageFinished
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.settings import Label, Settings, replaced


@pytest.fixture
def session(scene: Any) -> Any:
    from SAM2IterativeGUI.session import Session

    made = Session()
    yield made
    made.cleanup()


@pytest.fixture
def told(session: Any) -> list[str]:
    topics: list[str] = []
    session.observe(topics.append)
    return topics


def test_everybody_hears_what_changed_until_they_leave(session: Any, told: list[str], tmp_path: Path) -> None:
    session.create(tmp_path / "p", [Label(1, "organ")])
    assert told == ["project"]
    assert session.project.label_names == ("organ",)
    session.close()
    assert told == ["project", "closing", "project"]
    session.unobserve(told.append)
    session.observe(print)
    session.unobserve(print)
    session.unobserve(print)


def test_one_project_at_a_time_and_the_lock_goes_with_it(session: Any, tmp_path: Path) -> None:
    session.create(tmp_path / "a")
    session.create(tmp_path / "b", settings=Settings(seed=5))
    assert session.project.settings.seed == 5
    with Project.open(tmp_path / "a") as first:
        assert not first.read_only
    with Project.open(tmp_path / "b") as second:
        assert second.read_only, "this session has it"
    session.close()
    with Project.open(tmp_path / "b") as second:
        assert not second.read_only


def test_a_project_that_cannot_be_opened_leaves_the_other_one_open(session: Any, told: list[str], tmp_path: Path) -> None:
    project = session.create(tmp_path / "a")
    with pytest.raises(ProjectError):
        session.open(tmp_path / "nowhere")
    assert session.project is project
    assert told == ["project"]


def test_opening_the_same_project_again_does_not_lock_it_out(session: Any, tmp_path: Path) -> None:
    session.create(tmp_path / "a")
    assert not session.open(tmp_path / "a").read_only


def test_without_a_project_everything_is_read_only(session: Any) -> None:
    assert session.read_only and session.notice == ""
    with pytest.raises(ProjectError, match="tab Project"):
        session.require_project()


def test_the_reviewers_name_is_remembered(session: Any, told: list[str]) -> None:
    from SAM2IterativeGUI.session import Session

    session.reviewer = "  Dr. Ada "
    session.reviewer = "Dr. Ada"
    assert told == ["reviewer"]
    assert Session().reviewer == "Dr. Ada"


def test_the_workers_news_become_topics(session: Any, told: list[str]) -> None:
    session._on_message(RoundFinished(1, {}))
    session._on_message(RunFinished(2, False, "done"))
    assert told == ["rounds", "cases", "run", "rounds", "cases"]


def test_a_refused_request_is_news_of_the_run(session: Any, told: list[str]) -> None:
    session._on_message(Refused("StartRun", "The worker was not greeted."))
    assert told == ["run"]


def test_settings_that_the_worker_wrote_are_seen(session: Any, told: list[str], tmp_path: Path) -> None:
    project = session.create(tmp_path / "p", [Label(1, "organ")])
    session._on_message(StageFinished(0, "adaptation", None, 1.0))
    assert "settings" not in told
    with Project.open(tmp_path / "p", shared_with=os.getpid()) as worker:
        worker.change_settings(replaced(worker.settings, "foundation.weights", "adapted"))
    session._on_message(StageFinished(0, "adaptation", None, 1.0))
    assert told.count("settings") == 1 and project.settings.foundation.weights == "adapted"
    (tmp_path / "p" / "project.toml").write_text("half an ed")
    session._on_message(StageFinished(0, "training", None, 1.0))
    assert project.settings.foundation.weights == "adapted"
