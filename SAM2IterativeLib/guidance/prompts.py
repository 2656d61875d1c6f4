"""Method (e): what SAM2 is told on a key frame about one class: a box, points, and the network's own logits.

The box and the logits carry the network's doubt: an uncertain border widens the box, and the logits may be refined.
Only what a reviewer drew goes along as an exact mask, because SAM2 copies such a mask and never corrects it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import SettingsError
from ..settings import KeyFrameSettings, PromptSettings
from .arrays import ClassMap, Mask, Probabilities, VoxelMap
from .key_frames import KeyFrames
from .uncertainty import mask_uncertainty

Box = tuple[float, float, float, float]
Points = NDArray[np.float32]

SURE, POSSIBLE = 0.7, 0.3
"""Probabilities that bound the certain core and the widest extent of a class (method (e))."""
CONFIDENT = 0.2
"""A negative point needs u below this (method (e))."""
LOGIT_LIMIT = 10.0
"""Dense logits are clipped here; SAM2 was trained with masks rasterised to about ±10."""
CLEARANCE = 2.0
"""Pixels that a negative point keeps from the mask, and that points keep from each other: the border may be off by one."""
OWN_POINT_SHARE = 0.1
"""A component of at least this share of the largest one's area gets a positive point of its own."""


@dataclass(frozen=True)
class Prompt:
    """What SAM2 gets for one class on one slice.

    ``box`` is (j0, i0, j1, i1) along pixel edges, the end exclusive: pixel j covers [j, j + 1). Points are (n, 2) pixel indices
    (j, i): the pixel's centre lies at + 0.5 on the box's scale. ``dense_logits`` and ``mask`` are (j, i) at the slice's size.
    A prompt with ``mask`` comes from a reviewer and holds nothing else; an empty mask says that the class is absent there.
    """

    slice_index: int
    class_index: int
    box: Box | None
    positive_points: Points
    negative_points: Points
    dense_logits: VoxelMap | None = None
    mask: Mask | None = None


def make_prompt(
    history: Probabilities,
    uncertainty: VoxelMap,
    slice_index: int,
    class_index: int,
    settings: PromptSettings,
    *,
    margin: int = KeyFrameSettings().margin,
) -> Prompt | None:
    """The prompt for one class on one key frame; None where the class is not on that slice.

    Args:
        history: h_t, (C+1, k, j, i).
        uncertainty: u, (k, j, i) in [0, 1].
        slice_index: z, 0-based.
        class_index: c in 1..C.
        settings: which parts the prompt has.
        margin: pixels by which the mask is dilated for U, as in the slice's quality.

    Raises:
        SettingsError: every part of the prompt is switched off.
    """
    if not (settings.box or settings.positive_points or settings.dense != "none"):
        raise SettingsError(
            "prompts have neither a box, nor positive points, nor dense logits.",
            where="prompts",
            cure="Switch at least one of them on.",
        )
    labels = history[:, slice_index].argmax(axis=0)
    mask = labels == class_index
    if not mask.any():
        return None
    probability, u = history[class_index, slice_index], uncertainty[slice_index]
    return Prompt(
        slice_index=slice_index,
        class_index=class_index,
        box=_box(mask, probability, certainty=1.0 - mask_uncertainty(mask, u, margin)) if settings.box else None,
        positive_points=_positive_points(mask, u, settings.positive_points),
        negative_points=_negative_points(mask, labels, u, settings.negative_points),
        dense_logits=logits_of(probability) if settings.dense != "none" else None,
    )


def prompts_on(
    frames: KeyFrames, history: Probabilities, uncertainty: VoxelMap, settings: PromptSettings, margin: int
) -> dict[int, list[Prompt]]:
    """The prompts of all key frames, per class; arguments as ``make_prompt`` takes them."""
    made = {c: [make_prompt(history, uncertainty, z, c, settings, margin=margin) for z in slices] for c, slices in frames.items()}
    return {c: [prompt for prompt in found if prompt is not None] for c, found in made.items()}


def reviewed_prompt(mask: Mask, slice_index: int, class_index: int) -> Prompt:
    """The exact mask (j, i) that a reviewer drew or accepted; an empty one stays, as it says "not on this slice"."""
    none = np.empty((0, 2), dtype=np.float32)
    return Prompt(slice_index, class_index, box=None, positive_points=none, negative_points=none, mask=mask.astype(bool))


def with_reviewed(prompts: Sequence[Prompt], mask: Mask, known: Mask, class_index: int) -> list[Prompt]:
    """A class's prompts once people spoke: their masks on the slices of which they know all, the network's prompts on the others.

    A case may lie otherwise than it was reviewed: then a slice that a person decided is a line in many of these slices, and no mask of
    any of them.

    Args:
        mask: (k, j, i), where people vouch for the class; known: (k, j, i), where they said whether it is there.
    """
    whole: Mask = np.asarray(known.all(axis=(1, 2)))
    people = [reviewed_prompt(mask[z], int(z), class_index) for z in np.flatnonzero(whole & mask.any(axis=(1, 2)))]
    return [*people, *(prompt for prompt in prompts if not whole[prompt.slice_index])]


