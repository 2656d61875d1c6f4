"""How well a SAM2 carries the truth of a few slices through a volume: the measure by which weights are chosen.

Per class, the true mask, a box or three points are given on one middle slice (or on three key frames), carried to both ends, and
compared in 3-D. Two yardsticks go along: copying the prompted slice's true mask to all slices, and a model with random weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ..device import Device
from ..foundation.checkpoints import Foundation
from ..foundation.features import Window, encode_volume
from ..foundation.propagation import Guidance, Propagator
from ..foundation.sam2_model import CompactArchitecture, build_compact
from ..guidance.prompts import Prompt, reviewed_prompt
from ..metrics import dice
from ..settings import MemorySettings
from .anatomy import label_volumes, sample_anatomy
from .appearance import paint, sample_appearance

PromptKind = Literal["mask", "box", "points"]
SIDE = 128
FIRST_UNSEEN_SEED = 1_000_000_000
"""Training seeds its generators below this."""
CALIBRATION_SEED = 2_000_000_000
"""Volumes from here on set thresholds; those before judge."""
MINIMUM_SLICES, MINIMUM_PIXELS, CLASSES_PER_VOLUME = 5, 60, 3


@dataclass(frozen=True)
class LabelledVolume:
    """A volume with its truth: ``image`` (k, j, i) or (k, j, i, 3), ``labels`` (k, j, i) class indices 0..C.

    What is asked of the labels over and over is looked up in them once, so they must not change.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The classes that occur."""
        return tuple(int(c) for c in np.unique(self.labels) if c)

    @cached_property
    def shown_on(self) -> dict[int, NDArray[np.intp]]:
        """For every class that occurs the slices that show it, ascending."""
        return {c: np.flatnonzero((self.labels == c).any((1, 2))) for c in self.classes}

    @cached_property
    def footprint(self) -> NDArray[np.bool_]:
        """(1, j, i): where any class lies on any slice, around which windows are laid."""
        return np.asarray((self.labels > 0).any(0, keepdims=True))


def generated_volumes(count: int, slices: int = 32, first_seed: int = FIRST_UNSEEN_SEED) -> list[LabelledVolume]:
    """Volumes that no training has seen; of each the structures that run through at least five slices, at most three."""
    volumes: list[LabelledVolume] = []
    seed = first_seed
    while len(volumes) < count:
        volume = _generated(seed, slices)
        if volume is not None:
            volumes.append(volume)
        seed += 1
    return volumes


def _generated(seed: int, slices: int) -> LabelledVolume | None:
    generator = torch.Generator().manual_seed(seed)
    anatomy, look = sample_anatomy(generator, 1), sample_appearance(generator, 1, colour_share=0.0)
    positions = torch.linspace(-0.8, 0.8, slices)[None]
    labels = label_volumes(anatomy, positions, torch.zeros(1, slices, 2), SIDE)
    image = paint(labels, look, generator)[0, :, 0].numpy()
    found = labels[0].numpy()
    chosen = [v for v in np.unique(found) if v not in (0, 255) and _runs_through(found == v)][:CLASSES_PER_VOLUME]
    if not chosen:
        return None
    classes = np.zeros(found.shape, np.uint8)
    for index, value in enumerate(chosen, 1):
        classes[found == value] = index
    return LabelledVolume(f"generated_{seed - FIRST_UNSEEN_SEED:03d}", image, classes)


def _runs_through(mask: np.ndarray) -> bool:
    shown = np.flatnonzero(mask.any((1, 2)))
    return len(shown) >= MINIMUM_SLICES and int(mask[_middle(mask)].sum()) >= MINIMUM_PIXELS


def _middle(mask: np.ndarray) -> int:
    """The middle one of the slices that show anything."""
    shown = np.flatnonzero(mask.any((1, 2)))
    return int(shown[len(shown) // 2])


def prompted_slices(mask: np.ndarray, count: int) -> list[int]:
    """The slices that get a prompt: the middle one, or ``count`` in the middles of equal parts of the extent."""
    shown = np.flatnonzero(mask.any((1, 2)))
    if count == 1:
        return [_middle(mask)]
    return sorted({int(shown[int((part + 0.5) / count * len(shown))]) for part in range(count)})


def true_prompt(mask: np.ndarray, slice_index: int, class_index: int, kind: PromptKind, seed: int = 0) -> Prompt:
    """A prompt made from the true mask (j, i)."""
    if kind == "mask":
        return reviewed_prompt(mask, slice_index, class_index)
    rows, columns = np.nonzero(mask)
    none = np.empty((0, 2), np.float32)
    if kind == "box":
        box = (float(rows.min()), float(columns.min()), float(rows.max() + 1), float(columns.max() + 1))
        return Prompt(slice_index, class_index, box, none, none)
    picks = np.random.default_rng(seed).choice(len(rows), size=min(3, len(rows)), replace=False)
    points = np.stack([rows[picks], columns[picks]], 1).astype(np.float32)
    return Prompt(slice_index, class_index, None, points, none)


def propagation_dice(
    foundation: Foundation,
    device: Device,
    volumes: Sequence[LabelledVolume],
    kind: PromptKind,
    key_frames: int = 1,
    memory: MemorySettings | None = None,
    whole_slices: bool = False,
) -> dict[str, float]:
    """3-D Dice per "volume/class" when the truth of ``key_frames`` slices is given as prompts of one kind.

    Args:
        memory: memory bank; default: the project's default. Classes of a volume run together.
        whole_slices: show whole slices, not a square around the structures.
    """
    propagator = Propagator(foundation.model, device, memory or MemorySettings())
    scores: dict[str, float] = {}
    for volume in volumes:
        window = Window.whole(volume.labels.shape[1:]) if whole_slices else Window.around(volume.footprint)
        features = encode_volume(foundation, volume.image, window, device)
        count = max(volume.classes)
        prompts = {
            c: [true_prompt(volume.labels[z] == c, z, c, kind, z) for z in prompted_slices(volume.labels == c, key_frames)]
            for c in volume.classes
        }
        result = propagator.propagate(features, Guidance(count, prompts)).probabilities().argmax(0)
        for c in volume.classes:
            scores[f"{volume.name}/{c}"] = dice(result == c, volume.labels == c) or 0.0
    return scores


def copied_dice(volumes: Sequence[LabelledVolume], key_frames: int = 1) -> dict[str, float]:
    """The yardstick: each slice gets the true mask of the nearest prompted slice."""
    scores = {}
    for volume in volumes:
        for c in volume.classes:
            truth = volume.labels == c
            keys = np.array(prompted_slices(truth, key_frames))
            nearest = keys[np.abs(np.arange(len(truth))[:, None] - keys).argmin(1)]
            scores[f"{volume.name}/{c}"] = dice(truth[nearest], truth) or 0.0
    return scores


def random_foundation(architecture: CompactArchitecture, device: Device, seed: int = 0) -> Foundation:
    """The other yardstick: the same model with random weights."""
    torch.manual_seed(seed)
    model = build_compact(architecture).requires_grad_(False).to(device.torch).eval()
    return Foundation(model, "random", f"random-{seed}", architecture.image_size, imagenet=False)
