"""Volumes and their grids as MRML: arrays are (k, j, i), and MRML's matrices go from (i, j, k) to RAS mm."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from SAM2IterativeLib.volumes import Geometry, Volume

from .ownership import own


def add_volume(volume: Volume, name: str, part: str, case: str, window: tuple[float, float] | None = None) -> Any:
    """A scalar volume node, or for a colour picture a vector volume node, with a display node, owned.

    Args:
        volume: (k, j, i), or (1, j, i, 3) uint8.
        name: as it stands in Slicer's lists.
        part, case: see ``ownership``.
        window: the values that are black and white; None to let Slicer choose from a histogram, which takes its time.
    """
    kind = "vtkMRMLVectorVolumeNode" if volume.colour else "vtkMRMLScalarVolumeNode"
    array = np.ascontiguousarray(volume.array)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.SetIJKToRASMatrix(vtk_matrix(volume.geometry))
    if volume.colour:
        window = (0, 255)  # colours as they are in the file
    if window is not None:
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevelMinMax(*window)
    slicer.util.updateVolumeFromArray(node, array)
    node.CreateDefaultDisplayNodes()
    return own(node, part, case)


def vtk_matrix(geometry: Geometry) -> Any:
    """(i, j, k) to RAS mm as a vtkMatrix4x4."""
    return slicer.util.vtkMatrixFromArray(geometry.ijk_to_ras())


def grid_image(geometry: Geometry) -> Any:
    """A vtkOrientedImageData that has a grid and no voxels."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*geometry.size[::-1])
    image.SetGeometryFromImageToWorldMatrix(vtk_matrix(geometry))
    return image


def labels_image(array: np.ndarray, geometry: Geometry) -> Any:
    """A vtkOrientedImageData of whole numbers (k, j, i), uint8 or uint16, on a grid."""
    image = grid_image(geometry)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR if array.dtype == np.uint8 else vtk.VTK_UNSIGNED_SHORT, 1)
    array_of(image)[:] = array
    return image


def array_of(image: Any) -> np.ndarray:
    """The voxels of a vtkImageData with one number each, as (k, j, i); a view, not a copy."""
    from vtk.util import numpy_support

    return np.asarray(numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1]))
