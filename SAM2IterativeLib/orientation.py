"""In which body directions an array's axes grow, and how to turn an array from one orientation to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIRECTIONS = (("R", "L"), ("A", "P"), ("I", "S"))  # LPS axes: falling and growing coordinate


def orientation_of(direction: Sequence[float]) -> str:
    """The body directions in which k, j and i grow, such as "SPL": for each array axis the nearest, each body axis once.

    Args:
        direction: 9 numbers, row-major, LPS; columns belong to i, j, k (ITK's convention).
    """
    columns = np.asarray(direction, dtype=float).reshape(3, 3)[:, ::-1]  # columns now k, j, i
    code = ["", "", ""]
    strength = np.abs(columns)
    for _ in range(3):
        body, axis = np.unravel_index(int(strength.argmax()), (3, 3))
        code[axis] = _DIRECTIONS[body][int(columns[body, axis] > 0)]
        strength[body, :] = strength[:, axis] = -1.0
    return "".join(code)


def opposite(letter: str) -> str:
    """The body direction against ``letter``: "L" for "R"."""
    return next(a if letter == b else b for a, b in _DIRECTIONS if letter in (a, b))


def source_axes(present: str, wanted: str) -> tuple[int, int, int]:
    """For each axis of the wanted orientation the axis of the present one that it comes from."""
    k, j, i = (next(n for n, letter in enumerate(present) if letter in (w, opposite(w))) for w in wanted)
    return k, j, i


def turn(array: NDArray[Any], present: str, wanted: str) -> NDArray[Any]:
    """Permute and mirror the last three axes from one orientation to another; nothing is interpolated. Swap the codes to undo."""
    order = source_axes(present, wanted)
    lead = array.ndim - 3
    array = np.transpose(array, (*range(lead), *(lead + n for n in order)))
    # An axis of length 1 is its own mirror image. Flipped, it has a negative stride, which ascontiguousarray leaves and torch refuses.
    mirrored = tuple(lead + n for n, w in enumerate(wanted) if present[order[n]] != w and array.shape[lead + n] > 1)
    return np.flip(array, mirrored) if mirrored else array


def turned_spacing(spacing: Sequence[float], present: str, wanted: str) -> tuple[float, float, float]:
    """The (k, j, i) spacing of an array after ``turn``."""
    k, j, i = (spacing[axis] for axis in source_axes(present, wanted))
    return k, j, i


def turned_indices(kji: NDArray[np.floating[Any]], size: Sequence[int], present: str, wanted: str) -> NDArray[np.floating[Any]]:
    """Voxel indices (..., 3) in k, j, i order, fractions allowed, as they are after ``turn`` of an array of ``size`` (k, j, i)."""
    found = np.array(kji, dtype=float)[..., source_axes(present, wanted)]
    for axis, source in enumerate(source_axes(present, wanted)):
        if present[source] != wanted[axis]:
            found[..., axis] = size[source] - 1 - found[..., axis]
    return found
