"""How much SAM2 may say: the trial on a labelled case."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tiny_sam2 import CPU, ball_volume, tiny_foundation

from SAM2IterativeLib.foundation.features import VolumeFeatures, Window, encode_volume
from SAM2IterativeLib.foundation.memory_bank import Entry
from SAM2IterativeLib.foundation.propagation import LEAST_LOGIT, Guidance, Propagated, Propagator
from SAM2IterativeLib.methods.trial import error_on
from SAM2IterativeLib.settings import MemorySettings, Settings

FOUNDATION = tiny_foundation()
IMAGE, LABELS = ball_volume(classes=2)
FEATURES = encode_volume(FOUNDATION, IMAGE, Window.around(LABELS > 0), CPU)


class Answering(Propagator):
    """A SAM2 whose answer is known beforehand; it notes what it was asked."""

    def __init__(self, answer: np.ndarray) -> None:
        super().__init__(FOUNDATION.model, CPU, MemorySettings())
        self.answer = answer
        self.asked: list[tuple[Guidance, Sequence[Entry]]] = []

    def propagate(self, volume: VolumeFeatures, guidance: Guidance, support: Sequence[Entry] = ()) -> Propagated:
        self.asked.append((guidance, support))
        shown = np.stack([self.answer == c for c in range(1, guidance.class_count + 1)])
        return Propagated(np.where(shown, -LEAST_LOGIT, LEAST_LOGIT).astype(np.float32))


def error(answer: np.ndarray, labels: np.ndarray = LABELS, classes: int = 2) -> list[float]:
    return [round(float(v), 3) for v in error_on(Answering(answer), FEATURES, labels, classes, Settings(), ())]


def half_of(c: int) -> np.ndarray:
    """The truth without every second slice of a class: about Dice 2/3 for it."""
    found = LABELS.copy()
    found[::2][LABELS[::2] == c] = 0
    return found


def test_a_perfect_sam2_makes_no_error_and_a_blind_one_every() -> None:
    assert error(LABELS) == [0.0, 0.0]
    assert error(np.zeros_like(LABELS)) == [1.0, 1.0]


def test_each_class_has_its_own_error() -> None:
    first, second = error(half_of(1))
    assert first == pytest.approx(1 / 3, abs=0.1) and second == 0.0
    assert error(half_of(2)) == [0.0, pytest.approx(1 / 3, abs=0.1)]


def test_a_class_that_the_case_lacks_gets_the_error_of_the_others() -> None:
    labels = np.where(LABELS == 1, LABELS, 0)
    assert error(labels, labels, classes=2) == [0.0, 0.0]
    # Finding it where it is not says nothing about how well it is found where it is.
    assert error(LABELS, labels, classes=2) == [0.0, 0.0]
    assert error(np.zeros_like(labels), labels, classes=2) == [1.0, 1.0]


def test_a_case_without_any_class_tells_nothing() -> None:
    empty = np.zeros_like(LABELS)
    assert np.isnan(error(empty, empty)).all()


def test_the_trial_gives_key_frames_only_never_the_answer() -> None:
    judge = Answering(LABELS)
    error_on(judge, FEATURES, LABELS, 2, Settings(), ())
    guidance = judge.asked[0][0]
    assert guidance.dense is None
    for c in (1, 2):
        assert 1 <= len(guidance.prompts[c]) <= Settings().key_frames.count
        assert all(prompt.mask is None for prompt in guidance.prompts[c])


def test_a_real_sam2_has_an_error_within_bounds() -> None:
    found = error_on(Propagator(FOUNDATION.model, CPU, MemorySettings()), FEATURES, LABELS, 2, Settings(), ())
    assert found.shape == (2,) and bool(((found >= 0) & (found <= 1)).all())
