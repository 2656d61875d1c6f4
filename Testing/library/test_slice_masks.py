"""SAM2 as an image model: the same as the stock image predictor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from tiny_sam2 import CPU, SIDE, ball_volume, box_prompt, encoded, tiny_foundation

from SAM2IterativeLib.foundation.features import Window
from SAM2IterativeLib.foundation.slice_masks import masks_of_prompts
from SAM2IterativeLib.guidance.pieces import pieces_of, prompt_for
from SAM2IterativeLib.guidance.prompts import Prompt

FOUNDATION = tiny_foundation()
MODEL = FOUNDATION.model


def prompts_for(labels: np.ndarray) -> list[Prompt]:
    probabilities = np.stack([labels == c for c in range(labels.max() + 1)]).astype(np.float32)
    return [prompt_for(p, labels[p.slice_index], probabilities[p.class_index, p.slice_index]) for p in pieces_of(labels, 4)]


def stock_mask(image: np.ndarray, prompt: Prompt) -> torch.Tensor:
    """(j, i) logits of sam2's own image predictor, given our encoder's features of the whole slice."""
    features = encoded(FOUNDATION, image).of_slice(prompt.slice_index)
    predictor = SAM2ImagePredictor(MODEL)
    embedded = features.levels[-1] + MODEL.no_mem_embed.view(1, -1, 1, 1)
    predictor._features = {"image_embed": embedded, "high_res_feats": features.levels[:-1]}
    predictor._is_image_set, predictor._orig_hw = True, [(SIDE, SIDE)]
    j0, i0, j1, i1 = prompt.box or ()
    masks, _, _ = predictor._predict(
        torch.from_numpy(prompt.positive_points[None, :, ::-1].copy() + 0.5),
        torch.ones(1, len(prompt.positive_points), dtype=torch.int32),
        boxes=torch.tensor([[i0, j0, i1, j1]]),
        mask_input=torch.nn.functional.interpolate(
            torch.from_numpy(prompt.dense_logits)[None, None], size=(SIDE // 4,) * 2, mode="bilinear", antialias=True
        ),
        multimask_output=False,
        return_logits=True,
    )
    return masks[0, 0]


def test_masks_equal_the_stock_image_predictors() -> None:
    image, labels = ball_volume(slices=4, classes=2)
    prompts = prompts_for(labels)
    assert len(prompts) >= 6
    for prompt, ours in zip(prompts, masks_of_prompts(MODEL, encoded(FOUNDATION, image), prompts, CPU), strict=True):
        torch.testing.assert_close(ours, stock_mask(image, prompt), atol=2e-3, rtol=1e-3)


def test_many_prompts_of_a_slice_are_answered_as_one_by_one() -> None:
    image, labels = ball_volume(slices=2, classes=4)
    volume, prompts = encoded(FOUNDATION, image), prompts_for(labels) * 3
    prompts.sort(key=lambda prompt: prompt.slice_index)
    together = list(masks_of_prompts(MODEL, volume, prompts, CPU))
    assert len(together) == len(prompts) > 16
    for prompt, found in zip(prompts[:4], together, strict=False):
        [alone] = masks_of_prompts(MODEL, volume, [prompt], CPU)
        torch.testing.assert_close(found, alone, atol=1e-3, rtol=1e-3)


def test_masks_lie_on_the_volumes_own_grid() -> None:
    image, labels = ball_volume(slices=3, rows=50, columns=70)
    window = Window.around(labels > 0)
    [mask] = masks_of_prompts(MODEL, encoded(FOUNDATION, image, window), prompts_for(labels)[:1], CPU)
    assert mask.shape == (50, 70)


def test_the_model_is_left_as_it_was() -> None:
    image, labels = ball_volume(slices=3)
    before = MODEL.pred_obj_scores
    for _ in masks_of_prompts(MODEL, encoded(FOUNDATION, image), prompts_for(labels), CPU):
        assert not torch.is_inference_mode_enabled() and MODEL.pred_obj_scores == before


def test_prompts_are_made_when_their_turn_comes() -> None:
    """Each holds a whole slice of logits, and a picture may have thousands."""
    image, labels = ball_volume(slices=3, classes=3)
    made = []

    def prompts() -> Iterator[Prompt]:
        for prompt in prompts_for(labels) * 20:
            made.append(prompt)
            yield prompt

    volume = encoded(FOUNDATION, image)
    next(iter(masks_of_prompts(MODEL, volume, prompts(), CPU)))
    assert len(made) <= 17


@pytest.mark.parametrize("dense", [True, False])
def test_prompts_without_logits_work(dense: bool) -> None:
    image, labels = ball_volume(slices=3)
    prompt = prompts_for(labels)[0] if dense else box_prompt(labels[1] == 1, 1)
    [mask] = masks_of_prompts(MODEL, encoded(FOUNDATION, image), [prompt], CPU)
    assert torch.isfinite(mask).all()
