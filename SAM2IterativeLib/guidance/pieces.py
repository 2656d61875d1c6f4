"""KM's prompts: each connected piece of the network's mask on a slice asks SAM2 for itself, and takes its answer only if it fits.

Knowledge Mining (Mao et al., arXiv 2503.06816) has the network's masks prompt SAM and learns from SAM's; which prompts, and when an answer
counts, is ours: box, the peak of the distance to the border, and the network's logits around the piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .arrays import ClassMap, Mask, VoxelMap
from .prompts import LOGIT_LIMIT, Prompt, logits_of

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
_MARGIN = 3
"""Pixels around a piece in which its logits are told: the border may lie a little further out."""


@dataclass(frozen=True)
class Piece:
    """One connected piece (8 neighbours) of a class on a slice.

    Attributes:
        window: the rows and columns of the slice that just hold it.
        mask: (rows, columns) within the window.
    """

    slice_index: int
    class_index: int
    window: tuple[slice, slice]
    mask: Mask

    def overlap(self, other: Mask) -> float:
        """IoU in [0, 1] with a mask of the whole slice (j, i)."""
        shared = int((other[self.window] & self.mask).sum())
        return shared / (int(other.sum()) + int(self.mask.sum()) - shared)


def pieces_of(labels: ClassMap, least_area: int) -> Iterator[Piece]:
    """The pieces of a mask, slice by slice, class by class, the largest first.

    Args:
        labels: (k, j, i) class indices.
        least_area: pixels below which a piece is too small to prompt.
    """
    for z in np.flatnonzero(labels.any(axis=(1, 2))):
        for c in np.unique(labels[z][labels[z] > 0]):
            numbered, count = ndimage.label(labels[z] == c, structure=_EIGHT_NEIGHBOURS)
            areas = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
            windows = ndimage.find_objects(numbered)
            for n in np.argsort(-areas, kind="stable"):
                if areas[n] >= least_area:
                    yield Piece(int(z), int(c), windows[n], numbered[windows[n]] == n + 1)


def prompt_for(piece: Piece, labels: ClassMap, probability: VoxelMap) -> Prompt:
    """Box, one positive point, and the network's logits around the piece, without the other pieces of its class.

    Args:
        labels: (j, i) class indices of its slice; probability: (j, i), of its class.
    """
    rows, columns = piece.window
    # Outside the window counts as outside the piece, so one that is cut by the image's edge gets its point well inside.
    depth = ndimage.distance_transform_edt(np.pad(piece.mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    near = tuple(slice(max(0, axis.start - _MARGIN), axis.stop + _MARGIN) for axis in piece.window)
    dense = np.full(labels.shape, -LOGIT_LIMIT, dtype=np.float32)
    dense[near] = logits_of(probability[near])
    own = dense[piece.window][piece.mask]
    dense[near][labels[near] == piece.class_index] = -LOGIT_LIMIT
    dense[piece.window][piece.mask] = own
    return Prompt(
        slice_index=piece.slice_index,
        class_index=piece.class_index,
        box=(float(rows.start), float(columns.start), float(rows.stop), float(columns.stop)),
        positive_points=np.array([[rows.start + row, columns.start + column]], dtype=np.float32),
        negative_points=np.empty((0, 2), dtype=np.float32),
        dense_logits=dense,
    )
