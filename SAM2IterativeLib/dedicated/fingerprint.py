"""What planning needs to know about a case, without keeping its voxels: nnU-Net's data fingerprint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..orientation import orientation_of
from ..volumes import Geometry

_SAMPLES = 2000
_SEEN = 200_000  # voxels by which the contrast of a large image is judged
_QUANTILES = 41
_TAILS = (0.5, 99.5)  # percentiles to which intensities are clipped first, as in training


@dataclass(frozen=True)
class Fingerprint:
    """One case's size, intensities and labels.

    ``size`` voxels and ``spacing`` mm (k, j, i); ``orientation`` see ``resampling.orientation_of``; ``channels`` 1, or those of a colour
    image; ``range`` lowest and highest intensity; ``zeros`` share of voxels of value 0; ``foreground`` up to 2000 intensities
    evenly taken from the labelled structures (empty for an unlabelled case); ``pieces`` for every class present the share of
    its voxels that lies in its largest piece, None for an unlabelled case; ``contrast`` 41 even quantiles of the intensities, zeros
    left out, brought to mean 0 and deviation 1 (empty for colour, and where there is nothing to see).
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str = "SPL"
    channels: int = 1
    range: tuple[float, float] = (0.0, 1.0)
    zeros: float = 0.0
    foreground: tuple[float, ...] = ()
    pieces: dict[int, float] | None = None
    contrast: tuple[float, ...] = ()


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
        contrast=() if image.ndim > 3 else _contrast(image),
    )


def largest_share(mask: NDArray[np.bool_]) -> float:
    """The share of a mask's voxels that lies in its largest piece (pieces touch by faces, edges or corners); 1 if empty."""
    pieces, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    if count <= 1:
        return 1.0
    sizes = np.bincount(pieces.ravel())[1:]
    return float(sizes.max() / sizes.sum())


def contrast_distance(one: Fingerprint, other: Fingerprint) -> float:
    """How differently two images spread their intensities, in deviations: the Wasserstein-1 distance of their normalised histograms."""
    return float(np.mean(np.abs(np.subtract(one.contrast, other.contrast))))


def distances_to_labelled(fingerprints: Sequence[Fingerprint]) -> list[float]:
    """Each case's ``contrast_distance`` to the nearest other case that is labelled; NaN where there is none to compare with."""
    labelled = [f for f in fingerprints if f.pieces is not None and f.contrast]
    found = ([contrast_distance(f, other) for other in labelled if other is not f and f.contrast] for f in fingerprints)
    return [min(distances, default=float("nan")) for distances in found]


def _contrast(image: NDArray[np.generic]) -> tuple[float, ...]:
    values = _evenly(image[image != 0], _SEEN).astype(np.float32)
    if values.size == 0 or values.min() == values.max():
        return ()
    values = values.clip(*np.percentile(values, _TAILS))
    quantiles = np.quantile(values, np.linspace(0, 1, _QUANTILES))
    return tuple(float(q) for q in (quantiles - values.mean()) / max(float(values.std()), 1e-6))


def _foreground(image: NDArray[np.generic], labels: NDArray[np.integer]) -> tuple[float, ...]:
    return tuple(float(v) for v in _evenly(image[labels > 0].ravel(), _SAMPLES))


def _evenly(values: NDArray[np.generic], count: int) -> NDArray[np.generic]:
    """At most ``count`` of the values (n,), evenly taken."""
    return values[np.linspace(0, values.size - 1, min(values.size, count)).astype(int)]
