"""Where the object score says "here": its threshold, set once a training is over.

Exercises show an object on most slices, a volume shows it on few. So a trained score leans towards "here", and each slice past an organ's
end that it lets through costs as much as one that it misses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..device import Device
from ..foundation.checkpoints import Foundation
from ..foundation.sam2_model import object_score_bias
from .evaluation import LabelledVolume, PromptKind, propagation_dice

SHIFTS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
_KINDS: tuple[PromptKind, ...] = ("mask", "box")


def calibrate_object_score(foundation: Foundation, device: Device, volumes: Sequence[LabelledVolume]) -> float:
    """Lower the object score of ``foundation``'s model, in place, by the one of ``SHIFTS`` that carries truths furthest.

    Args:
        volumes: not those that the weights were trained on; where it can be had, not those that they are judged by either (``adaptation``
            has no case to spare for that).

    Returns:
        By how much the score (a logit) was lowered. Judged by the mean 3-D Dice of masks and boxes on one slice.
    """
    bias = object_score_bias(foundation.model)
    before = bias.detach().clone()
    scores = []
    for shift in SHIFTS:
        _set(bias, before - shift)
        found = [propagation_dice(foundation, device, volumes, kind) for kind in _KINDS]
        scores.append(float(np.mean([dice for of_kind in found for dice in of_kind.values()])))
    best = SHIFTS[int(np.argmax(scores))]
    _set(bias, before - best)
    return best


def _set(bias: torch.Tensor, value: torch.Tensor) -> None:
    with torch.no_grad():
        bias.copy_(value)
