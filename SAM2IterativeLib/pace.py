"""How long the rest of a run will take, from what the rounds before took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .learning import TRAINING
from .project.journal import Journal


class Pace:
    """Each round as long as the last finished one, stage by stage.

    Args:
        stages: of every round, in their order; what a round does before them (SAM2's adaptation, in round 0) is not expected again.
        steps_of: the training steps of a round.
        last: the run's last round.
    """

    def __init__(self, journal: Journal, stages: Sequence[str], steps_of: Callable[[int], int], last: int) -> None:
        self._journal = journal
        self._stages = tuple(stages)
        self._steps_of = steps_of
        self._last = last
        self._spent: dict[int, dict[str, float]] = {}

    def seconds_left(self, round: int, stage: str, fraction: float) -> float | None:
        """Seconds until the run's end, where ``fraction`` (0..1) of a stage of ``round`` is done; None until a round is done.

        Cases differ in size, and a machine does other things: half or double may come true.
        """
        finished = self._journal.rounds()
        if not finished:
            return None
        left = 0.0
        for later in range(round, self._last + 1):
            for name, seconds in self._expected(later, max(finished)).items():
                ahead = self._stages.index(name) - self._stages.index(stage) if later == round and stage in self._stages else 1
                left += 0.0 if ahead < 0 else seconds * (1.0 - fraction) if ahead == 0 else seconds
        return left

    def _expected(self, round: int, known: int) -> dict[str, float]:
        """Seconds of each stage of ``round``: those of the round ``known``, of training as many a step."""
        if known not in self._spent:
            spent = dict.fromkeys(self._stages, 0.0)
            for unit in self._journal.units(known):
                if unit.stage in spent:
                    spent[unit.stage] += unit.seconds
            self._spent = {known: spent}
        steps = self._steps_of(round) / max(1, self._steps_of(known))
        return {name: seconds * (steps if name == TRAINING else 1.0) for name, seconds in self._spent[known].items()}
