"""Method (e): box, points and dense logits of a prompt."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from simulated_network import network_snapshots, one_hot

from SAM2IterativeLib.errors import SettingsError
from SAM2IterativeLib.guidance.key_frames import select_key_frames, slice_quality
from SAM2IterativeLib.guidance.prompts import make_prompt, reviewed_prompt, with_reviewed, with_reviewed_masks
from SAM2IterativeLib.guidance.uncertainty import first_history, uncertainty
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.settings import KeyFrameSettings, PromptSettings

SETTINGS = PromptSettings()


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


def picture(*discs: tuple[int, tuple[float, float], float], size: int = 64) -> np.ndarray:
    """A class map of one slice, (1, size, size), from (class, centre, radius)."""
    labels = np.zeros((1, size, size), dtype=np.uint8)
    for c, centre, radius in discs:
        labels[0][disc((size, size), centre, radius)] = c
    return labels


def sure(labels: np.ndarray) -> np.ndarray:
    return np.zeros(labels.shape, dtype=np.float32)


def at(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask's values at points (n, 2) of whole pixel indices."""
    assert np.array_equal(points, np.rint(points))
    rows, columns = points.astype(int).T
    return mask[rows, columns]


def two_rings(core: float, wide: float) -> np.ndarray:
    """A probability of 0.9 within ``core``, 0.55 up to ``wide``, and 0.02 beyond; (2, 1, 64, 64)."""
    probability = np.full((64, 64), 0.02)
    probability[disc((64, 64), (32, 32), wide)] = 0.55
    probability[disc((64, 64), (32, 32), core)] = 0.9
    return np.stack([1 - probability, probability])[:, None].astype(np.float32)


def test_a_certain_mask_gives_a_tight_box() -> None:
    labels = picture((1, (30, 20), 8))
    prompt = make_prompt(one_hot(labels, 2, 0.99), sure(labels), 0, 1, SETTINGS)
    assert prompt is not None
    assert prompt.box == (22.0, 12.0, 39.0, 29.0)


def test_doubt_widens_the_box_between_its_bounds() -> None:
    history = two_rings(core=10, wide=15)
    boxes = []
    for doubt in (0.0, 0.1, 0.2, 1.0):
        prompt = make_prompt(history, np.full((1, 64, 64), doubt, dtype=np.float32), 0, 1, SETTINGS)
        assert prompt is not None and prompt.box is not None
        boxes.append(prompt.box)
    assert boxes[0] == (22.0, 22.0, 43.0, 43.0)
    assert boxes[0][0] > boxes[1][0] > boxes[2][0] > boxes[3][0]
    assert boxes[0][3] < boxes[1][3] < boxes[2][3] < boxes[3][3]
    assert boxes[3] == (17.0, 17.0, 48.0, 48.0)


def test_without_a_certain_core_the_wide_box_is_left() -> None:
    prompt = make_prompt(two_rings(core=-1, wide=15), np.zeros((1, 64, 64), np.float32), 0, 1, SETTINGS)
    assert prompt is not None
    assert prompt.box == (17.0, 17.0, 48.0, 48.0)


def test_a_class_that_wins_with_little_gets_its_masks_box() -> None:
    labels = picture((1, (32, 32), 12))
    prompt = make_prompt(one_hot(labels, 5, 0.25), sure(labels), 0, 1, SETTINGS)
    assert prompt is not None
    assert prompt.box == (20.0, 20.0, 45.0, 45.0)


def test_two_components_share_a_box_and_each_gets_a_point() -> None:
    labels = picture((1, (20, 20), 10), (1, (45, 48), 6))
    prompt = make_prompt(one_hot(labels, 1, 0.95), sure(labels), 0, 1, SETTINGS)
    assert prompt is not None
    assert prompt.box == (10.0, 10.0, 52.0, 55.0)
    components, _ = ndimage.label(labels[0])
    assert set(at(prompt.positive_points, components)) == {1, 2}


def test_a_speck_gets_no_point_of_its_own() -> None:
    labels = picture((1, (20, 20), 10), (1, (45, 48), 1))
    prompt = make_prompt(one_hot(labels, 1, 0.95), sure(labels), 0, 1, SETTINGS)
    assert prompt is not None
    assert at(prompt.positive_points, disc((64, 64), (20, 20), 10)).all()


