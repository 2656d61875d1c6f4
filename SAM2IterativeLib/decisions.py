"""What a decision is, and how decisions add up to what training may use (method (h))."""

from __future__ import annotations

import contextlib
import getpass
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .volumes import Geometry, LabelMap

DecisionKind = Literal["accepted", "corrected", "rejected"]
Status = Literal["waiting", "partly decided", "accepted", "corrected", "rejected"]


@dataclass(frozen=True)
class Decision:
    """One decision of one reviewer.

    Attributes:
        number: rises with time.
        round: the round whose proposal was looked at.
        reason: why it was rejected.
        time: ISO 8601, UTC.
        label_file, label_sha256: the map it speaks about, relative to the project; empty for rejected.
        segments: label values it speaks about; () for all.
        slices: k indices it speaks about; () for all.
        withdrawn_at: when it was taken back; empty while it stands.
    """

    number: int
    case: str
    round: int
    kind: DecisionKind
    reviewer: str
    comment: str = ""
    reason: str = ""
    time: str = ""
    label_file: str = ""
    label_sha256: str = ""
    segments: tuple[int, ...] = ()
    slices: tuple[int, ...] = ()
    withdrawn_at: str = ""

    @property
    def whole(self) -> bool:
        """Whether it speaks about the whole case."""
        return not self.segments and not self.slices


def user_name() -> str:
    """The name of the computer's user; empty for one without a name, as in some containers."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""


@dataclass(frozen=True)
class TrainingLabels:
    """What people said about a case, ready for training.

    Attributes:
        labels: label values; meaningful where ``reviewed``.
        reviewed: (k, j, i) bool: a person vouches for this voxel, so it has weight 1.
        decided: (k, C) bool: on this slice a person accepted, corrected or rejected this label (columns as ``values``), so
            a machine's claim of it on other voxels is known to be wrong.
        placed: (k, C) bool: of these, where a person said where the label is, or that it is not there. What was rejected may be proposed
            again, better; what was placed may not.
        rejected: the whole case was rejected; of it only what was ``reviewed`` since then is trained on.
    """

    labels: LabelMap
    reviewed: np.ndarray
    decided: np.ndarray
    placed: np.ndarray
    rejected: bool
    values: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every voxel was vouched for."""
        return bool(self.reviewed.all())

    def over(self, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lay the decisions over a pseudo-label, see method (h).

        Args:
            labels: (k, j, i) label values of the pseudo-label.
            weights: (k, j, i) float, its voxel weights.

        Returns:
            Labels and float32 weights: a person's label with weight 1 where reviewed; weight 0 where the pseudo-label claims a
            label that a person placed elsewhere or rejected on this slice, and wherever nothing was reviewed if the case was rejected.
            Where a label was placed, the claim is background.
        """
        merged = np.where(self.reviewed, self.labels.array, labels)
        if self.rejected:
            return merged, self.reviewed.astype(np.float32)
        stray, misplaced = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
        for column, value in enumerate(self.values):
            claimed = labels == value
            stray |= claimed & self.decided[:, column, None, None]
            misplaced |= claimed & self.placed[:, column, None, None]
        merged[misplaced & ~self.reviewed] = 0
        counted = weights.astype(np.float32)
        np.copyto(counted, 0.0, where=stray)
        np.copyto(counted, 1.0, where=self.reviewed)
        return merged, counted


class Layers:
    """Decisions laid over each other in order; see ``TrainingLabels`` for the arrays."""

    def __init__(self, geometry: Geometry, values: tuple[int, ...]) -> None:
        self.geometry = geometry
        self.values = values
        self.labels = np.zeros(geometry.size, np.uint16)
        self.reviewed = np.zeros(geometry.size, bool)
        self.decided = np.zeros((geometry.slices, len(values)), bool)
        self.placed = np.zeros_like(self.decided)
        self.rejected = False

    def lay(self, decision: Decision, label_map: LabelMap | None) -> None:
        """Lay one decision over what stands so far."""
        slices = list(decision.slices) or list(range(self.geometry.slices))
        columns = [column for column, value in enumerate(self.values) if not decision.segments or value in decision.segments]
        if not columns:
            return  # about labels that the project no longer has
        if decision.whole:
            self.rejected = decision.kind == "rejected"
        for k in slices:
            self._lay_slice(k, None if label_map is None else label_map.array[k], columns)

    def _lay_slice(self, k: int, new: np.ndarray | None, columns: list[int]) -> None:
        values = [self.values[c] for c in columns]
        old = self.reviewed[k] & np.isin(self.labels[k], values)
        everything = len(columns) == len(self.values)
        if new is None:
            self.reviewed[k] &= False if everything else ~old
        else:
            # Where all labels were decided, a voxel that a segment gives up is what the new map says, not unknown.
            known = everything or self.decided[k].all()
            taken = np.isin(new, values) | (old if known else False) | everything
            self.reviewed[k] = (self.reviewed[k] & ~old) | taken
            self.labels[k] = np.where(taken, new, self.labels[k])
        self.decided[k, columns] = True
        self.placed[k, columns] = new is not None

    def result(self) -> TrainingLabels:
        """The sum of all."""
        labels = np.where(self.reviewed, self.labels, 0)
        # Decisions may hold labels that the project no longer has, and these must not become another one either.
        highest = max((*self.values, int(labels.max(initial=0))))
        array = labels.astype(np.uint8 if highest <= 255 else np.uint16)
        rejected = self.rejected and not self.reviewed.all()  # whoever rejects a case and then corrects all of it takes the rejection back
        return TrainingLabels(LabelMap(array, self.geometry), self.reviewed, self.decided, self.placed, rejected, self.values)
