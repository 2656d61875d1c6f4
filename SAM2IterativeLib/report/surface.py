"""A small picture of a case's labels in three dimensions: vtk finds and smooths the surfaces, matplotlib draws them, no OpenGL needed."""

from __future__ import annotations

import base64
import importlib.util
import io
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LightSource
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from ..settings import Label
from ..volumes import LabelMap

_MOST_TRIANGLES = 6000
_SIZE_INCHES, _DOTS_PER_INCH = 2.6, 140
_ELEVATION, _AZIMUTH = 15.0, 60.0
"""Seen from the front, a little from the patient's right and from above; matplotlib's x, y, z are R, A, S."""


def surfaces_available() -> bool:
    """Whether vtk is installed; without it the report has no surfaces and says so."""
    return importlib.util.find_spec("vtkmodules") is not None


def surface_picture(label_map: LabelMap, labels: tuple[Label, ...]) -> str:
    """A see-through PNG as a data URI; empty without vtk, for a single slice, and where nothing is labelled."""
    if not surfaces_available() or label_map.geometry.slices < 2:
        return ""
    meshes = [(label, _mesh(label_map, label.value)) for label in labels]
    return _drawn([(label, mesh) for label, mesh in meshes if mesh is not None])


def _mesh(label_map: LabelMap, value: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Corners (n, 3, 3) RAS mm and outward unit normals (n, 3) of a label's surface triangles; None if it is nowhere."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkFiltersCore import vtkDecimatePro, vtkWindowedSincPolyDataFilter

    found = _surface(label_map, value)
    if found is None:
        return None
    smooth = vtkWindowedSincPolyDataFilter()
    smooth.SetInputData(found)
    smooth.SetNumberOfIterations(20)
    smooth.SetPassBand(0.05)
    smooth.NormalizeCoordinatesOn()
    fewer = vtkDecimatePro()
    fewer.SetInputConnection(smooth.GetOutputPort())
    fewer.SetTargetReduction(max(0.0, 1.0 - _MOST_TRIANGLES / found.GetNumberOfCells()))
    fewer.PreserveTopologyOn()
    fewer.Update()
    surface = fewer.GetOutput()
    triangles = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    corners = label_map.geometry.ras_of(vtk_to_numpy(surface.GetPoints().GetData())[:, ::-1])[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    if np.linalg.det(label_map.geometry.ijk_to_ras()[:3, :3]) < 0:  # a mirrored grid turns every triangle over
        normals = -normals
    return corners, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)


def _surface(label_map: LabelMap, value: int) -> Any:
    """vtk's polygons of one label in voxel indices (i, j, k), cropped first since most of a volume is background; None if empty."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    mask = label_map.array == value
    if not mask.any():
        return None
    places = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    start = [int(p[0]) - 1 for p in places]
    block = np.pad(mask[tuple(slice(p[0], p[-1] + 1) for p in places)], 1).astype(np.uint8)
    image = vtkImageData()
    image.SetDimensions(*block.shape[::-1])
    image.SetOrigin(*start[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(block.ravel(), deep=True))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, 0.5)
    edges.ComputeNormalsOff()
    edges.Update()
    return edges.GetOutput()


def _drawn(meshes: list[tuple[Label, tuple[np.ndarray, np.ndarray]]]) -> str:
    if not meshes:
        return ""
    figure = Figure(figsize=(_SIZE_INCHES, _SIZE_INCHES), dpi=_DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 1), projection="3d", computed_zorder=False)
    axes.view_init(elev=_ELEVATION, azim=_AZIMUTH)
    every = np.concatenate([corners for _, (corners, _) in meshes])
    colours = np.concatenate([_shaded(label, normals) for label, (_, normals) in meshes])
    # One collection for all labels: matplotlib sorts triangles by depth only within a collection.
    axes.add_collection3d(Poly3DCollection(every, facecolors=colours, edgecolors=colours, linewidths=0.2))
    low, high = every.min((0, 1)), every.max((0, 1))
    centre, reach = (low + high) / 2, float((high - low).max()) / 2
    for name, middle in zip("xyz", centre, strict=True):
        getattr(axes, f"set_{name}lim")(middle - reach, middle + reach)
    axes.set_box_aspect((1, 1, 1), zoom=1.35)
    axes.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", transparent=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _shaded(label: Label, normals: np.ndarray) -> np.ndarray:
    """(n, 3) colours in [0, 1] of triangles lit from above."""
    light = LightSource(azdeg=_AZIMUTH + 40, altdeg=45).direction
    return np.asarray(np.array(label.colour) / 255 * (0.45 + 0.55 * np.clip(normals @ light, 0, 1)[:, None]))
