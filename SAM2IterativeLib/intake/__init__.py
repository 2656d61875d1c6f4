"""What is checked in a file before a single voxel of it is trusted (see ``examine``)."""

from __future__ import annotations

from .checks import Findings, NotOrthonormalError, broken_link, nearest_orthonormal, refuse_broken_link, require_orthonormal
from .examination import data_file_of, examine
from .memory import refused_if_too_large
from .nifti import read_voxels as read_nifti_voxels
from .nrrd import read_key_values as read_nrrd_key_values

__all__ = [
    "Findings",
    "NotOrthonormalError",
    "broken_link",
    "data_file_of",
    "examine",
    "nearest_orthonormal",
    "read_nifti_voxels",
    "read_nrrd_key_values",
    "refuse_broken_link",
    "refused_if_too_large",
    "require_orthonormal",
]
