"""KM's prompts: pieces of masks, and how well a mask fits one."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_network import one_hot

from SAM2IterativeLib.guidance.pieces import Piece, pieces_of, prompt_for
from SAM2IterativeLib.guidance.prompts import Prompt
from SAM2IterativeLib.phantom import phantom_case


def two_polyps() -> np.ndarray:
    """A picture (1, 40, 60) with two pieces of class 1, a speck of it, and a piece of class 2."""
    labels = np.zeros((1, 40, 60), np.uint8)
    labels[0, 5:15, 5:20] = 1
    labels[0, 22:36, 30:50] = 1
    labels[0, 38, 2:4] = 1
    labels[0, 5:10, 40:50] = 2
    return labels


def prompts_of(labels: np.ndarray, least: int = 8, certainty: float = 0.9) -> list[tuple[Piece, Prompt]]:
    """The pieces of a label map with their prompts, by a network that is ``certainty`` sure of it."""
    probabilities = one_hot(labels, int(labels.max()), certainty)
    pieces = pieces_of(labels, least)
    return [(p, prompt_for(p, labels[p.slice_index], probabilities[p.class_index, p.slice_index])) for p in pieces]


def whole(piece: Piece, shape: tuple[int, ...]) -> np.ndarray:
    """The piece on its slice, (j, i)."""
    mask = np.zeros(shape, bool)
    mask[piece.window] = piece.mask
    return mask


def test_two_polyps_give_two_prompt_sets() -> None:
    labels = two_polyps()
    found = [(piece, prompt) for piece, prompt in prompts_of(labels) if piece.class_index == 1]
    assert [prompt.box for _, prompt in found] == [(22.0, 30.0, 36.0, 50.0), (5.0, 5.0, 15.0, 20.0)], "the largest first"
    for piece, prompt in found:
        assert prompt.slice_index == 0 and len(prompt.positive_points) == 1
        (row, column) = prompt.positive_points[0].astype(int)
        assert whole(piece, labels.shape[1:])[row, column]


def test_a_piece_is_told_of_its_own_logits_alone() -> None:
    labels = two_polyps()
    (first, told), (second, told_too), _ = prompts_of(labels)
    for piece, prompt, other in ((first, told, second), (second, told_too, first)):
        dense = prompt.dense_logits
        assert dense is not None
        assert (dense[whole(piece, dense.shape)] > 0).all() and (dense[whole(other, dense.shape)] == -10).all()


def test_two_pieces_close_together_are_not_mixed_up() -> None:
    """The halo of the other piece, in which the network half believes, is not told either, unless it lies beside this one."""
    labels = np.zeros((1, 20, 40), np.uint8)
    labels[0, 5:15, 3:12] = labels[0, 5:15, 14:20] = 1
    probability = np.where(labels[0] == 1, 0.9, 0.4).astype(np.float32)
    large, small = (prompt_for(piece, labels[0], probability).dense_logits for piece in pieces_of(labels, 8))
    assert large is not None and small is not None
    assert (large[5:15, 14:20] == -10).all() and (small[5:15, 3:12] == -10).all()
    assert (large[:, 15:] == -10).all() and -1 < large[8, 12] < 0


@pytest.mark.parametrize(("least", "count"), [(1, 4), (3, 3), (151, 1), (10_000, 0)])
def test_small_pieces_do_not_prompt(least: int, count: int) -> None:
    assert len(list(pieces_of(two_polyps(), least))) == count


def test_pixels_that_touch_by_a_corner_are_one_piece() -> None:
    labels = np.zeros((1, 8, 8), np.uint8)
    labels[0, 1:4, 1:4] = labels[0, 4:7, 4:7] = 1
    assert len(list(pieces_of(labels, 1))) == 1


def test_a_piece_cut_by_the_edge_gets_its_point_inside() -> None:
    labels = np.zeros((1, 30, 30), np.uint8)
    labels[0, :20, :9] = 1
    [(_, prompt)] = prompts_of(labels)
    row, column = prompt.positive_points[0]
    assert 4 <= row <= 15 and 2 <= column <= 6


@pytest.mark.parametrize("seed", range(3))
def test_on_generated_volumes_pieces_are_disjoint_and_complete(seed: int) -> None:
    labels = phantom_case(seed)[1].array
    again, slices = np.zeros_like(labels), []
    for piece in pieces_of(labels, 1):
        target = again[piece.slice_index]
        mask = whole(piece, target.shape)
        assert not target[mask].any() and piece.mask[0].any() and piece.mask[:, -1].any()
        target[mask] = piece.class_index
        slices.append(piece.slice_index)
    assert np.array_equal(again, labels) and slices == sorted(slices)


def test_overlap_is_intersection_over_union() -> None:
    mask = np.zeros((1, 10, 10), np.uint8)
    mask[0, 2:8, 2:8] = 1
    [piece] = pieces_of(mask, 1)
    smaller = mask[0] > 0
    smaller[2] = False
    assert piece.overlap(smaller) == pytest.approx(30 / 36)
    assert piece.overlap(np.ones((10, 10), bool)) == pytest.approx(0.36)
    assert piece.overlap(np.zeros((10, 10), bool)) == 0 and piece.overlap(mask[0] > 0) == 1
