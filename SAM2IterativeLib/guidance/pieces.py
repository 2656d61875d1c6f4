"""KM's prompts: each connected piece of the network's mask on a slice asks SAM2 for itself, and takes its answer only if it fits.

Knowledge Mining (Mao et al., arXiv 2503.06816) has the network's masks prompt SAM and learns from SAM's; which prompts, and when an answer
counts, is ours: box, the peak of the distance to the border, and the network's logits; of SAM2's masks the one with the largest IoU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .arrays import ClassMap, Mask, Probabilities
from .prompts import LOGIT_LIMIT, Prompt, logits_of

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Piece:
    """One connected piece (8 neighbours) of a class on a slice: ``mask`` (j, i), and what SAM2 is told of it."""

    mask: Mask
    prompt: Prompt


def pieces_of(labels: ClassMap, probabilities: Probabilities, least_area: int) -> Iterator[Piece]:
    """The pieces of a mask, class by class, slice by slice, the largest first.

    Args:
        labels: argmax p_t, (k, j, i) class indices.
        probabilities: p_t, (C+1, k, j, i).
        least_area: pixels below which a piece is too small to prompt.
    """
    for c in range(1, probabilities.shape[0]):
        for z in np.flatnonzero((labels == c).any(axis=(1, 2))):
            numbered, count = ndimage.label(labels[z] == c, structure=_EIGHT_NEIGHBOURS)
            areas = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
            for n in np.argsort(-areas, kind="stable"):
                if areas[n] >= least_area:
                    mask = numbered == n + 1
                    yield Piece(mask, _prompt(mask, labels[z], probabilities[c, z], int(z), c))


def best_fit(candidates: NDArray[np.bool_], mask: Mask) -> tuple[int, float]:
    """Which of the candidates (n, j, i) has the largest IoU with a mask (j, i) that is not empty, and that IoU in [0, 1]."""
    shared = (candidates & mask).sum(axis=(1, 2))
    together = (candidates | mask).sum(axis=(1, 2))
    overlaps = shared / together
    best = int(overlaps.argmax())
    return best, float(overlaps[best])


def _prompt(mask: Mask, labels: ClassMap, probability: NDArray[np.float32], slice_index: int, class_index: int) -> Prompt:
    """Box, one positive point, and the logits without the other pieces of the class."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # Outside the image counts as outside the piece, so one that is cut by the image's edge gets its point well inside.
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    dense = logits_of(probability)
    dense[(labels == class_index) & ~mask] = -LOGIT_LIMIT
    return Prompt(
        slice_index=slice_index,
        class_index=class_index,
        box=(float(rows[0]), float(columns[0]), float(rows[-1] + 1), float(columns[-1] + 1)),
        positive_points=np.array([np.unravel_index(depth.argmax(), depth.shape)], dtype=np.float32),
        negative_points=np.empty((0, 2), dtype=np.float32),
        dense_logits=dense,
    )
