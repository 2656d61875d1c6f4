"""Where several people decided on one case: whether they agree, and how far their labels do."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .decisions import Status
from .project import Case
from .review import Review

Verdict = Literal["agree", "differ", "contradict"]

_SAME_MASK = 0.995
"""Dice from which two masks count as the same: a stroke by mistake is no other opinion."""


@dataclass(frozen=True)
class Comparison:
    """Two reviewers on one case: their statuses, and Dice per label value where both gave labels (None: absent in both)."""

    reviewers: tuple[str, str]
    statuses: tuple[Status, Status]
    dice: dict[int, float | None]

    @property
    def verdict(self) -> Verdict:
        """Contradict: one rejected the case as a whole, the other one did not. Else what their labels say where both looked."""
        if _contradict(self.statuses):
            return "contradict"
        overlaps = [dice for dice in self.dice.values() if dice is not None]
        same = min(overlaps) >= _SAME_MASK if overlaps else self.statuses[0] == self.statuses[1]
        return "agree" if same else "differ"


def comparisons(review: Review, case: Case) -> tuple[Comparison, ...]:
    """Every pair of reviewers who decided on this case; their masks are read, which takes a moment."""
    return tuple(_comparison(review, case, pair) for pair in itertools.combinations(sorted(_reviewers(review, case)), 2))


def contested(review: Review, case: Case) -> bool:
    """Whether reviewers contradict each other (``Comparison.verdict``); the newest decision counts meanwhile."""
    return _contradict([review.status(case, reviewer) for reviewer in _reviewers(review, case)])


def _reviewers(review: Review, case: Case) -> set[str]:
    return {decision.reviewer for decision in review.decisions(case)}


def _contradict(statuses: Collection[Status]) -> bool:
    return len({status == "rejected" for status in statuses}) > 1


def _comparison(review: Review, case: Case, pair: tuple[str, str]) -> Comparison:
    first, second = (review.training_labels(case, reviewer) for reviewer in pair)
    overlaps: dict[int, float | None] = {}
    if first is not None and second is not None:
        both = first.reviewed & second.reviewed
        one, other = first.labels.array[both], second.labels.array[both]
        overlaps = {value: _dice(one == value, other == value) for value in review.project.values if both.any()}
    return Comparison(pair, (review.status(case, pair[0]), review.status(case, pair[1])), overlaps)


def _dice(first: np.ndarray, second: np.ndarray) -> float | None:
    """As ``metrics.dice``, whose SciPy would take longer to load than all of this file's work."""
    total = int(first.sum()) + int(second.sum())
    return 2.0 * int((first & second).sum()) / total if total else None
