"""Done means: a row, and files that still have the content they had then."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import pytest

from SAM2IterativeLib.errors import ProjectError, ResourceError
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.project.journal import Journal, _uri


def _file(project: Project, content: bytes, round: int = 0, case: str = "b") -> Path:
    path = project.artefact(round, case, "coarse.nii.gz")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_alone_is_not_done(project: Project) -> None:
    path = _file(project, b"whole")
    assert not project.journal.unit_done(0, "predict", "b")
    project.journal.finish_unit(0, "predict", "b", [path], 2.5)
    assert project.journal.unit_done(0, "predict", "b")
    assert not project.journal.unit_done(1, "predict", "b")
    assert not project.journal.unit_done(0, "predict", "c")
    path.write_bytes(b"short")
    assert not project.journal.unit_done(0, "predict", "b")
    path.unlink()
    assert not project.journal.unit_done(0, "predict", "b")


def test_units_are_listed_and_replaced(project: Project) -> None:
    path = _file(project, b"1")
    project.journal.finish_unit(0, "predict", "b", [path])
    project.journal.finish_unit(0, "train", "", [])
    project.journal.finish_unit(1, "predict", "b", [path])
    assert [(u.round, u.stage, u.case) for u in project.journal.units()] == [
        (0, "predict", "b"),
        (0, "train", ""),
        (1, "predict", "b"),
    ]
    assert project.journal.units(0)[0].files.keys() == {"rounds/0/b/coarse.nii.gz"}
    project.journal.finish_unit(1, "predict", "b", [_file(project, b"2")])
    assert len(project.journal.units()) == 3 and project.journal.unit_done(1, "predict", "b")


def test_numbers_of_rounds_and_cases(project: Project) -> None:
    project.journal.finish_round(1, {"dice": 0.5, "per_case": {"b": 0.4}})
    project.journal.finish_round(0, {"dice": 0.4})
    project.journal.finish_round(1, {"dice": 0.6})
    assert project.journal.rounds() == {0: {"dice": 0.4}, 1: {"dice": 0.6}}
    project.journal.finish_unit(0, "predict", "b", [], numbers={"uncertainty": 0.5, "agreement": None})
    project.journal.finish_unit(1, "predict", "b", [], numbers={"uncertainty": 0.25})
    project.journal.finish_unit(0, "predict", "c", [], numbers={"uncertainty": 0.75})
    assert project.journal.latest_numbers("uncertainty") == {"b": (1, 0.25), "c": (0, 0.75)}
    assert project.journal.numbers(0, "b") == {"uncertainty": 0.5, "agreement": None}
    assert project.journal.latest_numbers("agreement") == {}


def test_a_failed_transaction_leaves_nothing(project: Project) -> None:
    with pytest.raises(ZeroDivisionError), project.journal.writing() as database:
        database.execute("DELETE FROM cases")
        raise ZeroDivisionError
    assert len(project.cases()) == 3


def test_what_a_killed_writer_left_half_done_is_undone_even_when_only_reading(project: Project) -> None:
    script = (
        "import os, signal, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"  # so that it writes into the file before it is done
        "database.execute('BEGIN')\n"
        "database.execute('DELETE FROM cases')\n"
        "database.executemany('INSERT INTO events (time, kind, text) VALUES (0, 0, ?)', [('x' * 4000,)] * 50)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    project.close()
    subprocess.run([sys.executable, "-c", script, str(project.folder / "journal.sqlite")], check=False)
    assert (project.folder / "journal.sqlite-journal").stat().st_size
    with Project.open(project.folder, read_only=True) as found:
        assert len(found.cases()) == 3 and not found.journal.events()


def test_another_writer_is_not_blamed_on_the_disk(project: Project) -> None:
    project.journal._database.execute("PRAGMA busy_timeout = 10")
    with contextlib.closing(sqlite3.connect(project.folder / "journal.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ProjectError, match="another program is writing"):
            project.journal.note("run", "text")


def test_a_reader_that_outlasts_the_patience_costs_one_write_and_no_more(project: Project) -> None:
    project.journal._database.execute("PRAGMA busy_timeout = 10")
    with contextlib.closing(sqlite3.connect(project.folder / "journal.sqlite", isolation_level=None, timeout=0)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM cases").fetchall()  # holds the lock of a reader until its transaction ends
        with pytest.raises(ProjectError, match="another program is writing"):
            project.journal.note("run", "lost")
        other.execute("COMMIT")
        other.execute("BEGIN IMMEDIATE")  # nothing is locked any more
        other.execute("ROLLBACK")
    project.journal.note("run", "kept")
    assert [event.text for event in project.journal.events()] == ["kept"]


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/a b/50%/#1?.sqlite"), "file:///a%20b/50%25/%231%3F.sqlite?mode=ro"),
        (PureWindowsPath(r"C:\Müller\journal.sqlite"), "file:///C:/M%C3%BCller/journal.sqlite?mode=ro"),
        (PureWindowsPath(r"\\server\share\x\journal.sqlite"), "file:////server/share/x/journal.sqlite?mode=ro"),
    ],
)
def test_no_server_is_named_where_sqlite_wants_none(path: PurePath, uri: str) -> None:
    assert _uri(path, "ro") == uri
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):  # not: invalid uri authority
        sqlite3.connect(uri, uri=True)


def test_a_journal_opens_under_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "50% of #1? Ärzte"
    folder.mkdir()
    Journal(folder, new=True).close()
    assert sorted(path.name for path in folder.iterdir()) == ["journal.sqlite"]
    with contextlib.closing(Journal(folder, read_only=True)) as found:
        assert found.events() == ()


def test_a_full_disk_loses_no_row(project: Project) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises((ResourceError, ProjectError)):
            project.journal.note("run", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(project.cases()) == 3 and not project.journal.events()
    project.journal.note("run", "again")


@pytest.mark.parametrize("content", [None, b""])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_lost_journal_is_never_replaced_by_an_empty_one(project: Project, content: bytes | None, read_only: bool) -> None:
    folder = project.folder
    project.close()
    (folder / "journal.sqlite").unlink()
    if content is not None:
        (folder / "journal.sqlite").write_bytes(content)
    with pytest.raises(ProjectError, match=r"journal.*missing or empty"):
        Project.open(folder, read_only=read_only)
    assert (folder / "journal.sqlite").exists() == (content is not None)


def test_a_journal_without_its_version_is_damaged(project: Project) -> None:
    with project.journal.writing() as database:
        database.execute("DELETE FROM meta")
    project.close()
    with pytest.raises(ProjectError, match="names no version"):
        Project.open(project.folder)


def _die_within(folder: Path) -> None:
    journal = Journal(folder)
    with journal.writing() as database:
        database.execute("DELETE FROM cases")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_within_a_transaction_leaves_nothing(project: Project) -> None:
    process = multiprocessing.get_context("fork").Process(target=_die_within, args=(project.folder,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(project.cases()) == 3
    project.journal.note("after", "still writable")


def test_a_damaged_journal_is_told_in_a_sentence(project: Project) -> None:
    project.close()
    (project.folder / "journal.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ProjectError, match=r"journal\.sqlite: the journal cannot be used"):
        Project.open(project.folder)


def test_events_keep_their_order(project: Project) -> None:
    project.journal.note("run", "first")
    project.journal.note("other", "between")
    project.journal.note("run", "second")
    assert [e.text for e in project.journal.events("run")] == ["first", "second"]
    assert len(project.journal.events()) == 3
