"""What happened in a project: an SQLite file that survives being killed at any moment.

A rollback journal is used, not SQLite's WAL: one row per unit of work gains nothing from WAL, which is unsafe on network shares.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

from ..errors import ProjectError, ResourceError
from ..files import sha256_of

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE cases (
  position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, image TEXT NOT NULL, image_sha256 TEXT NOT NULL,
  label TEXT, label_sha256 TEXT NOT NULL, role TEXT NOT NULL, set_aside TEXT NOT NULL, source TEXT NOT NULL,
  details TEXT NOT NULL, added_at TEXT NOT NULL);
CREATE TABLE units (
  round INTEGER NOT NULL, stage TEXT NOT NULL, "case" TEXT NOT NULL, files TEXT NOT NULL, seconds REAL NOT NULL,
  finished_at TEXT NOT NULL, PRIMARY KEY (round, stage, "case"));
CREATE TABLE rounds (round INTEGER PRIMARY KEY, numbers TEXT NOT NULL, finished_at TEXT NOT NULL);
CREATE TABLE case_numbers (
  round INTEGER NOT NULL, "case" TEXT NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY (round, "case", name));
CREATE TABLE decisions (
  number INTEGER PRIMARY KEY, "case" TEXT NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL, reviewer TEXT NOT NULL,
  comment TEXT NOT NULL, reason TEXT NOT NULL, time TEXT NOT NULL, label_file TEXT NOT NULL, label_sha256 TEXT NOT NULL,
  segments TEXT NOT NULL, slices TEXT NOT NULL, withdrawn_at TEXT NOT NULL DEFAULT '');
CREATE TABLE events (number INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Unit:
    """A finished unit of work: ``files`` maps paths inside the project to their SHA-256; ``case`` is "" for a whole stage."""

    round: int
    stage: str
    case: str
    files: dict[str, str]
    seconds: float
    finished_at: str


@dataclass(frozen=True)
class Event:
    """Something worth remembering: ISO time (UTC), kind, sentence."""

    time: str
    kind: str
    text: str


class Journal:
    """The journal of the project at ``folder``; hashes are taken of files below it."""

    def __init__(self, folder: Path, *, read_only: bool = False, new: bool = False) -> None:
        """Open it; only a ``new`` project's journal is made.

        Raises:
            ProjectError: missing, damaged, or of a newer version.
        """
        self.folder = folder
        self.read_only = read_only
        path = folder / "journal.sqlite"
        if not new and not (path.is_file() and path.stat().st_size):
            raise ProjectError(
                "the journal is missing or empty.", where=folder.name, cure=f"Restore {path.name} from a copy of the project."
            )
        self._database = _open(path, read_only)
        if new:
            self._create_tables()
        self._require_known_version()

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        self._database.close()

    def read(self, query: str, values: Iterable[Any] = ()) -> list[sqlite3.Row]:
        """The rows of a query."""
        with _explained():
            return self._database.execute(query, tuple(values)).fetchall()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the block's changes, or none.

        Raises:
            ProjectError: the project was opened read-only, or another process writes for over 20 seconds.
        """
        if self.read_only:
            raise ProjectError("the project is open for reading only.", where=self.folder.name, cure="Open it for writing first.")
        with _explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                # A COMMIT that failed, since somebody reads all the while, has left the transaction open and the file locked.
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    # Units of work

    def unit_done(self, round: int, stage: str, case: str = "") -> bool:
        """Whether this unit has a row and each of its files still has the content it had then."""
        unit = self.unit(round, stage, case)
        return unit is not None and all(
            (path := self.folder / name).is_file() and sha256_of(path) == digest for name, digest in unit.files.items()
        )

    def unit(self, round: int, stage: str, case: str = "") -> Unit | None:
        """A unit's row; None if it was never finished. Files are not checked, see ``unit_done``."""
        rows = self.read('SELECT * FROM units WHERE round = ? AND stage = ? AND "case" = ?', (round, stage, case))
        return _unit(rows[0]) if rows else None

    def units(self, round: int | None = None) -> tuple[Unit, ...]:
        """All finished units (of one round), in the order in which they finished."""
        rows = self.read("SELECT * FROM units WHERE ? IS NULL OR round = ? ORDER BY rowid", (round, round))
        return tuple(_unit(row) for row in rows)

    def finish_unit(
        self,
        round: int,
        stage: str,
        case: str,
        files: Iterable[Path],
        seconds: float = 0.0,
        numbers: Mapping[str, float | None] | None = None,
    ) -> None:
        """Record a unit as done: the hashes of the files that it made (absolute paths below the project folder), and its numbers.

        A kill leaves both or neither.

        Args:
            numbers: about the case in this round, e.g. ``{"uncertainty": 0.2}``; None for one that cannot be given.
        """
        hashes = {path.relative_to(self.folder).as_posix(): sha256_of(path) for path in files}
        rows = [(round, case, name, None if value is None else float(value)) for name, value in (numbers or {}).items()]
        with self.writing() as database:
            database.executemany("INSERT OR REPLACE INTO case_numbers VALUES (?, ?, ?, ?)", rows)
            database.execute(
                "INSERT OR REPLACE INTO units VALUES (?, ?, ?, ?, ?, ?)",
                (round, stage, case, json.dumps(hashes, sort_keys=True), float(seconds), now()),
            )

    # Rounds

    def finish_round(self, round: int, numbers: Mapping[str, Any]) -> None:
        """Record a round's numbers (plain JSON values); a repeated round replaces its row."""
        with self.writing() as database:
            database.execute("INSERT OR REPLACE INTO rounds VALUES (?, ?, ?)", (round, json.dumps(dict(numbers), sort_keys=True), now()))

    def rounds(self) -> dict[int, dict[str, Any]]:
        """The numbers of the finished rounds, ascending."""
        return {row["round"]: json.loads(row["numbers"]) for row in self.read("SELECT * FROM rounds ORDER BY round")}

    def numbers(self, round: int, case: str) -> dict[str, float | None]:
        """What the units of a round stored about a case."""
        rows = self.read('SELECT name, value FROM case_numbers WHERE round = ? AND "case" = ? ORDER BY name', (round, case))
        return {row["name"]: row["value"] for row in rows}

    def latest_numbers(self, name: str) -> dict[str, tuple[int, float]]:
        """For each case that has a number of this name: its newest round and the value."""
        rows = self.read('SELECT round, "case", value FROM case_numbers WHERE name = ? AND value IS NOT NULL ORDER BY round', (name,))
        return {row["case"]: (row["round"], row["value"]) for row in rows}

    # Events

    def note(self, kind: str, text: str) -> None:
        """Remember a sentence; no path and no patient's name belongs in it."""
        with self.writing() as database:
            database.execute("INSERT INTO events (time, kind, text) VALUES (?, ?, ?)", (now(), kind, text))

    def events(self, kind: str | None = None) -> tuple[Event, ...]:
        """All events (of one kind), oldest first."""
        rows = self.read("SELECT time, kind, text FROM events WHERE ? IS NULL OR kind = ? ORDER BY number", (kind, kind))
        return tuple(Event(*row) for row in rows)

    def _create_tables(self) -> None:
        with self.writing() as database:
            for statement in _SCHEMA.split(";")[:-1]:
                database.execute(statement)
            database.execute("INSERT INTO meta VALUES ('schema_version', ?)", (str(SCHEMA_VERSION),))

    def _require_known_version(self) -> None:
        rows = self.read("SELECT value FROM meta WHERE key = 'schema_version'")
        if not rows:
            self.close()
            raise ProjectError("the journal is damaged: it names no version.", where=self.folder.name, cure="Restore it from a copy.")
        found = int(rows[0][0])
        if found > SCHEMA_VERSION:
            self.close()
            raise ProjectError(
                f"its journal is of version {found}, this software knows {SCHEMA_VERSION}.",
                where=self.folder.name,
                cure="Update SAM2Iterative to open it.",
            )