def with_reviewed_masks(labels: ClassMap, prompts: Mapping[int, Sequence[Prompt]]) -> ClassMap:
    """A coarse mask (k, j, i) with the masks of reviewed prompts laid over it: they may lie where the network saw nothing."""
    merged = labels.copy()
    for c, found in prompts.items():
        for prompt in found:
            if prompt.mask is not None:
                merged[prompt.slice_index, prompt.mask] = c
    return merged


def _box(mask: Mask, probability: VoxelMap, certainty: float) -> Box:
    """w bbox{h_c > 0.7} + (1 - w) bbox{h_c > 0.3} with w = ``certainty``.

    Where nothing exceeds 0.7 only the wide box is left, and where nothing exceeds 0.3 (many classes share a voxel) the mask's.
    """
    possible, sure = probability > POSSIBLE, probability > SURE
    wide = _bounding_box(possible if possible.any() else mask)
    blended = certainty * _bounding_box(sure) + (1.0 - certainty) * wide if sure.any() else wide
    j0, i0, j1, i1 = blended.tolist()
    return j0, i0, j1, i1


def _bounding_box(mask: Mask) -> NDArray[np.float64]:
    """[j0, i0, j1, i1] of a mask that is not empty, the end exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], dtype=np.float64)


def _positive_points(mask: Mask, u: VoxelMap, count: int) -> Points:
    """Maxima of (distance to the mask's border and to the points already taken) · (1 - u), one component after the other.

    Counting a taken point as border spreads the points; every large component gets one before any gets a second.
    """
    components, waiting = _large_components(mask)
    # Outside the image counts as outside the mask, so a structure cut by the image's edge gets its point well inside.
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    certainty = np.maximum(1.0 - u, 1e-3)  # a wholly uncertain mask still has a middle
    points: list[tuple[int, int]] = []
    while len(points) < count:
        among = np.isin(components, waiting) if waiting else mask
        place = _argmax(np.where(among & (_distance_to(points, mask.shape) >= CLEARANCE), distance * certainty, 0.0))
        if place is None:
            if not waiting:
                break
            waiting = []
            continue
        points.append(place)
        distance = np.minimum(distance, _distance_to([place], mask.shape))
        waiting = [component for component in waiting if component != components[place]]
    return _as_points(points)


def _large_components(mask: Mask) -> tuple[NDArray[np.int32], list[int]]:
    """Component numbers (j, i), and those of the components that deserve a point of their own."""
    components, count = ndimage.label(mask)
    areas = np.bincount(components.ravel(), minlength=count + 1)[1:]
    return components, [n for n in range(1, count + 1) if areas[n - 1] >= OWN_POINT_SHARE * areas.max()]


def _negative_points(mask: Mask, labels: ClassMap, u: VoxelMap, count: int) -> Points:
    """Confident pixels nearest to the mask, first of other foreground classes beside it, then of the background, spread out."""
    distance = ndimage.distance_transform_edt(~mask)
    # As far apart as the mask is thick, so that the points do not all sit on one side of it.
    spread = max(CLEARANCE, float(np.sqrt(mask.sum() / np.pi)))
    allowed = ~mask & (u < CONFIDENT) & (distance >= CLEARANCE)
    points: list[tuple[int, int]] = []
    for region in (allowed & (labels > 0) & (distance <= spread), allowed & (labels == 0)):
        while len(points) < count:
            nearness = np.where(region & (_distance_to(points, mask.shape) >= spread), 1.0 / np.maximum(distance, 1.0), 0.0)
            place = _argmax(nearness)
            if place is None:
                break
            points.append(place)
    return _as_points(points)


def logits_of(probability: VoxelMap) -> VoxelMap:
    """log(h_c / (1 - h_c)), clipped to ±10."""
    low = 1.0 / (1.0 + np.exp(LOGIT_LIMIT))
    inside = np.clip(probability.astype(np.float64), low, 1.0 - low)
    return np.log(inside / (1.0 - inside)).astype(np.float32)


def _distance_to(points: list[tuple[int, int]], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Distance in pixels of every pixel to the nearest of the points; infinite without points."""
    rows, columns = np.indices(shape, sparse=True)
    nearest = np.full(shape, np.inf)
    for j, i in points:
        nearest = np.minimum(nearest, np.hypot(rows - j, columns - i))
    return nearest


def _argmax(score: NDArray[np.float64]) -> tuple[int, int] | None:
    """The pixel (j, i) of the largest score, the first in reading order; None where no score is positive."""
    if score.max() <= 0:
        return None
    j, i = np.unravel_index(int(score.argmax()), score.shape)
    return int(j), int(i)


def _as_points(points: list[tuple[int, int]]) -> Points:
    return np.array(points, dtype=np.float32).reshape(-1, 2)
