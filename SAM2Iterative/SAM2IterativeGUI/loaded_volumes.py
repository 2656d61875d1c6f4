"""What is loaded in Slicer, as a case of the project."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer.util
import vtk
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.exchange import Candidate, ImportReport, import_candidates
from SAM2IterativeLib.project import Project, label_of
from SAM2IterativeLib.settings import Label
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume, write_label_map, write_volume


def add_loaded(project: Project, volume_node: Any, segmentation_node: Any = None) -> ImportReport:
    """Copy a volume of the scene, and its segmentation if there is one, into the project.

    Segments are matched to labels by name; a project without labels takes names, colours and terminology from the segments.

    Raises:
        DataError: the volume holds nothing, is moved by a transform that bends or shears it, or a segment is none of the project's labels.
    """
    volume = volume_of(volume_node)
    label_map = None
    if segmentation_node is not None:
        label_map = label_map_of(project, segmentation_node, volume_node, volume.geometry)
    with tempfile.TemporaryDirectory() as folder:
        image, label = Path(folder) / "image.nrrd", Path(folder) / "label.nrrd"
        write_volume(image, volume)
        if label_map is not None:
            write_label_map(label, label_map)
        name = volume_node.GetName()
        return import_candidates(project, [Candidate(name, image, label if label_map is not None else None)])


def volume_of(node: Any) -> Volume:
    """A volume node as a volume, where the scene shows it: transforms that keep its axes at right angles are applied.

    Raises:
        DataError: no voxels, several numbers per voxel, or a transform that would need resampling.
    """
    if node.GetImageData() is None:
        raise DataError(_("the volume holds no voxels."), where=node.GetName(), cure=_("Load it again."))
    array = slicer.util.arrayFromVolume(node)
    if array.ndim != 3:
        raise DataError(_("the volume has several numbers per voxel."), where=node.GetName(), cure=_("Choose a scalar volume."))
    return Volume(np.array(array), geometry_of(node))


def geometry_of(node: Any) -> Geometry:
    """The voxel grid of a volume node in the world. A scaling along its axes is in the spacing, which is exact.

    Raises:
        DataError: its transform bends or shears, as a scaling across its axes does.
    """
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    parent = node.GetParentTransformNode()
    if parent is not None:
        to_world = vtk.vtkMatrix4x4()
        if not parent.IsTransformToWorldLinear():
            raise DataError(_("its transform bends it."), where=node.GetName(), cure=_("Harden the transform, then add it."))
        parent.GetMatrixTransformToWorld(to_world)
        ijk_to_ras = slicer.util.arrayFromVTKMatrix(to_world) @ ijk_to_ras
    ijk_to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ijk_to_ras
    lengths = np.linalg.norm(ijk_to_lps[:3, :3], axis=0)
    direction = ijk_to_lps[:3, :3] / lengths
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4):
        raise DataError(_("its axes are not at right angles."), where=node.GetName(), cure=_("Resample it, then add it."))
    size = node.GetImageData().GetDimensions()[::-1]
    spacing = tuple(float(length) for length in lengths[::-1])
    origin = tuple(float(x) for x in ijk_to_lps[:3, 3])
    return Geometry(size=size, spacing=spacing, origin=origin, direction=tuple(direction.ravel().tolist()))


def label_map_of(project: Project, node: Any, volume_node: Any, geometry: Geometry) -> LabelMap:
    """A segmentation as a label map on the volume's grid, with the project's values; later segments lie over earlier ones.

    Raises:
        DataError: a segment is none of the project's labels.
    """
    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(number) for number in range(segmentation.GetNumberOfSegments())]
    if not project.values and ids:
        project.add_labels(tuple(_label(value, segmentation.GetSegment(id)) for value, id in enumerate(ids, 1)))
    values = {label.name.lower(): label.value for label in project.settings.labels}
    array = np.zeros(geometry.size, np.uint16 if max(project.values, default=0) > 255 else np.uint8)
    for id in ids:
        name = segmentation.GetSegment(id).GetName()
        if name.lower() not in values:
            raise DataError(
                _("the segment '{name}' is none of the project's labels.").format(name=name),
                where=node.GetName(),
                cure=_("Rename it, or add a label of that name."),
            )
        array[slicer.util.arrayFromSegmentBinaryLabelmap(node, id, volume_node) > 0] = values[name.lower()]
    return LabelMap(array, geometry)


def _label(value: int, segment: Any) -> Label:
    red, green, blue = (round(255 * part) for part in segment.GetColor())
    tag = vtk.mutable("")
    terminology = str(tag) if segment.GetTag("TerminologyEntry", tag) else ""
    return replace(label_of(value, segment.GetName()), colour=(red, green, blue), terminology=terminology)
