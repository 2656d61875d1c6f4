"""Names for the arrays that travel through the guidance."""

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
