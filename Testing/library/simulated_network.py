"""A stand-in for trained networks: a reference label map seen by several snapshots that err differently.

No error is written into the uncertainty. Each slice has its own difficulty; on a difficult slice the snapshots shift, swell and
shrink the structures, partly all alike (a bias nobody can see), partly each on its own (which shows as doubt).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def network_snapshots(
    labels: np.ndarray, class_count: int, seed: int, *, count: int = 5, difficulty: float = 2.0, slab: Sequence[int] = ()
) -> list[np.ndarray]:
    """``count`` predictions (C+1, k, j, i) float32 of one volume.

    Args:
        labels: reference class map, (k, j, i).
        class_count: C.
        seed: of all errors.
        count: number of snapshots.
        difficulty: typical error of a slice in pixels.
        slab: slices where the image is spoiled, so that the snapshots guess: errors of about 9 pixels.
    """
    random = np.random.default_rng(seed)
    slices = labels.shape[0]
    amplitude = ndimage.gaussian_filter1d(np.abs(random.normal(0, 2 * difficulty, slices)), 1.0)
    amplitude[list(slab)] = 9.0
    depth = [_depth(labels == c) for c in range(1, class_count + 1)]
    bias = random.normal(0, 0.5, (slices, 3)) * amplitude[:, None]
    return [_snapshot(depth, bias + random.normal(0, 0.7, (slices, 3)) * amplitude[:, None]) for _ in range(count)]


def _snapshot(depth: list[np.ndarray], errors: np.ndarray) -> np.ndarray:
    """Probabilities of structures moved by errors[z, :2] pixels and swollen by errors[z, 2] / 2 pixels."""
    logits = np.zeros((len(depth) + 1, *depth[0].shape))
    for c, of_class in enumerate(depth, start=1):
        for z, (dj, di, swelling) in enumerate(errors):
            logits[c, z] = (np.roll(of_class[z], (round(dj), round(di)), (0, 1)) + swelling / 2) / 0.8
    exponent = np.exp(np.clip(logits, -20, 20))
    return (exponent / exponent.sum(axis=0)).astype(np.float32)


def _depth(mask: np.ndarray) -> np.ndarray:
    """Pixels to the border within each slice, positive inside; -12 where the slice is empty."""
    depth = np.full(mask.shape, -12.0)
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        depth[z] = ndimage.distance_transform_edt(mask[z]) - ndimage.distance_transform_edt(~mask[z])
    return np.clip(depth, -12, 12)


def one_hot(labels: np.ndarray, class_count: int, certainty: float = 1.0) -> np.ndarray:
    """Probabilities (C+1, k, j, i) that give ``certainty`` to each voxel's class and share the rest."""
    other = (1.0 - certainty) / class_count
    probabilities = np.full((class_count + 1, *labels.shape), other, dtype=np.float32)
    np.put_along_axis(probabilities, labels[None].astype(int), np.float32(certainty), axis=0)
    return probabilities
