"""A project folder, opened: its settings, its cases, and where everything lies."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import DataError, ProjectError
from ..files import require_space, resolve_under, sha256_of, sweep
from ..geometry import Geometry
from ..settings import Label, Settings, merged
from ..volumes import LabelMap, Volume, read_label_map, require_same_grid, write_label_map, write_volume
from . import case_files
from .case import ROLES, Case, Role, case_id_of
from .journal import Journal, now
from .lock import ProjectLock, holder_of, require_shared
from .network_share import is_network_share
from .settings_file import read_settings, write_settings

_OURS = ("project.toml", "journal.sqlite", "cases", "rounds", "models")


class Project:
    """An open project. Use ``create`` or ``open``, and close it, or use it in a ``with`` statement.

    Attributes:
        folder: absolute path; nothing inside the project depends on it, so a project can be moved or copied.
        settings: as ``project.toml`` has them.
        journal: what happened.
        read_only: whether every change is refused.
        notice: why it is read-only, or what else the person should know on opening; empty otherwise.
    """

    def __init__(self, folder: Path, lock: ProjectLock | None, *, read_only: bool, notice: str = "") -> None:
        self.folder = folder
        self.read_only = read_only
        self.notice = notice
        self._lock = lock
        self.settings = read_settings(folder / "project.toml")
        self.journal = Journal(folder, read_only=read_only)

    @classmethod
    def create(cls, folder: str | Path, settings: Settings | None = None) -> Project:
        """Make a new project and open it for writing.

        Raises:
            ProjectError: the folder already holds a project or files of the same names.
            ResourceError: no permission, or the disk is full.
        """
        path = Path(folder).resolve()
        for name in _OURS:
            if (path / name).exists():
                raise ProjectError(f"the folder already holds {name!r}.", where=path.name, cure="Import into it, or choose another folder.")
        settings = settings or Settings()
        write_settings(path / "project.toml", settings if settings.name else replace(settings, name=path.name))
        Journal(path, new=True).close()
        return cls.open(path)

    @classmethod
    def open(cls, folder: str | Path, *, read_only: bool = False, shared_with: int | None = None) -> Project:
        """Open an existing project.

        Only one process writes: while another one has the project, or where the folder cannot be written, it is opened for
        reading and ``notice`` says why.

        Args:
            folder: the project folder.
            read_only: do not even try to write.
            shared_with: the process id of the program that has the project open and on whose behalf this one writes (a worker
                started by the Slicer module).

        Raises:
            ProjectError: no project, made by a newer version, or ``shared_with`` does not hold it.
            SettingsError: ``project.toml`` is not sound.
        """
        path = Path(folder).resolve()
        read_settings(path / "project.toml")
        if shared_with is not None:
            require_shared(path / "project.lock", shared_with)
            return cls(path, None, read_only=False)
        if read_only or not os.access(path, os.W_OK):
            return cls(path, None, read_only=True, notice="" if read_only else "The folder may not be written to: reading only.")
        lock = ProjectLock.acquire(path / "project.lock")
        if lock is None:
            return cls(path, None, read_only=True, notice=_held_notice(path / "project.lock"))
        try:
            sweep(path)
            notice = "The project lies on a network share: let only one computer work on it at a time." if is_network_share(path) else ""
            return cls(path, lock, read_only=False, notice=notice)
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        """Close the journal and give the lock back; harmless when done twice."""
        self.journal.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Project:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # Settings and labels

    @property
    def values(self) -> tuple[int, ...]:
        """The label values in class order: class c (1..C) is ``values[c - 1]``."""
        return self.settings.values

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels' names in class order, without background."""
        return tuple(label.name for label in self.settings.labels)

    def change_settings(self, settings: Settings) -> None:
        """Write what differs from the settings known so far; the rest stays as the file has it.

        For the file may have changed since it was read: by hand, or by the worker that adapted SAM2. Where nothing differs it is not
        touched, so that what a person wrote between the lines stays.

        Raises:
            ProjectError: a label would be dropped that a label map or a reviewer's decision holds.
        """
        self.require_writable()
        with self.journal.writing():  # the worker writes settings too
            written = read_settings(self.folder / "project.toml")
            settings = merged(written, self.settings, settings)
            self._require_no_label_dropped(settings)
            if settings != written:
                write_settings(self.folder / "project.toml", settings)
        self.settings = settings

    def reread_settings(self) -> bool:
        """Read ``project.toml`` again, which another process may have written; whether anything is different now.

        Raises:
            SettingsError: the file is not sound; the settings stay as they were.
        """
        before, self.settings = self.settings, read_settings(self.folder / "project.toml")
        return self.settings != before

    def _require_no_label_dropped(self, settings: Settings) -> None:
        dropped = set(self.values) - set(settings.values)
        for case, path in self._label_files() if dropped else ():
            used = dropped & set(read_label_map(path, trusted=True).values)
            if used:
                raise ProjectError(f"label {min(used)} is used by case {case}.", cure="Keep it; its name and colour may change.")

    def add_labels(self, labels: tuple[Label, ...]) -> None:
        """Append labels to the settings."""
        self.change_settings(replace(self.settings, labels=(*self.settings.labels, *labels)))

    # Cases

    def cases(self, *roles: Role, usable: bool = False) -> tuple[Case, ...]:
        """The cases in the order in which they came; of these roles only, if any are given; ``usable``: none set aside."""
        found = [self._case(row) for row in self.journal.read("SELECT * FROM cases ORDER BY position")]
        return tuple(c for c in found if (not roles or c.role in roles) and (not usable or c.usable))

    def case(self, id: str) -> Case:
        """One case.

        Raises:
            ProjectError: there is none of this id.
        """
        rows = self.journal.read("SELECT * FROM cases WHERE id = ?", (id,))
        if not rows:
            raise ProjectError(f"there is no case {id!r}.", where=self.folder.name, cure="'status' lists the cases.")
        return self._case(rows[0])

    def add_case(
        self,
        id: str,
        image: Volume,
        label: LabelMap | None = None,
        *,
        role: Role | None = None,
        source: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> Case:
        """Copy an image, and its label map if there is one, into the project.

        Args:
            id: wanted id; made safe and unique, see ``case_id_of``.
            image: of any supported kind.
            label: on the same grid, with the project's label values.
            role: labelled where there is a label, else unlabelled, unless given.
            source: name of the file it came from, without its path.
            details: plain JSON values that an exporter needs later; kept in the journal only.

        Raises:
            GeometryError: label and image do not share a grid.
            DataError: the label map holds unknown values.
            ResourceError: the disk is full; nothing was added.
        """
        self.require_writable()
        id = case_id_of(id, [case.id for case in self.cases()])
        role = role or ("labelled" if label is not None else "unlabelled")
        _require_role_fits(id, role, label is not None)
        require_space(self.folder, image.array.nbytes + (label.array.nbytes if label else 0))
        if label is not None:
            self._require_fitting_label(label, image, source or id)
        folder = self.folder / "cases" / id
        write_volume(folder / "image.nrrd", image)
        hashes = {"image": sha256_of(folder / "image.nrrd"), "label": ""}
        if label is not None:
            write_label_map(folder / "label.nrrd", label)
            hashes["label"] = sha256_of(folder / "label.nrrd")
        with self.journal.writing() as database:
            database.execute(
                "INSERT INTO cases (id, image, image_sha256, label, label_sha256, role, set_aside, source, details, added_at)"
                " VALUES (?, ?, ?, ?, ?, ?, '', ?, ?, ?)",
                (
                    id,
                    f"cases/{id}/image.nrrd",
                    hashes["image"],
                    f"cases/{id}/label.nrrd" if label is not None else None,
                    hashes["label"],
                    role,
                    Path(source).name,
                    json.dumps(dict(details or {}), sort_keys=True),
                    now(),
                ),
            )
        return self.case(id)

    def add_label(self, case: Case, label: LabelMap) -> Case:
        """Give an unlabelled case the label map that a person made elsewhere; it becomes a labelled case.

        Raises:
            ProjectError: it has one already, which is never overwritten, or a reviewer decided on the case (use ``Review.correct``).
        """
        self.require_writable()
        if case.label is not None:
            raise ProjectError("the case already has a label map.", where=case.id, cure="Correct it in the review instead.")
        if self.journal.read("SELECT 1 FROM decisions WHERE \"case\" = ? AND withdrawn_at = '' LIMIT 1", (case.id,)):
            cure = "Bring the label map in as a correction in the review."
            raise ProjectError("a reviewer decided on this case already, and the newest word counts.", where=case.id, cure=cure)
        self._require_fitting_label(label, self.read_case_image(case), case.id)
        relative = f"cases/{case.id}/label.nrrd"
        write_label_map(self.folder / relative, label)
        digest = sha256_of(self.folder / relative)
        role = "labelled" if case.role == "unlabelled" else case.role
        self._update(case.id, label=relative, label_sha256=digest, role=role)
        return self.case(case.id)

    def set_role(self, case: Case | str, role: Role) -> Case:
        """Change what a case is used for.

        Raises:
            ProjectError: an unknown role, or "labelled" or "validation" for a case without a label map.
        """
        self.require_writable()
        found = self.case(case if isinstance(case, str) else case.id)
        _require_role_fits(found.id, role, found.label is not None)
        self._update(found.id, role=role)
        return self.case(found.id)

    def set_aside(self, case: Case | str, reason: str) -> Case:
        """Take a case out because it cannot be used, with the sentence why; an empty reason takes it back in."""
        self.require_writable()
        id = case if isinstance(case, str) else case.id
        self._update(self.case(id).id, set_aside=reason)
        return self.case(id)

    def require_whole(self, case: Case) -> None:
        """See ``case_files``, as for the three below."""
        case_files.require_whole(case)

    def read_case_header(self, case: Case) -> tuple[Geometry, int]:
        """The grid of a case's image and its values per voxel, its voxels unread."""
        return case_files.read_case_header(case)

    def read_case_image(self, case: Case) -> Volume:
        """The case's image, its hash checked."""
        return case_files.read_case_image(case)

    def read_case_label(self, case: Case) -> LabelMap:
        """The label map that came with the case, its hash checked."""
        return case_files.read_case_label(case)

    # Places

    @property
    def plan_path(self) -> Path:
        """``plan.toml``."""
        return self.folder / "plan.toml"

    @property
    def log_path(self) -> Path:
        """``log.txt``."""
        return self.folder / "log.txt"

    @property
    def report_path(self) -> Path:
        """``report.html``."""
        return self.folder / "report.html"

    @property
    def models_folder(self) -> Path:
        """``models/``."""
        return self.folder / "models"

    @property
    def cache_folder(self) -> Path:
        """``cache/``: may be deleted at any time."""
        return self.folder / "cache"

    def artefact(self, round: int, case: Case | str, name: str) -> Path:
        """Where a round's artefact of a case lies: ``rounds/<round>/<case>/<name>``; it need not exist."""
        inside = f"{case if isinstance(case, str) else case.id}/{name}"
        resolve_under(self.folder / "rounds" / str(round), inside)  # refuses names that lead out
        return self.folder / "rounds" / str(round) / inside

    def relative(self, path: Path) -> str:
        """A path inside the project as it is stored: relative, with "/"; so the project works wherever it is moved to.

        Links are not followed: a person may have moved a large folder to another disk and left a link.
        """
        return Path(os.path.abspath(path)).relative_to(self.folder).as_posix()

    def disk_used(self) -> dict[str, int]:
        """Bytes by part: "cases", "rounds", "models", "cache", "other"."""
        used = dict.fromkeys(("cases", "rounds", "models", "cache", "other"), 0)
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a run replaces files meanwhile
                size = path.stat().st_size if path.is_file() else 0
                part = path.relative_to(self.folder).parts[0]
                used[part if part in used else "other"] += size
        return used

    def require_writable(self) -> None:
        """Raise ProjectError if the project is open for reading only."""
        if self.read_only:
            if self.notice:
                raise ProjectError(self.notice, where=self.folder.name)
            raise ProjectError("the project is open for reading only.", where=self.folder.name, cure="Open it for writing first.")

    def _case(self, row: sqlite3.Row) -> Case:
        return Case(
            id=row["id"],
            image=self.folder / row["image"],
            label=self.folder / row["label"] if row["label"] else None,
            role=row["role"],
            set_aside=row["set_aside"],
            image_sha256=row["image_sha256"],
            label_sha256=row["label_sha256"],
            source=row["source"],
            details=json.loads(row["details"]),
        )

    def _label_files(self) -> list[tuple[str, Path]]:
        """Case id and path of every label map that a person made or vouches for."""
        query = """SELECT id, label FROM cases WHERE label IS NOT NULL
            UNION ALL SELECT "case", label_file FROM decisions WHERE label_file != '' AND withdrawn_at = ''"""
        return [(row[0], self.folder / row[1]) for row in self.journal.read(query)]

    def _update(self, id: str, **columns: str) -> None:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self.journal.writing() as database:
            database.execute(f"UPDATE cases SET {assignments} WHERE id = ?", (*columns.values(), id))

    def _require_fitting_label(self, label: LabelMap, image: Volume, where: str) -> None:
        require_same_grid(label.geometry, image.geometry, where)
        unknown = sorted(set(label.values) - set(self.values))
        if unknown:
            raise DataError(
                f"its label map holds the values {unknown}; the project's labels are {list(self.values)}.",
                where=where,
                cure="Map them before import; labels that join after round 0 need a new project."
                if self.plan_path.is_file()
                else "Add these labels to project.toml, or map them before import.",
            )


def _require_role_fits(id: str, role: str, has_label: bool) -> None:
    if role not in ROLES:
        raise ProjectError(f"{role!r} is no role; roles are {', '.join(ROLES)}.", where=id)
    if role in ("labelled", "validation") and not has_label:
        raise ProjectError(f"a case without a label map cannot be {role!r}.", where=id, cure="Add a label map first.")


def _held_notice(lock: Path) -> str:
    pid, host = holder_of(lock)
    who = f"process {pid} on {host}" if pid else "another program"
    return f"The project is in use by {who}: opened for reading only until that program closes it."
