"""Method (h): fusion, weights, agreement, the choice of volumes, and what a reviewer decided."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_network import network_snapshots, one_hot

from SAM2IterativeLib.guidance.pseudo_label import agreement, choose_training_volumes, foundation_shares, fuse
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.settings import PseudoLabelSettings

SETTINGS = PseudoLabelSettings()


def voxels(*probabilities: tuple[float, ...]) -> np.ndarray:
    """Probabilities of a row of voxels, (C+1, 1, 1, n)."""
    return np.array(probabilities, dtype=np.float32).T[:, None, None, :]


def blocks(**corners: tuple[int, slice]) -> np.ndarray:
    """A class map (6, 12, 12) with cubes given as class and columns."""
    labels = np.zeros((6, 12, 12), dtype=np.uint8)
    for c, columns in corners.values():
        labels[1:5, 3:9, columns] = c
    return labels


def test_labels_are_the_argmax_of_the_mean() -> None:
    s = voxels((0.6, 0.4), (0.1, 0.9), (0.8, 0.2))
    h = voxels((0.1, 0.9), (0.4, 0.6), (0.7, 0.3))
    assert fuse(s, h, SETTINGS).labels.ravel().tolist() == [1, 1, 0]


@pytest.mark.parametrize(("share", "winner"), [(0.0, 1), (0.5, 1), (0.9, 0), (1.0, 0)])
def test_the_share_moves_the_mean_between_history_and_sam2(share: float, winner: int) -> None:
    s, h = voxels((0.6, 0.4)), voxels((0.1, 0.9))
    assert fuse(s, h, PseudoLabelSettings(foundation_share=share)).labels.item() == winner


def test_each_class_has_its_own_share() -> None:
    s, h = voxels((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)), voxels((0.6, 0.4, 0.0), (0.6, 0.0, 0.4), (0.2, 0.8, 0.0))
    assert fuse(s, h, SETTINGS).labels.ravel().tolist() == [1, 2, 0]
    assert fuse(s, h, SETTINGS, shares=(0.5, 0.5)).labels.ravel().tolist() == [1, 2, 0]
    # The first voxel is class 1's by SAM2, the last by the history; only for class 2 SAM2 is heard.
    assert fuse(s, h, SETTINGS, shares=(0.0, 0.5)).labels.ravel().tolist() == [0, 2, 1]
    np.testing.assert_allclose(fuse(s, h, SETTINGS, shares=(0.0, 0.0)).labels, h.argmax(0))


def test_shares_are_the_inverse_squares_of_the_error_odds() -> None:
    # Class 1 is expected at Dice 2 * 0.9 / (1 + 1.0) = 0.9, class 2 at 2 * 1.6 / (2 + 1.6) = 8/9; SAM2 says the same here.
    h = voxels((0.1, 0.9, 0.0), (0.2, 0.0, 0.8), (0.2, 0.0, 0.8), (0.9, 0.1, 0.0))
    first, second = foundation_shares((0.1, 0.2), h, h, SETTINGS)
    assert first == pytest.approx(0.5), "equal errors share equally"
    assert second == pytest.approx((1 / 8) ** 2 / ((1 / 8) ** 2 + 0.25**2)), "as (1 - Dice) / Dice"
    assert foundation_shares((0.1, 0.2), h, h, PseudoLabelSettings(foundation_share=0.2))[0] == pytest.approx(0.2)
    np.testing.assert_allclose(foundation_shares((0.1, 0.2), h, h, PseudoLabelSettings(foundation_share=0.0)), 0)
    np.testing.assert_allclose(foundation_shares((0.1, 0.2), h, h, PseudoLabelSettings(foundation_share=1.0)), 1)


def test_a_worse_sam2_says_less_and_an_unknown_one_its_share() -> None:
    h = voxels((0.1, 0.9, 0.0), (0.9, 0.1, 0.0))
    said = [foundation_shares((error, error), h, h, SETTINGS)[0] for error in (0.1, 0.2, 0.6, 1.0)]
    assert said == sorted(said, reverse=True) and said[0] == pytest.approx(0.5) and said[-1] < 0.02
    unknown = foundation_shares((float("nan"), 0.3), h, h, SETTINGS)
    np.testing.assert_allclose(unknown, 0.5, err_msg="nor has a class that the history lacks")
    assert foundation_shares((0.1, 0.1), None, h, SETTINGS).tolist() == [0.5, 0.5]


def test_the_history_judges_sam2_s_mask_too_however_well_it_did_on_a_labelled_case() -> None:
    h = voxels((0.1, 0.9), (0.1, 0.9), (0.9, 0.1), (0.9, 0.1))
    same, other = one_hot(np.array([[[1, 1, 0, 0]]]), 1, 0.99), one_hot(np.array([[[0, 1, 1, 0]]]), 1, 0.99)
    (as_the_network,), (elsewhere,) = (foundation_shares((0.0,), s, h, SETTINGS) for s in (same, other))
    assert as_the_network == pytest.approx(0.5)
    # Expected Dice of the network's mask 2 * 1.8 / (2 + 2) = 0.9, of the other one 2 * 1.0 / (2 + 2) = 0.5.
    assert elsewhere == pytest.approx((1 / 9) ** 2 / ((1 / 9) ** 2 + 1.0**2))


def test_a_sam2_that_finds_next_to_nothing_does_not_pull_a_doubtful_network_down() -> None:
    h = voxels(*[(0.4, 0.6)] * 20, (0.9, 0.1))
    s = one_hot(np.array([[[*[0] * 19, 1, 0]]]), 1, 0.99)
    shares = foundation_shares((0.1,), s, h, SETTINGS)
    assert shares[0] < 0.01
    assert fuse(s, h, SETTINGS, shares=shares.tolist()).labels.ravel().tolist() == [1] * 20 + [0]


def test_weights_follow_agreement_and_trust() -> None:
    s = voxels((0.3, 0.6, 0.1), (0.9, 0.1, 0.0), (0.48, 0.51, 0.01), (1.0, 0.0, 0.0))
    h = voxels((0.3, 0.5, 0.2), (0.2, 0.7, 0.1), (0.99, 0.01, 0.0), (1.0, 0.0, 0.0))
    pseudo = fuse(s, h, PseudoLabelSettings(trusted_probability=0.7))
    # They agree; they disagree and are unsure; they disagree but the mean is sure; both are wholly certain.
    assert pseudo.weights.ravel().tolist() == [1, 0, 1, 1]
    assert (pseudo.labels.dtype, pseudo.weights.dtype) == (np.uint8, np.float32)


def test_a_mean_of_exactly_the_trusted_probability_is_not_trusted() -> None:
    s, h = voxels((0.375, 0.625)), voxels((1.0, 0.0))
    assert fuse(s, h, PseudoLabelSettings(trusted_probability=0.6875)).weights.item() == 0
    assert fuse(s, h, PseudoLabelSettings(trusted_probability=0.68)).weights.item() > 0


def test_what_strayed_from_a_class_in_one_piece_goes() -> None:
    labels = blocks(big=(1, slice(0, 5)), small=(1, slice(8, 10)))
    p = one_hot(labels, 2, 0.9)
    kept = fuse(p, p, SETTINGS, single_component={1})
    everything = fuse(p, p, SETTINGS)
    np.testing.assert_array_equal(everything.labels, labels)
    np.testing.assert_array_equal(kept.labels, blocks(big=(1, slice(0, 5))))
    island = (labels == 1) & (kept.labels == 0)
    assert (kept.weights[island] == 0).all() and (everything.weights[island] > 0).all()
    np.testing.assert_array_equal(kept.weights[~island], everything.weights[~island])


def test_what_lies_near_or_is_as_large_is_no_stray() -> None:
    torn_off = blocks(big=(1, slice(0, 5)), small=(1, slice(6, 7)))
    twin = blocks(big=(1, slice(0, 5)), other=(1, slice(8, 11)))
    for labels in (torn_off, twin):
        p = one_hot(labels, 2, 0.9)
        np.testing.assert_array_equal(fuse(p, p, SETTINGS, single_component={1}).labels, labels)


def test_an_island_inside_another_class_goes_to_that_class() -> None:
    labels = blocks(one=(1, slice(0, 4)), two=(2, slice(6, 12)))
    labels[2, 5, 9] = 1
    p = one_hot(labels, 2, 0.9)
    p[:, 2, 5, 9] = 0.1, 0.5, 0.4
    kept = fuse(p, p, SETTINGS, single_component={1, 2})
    assert (kept.labels[2, 5, 9], kept.weights[2, 5, 9]) == (2, 0)


def test_an_island_whose_next_class_is_elsewhere_too_becomes_background() -> None:
    labels = blocks(one=(1, slice(0, 4)), two=(2, slice(6, 8)))
    labels[2, 5, 11] = 1
    p = one_hot(labels, 2, 0.9)
    p[:, 2, 5, 11] = 0.1, 0.5, 0.4
    assert fuse(p, p, SETTINGS, single_component={1, 2}).labels[2, 5, 11] == 0


def test_agreement_is_the_mean_dice_over_the_classes_present() -> None:
    a, b = blocks(one=(1, slice(0, 4))), blocks(one=(1, slice(2, 6)))
    assert agreement(a, b, 1) == pytest.approx(0.5)
    assert agreement(a, b, 5) == pytest.approx(0.5)
    b[0, 0, 0] = 2
    assert agreement(a, b, 2) == pytest.approx((2 * 48 / (96 + 96) + 0) / 2)


def test_a_class_that_every_volume_should_have_and_both_lack_is_no_agreement() -> None:
    a = blocks(one=(1, slice(0, 4)))
    assert agreement(a, a, 2) == 1.0
    assert agreement(a, a, 2, always_shown=(1, 2)) == pytest.approx(0.5)
    assert agreement(a, a, 2, always_shown=(1,)) == 1.0
    p = one_hot(a, 2, 0.9)
    assert fuse(p, p, SETTINGS, always_shown=(1, 2)).agreement == pytest.approx(0.5)


def test_background_in_which_a_class_must_hide_teaches_nothing() -> None:
    found = blocks(one=(1, slice(0, 4)))
    p = one_hot(found, 2, 0.9)
    lacking = fuse(p, p, SETTINGS, always_shown=(1, 2))
    assert not lacking.weights[found == 0].any() and lacking.weights[found == 1].all()
    assert fuse(p, p, SETTINGS, always_shown=(1,)).weights.all()
    nothing = one_hot(np.zeros_like(found), 2, 0.9)
    assert not fuse(nothing, nothing, SETTINGS, always_shown=(1,)).weights.any()
    assert fuse(nothing, nothing, SETTINGS).weights.all(), "an organ that some volumes lack may be missing"


def test_two_empty_answers_are_no_agreement() -> None:
    empty = one_hot(np.zeros((2, 4, 4), int), 2, 0.9)
    pseudo = fuse(empty, empty, SETTINGS)
    assert pseudo.agreement == 0.0
    assert not pseudo.labels.any() and (pseudo.weights > 0).all()


def test_without_sam2_the_history_alone_speaks_where_it_is_sure() -> None:
    history = voxels((0.1, 0.9), (0.4, 0.6), (0.95, 0.05))
    pseudo = fuse(None, history, SETTINGS)
    assert pseudo.labels.ravel().tolist() == [1, 1, 0]
    np.testing.assert_array_equal(pseudo.weights, np.broadcast_to([1, 0, 1], pseudo.weights.shape))
    assert pseudo.agreement == 0.0


def test_a_class_sam2_was_not_asked_about_is_not_voted_down() -> None:
    s = voxels((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    h = voxels((0.1, 0.0, 0.9), (0.1, 0.9, 0.0), (0.3, 0.0, 0.7))
    asked, unasked = fuse(s, h, SETTINGS), fuse(s, h, SETTINGS, abstained={2})
    assert asked.labels.ravel().tolist() == [0, 1, 0]
    assert unasked.labels.ravel().tolist() == [2, 1, 2]
    assert (unasked.weights.ravel() > 0).tolist() == [True, True, False]
    assert unasked.agreement == pytest.approx(0.5)


def test_abstaining_altogether_equals_no_answer() -> None:
    history = network_snapshots(phantom_case(0)[1].array, 2, 0)[0]
    silent = one_hot(np.zeros(history.shape[1:], int), 2)
    a, b = fuse(None, history, SETTINGS), fuse(silent, history, SETTINGS, abstained={0, 1, 2})
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.weights, b.weights)
    assert a.agreement == b.agreement == 0


def test_the_inputs_are_left_as_they_are() -> None:
    reference = phantom_case(1)[1].array
    s, h = network_snapshots(reference, 2, 1, count=2)
    copies = s.copy(), h.copy()
    fuse(s, h, SETTINGS, single_component={1, 2}, abstained={2})
    fuse(None, h, SETTINGS, single_component={1, 2})
    np.testing.assert_array_equal((s, h), copies)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_voxels_are_truer_on_generated_volumes(seed: int) -> None:
    reference = phantom_case(seed)[1].array
    s, h = network_snapshots(reference, 2, seed, count=2)
    pseudo = fuse(s, h, SETTINGS, single_component={1, 2})
    border = (h.argmax(axis=0) > 0) | (s.argmax(axis=0) > 0)
    right = pseudo.labels == reference
    trusted = pseudo.weights > 0.5
    assert right[border & trusted].mean() > right[border & ~trusted].mean() + 0.1


def test_volumes_are_chosen_best_first() -> None:
    agreements = {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.9, "e": 0.1, "f": 0.4}
    assert choose_training_volumes(agreements, 0.5) == ("b", "d", "c")
    assert choose_training_volumes(agreements, 0.75) == ("b", "d", "c", "f", "a")
    assert choose_training_volumes(agreements, 1.0) == ("b", "d", "c", "f", "a", "e")
    assert choose_training_volumes(dict(reversed(agreements.items())), 0.5) == ("b", "d", "c")


def test_at_least_one_volume_is_chosen_if_there_is_any() -> None:
    assert choose_training_volumes({"a": 0.1, "b": 0.0}, 0.0) == ("a",)
    assert choose_training_volumes({"a": 0.1, "b": 0.0}, 1.0) == ("a",), "of a volume in which nothing was found nothing is learned"
    assert choose_training_volumes({}, 1.0) == ()
    assert len(choose_training_volumes({str(n): 0.5 for n in range(30)}, 0.1)) == 3
