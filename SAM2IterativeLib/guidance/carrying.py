"""How a correction of a few slices is carried to the others, voxel by voxel: three voices are added up as logits.

SAM2 follows the corrected masks through the volume. The corrected masks speak for their neighbourhood themselves, interpolated between
slices by signed distance (Raya and Udupa, IEEE TMI 1990). The present labels speak the louder the further away the correction is: in
slices, and in pixels from what the person changed there, since what was left as it was is confirmed. The result replaces the present
labels outward from a corrected slice until both agree; what lies beyond was not meant.

Measured (Testing/benchmarks/correction.py: 3 phantoms, hippocampi, left atria each; one or three of the worst slices corrected), mean Dice
of all other slices before, by SAM2's masks taken as they are, and after: a spoilt slab 0.63, 0.51, 0.79; errors everywhere 0.74, 0.51,
0.80; all shifted 0.81, 0.51, 0.86; a small leak over nine slices 0.97, 0.50, 0.97; nothing labelled before 0, 0.53, 0.54. Within three
slices of a corrected one, before and after: 0.58, 0.78; 0.74, 0.82; 0.82, 0.88; 0.97, 0.97; 0, 0.75. The constants lie on a plateau.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..metrics import dice
from .arrays import ClassMap, Mask, VoxelMap

ANSWER_LIMIT = 6.0
"""SAM2's logits are clipped here: a model that is sure of itself must still be outvoted far away."""
SHAPE_WEIGHT, SHAPE_LIMIT, SHAPE_DECAY = 2.0, 4.0, 3.0
"""Logits per pixel of depth in the corrected masks, pixels at which that ends, and slices over which it falls to 1/e."""
TRUST_WEIGHT, TRUST_LIMIT = 4.0, 2.0
"""The same for the present labels, whose voice grows from 0 on a corrected slice to this far away."""
CHANGED_DECAY = 3.0
"""Pixels from what the person changed, over which the doubt in the present labels falls to 1/e."""
SETTLED_DICE, SETTLED_SLICES = 0.7, 2
"""A correction ends where its result agrees this well with the present labels on so many slices in a row."""
_NOWHERE = -20.0
"""Depth of every pixel in an empty mask."""


def carried_logits(
    answer: VoxelMap,
    present: Mask,
    corrected: Sequence[int],
    *,
    decay: float,
    before: Mask | None = None,
    present_speaks: bool = True,
) -> VoxelMap:
    """One class's logits against background, (k, j, i).

    Args:
        answer: SAM2's logits of the class, (k, j, i).
        present: the class in the present labels, corrected slices included, (k, j, i).
        corrected: the slices that are exactly right.
        decay: slices over which the present labels win their voice.
        before: the class before the correction, (k, j, i); None: unknown, then the correction may have changed any pixel.
        present_speaks: False where the class was never labelled on the other slices: its absence there is no evidence.
    """
    distance = slice_distance(len(present), corrected)[:, None, None]
    shape = interpolated_depth(present, corrected)
    logits = np.clip(answer, -ANSWER_LIMIT, ANSWER_LIMIT)
    logits = logits + SHAPE_WEIGHT * np.exp(-distance / SHAPE_DECAY) * np.clip(shape, -SHAPE_LIMIT, SHAPE_LIMIT)
    if present_speaks:
        depth = np.stack([signed_depth(plane, TRUST_LIMIT) for plane in present])
        aside = changed_distance(before, present, corrected) if before is not None else 0.0
        logits += TRUST_WEIGHT * (1 - np.exp(-distance / decay - aside / CHANGED_DECAY)) * depth
    return logits.astype(np.float32)


def changed_distance(before: Mask, present: Mask, corrected: Sequence[int]) -> VoxelMap:
    """Pixels (k, j, i) to what was changed on the nearest corrected slice; large where nothing was changed there."""
    far = 8 * CHANGED_DECAY
    changed = {z: np.maximum(0, -signed_depth(before[z] != present[z], far)) for z in corrected}
    return np.stack([changed[min(changed, key=lambda q: abs(q - z))] for z in range(len(present))])


def slice_distance(slices: int, corrected: Sequence[int]) -> NDArray[np.float64]:
    """(k,) slices to the nearest corrected one."""
    return np.abs(np.arange(slices)[:, None] - np.array(corrected)[None]).min(axis=1).astype(np.float64)


