"""From a case's grid to the plan's and back: turned to one orientation, resampled to one spacing; the way back has the exact size.

In 2-D with one view only the two in-plane axes are resampled: slices stay what they are.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import DataError
from ..geometry import Geometry
from ..orientation import orientation_of, turn, turned_spacing
from .plan import Plan

Size = tuple[int, int, int]

_MOST_VOXELS = 2**26
_MOST_FINER = 64
"""A case that becomes more voxels than this, and more than so many times its own, has a spacing that cannot be meant as the plan's is."""


def planned_size(geometry: Geometry, plan: Plan) -> Size:
    """The (k, j, i) size of a case on the plan's grid, at least one voxel per axis.

    Raises:
        DataError: voxels so much larger than the plan's that their unit must be another (µm taken for mm, say): no memory would hold it.
    """
    code = orientation_of(geometry.direction)
    spacing = turned_spacing(geometry.spacing, code, plan.orientation)
    size = turned_spacing(geometry.size, code, plan.orientation)
    k, j, i = (max(1, round(n * s / t)) for n, s, t in zip(size, spacing, plan.spacing, strict=True))
    planned = (round(size[0]) if plan.keeps_slices else k, j, i)
    if math.prod(planned) > max(_MOST_VOXELS, _MOST_FINER * math.prod(geometry.size)):
        theirs, ours = (" × ".join(f"{mm:.3g}" for mm in lengths) for lengths in (spacing, plan.spacing))
        raise DataError(
            f"its voxels measure {theirs} mm; on the plan's grid of {ours} mm it would have {' × '.join(map(str, planned))} voxels.",
            cure="Is its spacing in another unit? Mend it in the file's header, then import the image again.",
        )
    return planned


def to_plan(array: NDArray[np.float32], geometry: Geometry, plan: Plan) -> NDArray[np.float32]:
    """Bring (channels, k, j, i) onto the plan's grid: cubic within slices with a low-pass filter, linear between them."""
    turned = turn(array, orientation_of(geometry.direction), plan.orientation)
    return resized(turned, planned_size(geometry, plan), smooth=True)


def labels_to_plan(labels: NDArray[np.integer], geometry: Geometry, plan: Plan) -> NDArray[np.uint8]:
    """Bring (k, j, i) class indices onto the plan's grid: each class is resampled linearly, the largest wins."""
    turned = turn(labels, orientation_of(geometry.direction), plan.orientation)
    size = planned_size(geometry, plan)
    if turned.shape == size:
        return np.ascontiguousarray(turned, dtype=np.uint8)
    best = np.zeros(size, dtype=np.float32)
    winner = np.zeros(size, dtype=np.uint8)
    for value in np.unique(turned):  # one class at a time: memory for one, however many there are
        share = resized((turned == value)[None].astype(np.float32), size)[0]
        better = share > best
        best[better], winner[better] = share[better], value
    return winner


def from_plan(array: NDArray[np.float32], geometry: Geometry, plan: Plan) -> NDArray[np.float32]:
    """Bring (channels, k, j, i) back from the plan's grid: exactly the size and orientation of ``geometry``, linear."""
    code = orientation_of(geometry.direction)
    k, j, i = (round(n) for n in turned_spacing(geometry.size, code, plan.orientation))
    return np.ascontiguousarray(turn(resized(array, (k, j, i)), plan.orientation, code))


def resized(array: NDArray[np.float32], size: Size, *, smooth: bool = False) -> NDArray[np.float32]:
    """Resample (channels, k, j, i) to ``size`` (k, j, i) over the same extent; voxel centres keep their places.

    Args:
        array: any strides.
        size: of the result.
        smooth: cubic interpolation with a low-pass filter where the resolution falls (images); else linear.
    """
    if array.shape[1:] == size:
        return np.ascontiguousarray(array, dtype=np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    if tensor.shape[2:] != size[1:]:
        planes = _interpolated(tensor.flatten(0, 1).unsqueeze(1), size[1:], smooth)
        tensor = planes.view(*tensor.shape[:2], *size[1:])
    if tensor.shape[1] != size[0]:  # planes laid out in rows, so that only k changes
        flat = _interpolated(tensor.flatten(2).unsqueeze(1), (size[0], size[1] * size[2]), smooth=False)
        tensor = flat.view(tensor.shape[0], *size)
    return tensor.numpy()


def _interpolated(planes: Tensor, size: tuple[int, int], smooth: bool) -> Tensor:
    """(n, 1, rows, columns) → (n, 1, *size)."""
    mode = "bicubic" if smooth else "bilinear"
    return functional.interpolate(planes, size=size, mode=mode, align_corners=False, antialias=smooth)
