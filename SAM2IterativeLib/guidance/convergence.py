"""Method (j): when another round would change nothing any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics import class_dice
from ..settings import RoundSettings
from .arrays import ClassMap

PATIENCE = 2
"""Rounds in a row whose gain may be too small before the loop stops (method (j))."""


@dataclass(frozen=True)
class Verdict:
    """Whether the rounds are over; ``converged`` is False where only the allowed number of rounds is used up."""

    finished: bool
    converged: bool
    reason: str


def label_stability(now: ClassMap, before: ClassMap, class_count: int) -> float:
    """Mean Dice(ỹ_t, ỹ_{t-1}) of one volume's pseudo-labels (k, j, i) over the classes that either has, in [0, 1].

    1.0 where both are empty: nothing changed.
    """
    scores = class_dice(now, before, class_count)
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else 1.0


def judge(stability: Sequence[float], rounds_done: int, settings: RoundSettings) -> Verdict:
    """Whether to stop after a round.

    Args:
        stability: mean over the unlabelled volumes of ``label_stability``, one entry per round that had a round before it,
            oldest first.
        rounds_done: t, rounds finished after round 0.
        settings: the Dice above which the labels stand still, the least gain, and T.
    """
    if stability and stability[-1] > settings.converged_dice:
        return Verdict(True, True, f"the pseudo-labels stand still: Dice {stability[-1]:.4f} to the round before.")
    gains = np.diff(stability)[-PATIENCE:]
    if len(gains) == PATIENCE and (gains < settings.minimum_gain).all():
        return Verdict(True, True, f"the pseudo-labels settled no further in {PATIENCE} rounds: gains of {_listed(gains)} Dice.")
    if rounds_done >= settings.maximum:
        return Verdict(True, False, f"the allowed {settings.maximum} rounds are done.")
    return Verdict(False, False, "the pseudo-labels still change.")


def _listed(gains: Sequence[float] | np.ndarray) -> str:
    return " and ".join(f"{gain:+.4f}" for gain in gains)
