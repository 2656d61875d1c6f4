"""Key frames and prompts as markups on their slices: a box, + for "belongs to it", - for "does not", and the key frame's name.

They are locked: they show what SAM2 was told, and dragging them would change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAM2IterativeLib.guidance.prompts import Prompt
from SAM2IterativeLib.settings import Label
from SAM2IterativeLib.volumes import Geometry

from .ownership import own, owned, remove

PART = "prompts"

_EDGE = 0.5
"""Boxes run along pixel edges, where pixel j covers [j, j + 1); a grid's indices are at the pixels' middles."""
_GAP = 1.5
"""Pixels between a prompt and its name."""
_POSITIVE, _NEGATIVE = "ThickCross2D", "Dash2D"
_MOST = 60
"""Prompts of a label that are shown, the largest: each box is a node, and a method that prompts for every piece may have thousands."""


def show_prompts(prompts: Sequence[Prompt], labels: Sequence[Label], geometry: Geometry, case: str) -> None:
    """Show prompts in place of the ones shown before.

    Args:
        prompts: of any key frames and classes.
        labels: the project's labels in class order.
        geometry: the image's grid.
        case: the case's id.
    """
    visible = visibility()
    remove(PART)
    for number, label in enumerate(labels, 1):
        mine = sorted((prompt for prompt in prompts if prompt.class_index == number), key=_size, reverse=True)[:_MOST]
        if mine:
            _show_class(mine, label, geometry, case)
    set_visibility(visible)


def visibility() -> bool:
    """Whether prompts are to be seen; True before any were shown."""
    nodes = owned(PART)
    return not nodes or bool(nodes[0].GetDisplayNode().GetVisibility())


def set_visibility(visible: bool) -> None:
    """Show or hide all prompts."""
    for node in owned(PART):
        node.GetDisplayNode().SetVisibility(visible)


def _show_class(prompts: Sequence[Prompt], label: Label, geometry: Geometry, case: str) -> None:
    for prompt in prompts:
        if prompt.box is not None:
            _add_box(prompt, label, geometry, case)
    for sign, glyph, lists in (
        ("+", _POSITIVE, [prompt.positive_points for prompt in prompts]),
        ("−", _NEGATIVE, [prompt.negative_points for prompt in prompts]),
    ):
        places = [geometry.ras_of((prompt.slice_index, j, i)) for prompt, points in zip(prompts, lists, strict=True) for j, i in points]
        if places:
            name = f"{label.name}: {sign}"
            node = _add_points("vtkMRMLMarkupsFiducialNode", name, f"points.{label.value}.{sign}", places, label, case)
            node.GetDisplayNode().SetGlyphTypeFromString(glyph)
            node.GetDisplayNode().SetPointLabelsVisibility(False)
    _add_key_frames(prompts, label, geometry, case)


def _add_box(prompt: Prompt, label: Label, geometry: Geometry, case: str) -> None:
    assert prompt.box is not None
    j0, i0, j1, i1 = (edge - _EDGE for edge in prompt.box)
    corners = [geometry.ras_of((prompt.slice_index, j, i)) for j, i in ((j0, i0), (j0, i1), (j1, i1), (j1, i0))]
    name = _("{label}: box on slice {number}").format(label=label.name, number=prompt.slice_index + 1)
    part = f"box.{label.value}.{prompt.slice_index}"
    node = _add_points("vtkMRMLMarkupsClosedCurveNode", name, part, corners, label, case)
    node.SetCurveTypeToLinear()
    display = node.GetDisplayNode()
    display.SetPointLabelsVisibility(False)
    display.SetPropertiesLabelVisibility(False)
    display.SetCurveLineSizeMode(display.UseLineDiameter)
    display.SetGlyphScale(0.4)
    display.SetLineDiameter(_line_mm(geometry))


def _add_key_frames(prompts: Sequence[Prompt], label: Label, geometry: Geometry, case: str) -> None:
    """One named point per key frame, above what is prompted there."""
    places = [_name_place(prompt, geometry) for prompt in prompts]
    node = _add_points("vtkMRMLMarkupsFiducialNode", label.name, f"key_frames.{label.value}", places, label, case)
    for number, prompt in enumerate(prompts):
        text = _("{label}: reviewed") if prompt.mask is not None else _("{label}: key frame")
        node.SetNthControlPointLabel(number, text.format(label=label.name))
    display = node.GetDisplayNode()
    display.SetGlyphTypeFromString("Vertex2D")
    display.SetGlyphScale(0.1)
    display.SetPointLabelsVisibility(True)
    display.SetTextScale(3.0)


def _name_place(prompt: Prompt, geometry: Geometry) -> np.ndarray:
    """RAS mm just above the highest edge of a prompt, as the view along the slices will show it."""
    j0, i0, j1, i1 = _extent(prompt)
    j, i = (j0 + j1) / 2, (i0 + i1) / 2
    outside = [(j0 - _GAP, i), (j1 + _GAP, i), (j, i0 - _GAP), (j, i1 + _GAP)]
    places = [geometry.ras_of((prompt.slice_index, *place)) for place in outside]
    # Slicer shows the front of the body at the top in slices across it, and the head at the top in all others.
    across = np.abs(geometry.ijk_to_ras()[:3, 2] / geometry.spacing[0])
    up = 1 if int(across.argmax()) == 2 else 2
    return max(places, key=lambda place: float(place[up]))


def _extent(prompt: Prompt) -> tuple[float, float, float, float]:
    """(j0, i0, j1, i1) in pixel indices around the prompt's box, mask or points; a point at the corner for an empty mask."""
    if prompt.box is not None:
        j0, i0, j1, i1 = (edge - _EDGE for edge in prompt.box)
        return j0, i0, j1, i1
    points = np.argwhere(prompt.mask) if prompt.mask is not None else np.concatenate([prompt.positive_points, prompt.negative_points])
    if not len(points):
        return 0.0, 0.0, 0.0, 0.0
    (j0, i0), (j1, i1) = points.min(axis=0), points.max(axis=0)
    return float(j0), float(i0), float(j1), float(i1)


def _size(prompt: Prompt) -> float:
    """Pixels of the rectangle around what is prompted."""
    j0, i0, j1, i1 = _extent(prompt)
    return (j1 - j0 + 1) * (i1 - i0 + 1)


def _add_points(kind: str, name: str, part: str, places: Sequence[np.ndarray], label: Label, case: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(kind, name)
    node.CreateDefaultDisplayNodes()
    for place in places:
        node.AddControlPoint(*(float(v) for v in place), "")
    node.SetLocked(True)
    colour = [channel / 255 for channel in label.colour]
    display = node.GetDisplayNode()
    display.SetSelectedColor(*colour)  # of points, which are "selected" unless a person says otherwise
    display.SetColor(*colour)
    display.SetVisibility3D(False)
    return own(node, f"{PART}.{part}", case)


def _line_mm(geometry: Geometry) -> float:
    return 0.7 * min(geometry.pixel_spacing)
