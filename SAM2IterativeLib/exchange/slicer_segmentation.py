"""Slicer's segmentations (.seg.nrrd): labels whose names, colours and terminology stand in the header, written and read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import DataError, ResourceError
from ..files import atomic_write, path_for_itk, suffix_of
from ..intake import read_nrrd_key_values
from ..project import label_of
from ..settings import Label
from ..volumes import LabelMap, read_label_map
from .terminology import tag_of

_SPACE = "Free some space or check the disk, then try again."
_NAMELESS = re.compile(r"(segment|label)[ _-]?\d*", re.IGNORECASE)
"""Names that nobody gave: Slicer's "Segment_1" and "Label_1", our "label 1"."""


def read_labels(path: str | Path, labels: Sequence[Label]) -> LabelMap:
    """Read a label map for a project with these labels; see ``by_name`` for a Slicer segmentation.

    Raises:
        DataError: see ``read_label_map`` and ``by_name``.
    """
    return by_name(read_label_map(path), path, labels)


def by_name(label_map: LabelMap, path: str | Path, labels: Sequence[Label]) -> LabelMap:
    """Give a Slicer segmentation's segments the values of the labels that bear their names; other files stay as they are.

    Slicer numbers the segments of every file from 1, so there a number says nothing. It is believed only where nobody gave a name: to
    the segment ("Segment_1"), or to the project's label of that number ("label 1").

    Args:
        label_map: what the file holds.
        path: the file, for its header.
        labels: the project's.

    Raises:
        DataError: a segment bears the name of no label, or two segments that of one.
    """
    shown = label_map.values
    segments = [segment for segment in segments_of(path) if segment.value in shown]
    if not segments:
        return label_map
    values_of = {label.name.strip().casefold(): label.value for label in labels}
    nameless = {label.value for label in labels if _NAMELESS.fullmatch(label.name.strip())}
    table = np.arange(int(label_map.array.max(initial=0)) + 1)
    taken: dict[int, str] = {}
    for segment in segments:
        value = values_of.get(segment.name.strip().casefold())
        if value is None:
            if not (_NAMELESS.fullmatch(segment.name.strip()) or segment.value in nameless):
                known = ", ".join(label.name for label in labels)
                raise DataError(
                    f"its segment '{segment.name}' bears the name of no label of the project ({known}).",
                    where=Path(path).name,
                    cure="Rename the segment, or add a label of that name.",
                )
            value = segment.value
        if value in taken:
            both = f"'{taken[value]}' and '{segment.name}'"
            raise DataError(f"its segments {both} are one label of the project.", where=Path(path).name, cure="Merge or rename them.")
        taken[value] = segment.name
        table[segment.value] = value
    kind = np.uint8 if table.max(initial=0) <= 255 else np.uint16
    return replace(label_map, array=table.astype(kind)[label_map.array])


def segments_of(path: str | Path) -> tuple[Label, ...]:
    """The segments in the header of a Slicer segmentation, in its order; none for other files.

    A segment without a value or a name is left out; a colour or terminology that is missing is that of ``label_of``.
    """
    if suffix_of(path) != ".seg.nrrd":
        return ()
    header = read_nrrd_key_values(Path(path))
    found = []
    for n in range(len(header)):
        name, value = header.get(f"Segment{n}_Name", "").strip(), header.get(f"Segment{n}_LabelValue", "")
        if f"Segment{n}_ID" not in header and not name:
            break
        if name and value.isdecimal() and 0 < int(value) <= 65535:
            found.append(_with_looks(label_of(int(value), name), header, n))
    return tuple(found)


def _with_looks(label: Label, header: dict[str, str], n: int) -> Label:
    """The label with colour and terminology of segment n, where they stand there."""
    parts = header.get(f"Segment{n}_Color", "").split()
    if len(parts) == 3 and all(re.fullmatch(r"(0|1|0?\.\d+|[01]\.\d*)", part) for part in parts):
        red, green, blue = (round(255 * min(1.0, float(part))) for part in parts)
        label = replace(label, colour=(red, green, blue))
    entry = re.search(r"TerminologyEntry:([^|]+)\|", header.get(f"Segment{n}_Tags", ""))
    return replace(label, terminology=entry[1]) if entry and entry[1] != tag_of("") else label


def write_slicer_segmentation(
    path: str | Path, label_map: LabelMap, labels: Sequence[Label], *, status: str = "", reviewer: str = ""
) -> None:
    """Write a segmentation as Slicer does: one layer; name, colour, terminology and status of each segment in the header.

    Args:
        path: ends in ``.seg.nrrd``.
        label_map: values as in ``labels``.
        labels: one segment each, present or not.
        status: Slicer's segment status ("notstarted", "inprogress", "completed", "flagged"); empty for none.
        reviewer: kept in a tag of its own; empty for none.
    """
    path = Path(path)
    image = sitk.GetImageFromArray(label_map.array)
    replace(label_map.geometry, planar=False).apply_to(image)
    for key, value in _header(label_map, labels, status, reviewer).items():
        image.SetMetaData(key, value)
    with atomic_write(path) as temporary:
        try:
            with path_for_itk(temporary, output=True) as writable:
                sitk.WriteImage(image, str(writable), True)
            whole = np.array_equal(read_label_map(temporary).array, label_map.array)
        except (RuntimeError, DataError) as error:
            raise ResourceError("the file could not be written whole.", where=path.name, cure=_SPACE) from error
        if not whole:
            raise ResourceError("what was written differs when read back.", where=path.name, cure=_SPACE)


def _header(label_map: LabelMap, labels: Sequence[Label], status: str, reviewer: str) -> dict[str, str]:
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for n, label in enumerate(labels):
        tags = {"TerminologyEntry": tag_of(label.terminology)}
        tags |= {"Segmentation.Status": status} if status else {}
        tags |= {"SAM2Iterative.Reviewer": _plain(reviewer)} if reviewer else {}
        fields = {
            "ID": f"Segment_{label.value}",
            "Name": label.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{v / 255:.6g}" for v in label.colour),
            "ColorAutoGenerated": "0",
            "LabelValue": str(label.value),
            "Layer": "0",
            "Extent": " ".join(str(v) for v in _extent(label_map.array == label.value)),
            "Tags": "".join(f"{name}:{value}|" for name, value in tags.items()),
        }
        header |= {f"Segment{n}_{name}": value for name, value in fields.items()}
    return header


def _extent(mask: np.ndarray) -> tuple[int, ...]:
    """First and last i, j, k of a mask (k, j, i); Slicer's empty extent where it is empty."""
    if not mask.any():
        return (0, -1, 0, -1, 0, -1)
    k, j, i = np.nonzero(mask)
    return (int(i.min()), int(i.max()), int(j.min()), int(j.max()), int(k.min()), int(k.max()))


def _plain(text: str) -> str:
    """Without the signs that divide Slicer's tags."""
    return text.replace("|", " ").replace(":", " ")
