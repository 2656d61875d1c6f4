"""Where a voxel grid lies in the patient."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Geometry:
    """Where a voxel grid lies in the patient.

    Attributes:
        size: voxels (k, j, i).
        spacing: mm (k, j, i).
        origin: LPS mm (x, y, z) of voxel (0, 0, 0)'s centre.
        direction: row-major (3, 3), columns are the unit vectors of i, j, k in LPS, as ITK has it.
        planar: the file was two-dimensional and is written so again; k is then 1.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    planar: bool = False

    @classmethod
    def of_image(cls, image: sitk.Image | sitk.ImageFileReader) -> Geometry:
        """The geometry of a 2-D or 3-D SimpleITK image, or of one whose header a reader has read."""
        size, spacing, origin, direction = image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()
        if image.GetDimension() == 2:
            a, b, c, d = direction
            return cls((1, size[1], size[0]), (1.0, spacing[1], spacing[0]), (*origin, 0.0), (a, b, 0.0, c, d, 0.0, 0.0, 0.0, 1.0), True)
        return cls((size[2], size[1], size[0]), (spacing[2], spacing[1], spacing[0]), origin, direction)

    def apply_to(self, image: sitk.Image) -> None:
        """Give a SimpleITK image of this size (3-D, or 2-D where planar) this geometry."""
        dimension = image.GetDimension()
        image.SetSpacing(self.spacing[::-1][:dimension])
        image.SetOrigin(self.origin[:dimension])
        matrix = np.array(self.direction).reshape(3, 3)[:dimension, :dimension]
        image.SetDirection([float(v) for v in matrix.ravel()])

    @property
    def slices(self) -> int:
        """Number of slices (k)."""
        return self.size[0]

    @property
    def pixel_spacing(self) -> tuple[float, float]:
        """mm between rows and between columns (j, i)."""
        return self.spacing[1:]

    def ijk_to_ras(self) -> np.ndarray:
        """(4, 4): voxel indices (i, j, k, 1) to RAS mm, as Slicer's nodes take it."""
        lps = np.eye(4)
        lps[:3, :3] = np.array(self.direction).reshape(3, 3) * np.array(self.spacing[::-1])
        lps[:3, 3] = self.origin
        return np.asarray(_LPS_TO_RAS @ lps)

    def ras_of(self, kji: Sequence[float] | np.ndarray) -> np.ndarray:
        """RAS mm (..., 3) of voxel indices (..., 3) in k, j, i order, fractions allowed."""
        ijk = np.asarray(kji, dtype=float)[..., ::-1]
        matrix = self.ijk_to_ras()
        return np.asarray(ijk @ matrix[:3, :3].T + matrix[:3, 3])

    def kji_of(self, ras: Sequence[float] | np.ndarray) -> np.ndarray:
        """Fractional voxel indices (..., 3) in k, j, i order of RAS mm (..., 3)."""
        inverse = np.linalg.inv(self.ijk_to_ras())
        return np.asarray(np.asarray(ras, dtype=float) @ inverse[:3, :3].T + inverse[:3, 3])[..., ::-1]

    def corners(self) -> np.ndarray:
        """(8, 3) RAS mm of the centres of the eight corner voxels."""
        return self.ras_of(np.array([*itertools.product(*((0, n - 1) for n in self.size))]))

    def mismatch(self, other: Geometry, tolerance_mm: float = 1e-2) -> str | None:
        """Why ``other`` is not the same grid, with both values; None where it is.

        Grids whose corners all lie within ``tolerance_mm`` are the same: files round their directions at the seventh digit.
        """
        if self.size != other.size:
            return f"{values_text(self.size)} voxels (slices, rows, columns) against {values_text(other.size)}"
        distance = float(np.linalg.norm(self.corners() - other.corners(), axis=1).max())
        if distance <= tolerance_mm:
            return None
        for name in ("spacing", "origin", "direction"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if not np.allclose(mine, theirs, rtol=0, atol=1e-4):
                return f"{name} {values_text(mine)} against {values_text(theirs)}; the far corners lie {distance:.2f} mm apart"
        return f"the far corners lie {distance:.2f} mm apart"


def values_text(values: Sequence[float]) -> str:
    """Numbers as people write them: ``(2.5, 0.7)``."""
    return "(" + ", ".join(f"{v:g}" if abs(v) < 1e5 else f"{v:.1f}" for v in values) + ")"
