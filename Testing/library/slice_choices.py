"""How true the masks are on slices that are chosen in four ways: what the choice of key frames must beat."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from SAM2IterativeLib.guidance.key_frames import KeyFrames, select_key_frames, slice_dice
from SAM2IterativeLib.settings import KeyFrameSettings

CHOICES = ("key", "random", "middle", "largest")


class SliceChoices:
    """Collects the true Dice of each class's mask, one number a volume and class, for every way of choosing slices."""

    def __init__(self, settings: KeyFrameSettings) -> None:
        self.settings = settings
        self._scores: dict[str, list[float]] = defaultdict(list)

    def add(self, labels: np.ndarray, reference: np.ndarray, key_frames: KeyFrames) -> None:
        """One volume: its label map and the reference, both (k, j, i) class indices, and the slices that were chosen as key frames.

        "random" is what a slice drawn from the class's extent has on the mean, "middle" the middle of each part of the extent; the
        largest slices are chosen by the same rule of parts and gaps as key frames, so that only what is ranked differs.
        """
        class_count = max(key_frames, default=0)
        truth = slice_dice(labels, reference, class_count)
        areas = np.stack([(labels == c).sum(axis=(1, 2)) for c in range(1, class_count + 1)])
        largest = select_key_frames(areas / np.maximum(1, areas.max(axis=1, keepdims=True)), labels, self.settings)
        for c, key in key_frames.items():
            extent = np.flatnonzero(areas[c - 1] >= self.settings.minimum_area)
            parts = [part for part in np.array_split(extent, self.settings.count) if part.size]
            slices = {"key": list(key), "random": extent, "middle": [part[len(part) // 2] for part in parts], "largest": list(largest[c])}
            for name in CHOICES:
                self._scores[name].append(float(truth[c - 1, slices[name]].mean()))

    def means(self) -> dict[str, float]:
        """Mean over volumes and classes."""
        return {name: float(np.mean(self._scores[name])) for name in CHOICES}
