"""What the slice views show, and where they stand. All views show the same volumes; segmentations may be kept to one view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util

from SAM2IterativeLib.volumes import Geometry

from . import layouts

_ALONG = 0.9
"""Cosine from which a view looks along an axis of the grid: others cut obliquely through the slices."""


@dataclass(frozen=True)
class Layers:
    """What one view showed before, and where it stood.

    Attributes:
        background, foreground, label: ids of the volumes.
        opacity: the foreground's, 0-1.
        plane: (4, 4), from the slice to RAS mm; None for a view without a slice.
    """

    background: str | None
    foreground: str | None
    label: str | None
    opacity: float
    plane: np.ndarray | None


def layers_of_views() -> dict[str, Layers]:
    """What every slice view shows now, by the view's name."""
    planes = {node.GetLayoutName(): slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()) for node in slice_views()}
    return {
        node.GetLayoutName(): Layers(
            node.GetBackgroundVolumeID(),
            node.GetForegroundVolumeID(),
            node.GetLabelVolumeID(),
            node.GetForegroundOpacity(),
            planes.get(node.GetLayoutName()),
        )
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    }


def restore_layers(kept: dict[str, Layers]) -> None:
    """Show again what ``layers_of_views`` remembered, as far as it is still in the scene."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        layers = kept.get(node.GetLayoutName())
        if layers is not None:
            node.SetBackgroundVolumeID(_existing(layers.background))
            node.SetForegroundVolumeID(_existing(layers.foreground))
            node.SetLabelVolumeID(_existing(layers.label))
            node.SetForegroundOpacity(layers.opacity)
    for node in slice_views():
        layers = kept.get(node.GetLayoutName())
        if layers is not None and layers.plane is not None:
            node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(layers.plane))
            node.UpdateMatrices()


def show_image(image_node: Any) -> None:
    """Show a volume alone in all slice views, along its own slices, fitted to the views."""
    slicer.util.setSliceViewerLayers(background=image_node, foreground=None, label=None, rotateToVolumePlane=True, fit=True)


def show_foreground(node: Any | None, opacity: float) -> None:
    """Lay a volume over the background in all slice views; None takes it away."""
    slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=opacity)


def slice_views() -> list[Any]:
    """All slice nodes."""
    return list(slicer.util.getNodesByClass("vtkMRMLSliceNode"))


def acquisition_views(geometry: Geometry) -> list[Any]:
    """The slice nodes in the present layout that look along the grid's slices, the straightest first."""
    return _along(geometry, _shown_views())


def current_slice(geometry: Geometry) -> int | None:
    """The slice (k, 0-based) that the views along the slices show; None where no view looks along them, or outside the volume."""
    views = acquisition_views(geometry)
    if not views:
        return None
    middle = slicer.util.arrayFromVTKMatrix(views[0].GetSliceToRAS())[:3, 3]
    k = round(float(geometry.kji_of(middle)[0]))
    return k if 0 <= k < geometry.slices else None


def jump_to_slice(geometry: Geometry, k: int) -> None:
    """Show slice k (0-based) in the views along the slices; the others stay."""
    k = min(max(k, 0), geometry.slices - 1)
    for node in acquisition_views(geometry):
        here = geometry.kji_of(slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 3])
        node.JumpSliceByOffsetting(*(float(v) for v in geometry.ras_of((k, here[1], here[2]))))


def jump_to_place(geometry: Geometry, kji: Sequence[float]) -> None:
    """Show a voxel (k, j, i) in all views."""
    place = [float(v) for v in geometry.ras_of(kji)]
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place, slicer.vtkMRMLSliceNode.OffsetJumpSlice)


def align_views(names: Sequence[str], geometry: Geometry) -> None:
    """Make the named views look along the slices, the whole image in each, and move together; ``jump_to_slice`` comes after.

    They may have another shape than the view whose plane they take: its field of view would distort the image.
    """
    views = {node.GetLayoutName(): node for node in slice_views()}
    model = next(iter(_along(geometry, [node for name, node in views.items() if name not in names])), None)
    for name in names:
        node = views[name]
        if model is not None and node is not model:
            node.GetSliceToRAS().DeepCopy(model.GetSliceToRAS())
            node.UpdateMatrices()
        slicer.app.layoutManager().sliceWidget(name).sliceLogic().FitSliceToBackground()
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() in names:
            composite.SetLinkedControl(True)


def keep_to_views(display_node: Any, names: Sequence[str]) -> None:
    """Show a display node only in the named slice views; in all views for no names."""
    display_node.RemoveAllViewNodeIDs()
    for node in slice_views():
        if node.GetLayoutName() in names:
            display_node.AddViewNodeID(node.GetID())


def _along(geometry: Geometry, nodes: Sequence[Any]) -> list[Any]:
    across = _unit(geometry.ijk_to_ras()[:3, 2])

    def straightness(node: Any) -> float:
        normal = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())[:3, 2]
        return float(abs(_unit(normal) @ across))

    return sorted((node for node in nodes if straightness(node) >= _ALONG), key=straightness, reverse=True)


def _shown_views() -> list[Any]:
    """The slice nodes in the present layout: views of another layout stay in the scene, where they stood."""
    nodes = slice_views()
    mapped = [node for node in nodes if node.IsMappedInLayout()]
    if mapped:
        return mapped
    ours = layouts.view_names()
    return [node for node in nodes if (node.GetLayoutName() in ours) == layouts.comparing()]


def _existing(node_id: str | None) -> str | None:
    return node_id if node_id and slicer.mrmlScene.GetNodeByID(node_id) is not None else None


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))
