"""What is checked in a file before a single voxel of it is trusted (see ``examine``)."""

from __future__ import annotations

from .checks import Findings, NotOrthonormalError, nearest_orthonormal, require_orthonormal
from .examination import examine
from .nifti import read_voxels as read_nifti_voxels

__all__ = [
    "Findings",
    "NotOrthonormalError",
    "examine",
    "nearest_orthonormal",
    "read_nifti_voxels",
    "require_origin",
    "require_orthonormal",
]
