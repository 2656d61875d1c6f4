"""The demo command, with few cases and steps: what it prints and leaves, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from SAM2IterativeLib.cli import app, demo
from SAM2IterativeLib.errors import ProjectError
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.settings import DedicatedSettings, FoundationSettings


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, weights: Path, one_thread: None) -> None:
    """Of the same way as the real demo, but over in seconds."""
    monkeypatch.setattr(demo, "CASES", 3)
    monkeypatch.setattr(demo, "LABELLED", 2)
    monkeypatch.setattr(demo, "ROUNDS", 1)
    monkeypatch.setattr(demo, "_STEPS", DedicatedSettings(first_steps=4, round_steps=2, batch=2, snapshots=1))
    monkeypatch.setattr(demo, "_ADAPTED", FoundationSettings(weights=str(weights), adaptation_steps=0))


def test_it_ends_with_a_table_and_a_report_and_continues_where_it_was(short: None, tmp_path: Path) -> None:
    folder = tmp_path / "made here"
    result = CliRunner().invoke(app, ["demo", "--folder", str(folder), "--device", "cpu"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Generating 3 volumes, 2 of them labelled" in result.output and "pseudo-label" in result.output.lower()
    [report] = (folder / "project").rglob("report*.html")
    assert str(report) in result.output.replace("\n", "") and f"status '{folder / 'project'}'" in result.output
    with Project.open(folder / "project", read_only=True) as project:
        assert sorted(project.journal.rounds()) == [0, 1]
        done = len(project.journal.rounds())
    again = CliRunner().invoke(app, ["demo", "--folder", str(folder), "--device", "cpu"], catch_exceptions=False)
    assert again.exit_code == 0 and "Generating" not in again.output
    with Project.open(folder / "project", read_only=True) as project:
        assert len(project.journal.rounds()) == done


def test_a_demo_cut_off_while_it_made_its_volumes_begins_anew(short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    with monkeypatch.context() as cut, pytest.raises(KeyboardInterrupt):
        cut.setattr(demo, "import_any", interrupted)
        demo._generate(folder)
    assert not folder.exists()
    demo._generate(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    with Project.open(folder / "project", read_only=True) as project:
        assert len(project.cases()) == 3


def interrupted(*arguments: object, **named: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_that_is_no_demo_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ProjectError, match="is no demo"):
        CliRunner().invoke(app, ["demo", "--folder", str(tmp_path)], catch_exceptions=False)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
