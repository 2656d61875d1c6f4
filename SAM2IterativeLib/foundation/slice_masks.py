"""SAM2 as an image model: prompts on single slices, answered without memories, several masks each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from ..device import Device
from ..guidance.prompts import Prompt
from .arithmetic import slice_arithmetic
from .features import VolumeFeatures
from .propagation import model_prompt
from .sam2_model import SAM2Base
from .tracking import candidate_masks

_TOGETHER = 16
"""Prompts that the decoder answers at once at most."""


def masks_of_prompts(model: SAM2Base, volume: VolumeFeatures, prompts: Sequence[Prompt], device: Device) -> Iterator[torch.Tensor]:
    """For each prompt, in their order, three masks on its slice: (3, j, i) logits on the CPU, on the volume's own grid.

    Args:
        prompts: each with as many points as the others, and all or none with dense logits.
    """
    side = model.image_size
    with torch.inference_mode(), slice_arithmetic(device):
        for z, on_slice in groupby(prompts, key=lambda prompt: prompt.slice_index):
            waiting = [model_prompt(volume, prompt, side, device) for prompt in on_slice]
            for first in range(0, len(waiting), _TOGETHER):
                part = waiting[first : first + _TOGETHER]
                points = {name: torch.cat([each[name] for each, _ in part]) for name in ("point_coords", "point_labels")}
                dense = [logits for _, logits in part if logits is not None]
                features = volume.of_slice(z, len(part))
                candidates = candidate_masks(model, features, points, torch.cat(dense) if dense else None)
                yield from volume.window.logits_to_slice(candidates.float(), volume.shape[1:]).cpu()
