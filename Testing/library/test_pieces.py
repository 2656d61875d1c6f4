"""KM's prompts: pieces of masks, and which of SAM2's masks fits one."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_network import one_hot

from SAM2IterativeLib.guidance.pieces import best_fit, pieces_of
from SAM2IterativeLib.phantom import phantom_case


def two_polyps() -> np.ndarray:
    """A picture (1, 40, 60) with two pieces of class 1, a speck of it, and a piece of class 2."""
    labels = np.zeros((1, 40, 60), np.uint8)
    labels[0, 5:15, 5:20] = 1
    labels[0, 22:36, 30:50] = 1
    labels[0, 38, 2:4] = 1
    labels[0, 5:10, 40:50] = 2
    return labels


def test_two_polyps_give_two_prompt_sets() -> None:
    pieces = [piece for piece in pieces_of(two_polyps(), one_hot(two_polyps(), 2, 0.9), 8) if piece.prompt.class_index == 1]
    assert [piece.prompt.box for piece in pieces] == [(22.0, 30.0, 36.0, 50.0), (5.0, 5.0, 15.0, 20.0)], "the largest first"
    for piece in pieces:
        assert piece.prompt.slice_index == 0 and len(piece.prompt.positive_points) == 1
        (row, column) = piece.prompt.positive_points[0].astype(int)
        assert piece.mask[row, column]


def test_a_piece_is_told_of_its_own_logits_alone() -> None:
    labels = two_polyps()
    first, second, _ = pieces_of(labels, one_hot(labels, 2, 0.9), 8)
    for piece, other in ((first, second), (second, first)):
        dense = piece.prompt.dense_logits
        assert dense is not None
        assert (dense[piece.mask] > 0).all() and (dense[other.mask] == -10).all()


@pytest.mark.parametrize(("least", "count"), [(1, 4), (3, 3), (151, 1), (10_000, 0)])
def test_small_pieces_do_not_prompt(least: int, count: int) -> None:
    assert len(list(pieces_of(two_polyps(), one_hot(two_polyps(), 2), least))) == count


def test_pixels_that_touch_by_a_corner_are_one_piece() -> None:
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, 1:4, 1:4] = labels[0, 4:7, 4:7] = 1
    assert len(list(pieces_of(labels, one_hot(labels, 1), 1))) == 1


def test_a_piece_cut_by_the_edge_gets_its_point_inside() -> None:
    labels = np.zeros((1, 30, 30), np.uint8)
    labels[0, :20, :9] = 1
    [piece] = pieces_of(labels, one_hot(labels, 1), 8)
    row, column = piece.prompt.positive_points[0]
    assert 4 <= row <= 15 and 2 <= column <= 6


@pytest.mark.parametrize("seed", range(3))
def test_on_generated_volumes_pieces_are_disjoint_and_complete(seed: int) -> None:
    labels = phantom_case(seed)[1].array
    again = np.zeros_like(labels)
    for piece in pieces_of(labels, one_hot(labels, 2, 0.8), 1):
        target = again[piece.prompt.slice_index]
        assert not target[piece.mask].any()
        target[piece.mask] = piece.prompt.class_index
        j0, i0, j1, i1 = map(int, piece.prompt.box or ())
        assert piece.mask.sum() == piece.mask[j0:j1, i0:i1].sum() and piece.mask[j0].any() and piece.mask[:, i1 - 1].any()
    assert np.array_equal(again, labels)


def test_the_mask_that_overlaps_most_fits_best() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:8, 2:8] = True
    smaller, shifted, everything = mask.copy(), np.roll(mask, 3, 0), np.ones_like(mask)
    smaller[2] = False
    best, overlap = best_fit(np.stack([everything, smaller, shifted]), mask)
    assert best == 1 and overlap == pytest.approx(30 / 36)
    assert best_fit(np.zeros((3, 10, 10), bool), mask) == (0, 0.0)
