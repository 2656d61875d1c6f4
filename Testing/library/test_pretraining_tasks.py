from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import tiny_sam2
import torch

from SAM2IterativeLib.foundation.sam2_model import SAM2Base, build_compact
from SAM2IterativeLib.foundation.tracking import SliceResult
from SAM2IterativeLib.pretraining.exercise_run import exercise_loss
from SAM2IterativeLib.pretraining.losses import ABSENT_WEIGHT, SCORE_WEIGHT, slice_loss
from SAM2IterativeLib.pretraining.tasks import (
    MINIMUM_AREA,
    Clip,
    Exercise,
    boxes,
    choose_objects,
    clicks,
    coarse_logits,
    correction,
    make_clip,
    sample_exercise,
)

PROMPTS = ("mask", "box", "points", "click", "dense")
SIDE = 128
SIZES = replace(tiny_sam2.TINY, image_size=SIDE)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square(top: int, left: int, height: int, width: int, side: int = SIDE) -> torch.Tensor:
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    mask[:, top : top + height, left : left + width] = True
    return mask


# Exercises and clips


@pytest.mark.parametrize("progress", [0.0, 0.04, 0.06, 0.12, 0.2, 0.5, 0.99, 1.0])
def test_every_exercise_of_the_curriculum_has_something_to_learn(progress: float) -> None:
    for seed in range(300):
        exercise = sample_exercise(seeded(seed), progress)
        assert exercise.volumes >= 3 and exercise.objects == 3 and 1 <= exercise.length <= 8
        assert exercise.prompt in (*PROMPTS, "none")
        given = exercise.prompt == "mask"
        # A slice whose mask is given is not predicted: another one must be.
        assert exercise.length - given - exercise.last_prompt >= 1
        assert exercise.prompt != "none" or (exercise.support > 0 and not exercise.last_prompt)
        assert exercise.corrections == 0 or (exercise.length == 1 and not given)


def test_the_curriculum_moves_from_dense_to_sparse_and_from_slices_to_clips() -> None:
    def shares(progress: float) -> tuple[float, float, float, int]:
        drawn = [sample_exercise(seeded(seed), progress) for seed in range(400)]
        dense = sum(e.prompt == "dense" for e in drawn) / len(drawn)
        single = sum(e.length == 1 for e in drawn) / len(drawn)
        return dense, single, sum(e.support > 0 for e in drawn) / len(drawn), max(e.length for e in drawn)

    early, late = shares(0.0), shares(1.0)
    assert early[0] > 0.7 > 0.2 > late[0]
    assert early[1] > 0.8 > 0.65 > late[1]
    assert early[2] == 0 < late[2]
    assert early[3] == 3 and late[3] == 8


def test_clips_have_the_shapes_that_were_asked_for_and_are_repeatable() -> None:
    exercise = Exercise(volumes=3, objects=2, length=4, prompt="box", support=2)
    clip, again = make_clip(exercise, seeded(1), SIDE), make_clip(exercise, seeded(1), SIDE)
    assert clip.images.shape == (3, 4, 3, SIDE, SIDE)
    assert clip.masks.shape == (6, 4, SIDE, SIDE) and clip.masks.dtype == torch.bool
    assert clip.support_images.shape == (3, 2, 3, SIDE, SIDE)
    assert clip.support_masks.shape == (6, 2, SIDE, SIDE)
    assert clip.owner.tolist() == [0, 0, 1, 1, 2, 2]
    for name in Clip.__dataclass_fields__:
        assert torch.equal(getattr(clip, name), getattr(again, name))


def test_a_clip_without_support_has_none() -> None:
    clip = make_clip(Exercise(volumes=2, objects=2, length=1, prompt="box"), seeded(2), SIDE)
    assert clip.support_images.shape[1] == clip.support_masks.shape[1] == 0


def test_objects_are_there_on_the_first_slice_and_some_end_later() -> None:
    clip = make_clip(Exercise(volumes=12, objects=3, length=8, prompt="mask"), seeded(3), SIDE)
    areas = clip.masks.sum((2, 3))
    assert float((areas[:, 0] >= MINIMUM_AREA * SIDE**2).float().mean()) > 0.95
    assert bool(((areas[:, 0] > 0) & (areas[:, -1] == 0)).any())


def test_support_slices_mostly_show_the_same_objects() -> None:
    clip = make_clip(Exercise(volumes=12, objects=3, length=3, prompt="none", support=2), seeded(4), SIDE)
    assert float(clip.support_masks.flatten(2).any(2).float().mean()) > 0.6


