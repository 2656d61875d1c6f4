"""Names for the arrays that travel through the guidance, and the step from probabilities to classes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Probabilities: TypeAlias = NDArray[np.floating[Any]]
"""(C+1, k, j, i), float32; every voxel sums to 1 over the classes."""

ClassMap: TypeAlias = NDArray[np.integer[Any]]
"""(k, j, i); class index 0..C of every voxel."""

VoxelMap: TypeAlias = NDArray[np.floating[Any]]
"""(k, j, i), or (j, i) for one slice, float32; one number per voxel, in [0, 1] unless said otherwise."""

SliceTable: TypeAlias = NDArray[np.float64]
"""(C, k); one number per foreground class and slice; row c - 1 belongs to class c."""

Mask: TypeAlias = NDArray[np.bool_]
"""(j, i) or (k, j, i); True inside."""


def classes_of(probabilities: Probabilities) -> NDArray[np.uint8]:
    """The likeliest class of every voxel: (C+1, k, j, i) -> (k, j, i). Slice by slice: ``argmax`` alone takes 8 bytes a voxel."""
    labels = np.empty(probabilities.shape[1:], np.uint8)
    for z in range(probabilities.shape[1]):
        labels[z] = probabilities[:, z].argmax(axis=0)
    return labels
