from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_sam2 import CPU, TINY, ball_volume, tiny_foundation

from SAM2IterativeLib.foundation.checkpoints import load_foundation
from SAM2IterativeLib.foundation.features import Window
from SAM2IterativeLib.presets import preset_path
from SAM2IterativeLib.pretraining.evaluation import (
    CLASSES_PER_VOLUME,
    MINIMUM_SLICES,
    SIDE,
    LabelledVolume,
    PromptKind,
    copied_dice,
    generated_volumes,
    prompted_slices,
    propagation_dice,
    random_foundation,
    true_prompt,
)
from SAM2IterativeLib.settings import MemorySettings


def balls(slices: int = 8, classes: int = 2) -> LabelledVolume:
    return LabelledVolume("balls", *ball_volume(slices, classes=classes))


@pytest.fixture(scope="module")
def generated() -> list[LabelledVolume]:
    return generated_volumes(2)


def test_generated_volumes_are_always_the_same(generated: list[LabelledVolume]) -> None:
    again = generated_volumes(1)[0]
    assert np.array_equal(again.image, generated[0].image) and np.array_equal(again.labels, generated[0].labels)
    assert not np.array_equal(generated[0].labels, generated[1].labels)


def test_generated_classes_are_numbered_and_run_through_several_slices(generated: list[LabelledVolume]) -> None:
    for volume in generated:
        assert volume.image.shape == volume.labels.shape == (32, SIDE, SIDE)
        assert volume.classes == tuple(range(1, len(volume.classes) + 1)) and len(volume.classes) <= CLASSES_PER_VOLUME
        assert all((volume.labels == c).any((1, 2)).sum() >= MINIMUM_SLICES for c in volume.classes)


def test_labels_are_looked_through_once() -> None:
    volume = balls(classes=2)
    for asked in ("classes", "shown_on", "footprint"):
        assert getattr(volume, asked) is getattr(volume, asked)
    assert volume.classes == (1, 2) == tuple(volume.shown_on)
    assert all(np.array_equal(volume.shown_on[c], [k for k, plane in enumerate(volume.labels) if c in plane]) for c in (1, 2))
    assert Window.around(volume.footprint, margin=0.3) == Window.around(volume.labels > 0, margin=0.3)
    assert replace(volume, labels=np.where(volume.labels == 1, 1, 0)).classes == (1,)


def test_the_middle_slice_or_the_middles_of_equal_parts_are_prompted() -> None:
    mask = np.zeros((20, 4, 4), bool)
    mask[5:14] = True
    assert prompted_slices(mask, 1) == [9]
    assert prompted_slices(mask, 3) == [6, 9, 12]
    mask[8:11] = False
    assert all(mask[z].any() for z in prompted_slices(mask, 3))
    single = np.zeros((20, 4, 4), bool)
    single[7] = True
    assert prompted_slices(single, 3) == [7]


def test_true_prompts_say_no_more_than_their_kind() -> None:
    mask = np.zeros((30, 40), bool)
    mask[10:16, 20:25] = True
    box, points, exact = (true_prompt(mask, 3, 2, kind) for kind in ("box", "points", "mask"))
    assert box.box == (10, 20, 16, 25) and len(box.positive_points) == 0 and box.mask is None
    assert points.box is None and points.positive_points.shape == (3, 2)
    assert all(mask[int(j), int(i)] for j, i in points.positive_points)
    assert exact.mask is not None and np.array_equal(exact.mask, mask)
    assert {(p.slice_index, p.class_index) for p in (box, points, exact)} == {(3, 2)}
    assert np.array_equal(points.positive_points, true_prompt(mask, 3, 2, "points").positive_points)


def test_copying_a_tube_is_perfect_and_a_cone_is_not() -> None:
    tube = np.zeros((9, 20, 20), np.uint8)
    tube[:, 5:10, 5:10] = 1
    assert copied_dice([LabelledVolume("tube", tube, tube)]) == {"tube/1": 1.0}
    cone = np.zeros((9, 20, 20), np.uint8)
    for z in range(9):
        cone[z, 2 : 4 + z, 2 : 4 + z] = 1
    one, three = (copied_dice([LabelledVolume("cone", cone, cone)], keys)["cone/1"] for keys in (1, 3))
    assert 0.4 < one < three < 1


@pytest.mark.parametrize("kind", ["mask", "box", "points"])
def test_every_class_gets_a_score_between_0_and_1(kind: PromptKind) -> None:
    scores = propagation_dice(tiny_foundation(), CPU, [balls()], kind, key_frames=2)
    assert set(scores) == {"balls/1", "balls/2"}
    assert all(0 <= score <= 1 for score in scores.values())


def test_classes_with_gaps_and_whole_slices_and_other_banks_are_scored_too() -> None:
    volume = balls()
    gap = LabelledVolume("gap", volume.image, np.where(volume.labels == 2, 5, volume.labels))
    scores = propagation_dice(tiny_foundation(), CPU, [gap], "mask", memory=MemorySettings(mode="G0"), whole_slices=True)
    assert set(scores) == {"gap/1", "gap/5"}


def test_a_prompt_on_every_slice_leaves_nothing_to_guess() -> None:
    volume = balls(classes=1)
    keys = int((volume.labels == 1).any((1, 2)).sum())
    whole = {"whole_slices": True}
    one, all_of_them = (propagation_dice(tiny_foundation(), CPU, [volume], "mask", n, **whole)["balls/1"] for n in (1, keys))
    assert all_of_them > max(one, 0.75)


def test_random_weights_are_repeatable_and_know_nothing(generated: list[LabelledVolume]) -> None:
    first, second = (random_foundation(replace(TINY, image_size=128), CPU) for _ in range(2))
    volume = replace(generated[0], image=generated[0].image[10:22], labels=generated[0].labels[10:22])
    scores = [propagation_dice(f, CPU, [volume], "box") for f in (first, second)]
    assert scores[0] == scores[1]
    assert np.mean(list(scores[0].values())) < 0.6


def test_the_shipped_weights_are_better_than_copying_and_than_random_ones(generated: list[LabelledVolume]) -> None:
    if not preset_path("compact").is_file():
        pytest.skip("The shipped weights are not there.")
    shipped = np.mean(list(propagation_dice(load_foundation("compact", CPU), CPU, generated, "mask").values()))
    chance = np.mean(list(propagation_dice(random_foundation(replace(TINY, image_size=128), CPU), CPU, generated, "mask").values()))
    assert shipped > max(chance, np.mean(list(copied_dice(generated).values())))
