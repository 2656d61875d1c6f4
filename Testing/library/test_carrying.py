"""How a correction is carried: near a corrected slice it wins, far away the present labels do, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest

from SAM2IterativeLib.guidance.carrying import (
    ANSWER_LIMIT,
    SETTLED_DICE,
    SHAPE_LIMIT,
    TRUST_LIMIT,
    carried_logits,
    changed_distance,
    interpolated_depth,
    merged,
    reached_slices,
    settled_dice,
    signed_depth,
    slice_distance,
)

SLICES = 21


def disk(radius: float, size: int = 48, centre: tuple[float, float] = (24, 24)) -> np.ndarray:
    rows, columns = np.indices((size, size))
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def stack(*radii: float) -> np.ndarray:
    """One disk a slice; radius 0 is an empty slice."""
    return np.stack([disk(r) if r else np.zeros((48, 48), bool) for r in radii])


def test_signed_depth_is_clipped_and_positive_inside() -> None:
    depth = signed_depth(disk(10), 4.0)
    assert depth[24, 24] == 4.0 and depth[0, 0] == -4.0
    assert depth[24, 34] == 1.0 and depth[24, 35] == -1.0
    full = signed_depth(disk(10), 100.0)
    np.testing.assert_allclose(np.clip(full, -4, 4), depth)


def test_signed_depth_of_nothing_and_of_everything() -> None:
    assert (signed_depth(np.zeros((5, 5), bool), 3.0) == -3.0).all()
    assert (signed_depth(np.ones((5, 5), bool), 3.0) == 3.0).all()


def test_depth_between_two_slices_is_the_shape_between() -> None:
    mask = stack(6, *[0] * 3, 14)
    depth = interpolated_depth(mask, (0, 4))
    for z, radius in enumerate((6, 8, 10, 12, 14)):
        found = np.sqrt((depth[z] > 0).sum() / np.pi)
        assert found == pytest.approx(radius, abs=0.7)


def test_depth_beyond_the_outermost_slice_stays() -> None:
    depth = interpolated_depth(stack(0, 0, 8, 0), (2,))
    np.testing.assert_array_equal(depth[0], depth[2])
    np.testing.assert_array_equal(depth[3], depth[2])


def test_slice_distance() -> None:
    assert slice_distance(6, (1, 4)).tolist() == [1, 0, 1, 1, 0, 1]


def test_a_sure_answer_wins_near_and_the_present_labels_win_far_away() -> None:
    present = stack(*[14] * SLICES)
    present[0] = disk(8)
    answer = np.where(stack(*[8] * SLICES), 30.0, -30.0)
    carried = carried_logits(answer, present, (0,), decay=5.0) > 0
    assert np.array_equal(carried[1], disk(8)), "the corrected mask and SAM2 agree against the present labels"
    assert (carried[20] & ~disk(8)).sum() > 0.5 * (disk(14) & ~disk(8)).sum(), "both are silent or outvoted so far away"


def test_what_the_person_left_as_it_was_is_confirmed() -> None:
    """A leak on the right was cut on slice 0: the next slice's leak goes, but its left border, which SAM2 sees elsewhere, stays."""
    good = stack(*[12] * 5)
    before = good.copy()
    before[:, 20:28, 34:44] = True
    present = before.copy()
    present[0] = good[0]
    answer = np.where(good & ~np.roll(disk(12), -20, axis=1), 5.0, -5.0)
    carried = carried_logits(answer, present, (0,), decay=5.0, before=before) > 0
    assert np.array_equal(carried[1][:, 24:], good[1][:, 24:])
    assert np.array_equal(carried[1][:, :16], good[1][:, :16])
    unaware = carried_logits(answer, present, (0,), decay=5.0) > 0
    assert not np.array_equal(unaware[1][:, :16], good[1][:, :16])


def test_distance_to_what_was_changed() -> None:
    before = np.zeros((5, 48, 48), bool)
    present = before.copy()
    present[1, 24, 24] = True
    found = changed_distance(before, present, (1, 4))
    assert found[2, 24, 24] == 0 and found[0, 24, 27] == 3
    assert (found[3:] > 20).all(), "nothing was changed on the nearest corrected slice"


