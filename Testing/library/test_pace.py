from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from SAM2IterativeLib.pace import Pace
from SAM2IterativeLib.project.journal import Journal

STAGES = ("training", "coarse", "propagation")
STEPS = (200, 100)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, new=True)
    yield journal
    journal.close()


def finished_round(journal: Journal, round: int, training: float, cases: int, coarse: float, propagation: float) -> None:
    if round == 0:
        journal.finish_unit(round, "adaptation", "", [], 1000.0)
    journal.finish_unit(round, "training", "", [], training)
    for case in range(cases):
        journal.finish_unit(round, "coarse", f"case {case}", [], coarse)
        journal.finish_unit(round, "propagation", f"case {case}", [], propagation)
    journal.finish_round(round, {})


def pace(journal: Journal, last: int) -> Pace:
    return Pace(journal, STAGES, lambda round: STEPS[min(round, 1)], last)


def test_nothing_is_known_before_a_round_is_done(journal: Journal) -> None:
    journal.finish_unit(0, "training", "", [], 50.0)
    assert pace(journal, 2).seconds_left(0, "coarse", 0.5) is None


def test_a_later_round_trains_shorter_and_does_not_adapt(journal: Journal) -> None:
    finished_round(journal, 0, training=60.0, cases=4, coarse=1.0, propagation=5.0)
    a_round = 30.0 + 4.0 + 20.0
    left = pace(journal, 2).seconds_left
    assert left(1, "training", 0.0) == pytest.approx(2 * a_round)
    assert left(1, "training", 0.5) == pytest.approx(2 * a_round - 15)
    assert left(1, "propagation", 0.75) == pytest.approx(a_round + 5)
    assert left(2, "coarse", 0.0) == pytest.approx(24)
    assert left(2, "propagation", 1.0) == 0, "a run ends with nothing left"


def test_the_newest_round_counts(journal: Journal) -> None:
    finished_round(journal, 0, training=60.0, cases=4, coarse=1.0, propagation=5.0)
    left = pace(journal, 2).seconds_left
    assert left(1, "coarse", 1.0) == pytest.approx(20 + 54)
    finished_round(journal, 1, training=10.0, cases=2, coarse=1.0, propagation=1.0)
    assert left(2, "training", 0.0) == pytest.approx(14)