def now() -> str:
    """The time of day in UTC, ISO 8601 to the second."""
    return datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="seconds")


def _open(path: Path, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    with _explained():
        database = sqlite3.connect(_uri(path.absolute(), mode), uri=True, timeout=20, isolation_level=None)
        database.row_factory = sqlite3.Row
        if read_only:
            _finish_interrupted_commit(database, path)
        database.execute("PRAGMA synchronous = FULL")
        return database


def _finish_interrupted_commit(database: sqlite3.Connection, path: Path) -> None:
    """Undo what a killed process had half written, which SQLite does as soon as somebody who may write looks at the file.

    That SQLite leaves a journal alone whose writer still lives makes it safe to try.
    """
    try:
        database.execute("SELECT 1 FROM sqlite_master").fetchall()
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):
            raise
        with contextlib.closing(sqlite3.connect(_uri(path.absolute(), "rw"), uri=True, timeout=20)) as writer:
            writer.execute("SELECT 1 FROM sqlite_master").fetchall()


def _uri(path: PurePath, mode: str) -> str:
    """An absolute path as SQLite's URI, always with an empty authority.

    pathlib makes the server of a Windows share the authority, which SQLite refuses; mapped drives are such shares once they are resolved.
    """
    name = path.as_posix()
    return f"file://{quote(os.fsencode(name if name.startswith('/') else '/' + name), safe='/:')}?mode={mode}"


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if "full" in str(error):
            raise ResourceError(
                "the disk is full, nothing was recorded.",
                where="journal.sqlite",
                cure="Free some space; the same action then goes on.",
            ) from error
        if "locked" in str(error):
            cure = "Try again in a moment."
            raise ProjectError("another program is writing to the project.", where="journal.sqlite", cure=cure) from error
        raise ProjectError(
            f"the journal cannot be used ({error}).",
            where="journal.sqlite",
            cure="Check the disk and the permissions of the project folder; a copy of the folder is a full backup.",
        ) from error


def _unit(row: sqlite3.Row) -> Unit:
    return Unit(row["round"], row["stage"], row["case"], json.loads(row["files"]), row["seconds"], row["finished_at"])
