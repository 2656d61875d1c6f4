"""Methods (c) and (d): the quality of slices and the choice of key frames."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from simulated_network import network_snapshots, one_hot
from slice_choices import SliceChoices

from SAM2IterativeLib.guidance.key_frames import PromptRecord, select_key_frames, slice_dice, slice_quality
from SAM2IterativeLib.guidance.uncertainty import first_history, uncertainty
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.settings import KeyFrameSettings

SETTINGS = KeyFrameSettings()


def pillar(areas: list[int], label: int = 1) -> np.ndarray:
    """One connected patch of the given number of pixels on each slice, (k, 24, 24)."""
    labels = np.zeros((len(areas), 24, 24), dtype=np.uint8)
    for z, area in enumerate(areas):
        patch = np.zeros(256, dtype=np.uint8)
        patch[:area] = label
        labels[z, 4:20, 4:20] = patch.reshape(16, 16)
    return labels


def constant(value: float, labels: np.ndarray) -> np.ndarray:
    return np.full(labels.shape, value, dtype=np.float32)


def guided(reference: np.ndarray, seed: int, class_count: int = 2, slab: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """History and quality from a simulated network's snapshots."""
    snapshots = network_snapshots(reference, class_count, seed, slab=slab)
    history = first_history(snapshots)
    return history, slice_quality(history, uncertainty(snapshots[-1], history, history).map, SETTINGS)


def test_quality_equals_its_formula() -> None:
    labels = pillar([40, 200, 20])
    history = one_hot(labels, 2, 0.9)
    doubt = np.where(labels == 1, 0.2, 0.0).astype(np.float32)
    reliability = np.array([[1.0, 0.5, 0.8], [1.0, 1.0, 1.0]])
    stability = np.array([[0.9, 0.9, 0.5], [1.0, 1.0, 1.0]])
    quality = slice_quality(history, doubt, SETTINGS, reliability=reliability, stability=stability)
    area_factor = np.array([40 / 200 / 0.3, 1.0, 20 / 200 / 0.3])
    np.testing.assert_allclose(quality[0], 0.8**2 * reliability[0] * stability[0] * area_factor, rtol=1e-5)
    np.testing.assert_array_equal(quality[1], 0)


def test_absent_factors_count_as_one() -> None:
    labels = pillar([100, 100])
    history, ones = one_hot(labels, 1, 0.9), np.ones((1, 2))
    np.testing.assert_array_equal(
        slice_quality(history, constant(0.1, labels), SETTINGS),
        slice_quality(history, constant(0.1, labels), SETTINGS, reliability=ones, stability=ones),
    )


def test_a_slice_too_small_or_without_a_confident_component_has_no_quality() -> None:
    labels = pillar([7, 8, 100])
    history = one_hot(labels, 1, 0.95)
    history[:, 2] = one_hot(labels, 1, 0.65)[:, 2]
    quality = slice_quality(history, constant(0.0, labels), SETTINGS)
    assert (quality[0] > 0).tolist() == [False, True, False]


def test_one_confident_component_suffices() -> None:
    labels = np.zeros((1, 24, 24), dtype=np.uint8)
    labels[0, 2:6, 2:6] = labels[0, 12:22, 12:22] = 1
    history = one_hot(labels, 1, 0.6)
    history[:, 0, :8, :8] = one_hot(labels, 1, 0.9)[:, 0, :8, :8]
    assert slice_quality(history, constant(0.0, labels), SETTINGS)[0, 0] > 0


def test_doubt_around_the_mask_counts_too() -> None:
    labels = pillar([256])
    ring = constant(0.0, labels)
    ring[0, 2:4, 4:20] = 1.0
    quality = [slice_quality(one_hot(labels, 1), u, SETTINGS)[0, 0] for u in (constant(0.0, labels), ring)]
    assert quality[0] == pytest.approx(1.0)
    assert quality[1] < 0.95


def test_slice_dice_by_hand() -> None:
    a, b = pillar([10, 10, 0]), pillar([10, 30, 0])
    np.testing.assert_allclose(slice_dice(a, b, 2), [[1.0, 20 / 40, 1.0], [1.0, 1.0, 1.0]])


