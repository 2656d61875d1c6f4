"""What planning needs to know about a case, without keeping its voxels: nnU-Net's data fingerprint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..orientation import orientation_of
from ..volumes import Geometry

_SAMPLES = 2000


@dataclass(frozen=True)
class Fingerprint:
    """One case's size, intensities and labels.

    ``size`` voxels and ``spacing`` mm (k, j, i); ``orientation`` see ``resampling.orientation_of``; ``channels`` 1, or those of a colour
    image; ``range`` lowest and highest intensity; ``zeros`` share of voxels of value 0; ``foreground`` up to 2000 intensities
    evenly taken from the labelled structures (empty for an unlabelled case); ``pieces`` for every class present the share of
    its voxels that lies in its largest piece, None for an unlabelled case.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str = "SPL"
    channels: int = 1
    range: tuple[float, float] = (0.0, 1.0)
    zeros: float = 0.0
    foreground: tuple[float, ...] = ()
    pieces: dict[int, float] | None = None


def fingerprint_of(image: NDArray[np.generic], geometry: Geometry, labels: NDArray[np.integer] | None = None) -> Fingerprint:
    """Look at a case once.

    Args:
        image: (k, j, i), or (k, j, i, channels) for colour, as read.
        geometry: of the image.
        labels: (k, j, i) class indices 0..C, None for an unlabelled case.
    """
    return Fingerprint(
        size=geometry.size,
        spacing=geometry.spacing,
        orientation=orientation_of(geometry.direction),
        channels=1 if image.ndim == 3 else image.shape[3],
        range=(float(image.min()), float(image.max())),
        zeros=float(np.mean(image == 0)),
        foreground=() if labels is None else _foreground(image, labels),
        pieces=None if labels is None else {int(c): largest_share(labels == c) for c in np.unique(labels) if c},
    )


def largest_share(mask: NDArray[np.bool_]) -> float:
    """The share of a mask's voxels that lies in its largest piece (pieces touch by faces, edges or corners); 1 if empty."""
    pieces, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if count <= 1:
        return 1.0
    sizes = np.bincount(pieces.ravel())[1:]
    return float(sizes.max() / sizes.sum())


def _foreground(image: NDArray[np.generic], labels: NDArray[np.integer]) -> tuple[float, ...]:
    values = image[labels > 0].ravel()
    chosen = np.linspace(0, values.size - 1, min(values.size, _SAMPLES)).astype(int)
    return tuple(float(v) for v in values[chosen])
