"""Corrections that a person began and did not save, and the segments they locked: kept in the project folder for the next time.

A draft is a label map and a small text beside it that names its hash, under a number that no earlier draft of the case bears. A later
state of the same draft is written beside the earlier one before that goes, so a crash or a full disk never costs both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import ProjectError
from .files import sha256_of, write_text
from .project import Case, Project
from .project.journal import now
from .volumes import LabelMap, read_label_map, require_same_grid, write_label_map


@dataclass(frozen=True)
class Draft:
    """One state of an unfinished correction.

    Attributes:
        number: rises with time, per case.
        reviewer: who drew; "" where nobody gave a name.
        round: the round whose proposal was corrected; 0 for none.
        time: when it was saved, ISO 8601, UTC.
        sha256: of the label map's file.
    """

    number: int
    case: str
    reviewer: str
    round: int
    time: str
    sha256: str


class Locks:
    """Which segments each reviewer locked; every change is on disk when the method returns."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def of(self, case: Case, reviewer: str) -> tuple[int, ...]:
        """The label values that this reviewer locked on a case, ascending, of labels that the project still has."""
        return tuple(value for value in self._table(case).get(reviewer.strip(), ()) if value in self.project.values)

    def set(self, case: Case, reviewer: str, values: Iterable[int]) -> None:
        """Keep these label values as locked.

        Raises:
            ProjectError: the project is open for reading only.
            ResourceError: the disk is full; what was kept before still is.
        """
        self.project.require_writable()
        table = {**self._table(case), reviewer.strip(): tuple(sorted(values))}
        write_text(self._path(case), json.dumps({name: kept for name, kept in table.items() if kept}, indent=1, sort_keys=True))

    def _table(self, case: Case) -> dict[str, tuple[int, ...]]:
        try:
            table = json.loads(self._path(case).read_text(encoding="utf-8"))
            return {str(name): tuple(int(value) for value in values) for name, values in table.items()}
        except (ValueError, TypeError, AttributeError, OSError):
            return {}  # none were kept, or a file that nobody can read: a lock less is no loss of work

    def _path(self, case: Case) -> Path:
        return self.project.folder / "cases" / case.id / "locks.json"


class Drafts:
    """The drafts of a project; every change is on disk when the method returns."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def newest(self, case: Case, reviewer: str) -> Draft | None:
        """The newest whole draft of a case that is this reviewer's or nobody's; None if there is none."""
        mine = [draft for draft in self._whole(case) if draft.reviewer in ("", reviewer.strip())]
        return max(mine, key=lambda draft: draft.number, default=None)

    def read(self, case: Case, draft: Draft) -> LabelMap:
        """A draft's label map.

        Raises:
            ProjectError: it is missing or was changed.
            GeometryError: it does not lie on the case's image.
        """
        path = self._map_path(case, draft.number)
        if not path.is_file() or sha256_of(path) != draft.sha256:
            raise ProjectError("the unfinished correction is missing or was changed.", where=case.id, cure="Correct the case again.")
        label_map = read_label_map(path, trusted=True)
        require_same_grid(label_map.geometry, self.project.read_case_header(case)[0], case.id)
        return label_map

    def save(self, case: Case, label_map: LabelMap, *, reviewer: str, round: int, instead_of: Draft | None = None) -> Draft:
        """Keep a correction as it stands now.

        Args:
            case: it is of this case.
            label_map: label values on the case's grid.
            reviewer: who draws.
            round: whose proposal is corrected.
            instead_of: the state that this one follows; it goes once this one is safe.

        Raises:
            ProjectError: the project is open for reading only.
            ResourceError: the disk is full; the earlier state is kept.
        """
        self.project.require_writable()
        number = 1 + max((int(path.stem) for path in self._folder(case).glob("*.*") if path.stem.isdecimal()), default=0)
        path = self._map_path(case, number)
        write_label_map(path, label_map)
        draft = Draft(number, case.id, reviewer.strip(), round, now(), sha256_of(path))
        table = {"reviewer": draft.reviewer, "round": round, "time": draft.time, "sha256": draft.sha256}
        write_text(path.with_suffix(".json"), json.dumps(table, indent=1, sort_keys=True))
        if instead_of is not None:
            self.remove(case, instead_of)
        return draft

    def remove(self, case: Case, draft: Draft) -> None:
        """The correction was saved as a decision, or the person does not want it; harmless when done twice."""
        self.project.require_writable()
        path = self._map_path(case, draft.number)
        for gone in (path.with_suffix(".json"), path):
            gone.unlink(missing_ok=True)

    def cases(self, reviewer: str) -> frozenset[str]:
        """The ids of the cases that have a draft of this reviewer's or nobody's."""
        return frozenset(case.id for case in self.project.cases() if self._folder(case).is_dir() and self.newest(case, reviewer))

    def _whole(self, case: Case) -> Iterator[Draft]:
        for path in self._folder(case).glob("*.json"):
            try:
                table = json.loads(path.read_text(encoding="utf-8"))
                draft = Draft(int(path.stem), case.id, table["reviewer"], int(table["round"]), table["time"], table["sha256"])
            except (ValueError, KeyError, TypeError, OSError):
                continue  # a half-written one: the state before it is still there
            if self._map_path(case, draft.number).is_file():
                yield draft

    def _folder(self, case: Case) -> Path:
        return self.project.folder / "cases" / case.id / "drafts"

    def _map_path(self, case: Case, number: int) -> Path:
        return self._folder(case) / f"{number}.nrrd"
