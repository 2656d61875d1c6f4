"""Label maps as segmentations, and back.

Slicer keeps segments in layers, and its Segment Editor regroups layers and renumbers labels as it likes. So each segment carries
the label value it stands for as a tag, and a label map is always made from that: what is read is on the image's grid, whatever
Slicer did in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.settings import Label
from SAM2IterativeLib.volumes import Geometry, LabelMap

from .ownership import own
from .volumes import array_of, labels_image

Status = Literal["not started", "in progress", "completed", "flagged"]
"""A segment's status as Slicer's segment table shows it; accepting completes, rejecting flags."""

LABEL_VALUE = "SAM2Iterative.LabelValue"
LOCKED = "SAM2Iterative.Locked"
REVIEWER = "SAM2Iterative.Reviewer"
"""Tags of a segment."""

_MASK = "Binary labelmap"
_EMPTY = "segment_of_label_"


def add_segmentation(labels: Sequence[Label], name: str, part: str, case: str, image_node: Any) -> Any:
    """A segmentation with one empty segment per label, on the grid of ``image_node``, with a display node, owned."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(image_node)
    node.GetSegmentation().SetSourceRepresentationName(_MASK)
    node.CreateDefaultDisplayNodes()
    for label in labels:
        _add_segment(node, label)
    return own(node, part, case)


def write_labels(node: Any, label_map: LabelMap, labels: Sequence[Label]) -> None:
    """Give every segment its voxels anew. Segments that a person removed come back; names, status and tags of the others stay.

    Args:
        node: the segmentation.
        label_map: label values (k, j, i) on the image's grid.
        labels: the project's labels.
    """
    image = labels_image(label_map.array, label_map.geometry)
    present = {value_of(segment): segment for segment in _segments(node).values()}
    was_modifying = node.StartModify()
    for label in labels:
        segment = present.get(label.value) or _add_segment(node, label)
        # One image for all of them is a shared layer, in which Slicer tells segments apart by their label values.
        segment.SetLabelValue(label.value)
        segment.AddRepresentation(_MASK, image)
    node.EndModify(was_modifying)


def read_labels(node: Any, geometry: Geometry, *, skip_foreign: bool = False) -> LabelMap:
    """The label map that a segmentation shows, on a grid.

    Where segments overlap, which the Segment Editor only allows on request, the lower one in the list wins.

    Args:
        node: the segmentation.
        geometry: of the label map.
        skip_foreign: leave out segments that a person added, instead of refusing them.

    Raises:
        DataError: a person added a segment that is none of the project's labels.
    """
    segments = {key: segment for key, segment in _segments(node).items() if segment.GetRepresentation(_MASK) is not None}
    if skip_foreign:
        segments = {key: segment for key, segment in segments.items() if value_of(segment) is not None}
    values = [_known_value(segment) for segment in segments.values()]
    kind = np.uint8 if max(values, default=0) < 256 else np.uint16
    if not segments:
        return LabelMap(np.zeros(geometry.size, kind), geometry)
    grid = labels_image(np.zeros(geometry.size, np.uint8), geometry)
    layer = _only_layer(list(segments.values()), grid)
    if layer is not None:
        numbers, voxels = [segment.GetLabelValue() for segment in segments.values()], array_of(layer)
    else:
        numbers, voxels = list(range(1, len(segments) + 1)), _merged(node, list(segments), grid)
    table = np.zeros(max(int(voxels.max(initial=0)), *numbers) + 1, kind)
    table[numbers] = values
    return LabelMap(table[voxels], geometry)


def segment_id_of(node: Any, value: int) -> str | None:
    """The id of the segment that stands for a label value; None where a person removed it."""
    return next((segment_id for segment_id, segment in _segments(node).items() if value_of(segment) == value), None)


def foreign_names(node: Any) -> tuple[str, ...]:
    """The names of the segments that a person added and that stand for no label."""
    return tuple(segment.GetName() for segment in _segments(node).values() if value_of(segment) is None)


