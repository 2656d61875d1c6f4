"""What people decided about the labels, and what training makes of it (method (h)).

A decision speaks about a whole case, or only about some segments or slices of it. The map it speaks about is kept with it, so
that nothing a person made or approved depends on a round's files. Decisions are never changed: a newer one wins, and the last one
can be taken back, which the journal remembers too.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .decisions import Decision, DecisionKind, Layers, Status
from .decisions import TrainingLabels as TrainingLabels
from .errors import DataError, ProjectError
from .files import explained, replace, sha256_of, temporary_name
from .project import Case, Project, Role
from .project.journal import now
from .volumes import LabelMap, read_label_map, require_same_grid, write_label_map

Order = Literal["uncertainty", "certainty", "name", "imported"]

PROPOSAL = "pseudo_label.nii.gz"
"""The artefact of a round that is offered for review; it holds label values."""


@dataclass(frozen=True)
class QueueEntry:
    """A case in the order of review: its newest round with a proposal, mean uncertainty (0-1), and who decided so far."""

    case: Case
    round: int | None
    uncertainty: float | None
    status: Status
    reviewers: tuple[str, ...]


@dataclass(frozen=True)
class FinalLabels:
    """The best labels there are for a case.

    Attributes:
        label_map: a person's where a person spoke, else the newest pseudo-label.
        by_person: whether a person vouches for every voxel.
        decision: the newest standing decision, if any.
    """

    label_map: LabelMap
    by_person: bool
    decision: Decision | None


class Review:
    """The review of a project; every method works without torch, and every change is on disk when the method returns."""

    def __init__(self, project: Project) -> None:
        self.project = project

    # Deciding

    def accept(
        self,
        case: Case,
        *,
        reviewer: str,
        comment: str = "",
        segments: Sequence[int] = (),
        slices: Sequence[int] = (),
        label_map: LabelMap | None = None,
        round: int | None = None,
    ) -> Decision:
        """Accept the newest proposal (or that of ``round``, or the ``label_map`` that was on the screen).

        Raises:
            ProjectError: no proposal to accept; the case has a label map of its own; the project is read-only; no reviewer named.
        """
        if case.has_own_labels:
            cure = "If its label map is wrong, correct it."
            raise ProjectError("it has a label map of its own, which no proposal takes the place of.", where=case.id, cure=cure)
        if label_map is None:
            round, label_map = self.proposal(case, round)
        return self._decide(case, "accepted", reviewer, label_map, round, segments, slices, comment=comment)

    def correct(
        self,
        case: Case,
        label_map: LabelMap,
        *,
        reviewer: str,
        comment: str = "",
        segments: Sequence[int] = (),
        slices: Sequence[int] = (),
        round: int | None = None,
    ) -> Decision:
        """Keep a person's corrected map as a new revision; earlier ones stay.

        Raises:
            GeometryError: it does not lie on the case's grid.
            DataError: it holds a value that is no label of the project.
        """
        return self._decide(case, "corrected", reviewer, label_map, round, segments, slices, comment=comment)

    def reject(
        self,
        case: Case,
        *,
        reviewer: str,
        reason: str = "",
        comment: str = "",
        segments: Sequence[int] = (),
        slices: Sequence[int] = (),
        round: int | None = None,
    ) -> Decision:
        """Reject the proposal: what it says is not trained on."""
        return self._decide(case, "rejected", reviewer, None, round, segments, slices, comment=comment, reason=reason)

    def take_back_last(self, case: Case | None = None, reviewer: str | None = None) -> Decision:
        """Withdraw the newest standing decision (on this case, by this reviewer); the journal keeps it.

        Raises:
            ProjectError: there is none.
        """
        self.project.require_writable()
        standing = [d for d in self.decisions(case) if reviewer in (None, d.reviewer)]
        if not standing:
            others = tuple(dict.fromkeys(d.reviewer for d in self.decisions(case)))
            cure = f"Decided have {', '.join(others)}: name one of them." if others else ""
            by = f" by {reviewer}" if reviewer else ""
            raise ProjectError(f"there is no decision{by} to take back.", where=case.id if case else self.project.folder.name, cure=cure)
        with self.project.journal.writing() as database:
            database.execute("UPDATE decisions SET withdrawn_at = ? WHERE number = ?", (now(), standing[-1].number))
        return standing[-1]

    # Looking

    def proposal(self, case: Case, round: int | None = None) -> tuple[int, LabelMap]:
        """The newest round's pseudo-label (or that of ``round``), its hash checked.

        Raises:
            ProjectError: no round has finished one.
        """
        found = self.proposal_round(case, round)
        if found is None:
            raise ProjectError("there is no pseudo-label to review yet.", where=case.id, cure="Run a round first.")
        path = self.project.artefact(found, case, PROPOSAL)
        recorded = self._proposals(case)[found]
        if not path.is_file() or sha256_of(path) != recorded:
            raise ProjectError("the pseudo-label is missing or was changed.", where=case.id, cure="Run one more round; it makes a new one.")
        return found, read_label_map(path, trusted=True)

    def proposal_round(self, case: Case, round: int | None = None) -> int | None:
        """The newest round (or ``round`` itself) with a finished pseudo-label of this case; None if there is none."""
        return max((r for r in self._proposals(case) if round in (None, r)), default=None)

    def decisions(self, case: Case | str | None = None, *, withdrawn: bool = False) -> tuple[Decision, ...]:
        """The standing decisions, oldest first (on one case); with ``withdrawn`` those too that were taken back."""
        id = case.id if isinstance(case, Case) else case
        rows = self.project.journal.read(
            "SELECT * FROM decisions WHERE (? IS NULL OR \"case\" = ?) AND (? OR withdrawn_at = '') ORDER BY number",
            (id, id, withdrawn),
        )
        return tuple(_decision(row) for row in rows)

    def current(self, case: Case | str, reviewer: str | None = None) -> Decision | None:
        """The newest standing decision on a case (by one reviewer)."""
        found = [d for d in self.decisions(case) if reviewer in (None, d.reviewer)]
        return found[-1] if found else None

    def status(self, case: Case | str, reviewer: str | None = None) -> Status:
        """Where a case stands: decided as a whole, in part, or waiting."""
        found = [d for d in self.decisions(case) if reviewer in (None, d.reviewer)]
        whole = next((d for d in reversed(found) if d.whole), None)
        later = [d for d in found if whole is not None and d.number > whole.number]
        if whole is None or any(d.kind == "rejected" for d in later):
            return "partly decided" if found else "waiting"
        if later and (whole.kind == "accepted" or self._every_slice(case, later)):
            return "corrected"
        return whole.kind

    def _every_slice(self, case: Case | str, decisions: Sequence[Decision]) -> bool:
        """Whether decisions about all labels of single slices add up to the whole case."""
        grid, _ = self.project.read_case_header(case if isinstance(case, Case) else self.project.case(case))
        return {k for d in decisions if not d.segments for k in d.slices} >= set(range(grid.slices))

    def decided(self) -> tuple[str, ...]:
        """Ids of the cases of which nothing is still to be decided, since people decided."""
        return tuple(case for case in dict.fromkeys(d.case for d in self.decisions()) if not self.is_open(case))

    def is_open(self, case: Case | str, reviewer: str | None = None) -> bool:
        """Whether something of the case is still to be decided (by one reviewer)."""
        return self.status(case, reviewer) in ("waiting", "partly decided")

    def queue(self, order: Order = "uncertainty", *, reviewer: str | None = None, decided: bool = False) -> tuple[QueueEntry, ...]:
        """The unlabelled cases to look at.

        Args:
            order: "uncertainty" (most uncertain first; cases without a number last), "certainty", "name" or "imported".
            reviewer: only what this reviewer has not decided as a whole; None: what nobody has.
            decided: those too that are decided.
        """
        uncertainty = self.project.journal.latest_numbers("uncertainty")
        entries = [self._entry(case, uncertainty.get(case.id, (0, None))[1]) for case in self.project.cases("unlabelled", usable=True)]
        if not decided:
            entries = [e for e in entries if self.is_open(e.case, reviewer)]
        if order == "name":
            return tuple(sorted(entries, key=lambda e: e.case.id.lower()))
        if order == "imported":
            return tuple(entries)
        sign = -1 if order == "uncertainty" else 1
        return tuple(sorted(entries, key=lambda e: (e.uncertainty is None, sign * (e.uncertainty or 0.0))))

    def label_map(self, decision: Decision) -> LabelMap:
        """The map a decision speaks about, its hash checked.

        Raises:
            ProjectError: it has none, or the file is missing or was changed.
        """
        return read_label_map(self._verified(decision), trusted=True)

    def require_whole(self, case: Case) -> None:
        """Check the files of the standing decisions on a case, without reading them.

        Raises:
            ProjectError: one is missing or was changed.
        """
        for decision in self.decisions(case):
            if decision.label_file:
                self._verified(decision)

    def _verified(self, decision: Decision) -> Path:
        path = self.project.folder / decision.label_file
        if not decision.label_file or not path.is_file() or sha256_of(path) != decision.label_sha256:
            raise ProjectError(
                f"the label map of decision {decision.number} is missing or was changed.",
                where=decision.case,
                cure="Restore it from a copy of the project, or take the decision back.",
            )
        return path

    def training_labels(self, case: Case, reviewer: str | None = None) -> TrainingLabels | None:
        """What people said about a case: its own label map, with all standing decisions (of one reviewer) laid over it in order.

        The label map of a case that was made unlabelled is not looked at.

        Returns:
            None if nobody said anything.
        """
        decisions = [d for d in self.decisions(case) if reviewer in (None, d.reviewer)]
        own = self.project.read_case_label(case) if case.has_own_labels and reviewer is None else None
        if own is None and not decisions:
            return None
        maps = {d.number: self.label_map(d) for d in decisions if d.label_file}
        geometry = own.geometry if own else next((m.geometry for m in maps.values()), None)
        layers = Layers(geometry or self.project.read_case_header(case)[0], self.project.values)
        if own is not None:
            layers.lay(Decision(0, case.id, 0, "accepted", ""), own)
        for decision in decisions:
            layers.lay(decision, maps.get(decision.number))
        return layers.result()

    def has_labels(self) -> bool:
        """Whether there is a usable case to learn from: a labelled one, or one that people decided as a whole and that shows a label."""
        return bool(self.project.cases("labelled", usable=True)) or next(self._vouched("unlabelled"), None) is not None

    def vouched(self, most: int) -> Iterator[tuple[Case, TrainingLabels]]:
        """Up to ``most`` usable cases that people labelled, or decided as a whole without rejecting them, and that show a label.

        Labelled cases go before decided ones where not all find a place, and come last, in the project's order: no machine had a hand
        in the last one, so it is the best to judge by.
        """
        labelled = list(itertools.islice(self._vouched("labelled"), most))
        yield from itertools.islice(self._vouched("unlabelled"), most - len(labelled))
        yield from labelled

    def _vouched(self, role: Role) -> Iterator[tuple[Case, TrainingLabels]]:
        for case in self.project.cases(role, usable=True):
            said = self.training_labels(case)
            if said is not None and said.complete and not said.rejected and np.isin(said.labels.array, self.project.values).any():
                yield case, said

    def final_labels(self, case: Case) -> FinalLabels | None:
        """The best labels there are for a case; None where there are none, or where the case was rejected as a whole."""
        said, decision = self.training_labels(case), self.current(case)
        if said is not None and (said.rejected or said.complete):
            return None if said.rejected else FinalLabels(said.labels, True, decision)
        if self.proposal_round(case) is None:
            return FinalLabels(said.labels, False, decision) if said is not None else None
        _, proposal = self.proposal(case)
        if said is None:
            return FinalLabels(proposal, False, None)
        labels, weights = said.over(proposal.array, np.ones(proposal.array.shape, np.float32))
        return FinalLabels(LabelMap(np.where(weights > 0, labels, 0), proposal.geometry), False, decision)

    def _decide(
        self,
        case: Case,
        kind: DecisionKind,
        reviewer: str,
        label_map: LabelMap | None,
        round: int | None,
        segments: Iterable[int],
        slices: Iterable[int],
        *,
        comment: str,
        reason: str = "",
    ) -> Decision:
        self.project.require_writable()
        if not reviewer.strip():
            raise ProjectError("a decision needs the reviewer's name.", where=case.id, cure="Enter a name or initials.")
        if round is None:
            round = self.proposal_round(case) or 0
        segments, slices = tuple(sorted({int(s) for s in segments})), tuple(sorted({int(s) for s in slices}))
        self._require_known(case, label_map, segments, slices)
        with self._written_aside(case, label_map) as (written, digest), self.project.journal.writing() as database:
            number = 1 + database.execute("SELECT coalesce(max(number), 0) FROM decisions").fetchone()[0]
            path = self._free_name(case, number) if written else None
            file = self.project.relative(path) if path else ""
            decision = Decision(number, case.id, round, kind, reviewer.strip(), comment, reason, now(), file, digest, segments, slices)
            database.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')", _row(decision))
            if written and path:  # last: should the commit fail after it, the file stays, and harms nobody (see ``_free_name``)
                with explained(path):
                    replace(written, path)
        return decision

    def _require_known(self, case: Case, label_map: LabelMap | None, segments: tuple[int, ...], slices: tuple[int, ...]) -> None:
        unknown = sorted({*segments, *(label_map.values if label_map else ())} - set(self.project.values))
        if unknown:
            raise DataError(f"{unknown} are no labels of the project ({list(self.project.values)}).", where=case.id)
        grid, _ = self.project.read_case_header(case)
        outside = [k for k in slices if not 0 <= k < grid.slices]
        if outside:
            raise DataError(f"the slices {outside} are not among the {grid.slices} slices of the image.", where=case.id)
        if label_map is not None:
            require_same_grid(label_map.geometry, grid, case.id)

    @contextmanager
    def _written_aside(self, case: Case, label_map: LabelMap | None) -> Iterator[tuple[Path | None, str]]:
        """A revision whole on the disk under a temporary name, and its SHA-256; what nobody renames is removed.

        It is written before the transaction begins: compressing and reading back take seconds, in which nobody else could write.
        """
        if label_map is None:
            yield None, ""
            return
        path = temporary_name(self._revisions(case) / f"{case.id}.nrrd")
        try:
            write_label_map(path, label_map)
            yield path, sha256_of(path)
        finally:
            path.unlink(missing_ok=True)

    def _free_name(self, case: Case, number: int) -> Path:
        """A revision's name that no earlier one bears, not even one whose decision was lost in a crash.

        Only inside a transaction does it stay free, since one process at a time is in one.
        """
        folder = self._revisions(case)
        names = (f"{number}.nrrd", *(f"{number}-{n}.nrrd" for n in range(2, 1000)))
        return next(folder / name for name in names if not (folder / name).exists())

    def _revisions(self, case: Case) -> Path:
        return self.project.folder / "cases" / case.id / "reviews"

    def _proposals(self, case: Case) -> dict[int, str]:
        """Round to SHA-256 of the finished pseudo-labels of a case."""
        rows = self.project.journal.read('SELECT round, files FROM units WHERE "case" = ? ORDER BY round', (case.id,))
        found = ((r["round"], json.loads(r["files"])) for r in rows)
        return {n: files[name] for n, files in found for name in files if Path(name).name == PROPOSAL}

    def _entry(self, case: Case, uncertainty: float | None) -> QueueEntry:
        reviewers = tuple(dict.fromkeys(d.reviewer for d in self.decisions(case)))
        return QueueEntry(case, self.proposal_round(case), uncertainty, self.status(case), reviewers)


def _decision(row: sqlite3.Row) -> Decision:
    table = dict(row)
    return Decision(**{**table, "segments": tuple(json.loads(table["segments"])), "slices": tuple(json.loads(table["slices"]))})


def _row(decision: Decision) -> tuple[object, ...]:
    d = decision
    lists = (json.dumps(d.segments), json.dumps(d.slices))
    return (d.number, d.case, d.round, d.kind, d.reviewer, d.comment, d.reason, d.time, d.label_file, d.label_sha256, *lists)