def test_a_small_correction_asks_for_closer_agreement() -> None:
    assert settled_dice(disk(10), disk(10, centre=(24, 30))) < settled_dice(disk(10), disk(10, centre=(24, 25))) < 1
    assert settled_dice(np.zeros((48, 48), bool), disk(10)) == SETTLED_DICE
    present, carried = stack(*[14] * SLICES), stack(*[12] * SLICES)
    assert reached_slices(carried, present, {0: 0.7}, [0]).sum() == 1
    assert reached_slices(carried, present, {0: 0.95}, [0]).sum() == SLICES - 1


def test_present_labels_without_evidence_do_not_speak() -> None:
    present = np.zeros((SLICES, 48, 48), bool)
    present[10] = disk(8)
    answer = np.where(stack(*[8] * SLICES), 5.0, -5.0)
    assert np.array_equal(carried_logits(answer, present, (10,), decay=5.0, present_speaks=False) > 0, answer > 0)
    heard = carried_logits(answer, present, (10,), decay=5.0) > 0
    assert not heard[0].any(), "an absence that was labelled outvotes a doubtful answer far away"


def test_logits_stay_within_what_the_voices_can_say() -> None:
    present = stack(*[8] * 5)
    logits = carried_logits(np.full(present.shape, 1e6), present, (2,), decay=5.0)
    assert np.isfinite(logits).all() and logits.max() <= ANSWER_LIMIT + 2 * SHAPE_LIMIT + 4 * TRUST_LIMIT


def test_it_ends_where_both_agree_on_two_slices() -> None:
    present = stack(*[14] * SLICES)
    carried = stack(*[8] * 6, *[14] * (SLICES - 6))
    reached = reached_slices(carried, present, [0], [0])
    assert np.flatnonzero(reached).tolist() == [1, 2, 3, 4, 5, 6], "the first slice that agrees may still be smoothed"


def test_it_ends_at_corrected_slices_and_after_as_many_as_asked() -> None:
    present, carried = stack(*[14] * SLICES), stack(*[6] * SLICES)
    assert np.flatnonzero(reached_slices(carried, present, [5], [5, 8])).tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert np.flatnonzero(reached_slices(carried, present, [5], [5], most=2)).tolist() == [3, 4, 6, 7]


def test_what_nobody_deleted_is_not_deleted() -> None:
    present = stack(*[10] * SLICES)
    carried = stack(10, *[5] * 4, *[0] * (SLICES - 5))
    assert np.flatnonzero(reached_slices(carried, present, [0], [0])).tolist() == [1, 2, 3, 4]


def test_an_erased_slice_carries_its_absence_until_the_model_finds_the_structure_again() -> None:
    present = stack(*[10] * SLICES)
    present[5] = False
    carried = stack(*[0] * 8, *[10] * (SLICES - 8))
    assert np.flatnonzero(reached_slices(carried, present, [5], [5])).tolist() == [0, 1, 2, 3, 4, 6, 7, 8]


def test_a_structure_is_carried_into_slices_that_lack_it_and_ends_with_the_answer() -> None:
    present = stack(*[0] * 4, 10, *[0] * 16)
    carried = stack(0, 0, 8, 9, 10, 9, 8, *[0] * 14)
    assert np.flatnonzero(reached_slices(carried, present, [4], [4])).tolist() == [1, 2, 3, 5, 6, 7]


def test_merging_replaces_a_class_where_it_was_reached_and_eats_no_other() -> None:
    present = np.zeros((2, 4, 6), int)
    present[:, :, 0:2], present[:, :, 2:4] = 1, 2
    carried = np.zeros_like(present)
    carried[:, :, 1:6] = 1
    reached = np.array([[True, False], [False, False]])
    result = merged(present, carried, reached)
    assert result[0, 0].tolist() == [0, 1, 2, 2, 1, 1]
    np.testing.assert_array_equal(result[1], present[1])


def test_merging_gives_a_voxel_to_the_class_that_was_carried_there() -> None:
    present = np.zeros((1, 1, 4), int)
    present[0, 0] = [1, 1, 2, 2]
    carried = np.array([[[1, 2, 2, 0]]])
    assert merged(present, carried, np.ones((2, 1), bool))[0, 0].tolist() == [1, 2, 2, 0]