def value_of(segment: Any) -> int | None:
    """The label value that a segment stands for; None for a segment that a person added."""
    text = tag(segment, LABEL_VALUE)
    return int(text) if text else None


def tag(segment: Any, name: str) -> str:
    """A segment's tag, "" where it has none."""
    text = vtk.reference("")
    return str(text.get()) if segment.GetTag(name, text) else ""


def set_tag(node: Any, value: int, name: str, text: str) -> None:
    """Give the segment of a label value a tag; "" removes it."""
    segment = _segment(node, value)
    if text:
        segment.SetTag(name, text)
    else:
        segment.RemoveTag(name)


def set_status(node: Any, value: int, status: Status) -> None:
    """Set the status of a label's segment."""
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    logic.SetSegmentStatus(_segment(node, value), _statuses()[status])


def status_of(node: Any, value: int) -> Status:
    """The status of a label's segment."""
    number = slicer.vtkSlicerSegmentationsModuleLogic.GetSegmentStatus(_segment(node, value))
    return next(status for status, known in _statuses().items() if known == number)


def _add_segment(node: Any, label: Label) -> Any:
    segment = slicer.vtkSegment()  # comes with the generic "Tissue" terminology
    segment.SetName(label.name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor(*(channel / 255 for channel in label.colour))
    segment.SetColorAutoGenerated(False)
    segment.SetLabelValue(label.value)
    segment.SetTag(LABEL_VALUE, str(label.value))
    if label.terminology:
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), label.terminology)
    node.GetSegmentation().AddSegment(segment, f"{_EMPTY}{label.value}")
    return segment


def _segments(node: Any) -> dict[str, Any]:
    segmentation = node.GetSegmentation()
    return {segment_id: segmentation.GetSegment(segment_id) for segment_id in segmentation.GetSegmentIDs()}


def _segment(node: Any, value: int) -> Any:
    segment_id = segment_id_of(node, value)
    if segment_id is None:
        text = _("the segment of label {value} was removed.").format(value=value)
        raise DataError(text, where=node.GetName(), cure=_("Undo, or show the case again."))
    return node.GetSegmentation().GetSegment(segment_id)


def _known_value(segment: Any) -> int:
    value = value_of(segment)
    if value is None:
        raise DataError(
            _("the segment '{name}' belongs to none of the project's labels.").format(name=segment.GetName()),
            cure=_("Remove it, or add a label of that name to the project first."),
        )
    return value


def _only_layer(segments: Sequence[Any], grid: Any) -> Any:
    """The image that all segments share, if it lies on ``grid``: as long as nobody drew, it can be read as it is. Else None."""
    images = {segment.GetRepresentation(_MASK) for segment in segments}
    if len(images) > 1 or len({segment.GetLabelValue() for segment in segments}) < len(segments):
        return None
    image = images.pop()
    resample = slicer.vtkOrientedImageDataResample
    same = resample.DoGeometriesMatch(image, grid) and resample.DoExtentsMatch(image, grid)
    return image if same else None


def _merged(node: Any, ids: Sequence[str], grid: Any) -> np.ndarray:
    """1 + index into ``ids`` per voxel of ``grid``, 0 for background; (k, j, i)."""
    names, numbers = vtk.vtkStringArray(), vtk.vtkIntArray()
    for number, segment_id in enumerate(ids, 1):
        names.InsertNextValue(segment_id)
        numbers.InsertNextValue(number)
    merged = slicer.vtkOrientedImageData()
    extent = slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
    if not node.GenerateMergedLabelmapForAllSegments(merged, extent, grid, names, numbers):
        raise DataError(_("Slicer could not merge the segments."), where=node.GetName(), cure=_("Show the case again."))
    return array_of(merged)


def _statuses() -> dict[Status, int]:
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    return {
        "not started": logic.NotStarted,
        "in progress": logic.InProgress,
        "completed": logic.Completed,
        "flagged": logic.Flagged,
    }
