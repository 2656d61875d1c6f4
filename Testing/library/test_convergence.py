"""Method (j): when the rounds end."""

from __future__ import annotations

import numpy as np
import pytest

from SAM2IterativeLib.guidance.convergence import judge, label_stability
from SAM2IterativeLib.settings import RoundSettings

SETTINGS = RoundSettings(maximum=6)


@pytest.mark.parametrize(
    ("stability", "rounds_done", "finished", "converged"),
    [
        ([], 0, False, False),
        ([0.9], 1, False, False),
        ([0.99], 1, False, False),
        ([0.991], 1, True, True),
        ([0.991, 0.9], 2, False, False),
        ([0.9, 0.93, 0.95], 3, False, False),
        ([0.9, 0.901, 0.95], 3, False, False),
        ([0.9, 0.901], 2, False, False),
        ([0.9, 0.901, 0.9015], 3, True, True),
        ([0.9, 0.85, 0.8], 3, True, True),
        ([0.8, 0.9, 0.901, 0.92], 4, False, False),
        ([0.5, 0.6, 0.7, 0.8, 0.9, 0.95], 6, True, False),
        ([], 6, True, False),
    ],
)
def test_when_the_rounds_end(stability: list[float], rounds_done: int, finished: bool, converged: bool) -> None:
    verdict = judge(stability, rounds_done, SETTINGS)
    assert (verdict.finished, verdict.converged) == (finished, converged)


def test_the_reason_names_the_numbers() -> None:
    assert "0.9950" in judge([0.995], 1, SETTINGS).reason
    assert "+0.0010 and +0.0005" in judge([0.9, 0.901, 0.9015], 3, SETTINGS).reason
    assert "6 rounds" in judge([0.5], 6, SETTINGS).reason


def test_the_limits_are_settings() -> None:
    assert judge([0.96], 1, RoundSettings(converged_dice=0.95)).converged
    assert not judge([0.9, 0.901, 0.902], 2, RoundSettings(minimum_gain=0.0005, maximum=9)).finished


def test_stability_is_the_mean_dice_over_the_classes_present() -> None:
    now, before = np.zeros((2, 4, 4), dtype=np.uint8), np.zeros((2, 4, 4), dtype=np.uint8)
    assert label_stability(now, before, 3) == 1.0
    now[0, :2], before[0, 1:3] = 1, 1
    now[1], before[1] = 3, 3
    assert label_stability(now, before, 3) == pytest.approx((0.5 + 1) / 2)
    assert label_stability(now, np.zeros_like(now), 3) == 0.0
