"""One orientation for all: a case's arrays turned so that SAM2 and the guidance see the same view of every case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import Geometry
from ..orientation import orientation_of, turn, turned_indices, turned_spacing


@dataclass(frozen=True)
class WorkingGrid:
    """The turning between a case's own grid and the plan's orientation; nothing is interpolated.

    Attributes:
        geometry: the case's own.
        orientation: the wanted body directions of k, j, i, such as "SPL".
    """

    geometry: Geometry
    orientation: str

    @property
    def _own(self) -> str:
        return orientation_of(self.geometry.direction)

    def turned(self, array: np.ndarray) -> np.ndarray:
        """(..., k, j, i), or (k, j, i, 3) uint8 colour, in the wanted orientation."""
        if array.ndim == 4 and array.shape[-1] == 3 and array.dtype == np.uint8:
            return np.ascontiguousarray(np.moveaxis(turn(np.moveaxis(array, -1, 0), self._own, self.orientation), 0, -1))
        return np.ascontiguousarray(turn(array, self._own, self.orientation))

    def turned_back(self, array: np.ndarray) -> np.ndarray:
        """(..., k, j, i) in the case's own orientation."""
        return np.ascontiguousarray(turn(array, self.orientation, self._own))

    def ras_of(self, points: np.ndarray) -> np.ndarray:
        """RAS mm (n, 3) of voxel indices (n, 3), k, j, i in the wanted orientation, fractions allowed."""
        size = [round(n) for n in turned_spacing(self.geometry.size, self._own, self.orientation)]
        return self.geometry.ras_of(turned_indices(np.asarray(points, dtype=float), size, self.orientation, self._own))
