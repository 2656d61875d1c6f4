"""Where a case's doubt lies, slice by slice: in and around its structures, as the case's own number counts it.

Doubt far from every structure, at the image's border for example, moves neither that number nor the order of slices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MARGIN = 3
"""Voxels around the structures that count as near."""
NOTICEABLE = 0.2
"""Uncertainty below which a slice is not worth a look: every border is a little uncertain."""

Mask = NDArray[np.bool_]
Doubt = NDArray[np.floating[Any]]


def near_structures(structures: Mask, margin: int = MARGIN) -> Mask:
    """The voxels in and within ``margin`` voxels of the structures, (k, j, i); every voxel where there is no structure."""
    if not structures.any():
        return np.ones(structures.shape, bool)
    # Within the box around them, which in a large volume saves most of the time.
    extents = [np.flatnonzero(structures.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = tuple(slice(max(0, int(found[0]) - margin), int(found[-1]) + margin + 1) for found in extents)
    near = np.zeros(structures.shape, bool)
    near[box] = ndimage.binary_dilation(structures[box], ndimage.generate_binary_structure(3, 1), iterations=margin)
    return near


def doubt_per_slice(uncertainty: Doubt, structures: Mask) -> NDArray[np.float64]:
    """How much doubt each slice holds in and around the structures, (k,): the sum over its voxels.

    Args:
        uncertainty: (k, j, i) in [0, 1].
        structures: (k, j, i), what the round found of any label.
    """
    return np.asarray(uncertainty.sum(axis=(1, 2), where=near_structures(structures), dtype=np.float64))


def uncertain_slices(uncertainty: Doubt, structures: Mask) -> tuple[int, ...]:
    """The slices (k) with noticeable doubt, the one that holds most in and around the structures first.

    Those with doubt only elsewhere, where a structure may have been missed altogether, come last. Arguments as in ``doubt_per_slice``.
    """
    held, anywhere = doubt_per_slice(uncertainty, structures), uncertainty.sum(axis=(1, 2), dtype=np.float64)
    worth = np.flatnonzero(uncertainty.max(axis=(1, 2)) >= NOTICEABLE)
    return tuple(sorted(map(int, worth), key=lambda k: (-float(held[k]), -float(anywhere[k]), k)))


def most_uncertain_place(uncertainty: Doubt, structures: Mask, k: int) -> tuple[int, int, int]:
    """The voxel (k, j, i) of slice k around which most of its doubt lies: near the structures where there is noticeable doubt."""
    slab = slice(max(0, k - MARGIN), k + MARGIN + 1)
    doubt = np.where(near_structures(structures[slab])[k - slab.start], uncertainty[k], 0)
    if doubt.max() < NOTICEABLE:
        doubt = uncertainty[k]
    width = max(3, max(doubt.shape) // 16)
    around = ndimage.uniform_filter(doubt.astype(np.float32), width, mode="constant")
    j, i = np.unravel_index(int(around.argmax()), around.shape)
    return k, int(j), int(i)
