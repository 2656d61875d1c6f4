"""Which nodes of the scene are ours: each carries the part it plays, so that it can be found and removed again."""

from __future__ import annotations

from typing import Any

import slicer

PART = "SAM2Iterative.Part"
"""Node attribute: the part a node plays, e.g. "image" or "segmentation.coarse"."""
CASE = "SAM2Iterative.Case"
"""Node attribute: the case's id."""


def own(node: Any, part: str, case: str) -> Any:
    """Mark a node as ours, display nodes included, and return it; to be called when it is complete.

    It is not saved with the scene: the project folder is where a case lives, and a copy in a scene would go stale.
    """
    node.SetAttribute(PART, part)
    node.SetAttribute(CASE, case)
    for saved in (node, *_display_nodes(node)):
        saved.SetSaveWithScene(False)
    return node


def owned(part: str = "") -> list[Any]:
    """Our nodes that play ``part``, or a part below it ("segmentation" finds "segmentation.coarse"); all of ours for ""."""
    scene = slicer.mrmlScene
    nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
    return [node for node in nodes if _plays(node.GetAttribute(PART), part)]


def the_owned(part: str) -> Any:
    """The one node that plays ``part``; None where there is none."""
    found = owned(part)
    return found[0] if found else None


def shown_case() -> str | None:
    """The id of the case that is in the scene; None where there is none."""
    node = the_owned("image")
    return node.GetAttribute(CASE) if node is not None else None


def remove(part: str = "") -> None:
    """Remove our nodes that play ``part`` (all of ours for ""), with what only belongs to them."""
    # Colours last: a display without them would complain.
    for node in sorted(owned(part), key=lambda node: bool(node.IsA("vtkMRMLColorNode"))):
        _remove_with_dependants(node)


def _remove_with_dependants(node: Any) -> None:
    """Slicer removes neither display nor storage nodes by itself."""
    displays = _display_nodes(node)
    legends = [display for display in displays if display.IsA("vtkMRMLColorLegendDisplayNode")]
    stores = [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())] if node.IsA("vtkMRMLStorableNode") else []
    # A legend goes before the display whose colours it shows; displays go after their volume, which would get new ones in a view.
    others = [found for found in (*displays, *stores) if found is not None and found not in legends]
    for found in (*legends, node, *others):
        slicer.mrmlScene.RemoveNode(found)


def _display_nodes(node: Any) -> list[Any]:
    if not node.IsA("vtkMRMLDisplayableNode"):
        return []
    found = [node.GetNthDisplayNode(number) for number in range(node.GetNumberOfDisplayNodes())]
    return [display for display in found if display is not None]


def _plays(part: str | None, wanted: str) -> bool:
    return part is not None and (not wanted or part == wanted or part.startswith(f"{wanted}."))
