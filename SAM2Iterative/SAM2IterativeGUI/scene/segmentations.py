"""Label maps as segmentations, and back.

Slicer keeps segments in layers, and its Segment Editor regroups layers and renumbers labels as it likes. So each segment carries
the label value it stands for as a tag, and a label map is always made from that: what is read is on the image's grid, whatever
Slicer did in between.
"""

from __future__ import annotations

import itertools
from collections import Counter
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
from .volumes import array_of, grid_image, labels_image

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


def read_labels(node: Any, geometry: Geometry) -> LabelMap:
    """The label map that a segmentation shows, on a grid; segments that a person added are left out, see ``require_known``.

    Where segments overlap, which the Segment Editor only allows on request, the lower one in the list wins.

    Args:
        node: the segmentation.
        geometry: of the label map.
    """
    drawn = {key: segment for key, segment in _segments(node).items() if segment.GetRepresentation(_MASK) is not None}
    segments = {key: segment for key, segment in drawn.items() if value_of(segment) is not None}
    values = [value for segment in segments.values() if (value := value_of(segment)) is not None]
    kind = np.dtype(np.uint8 if max(values, default=0) < 256 else np.uint16)
    if not segments:
        return LabelMap(np.zeros(geometry.size, kind), geometry)
    grid = grid_image(geometry)
    matching = slicer.vtkOrientedImageDataResample.DoGeometriesMatch
    if all(matching(segment.GetRepresentation(_MASK), grid) for segment in segments.values()):
        array = _laid(node, list(segments.values()), geometry, kind)
    else:
        array = _valued(_merged(node, list(segments), grid), range(1, len(segments) + 1), values, kind)
    return LabelMap(array, geometry)


def state_of(node: Any) -> tuple[Any, ...]:
    """Something that is equal as long as ``read_labels`` would read the same."""
    images = {segment_id: segment.GetRepresentation(_MASK) for segment_id, segment in _segments(node).items()}
    return tuple(
        (segment_id, value_of(segment), segment.GetLabelValue(), images[segment_id].GetMTime() if images[segment_id] is not None else 0)
        for segment_id, segment in _segments(node).items()
    )


def require_known(node: Any) -> None:
    """Refuse segments that are none of the project's labels.

    Raises:
        DataError: a person added one.
    """
    for segment in _segments(node).values():
        if segment.GetRepresentation(_MASK) is not None and value_of(segment) is None:
            raise DataError(
                _("the segment '{name}' belongs to none of the project's labels.").format(name=segment.GetName()),
                cure=_("Remove it, or add a label of that name to the project first."),
            )


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


def tag_of(node: Any, value: int, name: str) -> str:
    """The tag of a label's segment; "" where it has none."""
    return tag(_segment(node, value), name)


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


def _laid(node: Any, segments: Sequence[Any], geometry: Geometry, kind: np.dtype[Any]) -> np.ndarray:
    """Label values (k, j, i) of segments whose images lie on the grid, each with an extent of its own; the later one wins."""
    array = np.zeros(geometry.size, kind)
    in_layer = Counter(segment.GetRepresentation(_MASK) for segment in _segments(node).values())
    for layer, members in itertools.groupby(segments, lambda segment: segment.GetRepresentation(_MASK)):
        sharing = list(members)
        inside, voxels = _within(layer, geometry)
        numbers, values = [segment.GetLabelValue() for segment in sharing], [value_of(segment) for segment in sharing]
        alone = len(sharing) == in_layer[layer]  # no other segment's voxels are in the layer
        laid = voxels if alone and numbers == values else _valued(voxels, numbers, values, kind)
        np.copyto(array[inside], laid, where=laid != 0, casting="unsafe")
    return array


def _within(layer: Any, geometry: Geometry) -> tuple[tuple[slice, ...], np.ndarray]:
    """Where an image lies in the grid, and its voxels there (a view)."""
    extent = layer.GetExtent()
    first, last = extent[4::-2], extent[5::-2]
    low = [max(start, 0) for start in first]
    high = [max(min(end + 1, size), start) for end, size, start in zip(last, geometry.size, low, strict=True)]
    inside = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
    if not all(start < stop for start, stop in zip(low, high, strict=True)):
        return inside, np.zeros([stop - start for start, stop in zip(low, high, strict=True)], np.uint8)
    own = tuple(slice(start - begin, stop - begin) for start, stop, begin in zip(low, high, first, strict=True))
    return inside, array_of(layer)[own]


def _valued(voxels: np.ndarray, numbers: Sequence[int], values: Sequence[int | None], kind: np.dtype[Any]) -> np.ndarray:
    """``values`` where voxels have ``numbers``, 0 elsewhere."""
    table = np.zeros(max(numbers) + 2, kind)
    table[list(numbers)] = values
    return np.take(table, voxels, mode="clip")  # whatever lies beyond becomes the last number, which is nobody's


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
