"""One slice through SAM2, for training and for use alike: features and memories in, masks and a new memory out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

from .sam2_model import SAM2Base, SliceFeatures

Points = dict[str, torch.Tensor]
"""``point_coords`` (n, p, 2) as (x, y) pixels of the model's square input; ``point_labels`` (n, p): 1 positive, 0 negative,
2 and 3 the corners of a box, -1 padding."""


@dataclass
class SliceResult:
    """What SAM2 says of one slice for n objects.

    Attributes:
        logits: (n, 1, side, side), the chosen mask; low_logits: (n, 1, side/4, side/4).
        candidates: (n, m, side, side), all masks (m = 3 after a single click, else 1).
        quality: (n, m), the predicted IoU of each candidate.
        object_score: (n, 1), above 0 where the object is on this slice.
        entry: what later slices attend to, as ``SAM2Base`` keeps it: object pointer, object score and, once encoded, the memory
            features with their position codes.
    """

    logits: torch.Tensor
    low_logits: torch.Tensor
    candidates: torch.Tensor
    quality: torch.Tensor
    object_score: torch.Tensor
    entry: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Memories:
    """The memories a slice attends to, keyed by slice number as ``SAM2Base`` wants them.

    Attributes:
        conditioning: prompted slices, without a distance code in their features.
        recent: slices passed before this one; the number decides the temporal slot.
        slices: how many slice numbers exist (limits the object pointers).
    """

    conditioning: dict[int, dict[str, Any]]
    recent: dict[int, dict[str, Any]]
    slices: int


LEAST_PRESENT = 1.0
"""Object score (a logit) that a slice has at least where the object is known to be there."""
NO_MEMORIES = Memories({}, {}, 1)


def track_slice(
    model: SAM2Base,
    features: SliceFeatures,
    number: int,
    memories: Memories,
    *,
    points: Points | None = None,
    mask: torch.Tensor | None = None,
    previous_logits: torch.Tensor | None = None,
    first: bool | None = None,
    remember: bool = True,
    present: bool = False,
) -> SliceResult:
    """Segment one slice for n objects whose features stand in ``features`` (n rows).

    Args:
        number: the slice's number, on the same scale as the keys of ``memories``.
        points: sparse prompts, or None.
        mask: (n, 1, side, side) bool: taken as the result word for word, never refined.
        previous_logits: (n, 1, side/4, side/4): a dense prompt that may be refined; needs ``points`` (padding will do).
        first: whether memories are ignored, as on a first prompted slice; default: when there are none.
        remember: whether to encode the result as a memory.
        present: whether the object is known to be on the slice, whatever its score says; its mask may still be empty.
    """
    tokens, positions, sizes = features.tokens()
    is_first = not memories.conditioning if first is None else first
    bank = {"cond_frame_outputs": _in_float(memories.conditioning), "non_cond_frame_outputs": _in_float(memories.recent)}
    with _scored(model, not present):
        _, heads, _, _ = model._track_step(
            number, is_first, tokens, positions, sizes, points, mask, bank, memories.slices, False, previous_logits
        )
    _, candidates, quality, low, high, pointer, score = heads
    if present:
        score = score.clamp(min=LEAST_PRESENT)
    entry = {"obj_ptr": pointer, "object_score_logits": score}
    if remember:
        encode_memory(model, features, entry, high, prompted=points is not None or mask is not None)
    return SliceResult(high, low, candidates, quality, score, entry)


@contextmanager
def _scored(model: SAM2Base, scored: bool) -> Iterator[None]:
    """Whether masks are emptied and pointers replaced where the object score says "not here"; a flag of sam2's own model."""
    before = model.pred_obj_scores
    model.pred_obj_scores = before and scored
    try:
        yield
    finally:
        model.pred_obj_scores = before


def encode_memory(model: SAM2Base, features: SliceFeatures, entry: dict[str, Any], logits: torch.Tensor, *, prompted: bool) -> None:
    """Write the memory of ``logits`` (n, 1, side, side) on this slice into ``entry``.

    As the stock predictor does it: masks of prompted slices are binarised where the model is configured so, and what is kept for use
    (not for training) is kept in bfloat16.
    """
    tokens, _, sizes = features.tokens()
    remembered, codes = model._encode_new_memory(tokens, sizes, logits, entry["object_score_logits"], prompted)
    entry["maskmem_features"] = remembered if model.training else remembered.bfloat16()
    entry["maskmem_pos_enc"] = codes if model.training else _shared(model, codes)


_CODES: WeakKeyDictionary[SAM2Base, dict[tuple[Any, ...], list[torch.Tensor]]] = WeakKeyDictionary()


def _shared(model: SAM2Base, codes: list[torch.Tensor]) -> list[torch.Tensor]:
    """One set of position codes for all memories: they depend on the size alone, and are twice as large as what is remembered."""
    size = (codes[-1].shape, codes[-1].dtype, codes[-1].device)
    return _CODES.setdefault(model, {}).setdefault(size, codes)


def _in_float(entries: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {number: {**entry, "maskmem_features": entry["maskmem_features"].float()} for number, entry in entries.items()}


def padding_points(count: int, device: torch.device) -> Points:
    """Points that say nothing; SAM2 wants some beside a dense prompt."""
    return {
        "point_coords": torch.zeros(count, 1, 2, device=device),
        "point_labels": torch.full((count, 1), -1, dtype=torch.int32, device=device),
    }
