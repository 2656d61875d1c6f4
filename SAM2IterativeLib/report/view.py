"""A case's slices as SAM2 saw them: turned to the plan's orientation, with places given in pixels, letters and millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..orientation import opposite, orientation_of, source_axes, turn, turned_indices, turned_spacing
from ..volumes import Geometry

_AS_CLINICIANS_LOOK = {"S": "PL", "I": "PL", "A": "IL", "P": "IL", "R": "IP", "L": "IP"}
"""For the body direction across slices those in which rows and columns grow."""


@dataclass(frozen=True)
class SliceView:
    """How a case is shown.

    Attributes:
        geometry: the case's own grid.
        wanted: body directions of k, j and i as shown, such as "SPL"; the case's own if there is no plan.
    """

    geometry: Geometry
    wanted: str

    @classmethod
    def of(cls, geometry: Geometry, orientation: str = "") -> SliceView:
        """The view of a case cut as in ``orientation`` (the plan's; empty: the case's own), its slices turned as clinicians look at them.

        Axial slices have the front on top, the others the head; the patient's right is on the left, in sagittal ones the front.
        """
        wanted = orientation or orientation_of(geometry.direction)
        return cls(geometry, wanted if geometry.planar else wanted[0] + _AS_CLINICIANS_LOOK[wanted[0]])

    @property
    def _own(self) -> str:
        return orientation_of(self.geometry.direction)

    def turned(self, array: np.ndarray) -> np.ndarray:
        """(k, j, i), or (k, j, i, 3) uint8 colour, as shown."""
        if array.ndim == 4:
            return np.moveaxis(turn(np.moveaxis(array, -1, 0), self._own, self.wanted), 0, -1)
        return turn(array, self._own, self.wanted)

    @property
    def pixel(self) -> tuple[float, float]:
        """Height and width of a pixel as shown, mm."""
        return turned_spacing(self.geometry.spacing, self._own, self.wanted)[1:]

    @property
    def edges(self) -> tuple[str, str, str, str]:
        """The body directions at the top, right, bottom and left edge; empty for a picture, which knows none."""
        if self.geometry.planar:
            return "", "", "", ""
        down, right = self.wanted[1], self.wanted[2]
        return opposite(down), right, down, opposite(right)

    def pixels_of(self, ras: np.ndarray) -> np.ndarray:
        """(n, 2) row and column as shown, fractions allowed (a pixel's centre is a whole number), of RAS mm (n, 3)."""
        if not len(ras):
            return np.empty((0, 2))
        return turned_indices(self.geometry.kji_of(ras), self.geometry.size, self._own, self.wanted)[:, 1:]

    def position(self, slice_index: int) -> str:
        """Where a slice lies, as Slicer's slice views say it: "S 34.2 mm"; empty for a picture."""
        if self.geometry.planar:
            return ""
        centre = np.array([slice_index, (self.size[1] - 1) / 2, (self.size[2] - 1) / 2])
        own = turned_indices(centre, self.size, self.wanted, self._own)
        axis = "RAS".index(next(letter for letter in "RAS" if self.wanted[0] in (letter, opposite(letter))))
        value = float(self.geometry.ras_of(own)[axis])
        letter = "RAS"[axis] if value >= 0 else opposite("RAS"[axis])
        return f"{letter} {abs(value):.1f} mm"

    def number(self, slice_index: int) -> int:
        """The slice's index in the file, counted from 0 as in the commands; its place as shown where the file is cut otherwise."""
        own = turned_indices(np.array([slice_index, 0, 0]), self.size, self.wanted, self._own)
        return int(own[0]) if source_axes(self._own, self.wanted)[0] == 0 else slice_index

    def place(self, slice_index: int) -> str:
        """A slice in words: "slice 12 of 0 to 39, S 13.0 mm"."""
        where = self.position(slice_index)
        return f"slice {self.number(slice_index)} of 0 to {self.size[0] - 1}" + (f", {where}" if where else "")

    @property
    def size(self) -> tuple[int, int, int]:
        """Slices, rows and columns as shown."""
        k, j, i = (self.geometry.size[axis] for axis in source_axes(self._own, self.wanted))
        return k, j, i
