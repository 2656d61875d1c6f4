"""Method (b): the history and the three signs of doubt."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_network import network_snapshots, one_hot

from SAM2IterativeLib.guidance.key_frames import slice_dice
from SAM2IterativeLib.guidance.uncertainty import (
    case_uncertainty,
    disagreement,
    entropy,
    first_history,
    jensen_shannon,
    mask_uncertainty,
    slice_uncertainty,
    uncertainty,
    update_history,
)
from SAM2IterativeLib.metrics import spearman
from SAM2IterativeLib.phantom import phantom_case


def random_probabilities(seed: int, classes: int = 3, shape: tuple[int, int, int] = (4, 9, 8)) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), shape).transpose(3, 0, 1, 2).astype(np.float32)


def test_the_first_history_is_the_mean_of_the_snapshots() -> None:
    snapshots = [random_probabilities(seed) for seed in range(5)]
    np.testing.assert_allclose(first_history(iter(snapshots)), np.mean(snapshots, axis=0), atol=1e-6)


def test_the_first_history_leaves_the_snapshots_as_they_are() -> None:
    snapshots = [random_probabilities(seed) for seed in range(2)]
    before = [snapshot.copy() for snapshot in snapshots]
    first_history(snapshots)
    np.testing.assert_array_equal(snapshots, before)


def test_no_snapshot_is_no_history() -> None:
    with pytest.raises(ValueError, match="at least one snapshot"):
        first_history([])


def test_without_momentum_the_history_is_the_prediction() -> None:
    before, now = random_probabilities(0), random_probabilities(1)
    np.testing.assert_array_equal(update_history(before, now, momentum=0.0), now)


def test_history_weighs_past_and_present() -> None:
    before, now = random_probabilities(0), random_probabilities(1)
    np.testing.assert_allclose(update_history(before, now, 0.8), 0.8 * before + 0.2 * now, atol=1e-6)
    np.testing.assert_array_equal(update_history(None, now, 0.8), now)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.9])
def test_a_constant_prediction_has_no_divergence(momentum: float) -> None:
    constant = random_probabilities(0)
    history = first_history([constant] * 5)
    for _ in range(4):
        doubt = uncertainty(constant, history, update_history(history, constant, momentum))
        assert doubt.js is not None
        assert doubt.js.max() < 1e-5
        history = update_history(history, constant, momentum)


def test_flipping_predictions_raise_the_divergence() -> None:
    here = np.zeros((2, 6, 6), dtype=np.uint8)
    a, b = one_hot(here, 1, 0.95), one_hot(1 - here, 1, 0.95)
    steady, flipping = a, a
    for prediction in (b, a, b):
        js_steady, js_flipping = jensen_shannon(a, steady), jensen_shannon(prediction, flipping)
        assert js_flipping.min() > js_steady.max() + 0.1
        steady, flipping = update_history(steady, a, 0.5), update_history(flipping, prediction, 0.5)


def test_every_term_is_0_for_agreement_and_1_at_worst() -> None:
    a, b = one_hot(np.zeros((1, 2, 2), int), 2), one_hot(np.ones((1, 2, 2), int), 2)
    for term in (jensen_shannon, disagreement):
        np.testing.assert_array_equal(term(a, a), 0)
        np.testing.assert_allclose(term(a, b), 1, atol=1e-6)
    np.testing.assert_array_equal(entropy(a), 0)
    np.testing.assert_allclose(entropy(np.full((3, 1, 2, 2), 1 / 3, dtype=np.float32)), 1, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_terms_equal_their_formulas(seed: int) -> None:
    p, q = random_probabilities(seed, 4).astype(float), random_probabilities(seed + 9, 4).astype(float)
    m = (p + q) / 2
    js = 0.5 * (p * np.log2(p / m)).sum(axis=0) + 0.5 * (q * np.log2(q / m)).sum(axis=0)
    np.testing.assert_allclose(jensen_shannon(p.astype(np.float32), q.astype(np.float32)), js, atol=1e-5)
    np.testing.assert_allclose(entropy(p.astype(np.float32)), -(p * np.log(p)).sum(axis=0) / np.log(4), atol=1e-5)
    np.testing.assert_allclose(disagreement(p.astype(np.float32), q.astype(np.float32)), abs(p - q).sum(axis=0) / 2, atol=1e-5)


def test_the_map_is_the_mean_of_the_terms_present() -> None:
    p, before, now, s = (random_probabilities(seed) for seed in range(4))
    alone, first, later = uncertainty(p, None, now), uncertainty(p, before, now), uncertainty(p, before, now, s)
    np.testing.assert_allclose(alone.map, entropy(now), atol=1e-6)
    np.testing.assert_allclose(first.map, (entropy(now) + jensen_shannon(p, before)) / 2, atol=1e-6)
    np.testing.assert_allclose(later.map, (entropy(now) + jensen_shannon(p, before) + disagreement(p, s)) / 3, atol=1e-6)
    assert (alone.js, alone.disagreement, first.disagreement) == (None, None, None)
    for found in (alone, first, later):
        assert found.map.dtype == np.float32
        assert 0 <= found.map.min() <= found.map.max() <= 1


def test_where_sam2_was_not_asked_its_silence_is_no_disagreement() -> None:
    p, before, now, silent = (random_probabilities(seed) for seed in range(4))
    heard = np.zeros(p.shape[1:], dtype=bool)
    heard[0] = True
    doubt = uncertainty(p, before, now, silent, heard)
    np.testing.assert_array_equal(doubt.map[0], uncertainty(p, before, now, silent).map[0])
    np.testing.assert_array_equal(doubt.map[1:], uncertainty(p, before, now).map[1:])


def test_arrays_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        uncertainty(random_probabilities(0, 3), random_probabilities(0, 2), random_probabilities(0, 3))


def test_slice_doubt_is_the_sum_around_the_mask_over_its_area() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[8:12, 8:12] = True
    u = np.random.default_rng(0).random((20, 20)).astype(np.float32) / 9
    pixels = np.indices(mask.shape).reshape(2, -1).T
    near = [any(np.hypot(j - y, i - x) <= 3 for y, x in np.argwhere(mask)) for j, i in pixels]
    assert mask_uncertainty(mask, u, 3) == pytest.approx(float(u.ravel()[near].sum() / 16), abs=1e-6)
    assert mask_uncertainty(mask, u, 0) == pytest.approx(float(u[mask].mean()), abs=1e-6)


def test_slice_doubt_ends_at_1_and_an_empty_mask_is_no_certainty() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    assert mask_uncertainty(mask, np.zeros((20, 20), dtype=np.float32), 3) == 1.0
    mask[8:12, 8:12] = True
    assert mask_uncertainty(mask, np.ones((20, 20), dtype=np.float32), 3) == 1.0


def test_the_same_border_doubts_a_small_mask_more() -> None:
    """Twice as wide, the ring of doubt stays one pixel wide."""
    doubts = []
    for half in (3, 6):
        mask = np.zeros((30, 30), dtype=bool)
        mask[15 - half : 15 + half, 15 - half : 15 + half] = True
        ring = np.zeros(mask.shape, dtype=np.float32)
        ring[14 - half : 16 + half, 14 - half : 16 + half] = 0.3
        ring[mask] = 0
        doubts.append(mask_uncertainty(mask, ring, 3))
    assert doubts[0] > 1.8 * doubts[1] > 0


def test_a_case_s_doubt_is_that_near_its_structures() -> None:
    labels, doubt = np.zeros((9, 20, 20), int), np.zeros((9, 20, 20), np.float32)
    labels[4, 10, 10] = 1
    doubt[:, :5] = 1.0  # far away
    assert case_uncertainty(doubt, labels) == 0.0
    doubt[4, 10, 10] = 1.0
    assert 0 < case_uncertainty(doubt, labels) < 0.1
    assert case_uncertainty(doubt, np.zeros_like(labels)) == 1.0, "without a structure the largest doubt counts"
    assert case_uncertainty(np.zeros_like(doubt), np.zeros_like(labels)) == 0.0


def test_a_network_that_surely_sees_nothing_where_every_case_has_it_is_doubtful() -> None:
    labels, doubt = np.zeros((9, 20, 20), int), np.zeros((9, 20, 20), np.float32)
    assert case_uncertainty(doubt, labels, always_shown=(1, 2)) == 1.0
    labels[4, 10, 10] = 1
    assert case_uncertainty(doubt, labels, always_shown=(1, 2)) == 0.5
    assert case_uncertainty(doubt, labels, always_shown=(1,)) == 0.0


def test_slice_doubt_is_not_a_number_where_the_class_is_absent() -> None:
    labels = np.zeros((3, 8, 8), dtype=np.uint8)
    labels[1, 2:5, 2:5] = 2
    table = slice_uncertainty(labels, np.where(labels == 2, 0.25, 0).astype(np.float32), 2, 1)
    assert table.shape == (2, 3)
    assert np.isfinite(table).tolist() == [[False] * 3, [False, True, False]]
    assert table[1, 1] == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(3))
def test_doubt_goes_with_error_on_generated_volumes(seed: int) -> None:
    reference = phantom_case(seed)[1].array
    snapshots = network_snapshots(reference, 2, seed)
    history = first_history(snapshots)
    labels = history.argmax(axis=0)
    doubt = slice_uncertainty(labels, uncertainty(snapshots[-1], history, history).map, 2, 3)
    error = np.where(np.isfinite(doubt), 1 - slice_dice(labels, reference, 2), np.nan)
    correlation = spearman(doubt, error)
    assert correlation is not None
    assert correlation > 0.3


@pytest.mark.parametrize("seed", range(3))
def test_a_corrupted_slab_raises_the_doubt_there(seed: int) -> None:
    """The slab is spoiled in the second round only: the past disagrees with it."""
    reference = phantom_case(seed)[1].array
    middle = int(np.median(np.flatnonzero((reference == 1).any(axis=(1, 2)))))
    slab = [middle - 1, middle, middle + 1]
    history = first_history(network_snapshots(reference, 2, seed, difficulty=0.5))
    maps = []
    for spoiled in ((), slab):
        now = network_snapshots(reference, 2, seed + 50, difficulty=0.5, count=1, slab=spoiled)[0]
        maps.append(uncertainty(now, history, update_history(history, now, 0.5)).map)
    rise = [slice_uncertainty(reference, m, 2, 3) for m in maps]
    assert (rise[1][0, slab] > rise[0][0, slab] + 0.05).all()
    elsewhere = np.setdiff1d(np.arange(reference.shape[0]), slab)
    np.testing.assert_allclose(maps[1][elsewhere], maps[0][elsewhere])