def test_objects_are_chosen_among_the_large_ones() -> None:
    labels = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8)
    labels[0, 0, :20, :20], labels[0, 0, 40:60, 40:60], labels[0, 0, 100, 100] = 3, 7, 9
    labels[1, 0, :50] = 255
    for seed in range(10):
        chosen = choose_objects(labels, 2, seeded(seed))
        assert set(chosen[0].tolist()) == {3, 7}
        assert set(chosen[1].tolist()) == {255}


# Prompts


def test_a_box_without_jitter_is_the_masks_own() -> None:
    masks = torch.cat([square(10, 30, 5, 40), square(0, 0, SIDE, SIDE)])
    found = boxes(masks, seeded(), jitter=0.0)
    assert found["point_coords"].tolist() == [[[30, 10], [70, 15]], [[0, 0], [SIDE, SIDE]]]
    assert found["point_labels"].tolist() == [[2, 3], [2, 3]]


def test_a_box_of_nothing_is_still_finite() -> None:
    assert bool(torch.isfinite(boxes(torch.zeros(2, SIDE, SIDE, dtype=torch.bool), seeded())["point_coords"]).all())


def test_clicks_lie_where_they_belong() -> None:
    mask = torch.cat([square(20, 50, 30, 30)] * 20)
    found = clicks(mask, ~mask, 2, 1, seeded())
    x, y = found["point_coords"].long().unbind(-1)
    hit = mask[torch.arange(20)[:, None], y, x]
    assert bool(hit[:, :2].all()) and not bool(hit[:, 2].any())
    assert found["point_labels"].tolist() == [[1, 1, 0]] * 20


def test_a_click_on_an_absent_object_is_padding() -> None:
    nothing = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    assert clicks(nothing, ~nothing, 1, 1, seeded())["point_labels"].tolist() == [[-1, 0]]


def test_a_correction_is_positive_on_a_miss_and_negative_on_an_excess() -> None:
    truth = torch.cat([square(20, 20, 20, 20), square(20, 20, 20, 20)])
    logits = torch.where(torch.cat([square(20, 20, 20, 10), square(20, 20, 20, 30)]), 5.0, -5.0)[:, None]
    found = correction(truth, logits, seeded())
    x, y = found["point_coords"][:, 0].unbind(-1)
    assert found["point_labels"].tolist() == [[1], [0]]
    assert 30 <= float(x[0]) < 40 and 40 <= float(x[1]) < 50
    assert bool(((y >= 20) & (y < 40)).all())


def test_a_perfect_result_is_corrected_by_a_click_inside() -> None:
    truth = square(20, 20, 20, 20)
    found = correction(truth, torch.where(truth, 5.0, -5.0)[:, None], seeded())
    assert found["point_labels"].tolist() == [[1]]


