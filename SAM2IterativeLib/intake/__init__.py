"""What is checked in a file before a single voxel of it is trusted (see ``examine``)."""

from __future__ import annotations

from .checks import Findings, NotOrthonormalError, nearest_orthonormal, require_orthonormal
from .examination import examine
from .nifti import read_voxels as read_nifti_voxels
from .nrrd import read_key_values as read_nrrd_key_values

__all__ = [
    "Findings",
    "NotOrthonormalError",
    "examine",
    "nearest_orthonormal",
    "read_nifti_voxels",
    "read_nrrd_key_values",
    "require_orthonormal",
]
