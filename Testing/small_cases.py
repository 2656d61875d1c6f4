"""Small made-up cases for tests that need any case, not a plausible one."""

from __future__ import annotations

import numpy as np

from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume

_ANGLE = 0.3

OBLIQUE = Geometry(
    size=(6, 10, 8),
    spacing=(2.5, 0.7, 0.9),
    origin=(-31.5, 12.25, 100.125),
    direction=(np.cos(_ANGLE), -np.sin(_ANGLE), 0.0, np.sin(_ANGLE), np.cos(_ANGLE), 0.0, 0.0, 0.0, 1.0),
)
"""An anisotropic, oblique grid: whatever mixes up axes or signs shows on it."""


def small_image(seed: int = 0, geometry: Geometry = OBLIQUE) -> Volume:
    """Noise on an oblique grid, int16, never twice the same for two seeds."""
    return Volume(np.random.default_rng(seed).integers(-500, 1500, geometry.size, dtype=np.int16), geometry)


def small_labels(shift: int = 0, values: tuple[int, int] = (1, 2), geometry: Geometry = OBLIQUE) -> LabelMap:
    """Two touching boxes, moved by ``shift`` columns."""
    array = np.zeros(geometry.size, np.uint8)
    array[1:5, 2:8, 1 + shift : 3 + shift] = values[0]
    array[2:4, 3:6, 3 + shift : 5 + shift] = values[1]
    return LabelMap(array, geometry)