def test_coarse_logits_look_like_a_mediocre_networks() -> None:
    masks = torch.cat([square(20 + n, 30, 40, 40) for n in range(12)])
    logits = coarse_logits(masks, seeded())
    assert logits.shape == (12, 1, SIDE // 4, SIDE // 4)
    assert float(logits.abs().max()) <= 10
    truth = masks[:, None, 2::4, 2::4]
    found = logits > 0
    overlap = (truth & found).sum((1, 2, 3)) * 2 / (truth.sum((1, 2, 3)) + found.sum((1, 2, 3)))
    assert 0.5 < float(overlap.mean()) < 0.999


def test_a_mediocre_network_lets_some_objects_fade_out_behind_their_end() -> None:
    ended, before = torch.zeros(200, SIDE, SIDE, dtype=torch.bool), square(30, 30, 40, 40).expand(200, SIDE, SIDE)
    sure, faint = coarse_logits(ended, seeded()), coarse_logits(ended, seeded(), ghosts=before)
    inside = (slice(None), 0, 12, 12)  # the middle of the square, in cells of 4 pixels
    assert float(sure[inside].max()) <= -3
    assert 0.1 < float((faint[inside] > -3).float().mean()) < 0.45
    assert 0.02 < float((faint[inside] > 0).float().mean()) < 0.3
    assert float(coarse_logits(before, seeded(), ghosts=before)[inside].median()) > 3


# Losses


def result(logits: torch.Tensor, quality: torch.Tensor, score: float) -> SliceResult:
    """A result whose first candidate was chosen; logits (n, m, side, side)."""
    scores = torch.full((len(logits), 1), score)
    return SliceResult(logits[:, :1], logits[:, :1, ::4, ::4], logits, quality, scores, {})


def test_a_perfect_prediction_has_hardly_any_loss() -> None:
    masks = torch.cat([square(10, 10, 30, 40), square(60, 60, 8, 8)])
    perfect = torch.where(masks, 20.0, -20.0)[:, None]
    assert float(slice_loss(result(perfect, torch.ones(2, 1), 20.0), masks)) < 1e-3


def test_worse_masks_have_a_larger_loss() -> None:
    truth = square(20, 20, 40, 40)
    losses = [
        float(slice_loss(result(torch.where(square(20 + off, 20, 40, 40), 9.0, -9.0)[:, None], torch.ones(1, 1), 5.0), truth))
        for off in (0, 5, 20, 60)
    ]
    assert losses == sorted(losses) and losses[0] < 0.01 < 1 < losses[-1]


def test_with_several_candidates_only_the_best_one_pays_for_its_mask() -> None:
    truth = square(20, 20, 40, 40)
    good, bad = torch.where(truth, 9.0, -9.0)[:, None], torch.where(truth, -9.0, 9.0)[:, None]
    logits = torch.cat([bad, good, bad], 1).requires_grad_()
    loss = slice_loss(result(logits, torch.tensor([[0.0, 1.0, 0.0]]), 20.0), truth)
    loss.backward()
    assert float(loss.detach()) < 0.01
    assert logits.grad is not None
    assert float(logits.grad[:, [0, 2]].abs().sum()) == 0 < float(logits.grad[:, 1].abs().sum())


def test_the_predicted_quality_learns_the_true_overlap() -> None:
    truth = square(0, 0, 40, 40)
    logits = torch.where(square(0, 0, 20, 40), 9.0, -9.0)[:, None]
    losses = {q: float(slice_loss(result(logits, torch.tensor([[q]]), 20.0), truth)) for q in (0.2, 0.5, 0.8)}
    assert min(losses, key=lambda q: losses[q]) == 0.5


@pytest.mark.parametrize(("said", "pushed"), [(1.0, True), (-1.0, False)])
def test_an_absent_object_trains_the_score_and_an_empty_mask_where_one_is_shown(said: float, pushed: bool) -> None:
    nothing = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    logits, score = torch.zeros(1, 1, SIDE, SIDE, requires_grad=True), torch.full((1, 1), said, requires_grad=True)
    quality = torch.full((1, 1), 0.5, requires_grad=True)
    slice_loss(SliceResult(logits, logits[..., ::4, ::4], logits, quality, score, {}), nothing).backward()
    assert logits.grad is not None and bool((logits.grad > 0).all()) == pushed
    assert score.grad is not None and float(score.grad) > 0
    assert quality.grad is None or float(quality.grad) == 0


def test_an_absent_object_weighs_more_in_the_score() -> None:
    truth = torch.cat([square(0, 0, 40, 40), torch.zeros(1, SIDE, SIDE, dtype=torch.bool)])
    score = torch.zeros(2, 1, requires_grad=True)
    logits = torch.where(truth, 9.0, -9.0)[:, None]
    slice_loss(SliceResult(logits, logits[..., ::4, ::4], logits, torch.ones(2, 1), score, {}), truth).backward()
    assert score.grad is not None
    assert float(score.grad[1]) == pytest.approx(-ABSENT_WEIGHT * float(score.grad[0]))


def test_the_score_can_be_left_alone() -> None:
    truth = square(0, 0, 40, 40)
    logits = torch.where(truth, 9.0, -9.0)[:, None]
    missed = float(slice_loss(result(logits, torch.ones(1, 1), 0.1), truth, score_weight=0.0))
    assert missed < 0.01
    assert float(slice_loss(result(logits, torch.ones(1, 1), 0.1), truth)) == pytest.approx(missed + SCORE_WEIGHT * 0.644, abs=0.01)


# Exercises through the model


@pytest.fixture(scope="module")
def clips() -> dict[tuple[int, int], Clip]:
    """One small clip per length and number of support slices."""
    shapes = itertools.product((1, 3), (0, 2))
    return {(n, s): make_clip(Exercise(2, 2, n, "box", support=s), seeded(10 * n + s), SIDE) for n, s in shapes}


def trained_model() -> SAM2Base:
    torch.manual_seed(0)
    return build_compact(SIZES).train()


COMBINATIONS = [
    *(Exercise(2, 2, 1, prompt, corrections=extra) for prompt in PROMPTS if prompt != "mask" for extra in (0, 2)),
    *(Exercise(2, 2, 3, prompt, support=support) for prompt in PROMPTS for support in (0, 2)),
    *(Exercise(2, 2, 3, prompt, last_prompt=True) for prompt in ("mask", "box", "click")),
    Exercise(2, 2, 3, "none", support=2),
    Exercise(2, 2, 1, "none", support=2),
    Exercise(2, 2, 3, "box", guided=True),
    Exercise(2, 2, 3, "none", support=2, guided=True),
]


@pytest.mark.parametrize(
    "exercise", COMBINATIONS, ids=lambda e: f"{e.prompt}-{e.length}-{e.support}-{e.corrections}-{e.last_prompt}-{e.guided}"
)
def test_every_kind_of_exercise_has_a_finite_loss(exercise: Exercise, clips: dict[tuple[int, int], Clip]) -> None:
    with torch.no_grad():
        loss = exercise_loss(trained_model(), exercise, clips[exercise.length, exercise.support], seeded(), train_score=True)
    assert 0 < float(loss) < 50


def test_an_object_that_is_nowhere_still_gives_a_finite_loss(clips: dict[tuple[int, int], Clip]) -> None:
    clip = clips[3, 2]
    gone = replace(clip, masks=torch.zeros_like(clip.masks), support_masks=torch.zeros_like(clip.support_masks))
    for prompt in (*PROMPTS, "none"):
        with torch.no_grad():
            loss = exercise_loss(trained_model(), Exercise(2, 2, 3, prompt, support=2), gone, seeded(), train_score=True)
        assert bool(torch.isfinite(loss))


PARTS = {
    "image_encoder": "encoder",
    "memory_attention": "memory attention",
    "memory_encoder": "memory encoder",
    "sam_mask_decoder.transformer": "decoder",
    "sam_mask_decoder.pred_obj_score_head": "object score",
    "sam_mask_decoder.iou_prediction_head": "predicted quality",
    "obj_ptr_proj": "object pointer",
    "obj_ptr_tpos_proj": "pointer distance",
    "maskmem_tpos_enc": "temporal code",
}


def gradients(exercise: Exercise, clip: Clip, train_score: bool) -> dict[str, float]:
    model = trained_model()
    exercise_loss(model, exercise, clip, seeded(), train_score).backward()
    sums = dict.fromkeys(PARTS, 0.0)
    for name, parameter in model.named_parameters():
        part = next((p for p in PARTS if name.startswith(p)), None)
        if part and parameter.grad is not None:
            sums[part] += float(parameter.grad.abs().sum())
    return sums


@pytest.mark.parametrize("exercise", [Exercise(2, 2, 3, "mask"), Exercise(2, 2, 3, "none", support=2)], ids=["mask", "support alone"])
def test_gradients_reach_every_part_of_the_model(exercise: Exercise, clips: dict[tuple[int, int], Clip]) -> None:
    assert all(total > 0 for total in gradients(exercise, clips[exercise.length, exercise.support], True).values())


def test_the_object_score_is_trained_only_when_asked(clips: dict[tuple[int, int], Clip]) -> None:
    sums = gradients(Exercise(2, 2, 3, "mask"), clips[3, 0], train_score=False)
    assert sums["sam_mask_decoder.pred_obj_score_head"] == 0 < sums["memory_attention"]


def test_support_memories_change_what_an_exercise_costs(clips: dict[tuple[int, int], Clip]) -> None:
    clip, exercise = clips[3, 2], Exercise(2, 2, 3, "none", support=2)
    emptied = replace(clip, support_masks=torch.zeros_like(clip.support_masks))
    with torch.no_grad():
        losses = [float(exercise_loss(trained_model(), exercise, c, seeded(), True)) for c in (clip, emptied)]
    assert losses[0] != losses[1]


def test_guided_slices_are_told_what_a_network_sees(clips: dict[tuple[int, int], Clip]) -> None:
    clip, exercise = clips[3, 0], Exercise(2, 2, 3, "mask")
    with torch.no_grad():
        alone, guided = (
            exercise_loss(trained_model(), replace(exercise, guided=told), clip, seeded(), train_score=True) for told in (False, True)
        )
    assert float(alone) != pytest.approx(float(guided), rel=1e-4)