def interpolated_depth(mask: Mask, corrected: Sequence[int]) -> VoxelMap:
    """Signed depth (k, j, i) in pixels, positive inside: linear between two corrected slices, constant beyond the outermost."""
    known = sorted(corrected)
    depth = {z: signed_depth(mask[z], -_NOWHERE) for z in known}
    result = np.empty(mask.shape, np.float32)
    for z in range(len(mask)):
        below = max((q for q in known if q <= z), default=known[0])
        above = min((q for q in known if q >= z), default=known[-1])
        share = (z - below) / (above - below) if above > below else 0.0
        result[z] = (1 - share) * depth[below] + share * depth[above]
    return result


def signed_depth(mask: Mask, limit: float) -> VoxelMap:
    """Pixels (j, i) to the border of a mask, positive inside, clipped at ±``limit``; ``-limit`` everywhere if it is empty."""
    result = np.full(mask.shape, -limit, np.float32)
    if not mask.any():
        return result
    margin = int(np.ceil(limit)) + 1
    box = tuple(
        slice(max(0, int(found[0]) - margin), int(found[-1]) + margin + 1)
        for found in (np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0)))
    )
    inside = mask[box]
    outward = ndimage.distance_transform_edt(~inside)
    # A structure cut by the image's edge goes on beyond it: the edge is no border.
    inward = np.full(inside.shape, limit) if inside.all() else ndimage.distance_transform_edt(inside)
    result[box] = np.clip(inward - outward, -limit, limit)
    return result


def reached_slices(
    carried: Mask,
    present: Mask,
    origins: Mapping[int, float] | Collection[int],
    corrected: Collection[int],
    most: int = 0,
) -> NDArray[np.bool_]:
    """(k,) bool: the slices on which one class is replaced by what was carried there.

    From each origin the correction goes up and down until carried and present labels agree on two slices in a row, until it meets a
    corrected slice, or after ``most`` slices. Where the person showed the class and the carried mask is lost while the present
    labels still have it, it ends too: what nobody deleted is not deleted.

    Args:
        carried, present: the class after and before, (k, j, i).
        origins: corrected slices from which the class is carried; as a mapping, with the Dice that counts as agreement, see
            ``settled_dice``.
        corrected: all corrected slices; they are never replaced.
        most: 0: no limit.
    """
    reached = np.zeros(len(present), dtype=bool)
    for origin in origins:
        enough = origins[origin] if isinstance(origins, Mapping) else SETTLED_DICE
        for direction in (-1, 1):
            for z in _walk(carried, present, origin, direction, corrected, enough):
                if most and abs(z - origin) > most:
                    break
                reached[z] = True
    return reached


def settled_dice(before: Mask, now: Mask) -> float:
    """The Dice that counts as agreement, given what the person changed on a slice (j, i): half of the way from there to 1 at least.

    A correction that left Dice 0.9 with the labels before is about details: 0.9 elsewhere is then no agreement.
    """
    return max(SETTLED_DICE, (1 + _dice(before, now)) / 2)


def _walk(carried: Mask, present: Mask, origin: int, direction: int, corrected: Collection[int], enough: float) -> Iterator[int]:
    shown, settled = bool(present[origin].any()), 0
    for z in range(origin + direction, len(present) if direction > 0 else -1, direction):
        if z in corrected or (shown and present[z].any() and not carried[z].any()):
            return
        settled = settled + 1 if _dice(carried[z], present[z]) >= enough else 0
        if settled == SETTLED_SLICES:
            return
        yield z


def _dice(a: Mask, b: Mask) -> float:
    """1 where both are empty: nothing changed."""
    found = dice(a, b)
    return 1.0 if found is None else found


def merged(present: ClassMap, carried: ClassMap, reached: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The new labels: a class is replaced on the slices it reached, and never takes a voxel that another one keeps.

    Args:
        present: (k, j, i) class indices, with the corrected slices.
        carried: (k, j, i) class indices of what was carried.
        reached: (C, k), see ``reached_slices``.
    """
    result = present.astype(np.uint8)
    for z in np.flatnonzero(reached.any(axis=0)):
        replaced = np.flatnonzero(reached[:, z]) + 1
        kept = (present[z] > 0) & ~np.isin(present[z], replaced)
        result[z] = np.where(kept, present[z], np.where(np.isin(carried[z], replaced), carried[z], 0))
    return result
