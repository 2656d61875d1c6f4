"""Methods (c) and (d): how far each slice can be trusted for each class, and which few of them SAM2 is prompted on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..settings import KeyFrameSettings
from .arrays import ClassMap, Mask, Probabilities, SliceTable, VoxelMap, classes_of
from .uncertainty import mask_uncertainty

FULL_AREA = 0.3
"""A slice with at least this share of the class's largest area is not held back for being small (method (c))."""

KeyFrames = dict[int, tuple[int, ...]]
"""Class 1..C to its key slices, ascending; a class that abstains is absent."""


@dataclass(frozen=True)
class PromptRecord:
    """R of method (c): how well SAM2 and the network agreed on the slices that were prompted in past rounds.

    Both tables are (C, k): ``mean`` the running mean of Dice(SAM2, network), ``count`` over how many rounds.
    """

    mean: SliceTable
    count: SliceTable

    @classmethod
    def empty(cls, class_count: int, slices: int) -> PromptRecord:
        """Nothing was prompted yet."""
        return cls(np.zeros((class_count, slices)), np.zeros((class_count, slices)))

    @property
    def reliability(self) -> SliceTable:
        """R, (C, k) in [0, 1]: 1 where the slice was never prompted, so that it may still be tried."""
        return np.where(self.count > 0, self.mean, 1.0)

    def updated(self, agreement: SliceTable, key_frames: Mapping[int, Sequence[int]]) -> PromptRecord:
        """The record after a round.

        Args:
            agreement: Dice(SAM2, network) per class and slice of this round, (C, k), as from ``slice_dice``.
            key_frames: the slices prompted in this round, by class.
        """
        mean, count = self.mean.copy(), self.count.copy()
        for c, slices in key_frames.items():
            at = (c - 1, list(slices))
            count[at] += 1
            mean[at] += (agreement[at] - mean[at]) / count[at]
        return PromptRecord(mean, count)


def slice_dice(a: ClassMap, b: ClassMap, class_count: int) -> SliceTable:
    """Dice of each foreground class on each slice, (C, k) in [0, 1]; 1 where both are empty, as nothing differs there.

    Gives S (the last two rounds' label maps) and what R is averaged from (SAM2's and the network's label map).
    """
    table = np.ones((class_count, a.shape[0]))
    for c in range(1, class_count + 1):
        in_a, in_b = a == c, b == c
        total = in_a.sum(axis=(1, 2)) + in_b.sum(axis=(1, 2))
        shared = (in_a & in_b).sum(axis=(1, 2))
        np.divide(2.0 * shared, total, out=table[c - 1], where=total > 0)
    return table


def slice_quality(
    history: Probabilities,
    uncertainty: VoxelMap,
    settings: KeyFrameSettings,
    *,
    reliability: SliceTable | None = None,
    stability: SliceTable | None = None,
) -> SliceTable:
    """q(z, c) = (1 - U)² S R min(1, a / 0.3), (C, k) in [0, 1] (method (c)).

    U is the doubt in and around the mask (``mask_uncertainty``), a the slice's share of the class's largest area.

    Args:
        history: h_t, (C+1, k, j, i).
        uncertainty: u, (k, j, i) in [0, 1].
        settings: margin of the dilation, least area in pixels, least mean probability of a component.
        reliability: R, (C, k), see ``PromptRecord``; None counts as 1.
        stability: S = Dice of the slice between rounds, (C, k); None (round 0) counts as 1.

    Returns:
        0 where the mask is too small to prompt or no component of it has a mean h_c above ``minimum_confidence``.
    """
    labels = classes_of(history)
    quality = np.zeros((history.shape[0] - 1, history.shape[1]))
    for c in range(1, history.shape[0]):
        areas = (labels == c).sum(axis=(1, 2))
        for z in np.flatnonzero(areas >= settings.minimum_area):
            mask = labels[z] == c
            if _best_component_mean(mask, history[c, z]) > settings.minimum_confidence:
                certainty = 1.0 - mask_uncertainty(mask, uncertainty[z], settings.margin)
                quality[c - 1, z] = certainty**2 * min(1.0, areas[z] / areas.max() / FULL_AREA)
    for factor in (reliability, stability):
        if factor is not None:
            quality *= factor
    return quality


def select_key_frames(quality: SliceTable, labels: ClassMap, settings: KeyFrameSettings) -> KeyFrames:
    """The slices on which each class is prompted (method (d)).

    The class's axial extent is cut into ``count`` equal parts; each part gives its best slice of quality
    ≥ ``minimum_quality`` that keeps a gap of ⌈extent / (2 count)⌉ to those already taken; parts with the better best slice
    choose first. The globally best slice is kept whenever it is better than 0.

    Args:
        quality: q, (C, k).
        labels: argmax h_t, (k, j, i): its slices with at least ``minimum_area`` pixels are a class's extent, so that a
            stray pixel far away does not stretch it.
        settings: K, the least quality and the least area.
    """
    chosen: KeyFrames = {}
    for c, of_class in enumerate(quality, start=1):
        extent = np.flatnonzero((labels == c).sum(axis=(1, 2)) >= settings.minimum_area)
        if extent.size and of_class[extent].max() > 0:
            chosen[c] = _choose(of_class, int(extent[0]), int(extent[-1]) + 1, settings)
    return chosen


def _choose(quality: SliceTable, start: int, stop: int, settings: KeyFrameSettings) -> tuple[int, ...]:
    """Key slices of one class whose extent is [start, stop)."""
    parts = [part for part in np.array_split(np.arange(start, stop), settings.count) if part.size]
    parts.sort(key=lambda part: -quality[part].max())
    gap = math.ceil((stop - start) / (2 * settings.count))
    taken = [int(parts[0][quality[parts[0]].argmax()])]
    for part in parts[1:]:
        allowed = [z for z in part if quality[z] >= settings.minimum_quality and all(abs(z - other) >= gap for other in taken)]
        if allowed:
            taken.append(int(max(allowed, key=lambda z: quality[z])))
    return tuple(sorted(taken))


def _best_component_mean(mask: Mask, probability: VoxelMap) -> float:
    """The largest mean probability over the connected components of a slice's mask (j, i)."""
    components, count = ndimage.label(mask)
    means = ndimage.mean(probability, components, index=range(1, count + 1))
    return float(np.max(means))
