"""Which slices or blocks of which cases make a training batch: first drawn, then cut out, as far as their variation reaches.

All chance lies in ``sample_spots``; ``cut`` is a pure function of what was drawn, so that every batch can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from .cases import TrainingCase
from .plan import Plan

Value = TypeVar("Value", bound=np.generic)

_ROUNDING = 1e-3  # voxels: what is an edge but for rounding needs no further row


@dataclass(frozen=True)
class Spot:
    """Where one training image is cut: the case's index, and the patch's first voxel (k, j, i), which may lie outside.

    ``view`` is the axis across which the case is cut (``Plan.views``); it becomes k, the others keep their order.
    """

    case: int
    start: tuple[int, int, int]
    view: int = 0


@dataclass(frozen=True)
class Batch:
    """Training images with their references; labelled ones first.

    ``image`` (B, channels, *spatial) float32; ``labels`` (B, *spatial) int64 class indices; ``weights`` (B, *spatial) float32,
    0 outside the case; ``labelled`` how many of the B are from labelled cases. spatial is (j, i) for a 2-D network.
    """

    image: Tensor
    labels: Tensor
    weights: Tensor
    labelled: int


@dataclass(frozen=True)
class Cutout:
    """The part of a case that one training image is resampled from, with the view's axis as k.

    ``image`` (channels, k, j, i) float32; ``labels`` (k, j, i) uint8 class indices; ``weights`` (k, j, i) float32, 0 outside the case;
    ``centre`` where the middle of the training image lies, in the cutout's voxels.
    """

    image: Tensor
    labels: Tensor
    weights: Tensor
    centre: tuple[float, float, float]


@dataclass(frozen=True)
class Cutouts:
    """The cutouts of one batch, those of labelled cases first; ``labelled`` how many these are."""

    parts: tuple[Cutout, ...]
    labelled: int

    def to(self, device: torch.device) -> Cutouts:
        """The same on another device."""
        moved = (Cutout(p.image.to(device), p.labels.to(device), p.weights.to(device), p.centre) for p in self.parts)
        return Cutouts(tuple(moved), self.labelled)


class Sampler:
    """Draws training images from cases: half of each batch labelled where pseudo-labels exist, structures more often than chance."""

    def __init__(self, cases: Sequence[TrainingCase], plan: Plan) -> None:
        """Look through the labels once.

        Raises:
            DataError: no case is labelled, or a case does not have the plan's channels or classes.
        """
        for case in cases:
            case.check(plan)
        self._cases = tuple(cases)
        self._plan = plan
        self._labelled = [n for n, case in enumerate(cases) if case.labelled]
        self._pseudo = [n for n, case in enumerate(cases) if not case.labelled]
        if not self._labelled:
            raise DataError("no case is labelled.", cure="Label at least one case, then train.")
        self._slices = [{view: _slices_by_class(_across(case.labels, view)) for view in plan.views} for case in cases]

    def sample_spots(self, random: np.random.Generator) -> tuple[Spot, ...]:
        """Draw one batch: cases and views evenly, and in ``foreground_share`` of the images a slice that shows a class, classes evenly.

        All images of a batch are of one view, since views may have patches of different sizes.
        """
        count = self._labelled_of_batch(random)
        groups = [self._labelled] * count + [self._pseudo] * (self._plan.batch - count)
        views = self._plan.views
        view = views[int(random.integers(len(views)))] if len(views) > 1 else views[0]
        patch = self._plan.across(view).patch
        return tuple(self._sample_spot(int(random.choice(group)), view, patch, random) for group in groups)

    def _labelled_of_batch(self, random: np.random.Generator) -> int:
        """How many images of a batch come from labelled cases; they stand first. A single image is one at random."""
        batch, share = self._plan.batch, self._plan.labelled_share
        if not self._pseudo:
            return batch
        if batch == 1:
            return int(random.random() < share)
        return min(batch - 1, max(1, round(batch * share)))

    def cut(self, spots: Sequence[Spot], reach: NDArray[np.float64]) -> Cutouts:
        """Cut the drawn images out; zeros with weight 0 where the case ends, but a slice beyond its ends repeats the last one.

        Args:
            spots: where.
            reach: (spots, 2, 3), the least and the largest offset (k, j, i) from the middle of each training image that it is resampled
                from, in voxels (``augmentation.reach``).
        """
        parts = [self._cut_one(spot, low, high) for spot, (low, high) in zip(spots, reach, strict=True)]
        return Cutouts(tuple(parts), sum(self._cases[spot.case].labelled for spot in spots))

    def _sample_spot(self, index: int, view: int, patch: Sequence[int], random: np.random.Generator) -> Spot:
        labels = _across(self._cases[index].labels, view)
        size = labels.shape
        centre = [int(random.integers(n)) for n in size]
        by_class = self._slices[index][view]
        if by_class and random.random() < self._plan.foreground_share:
            wanted = int(random.choice(sorted(by_class)))
            centre[0] = int(random.choice(by_class[wanted]))
            rows, columns = np.nonzero(labels[centre[0]] == wanted)
            chosen = int(random.integers(len(rows)))
            centre[1:] = int(rows[chosen]), int(columns[chosen])
        k, j, i = (_start(*numbers) for numbers in zip(centre, size, patch, strict=True))
        return Spot(index, (k, j, i), view)

    def _cut_one(self, spot: Spot, low: NDArray[np.float64], high: NDArray[np.float64]) -> Cutout:
        case = self._cases[spot.case]
        centre = np.array(spot.start) + (np.array(self._plan.across(spot.view).patch) - 1) / 2
        first = np.floor(centre + low + _ROUNDING).astype(int)
        region = (np.ceil(centre + high - _ROUNDING).astype(int) - first + 1).tolist()
        image = _cut_out(_across(case.image, spot.view), first.tolist(), region, repeat_slices=self._plan.dimensions == 2)
        labels, weights = (_cut_out(_across(a, spot.view), first.tolist(), region) for a in (case.labels, case.weights))
        k, j, i = centre - first
        return Cutout(torch.from_numpy(image), torch.from_numpy(labels), torch.from_numpy(weights), (float(k), float(j), float(i)))


def _across(array: NDArray[Value], view: int) -> NDArray[Value]:
    """(…, k, j, i) with axis ``view`` of the three moved in front of the other two; a view, nothing is copied."""
    return np.moveaxis(array, view - 3, -3)


def _start(centre: int, size: int, patch: int) -> int:
    """First voxel of a patch around ``centre`` that stays inside; a case smaller than the patch lies in its middle."""
    if size <= patch:
        return (size - patch) // 2
    return min(max(centre - patch // 2, 0), size - patch)


def _cut_out(array: NDArray[Value], first: Sequence[int], region: Sequence[int], *, repeat_slices: bool = False) -> NDArray[Value]:
    """``array[..., first:first+region]`` over the last three axes; zeros outside, or the end slice again with ``repeat_slices``."""
    out = np.zeros((*array.shape[:-3], *region), dtype=array.dtype)
    low = [max(0, f) for f in first]
    high = [min(n, f + r) for n, f, r in zip(array.shape[-3:], first, region, strict=True)]
    k, j, i = (slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))
    rows, columns = slice(low[1], high[1]), slice(low[2], high[2])
    if repeat_slices:
        slices = np.arange(first[0], first[0] + region[0]).clip(0, array.shape[-3] - 1)
        out[..., :, j, i] = array[..., slices, rows, columns]
    else:
        out[..., k, j, i] = array[..., low[0] : high[0], rows, columns]
    return out


def _slices_by_class(labels: NDArray[np.uint8]) -> dict[int, NDArray[np.intp]]:
    """For every foreground class the slices that show it."""
    found: dict[int, list[int]] = {}
    for k, plane in enumerate(labels):
        for value in np.unique(plane):
            if value:
                found.setdefault(int(value), []).append(k)
    return {value: np.asarray(slices) for value, slices in found.items()}
