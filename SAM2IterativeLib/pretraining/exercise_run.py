"""Run one exercise through the model and return its loss."""

from __future__ import annotations

from typing import Any

import torch

from ..foundation.sam2_model import SAM2Base, SliceFeatures, encode_images
from ..foundation.tracking import Memories, Points, SliceResult, padding_points, track_slice
from .losses import SCORE_WEIGHT, slice_loss
from .tasks import Clip, Exercise, boxes, clicks, coarse_logits, correction

_SUPPORT_NUMBER = 1000
"""Clip slices are numbered from here, so that support slices find free numbers just before them."""


def exercise_loss(model: SAM2Base, exercise: Exercise, clip: Clip, generator: torch.Generator, train_score: bool) -> torch.Tensor:
    """Mean loss over the slices of a clip, prompts and memories as the exercise says."""
    score_weight = SCORE_WEIGHT if train_score else 0.0
    features = _encoded(model, clip.images)
    rows = clip.owner * exercise.length
    conditioning = _support_memories(model, exercise, clip)
    recent: dict[int, dict[str, Any]] = {}
    losses = []
    prompted = {0} if exercise.prompt != "none" else set()
    if exercise.last_prompt:
        prompted.add(exercise.length - 1)
    for index in sorted(range(exercise.length), key=lambda i: (i not in prompted, i)):
        number = _SUPPORT_NUMBER + index
        here = features.select(rows + index)
        masks = clip.masks[:, index]
        memories = Memories(conditioning, recent, 2 * _SUPPORT_NUMBER)
        if index in prompted:
            result, loss = _prompted(model, exercise, here, number, memories, masks, generator, score_weight)
            conditioning[number] = result.entry
        else:
            points = dense = None
            if exercise.guided:
                points = padding_points(len(masks), masks.device)
                dense = coarse_logits(masks, generator, clip.masks[:, abs(index - 1)])
            result = track_slice(model, here, number, memories, points=points, previous_logits=dense)
            loss = slice_loss(result, masks, score_weight)
            recent[number] = result.entry
        if loss is not None:
            losses.append(loss)
    return torch.stack(losses).mean()


def _encoded(model: SAM2Base, images: torch.Tensor) -> SliceFeatures:
    return encode_images(model, images.flatten(0, 1))


def _support_memories(model: SAM2Base, exercise: Exercise, clip: Clip) -> dict[int, dict[str, Any]]:
    conditioning: dict[int, dict[str, Any]] = {}
    if not exercise.support:
        return conditioning
    features = _encoded(model, clip.support_images)
    for index in range(exercise.support):
        number = _SUPPORT_NUMBER - 1 - index
        here = features.select(clip.owner * exercise.support + index)
        result = track_slice(model, here, number, Memories({}, {}, 1), mask=clip.support_masks[:, None, index].float())
        conditioning[number] = result.entry
    return conditioning


def _prompted(
    model: SAM2Base,
    exercise: Exercise,
    features: SliceFeatures,
    number: int,
    memories: Memories,
    masks: torch.Tensor,
    generator: torch.Generator,
    score_weight: float,
) -> tuple[SliceResult, torch.Tensor | None]:
    if exercise.prompt == "mask" or memories.recent or len(memories.conditioning) > exercise.support:
        # Words for "not here" exist only as an empty mask, so a further prompted slice is given by its mask.
        return track_slice(model, features, number, memories, mask=masks[:, None].float(), first=True), None
    points, dense = _prompt(exercise, masks, generator)
    result = track_slice(model, features, number, memories, points=points, previous_logits=dense)
    loss = slice_loss(result, masks, score_weight)
    for _ in range(exercise.corrections):
        click = correction(masks, result.logits.detach(), generator)
        points = {name: torch.cat([points[name], click[name]], 1) for name in points}
        result = track_slice(model, features, number, memories, points=points, previous_logits=result.low_logits.detach().clamp(-32, 32))
        loss = loss + slice_loss(result, masks, score_weight)
    return result, loss / (1 + exercise.corrections)


def _prompt(exercise: Exercise, masks: torch.Tensor, generator: torch.Generator) -> tuple[Points, torch.Tensor | None]:
    """Sparse points and, for "dense", logits."""
    if exercise.prompt == "click":
        return clicks(masks, ~masks, 1, 0, generator), None
    if exercise.prompt == "points":
        return clicks(masks, ~masks, 3, exercise.negatives, generator), None
    if exercise.prompt == "dense":
        points = boxes(masks, generator) if exercise.boxed else padding_points(len(masks), masks.device)
        return points, coarse_logits(masks, generator)
    return boxes(masks, generator), None