def test_the_first_point_of_a_certain_disc_is_its_middle_and_the_others_keep_away() -> None:
    labels = picture((1, (32, 32), 12))
    prompt = make_prompt(one_hot(labels, 1, 0.95), sure(labels), 0, 1, SETTINGS)
    assert prompt is not None
    points = prompt.positive_points
    assert points[0].tolist() == [32, 32]
    gaps = [np.linalg.norm(points[a] - points[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) >= 5


def test_a_point_avoids_the_uncertain_part() -> None:
    labels = picture((1, (32, 32), 14))
    doubt = sure(labels)
    doubt[0, :, :34] = 0.9
    prompt = make_prompt(one_hot(labels, 1, 0.95), doubt, 0, 1, PromptSettings(positive_points=1))
    assert prompt is not None
    assert prompt.positive_points[0, 1] >= 34


def test_a_structure_cut_by_the_edge_gets_its_point_inside() -> None:
    labels = picture((1, (0, 32), 16))
    prompt = make_prompt(one_hot(labels, 1, 0.95), sure(labels), 0, 1, PromptSettings(positive_points=1))
    assert prompt is not None
    assert prompt.positive_points[0, 0] > 3


def test_negatives_come_first_from_other_classes_near_the_border() -> None:
    labels = picture((2, (20, 44), 9), (1, (32, 24), 12))
    prompt = make_prompt(one_hot(labels, 2, 0.95), sure(labels), 0, 1, PromptSettings(negative_points=2))
    assert prompt is not None
    assert at(prompt.negative_points, labels[0])[0] == 2
    distance = ndimage.distance_transform_edt(labels[0] != 1)
    assert at(prompt.negative_points, distance)[0] <= np.min(distance[labels[0] == 2]) + 2.5


def test_a_class_far_away_takes_no_negatives_from_the_border() -> None:
    labels = picture((2, (58, 58), 5), (1, (16, 16), 8))
    prompt = make_prompt(one_hot(labels, 2, 0.95), sure(labels), 0, 1, SETTINGS)
    assert prompt is not None
    assert len(prompt.negative_points) == 3 and (at(prompt.negative_points, labels[0]) == 0).all()
    assert (at(prompt.negative_points, ndimage.distance_transform_edt(labels[0] != 1)) < 10).all()


def test_without_other_classes_negatives_lie_on_confident_background() -> None:
    labels = picture((1, (32, 32), 12))
    doubt = sure(labels)
    doubt[0, :32] = 0.5
    prompt = make_prompt(one_hot(labels, 1, 0.95), doubt, 0, 1, SETTINGS)
    assert prompt is not None
    assert len(prompt.negative_points) == 3
    assert (at(prompt.negative_points, labels[0]) == 0).all()
    assert (at(prompt.negative_points, doubt[0]) < 0.2).all()


def test_where_nothing_is_confident_there_are_no_negatives() -> None:
    labels = picture((1, (32, 32), 12))
    prompt = make_prompt(one_hot(labels, 1, 0.95), np.full(labels.shape, 0.5, np.float32), 0, 1, SETTINGS)
    assert prompt is not None
    assert prompt.negative_points.shape == (0, 2)


@pytest.mark.parametrize("seed", range(4))
def test_on_generated_volumes_positives_are_inside_and_negatives_outside(seed: int) -> None:
    reference = phantom_case(seed, labels=3)[1].array
    snapshots = network_snapshots(reference, 3, seed)
    history = first_history(snapshots)
    doubt = uncertainty(snapshots[-1], history, history).map
    labels = history.argmax(axis=0)
    frames = select_key_frames(slice_quality(history, doubt, KeyFrameSettings()), labels, KeyFrameSettings())
    assert frames
    for c, slices in frames.items():
        for z in slices:
            prompt = make_prompt(history, doubt, z, c, SETTINGS)
            assert prompt is not None and prompt.box is not None and prompt.dense_logits is not None
            assert (prompt.slice_index, prompt.class_index) == (z, c)
            assert 1 <= len(prompt.positive_points) <= 3
            assert at(prompt.positive_points, labels[z] == c).all()
            assert not at(prompt.negative_points, labels[z] == c).any()
            assert (at(prompt.negative_points, doubt[z]) < 0.2).all()
            core = np.argwhere(history[c, z] > 0.7)
            assert prompt.box[0] <= core[:, 0].min() and prompt.box[2] >= core[:, 0].max() + 1
            assert prompt.box[1] <= core[:, 1].min() and prompt.box[3] >= core[:, 1].max() + 1


@pytest.mark.parametrize("class_index", [1, 2])
def test_an_absent_class_gives_no_prompt(class_index: int) -> None:
    labels = np.zeros((2, 16, 16), dtype=np.uint8)
    assert make_prompt(one_hot(labels, 2, 0.9), sure(labels), 1, class_index, SETTINGS) is None


def test_a_class_of_one_pixel_gives_one_point() -> None:
    labels = picture((1, (32, 32), 0))
    prompt = make_prompt(one_hot(labels, 1, 0.9), sure(labels), 0, 1, SETTINGS)
    assert prompt is not None
    assert prompt.positive_points.tolist() == [[32, 32]]
    assert prompt.box == (32.0, 32.0, 33.0, 33.0)


def test_a_class_that_fills_the_slice_has_no_negatives() -> None:
    labels = np.ones((1, 16, 16), dtype=np.uint8)
    prompt = make_prompt(one_hot(labels, 1, 0.9), sure(labels), 0, 1, SETTINGS)
    assert prompt is not None
    assert prompt.box == (0.0, 0.0, 16.0, 16.0)
    assert prompt.negative_points.shape == (0, 2)


def test_a_wholly_uncertain_mask_still_gets_its_positive_points() -> None:
    labels = picture((1, (32, 32), 12))
    prompt = make_prompt(one_hot(labels, 1, 0.51), np.ones(labels.shape, np.float32), 0, 1, SETTINGS)
    assert prompt is not None
    assert prompt.positive_points[0].tolist() == [32, 32]


def test_dense_logits_are_the_networks_own_and_end_at_10() -> None:
    history = two_rings(core=10, wide=15)
    history[:, 0, 32, 32] = 0.0, 1.0
    history[:, 0, 0, 0] = 1.0, 0.0
    prompt = make_prompt(history, np.zeros((1, 64, 64), np.float32), 0, 1, SETTINGS)
    assert prompt is not None and prompt.dense_logits is not None
    logits = prompt.dense_logits
    assert logits.dtype == np.float32
    assert logits[32, 30] == pytest.approx(np.log(0.9 / 0.1), rel=1e-4)
    assert (logits[32, 32], logits[0, 0]) == (pytest.approx(10, abs=1e-3), pytest.approx(-10, abs=1e-3))


def test_every_part_can_be_switched_off() -> None:
    labels = picture((1, (32, 32), 12))
    history = one_hot(labels, 1, 0.95)
    bare = make_prompt(history, sure(labels), 0, 1, PromptSettings(positive_points=0, negative_points=0, dense="none"))
    assert bare is not None
    assert bare.box is not None and bare.dense_logits is None
    assert len(bare.positive_points) == len(bare.negative_points) == 0
    points = make_prompt(history, sure(labels), 0, 1, PromptSettings(box=False, dense="none"))
    assert points is not None
    assert points.box is None and len(points.positive_points) == 3
    with pytest.raises(SettingsError, match="neither a box"):
        make_prompt(history, sure(labels), 0, 1, PromptSettings(positive_points=0, box=False, dense="none"))


def test_the_same_input_gives_the_same_prompt() -> None:
    reference = phantom_case(3)[1].array
    history = network_snapshots(reference, 2, 3)[0]
    doubt = uncertainty(history, None, history).map
    z = int((reference == 1).sum(axis=(1, 2)).argmax())
    a, b = (make_prompt(history, doubt, z, 1, SETTINGS) for _ in range(2))
    assert a is not None and b is not None
    np.testing.assert_array_equal(a.positive_points, b.positive_points)
    np.testing.assert_array_equal(a.negative_points, b.negative_points)


def test_what_a_reviewer_drew_is_an_exact_mask_and_nothing_else() -> None:
    mask = picture((1, (32, 32), 12))[0] > 0
    prompt = reviewed_prompt(mask, 7, 2)
    assert (prompt.slice_index, prompt.class_index, prompt.box, prompt.dense_logits) == (7, 2, None, None)
    np.testing.assert_array_equal(prompt.mask, mask)
    empty = reviewed_prompt(np.zeros_like(mask), 7, 2)
    assert empty.mask is not None and not empty.mask.any()


def test_where_people_decided_the_network_is_not_asked() -> None:
    labels = np.concatenate([picture((1, (30, 20), 8))] * 4)
    network = [make_prompt(one_hot(labels, 1, 0.9), sure(labels), z, 1, SETTINGS) for z in range(4)]
    seen, known = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)
    seen[1, 5:9, 5:9] = True
    known[1:3] = True  # on the first of these the class was drawn, on the second it is not
    found = with_reviewed([p for p in network if p is not None], seen, known, 1)
    assert [(p.slice_index, p.mask is not None) for p in found] == [(1, True), (0, False), (3, False)]
    assert found[0].mask is not None and np.array_equal(found[0].mask, seen[1])


def test_a_line_of_a_slice_that_people_know_is_no_mask_of_it() -> None:
    """A coronal slice was reviewed, and SAM2 sees the case from above."""
    labels = np.concatenate([picture((1, (30, 20), 8))] * 4)
    network = [make_prompt(one_hot(labels, 1, 0.9), sure(labels), z, 1, SETTINGS) for z in (1, 2)]
    known = np.zeros(labels.shape, bool)
    known[:, 30] = True
    found = with_reviewed([p for p in network if p is not None], (labels == 1) & known, known, 1)
    assert [(p.slice_index, p.mask) for p in found] == [(1, None), (2, None)]


def test_reviewed_masks_count_where_the_network_saw_nothing() -> None:
    labels = picture((1, (30, 20), 8))
    drawn = disc((64, 64), (50, 50), 6)
    merged = with_reviewed_masks(labels, {2: [reviewed_prompt(drawn, 0, 2)]})
    assert (merged[0][drawn] == 2).all() and (merged[0][~drawn] == labels[0][~drawn]).all()
    assert not (labels == 2).any(), "the coarse mask itself stays"