def test_the_record_averages_only_prompted_slices() -> None:
    record = PromptRecord.empty(class_count=2, slices=4)
    np.testing.assert_array_equal(record.reliability, 1)
    first = record.updated(np.full((2, 4), 0.6), {1: (0, 2)})
    second = first.updated(np.full((2, 4), 0.9), {1: (2,), 2: (3,)})
    np.testing.assert_allclose(second.reliability, [[0.6, 1, 0.75, 1], [1, 1, 1, 0.9]])
    np.testing.assert_array_equal(record.reliability, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_number_gap_and_least_quality_are_kept(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    start, stop = sorted(random.choice(np.arange(40), 2, replace=False))
    labels = pillar([100 if start <= z <= stop else 0 for z in range(40)])
    quality = np.where(labels.any(axis=(1, 2)), random.random(40), 0.0)[None]
    chosen = select_key_frames(quality, labels, KeyFrameSettings(count=count))[1]
    extent = stop - start + 1
    assert 1 <= len(chosen) <= count
    assert list(chosen) == sorted(chosen)
    assert int(quality[0].argmax()) in chosen
    assert all(b - a >= np.ceil(extent / (2 * count)) for a, b in itertools.pairwise(chosen))
    assert all(quality[0, z] >= 0.35 for z in chosen) or len(chosen) == 1
    edges = [start + part[0] for part in np.array_split(np.arange(extent), count) if part.size]
    parts = [int(np.searchsorted(edges, z, side="right")) for z in chosen]
    assert len(set(parts)) == len(parts)


def test_each_part_gives_its_best_slice() -> None:
    labels = pillar([100] * 9)
    quality = np.array([[0.4, 0.9, 0.5, 0.4, 0.8, 0.5, 0.3, 0.2, 0.6]])
    assert select_key_frames(quality, labels, SETTINGS)[1] == (1, 4, 8)


def test_a_part_without_a_good_slice_gives_none() -> None:
    labels = pillar([100] * 9)
    quality = np.array([[0.3, 0.34, 0.1, 0.4, 0.8, 0.5, 0.35, 0.2, 0.1]])
    assert select_key_frames(quality, labels, SETTINGS)[1] == (4, 6)


def test_the_best_slice_is_kept_however_poor() -> None:
    labels = pillar([100] * 9)
    quality = np.zeros((1, 9))
    quality[0, [2, 7]] = 0.05, 0.1
    assert select_key_frames(quality, labels, SETTINGS) == {1: (7,)}


def test_a_class_without_quality_abstains() -> None:
    labels = pillar([100] * 9)
    assert select_key_frames(np.zeros((2, 9)), labels, SETTINGS) == {}
    assert select_key_frames(np.zeros((2, 9)), np.zeros_like(labels), SETTINGS) == {}


def test_a_stray_pixel_does_not_stretch_the_extent() -> None:
    labels = pillar([1] + [0] * 20 + [100] * 6)
    quality = np.where(labels.sum(axis=(1, 2)) > 8, 0.9, 0.0)[None]
    assert select_key_frames(quality, labels, SETTINGS)[1] == (21, 23, 25)


@pytest.mark.parametrize("slices", [1, 2])
def test_a_picture_and_a_pair_of_slices_work(slices: int) -> None:
    labels = pillar([100] * slices)
    quality = slice_quality(one_hot(labels, 1, 0.95), constant(0.05, labels), SETTINGS)
    assert select_key_frames(quality, labels, SETTINGS) == {1: tuple(range(slices))}


@pytest.mark.parametrize("seed", range(6))
def test_no_key_frame_in_a_corrupted_slab(seed: int) -> None:
    reference = phantom_case(seed)[1].array
    extent = np.flatnonzero((reference == 1).any(axis=(1, 2)))
    slab = tuple(int(z) for z in extent[len(extent) // 2 - 1 : len(extent) // 2 + 2])
    history, quality = guided(reference, seed, slab=slab)
    chosen = select_key_frames(quality, history.argmax(axis=0), SETTINGS)
    assert chosen[1]
    assert not {z for slices in chosen.values() for z in slices} & set(slab)


def test_a_slab_spoiled_in_a_later_round_is_left() -> None:
    """The last round's labels were good; S and the divergence tell that today's are not."""
    reference = phantom_case(0)[1].array
    history, quality = guided(reference, 0)
    best = int(quality[0].argmax())
    slab = tuple(range(best - 1, best + 2))
    now = network_snapshots(reference, 2, 1, count=1, slab=slab)[0]
    later = 0.5 * history + 0.5 * now
    stability = slice_dice(later.argmax(axis=0), history.argmax(axis=0), 2)
    doubt = uncertainty(now, history, later).map
    chosen = select_key_frames(slice_quality(later, doubt, SETTINGS, stability=stability), later.argmax(axis=0), SETTINGS)
    assert not set(chosen[1]) & set(slab)


def test_key_frames_are_truer_than_random_middle_or_largest_slices() -> None:
    """Mean true Dice of the network's masks on the slices chosen, over generated volumes with simulated networks."""
    choices = SliceChoices(SETTINGS)
    for seed in range(8):
        reference = phantom_case(seed)[1].array
        history, quality = guided(reference, seed)
        labels = history.argmax(axis=0)
        choices.add(labels, reference, select_key_frames(quality, labels, SETTINGS))
    mean = choices.means()
    assert mean["key"] > max(mean["random"], mean["middle"], mean["largest"]) + 0.01, mean
