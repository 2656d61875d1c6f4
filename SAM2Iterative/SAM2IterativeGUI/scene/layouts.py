"""The layout for comparing two layers: two slice views side by side, over Slicer's own layouts."""

from __future__ import annotations

import slicer

COMPARE = 5281
"""Number of our layout; Slicer's own are below 100, and extensions choose at random above."""
VIEWS = ("Left", "Right")
_PREFIX = "SAM2Iterative"


def view_names() -> tuple[str, str]:
    """The names of the two views, left and right."""
    return f"{_PREFIX}{VIEWS[0]}", f"{_PREFIX}{VIEWS[1]}"


def comparing() -> bool:
    """Whether our layout is shown."""
    return int(slicer.app.layoutManager().layoutLogic().GetLayoutNode().GetViewArrangement()) == COMPARE


def show_compare_layout() -> int:
    """Show two slice views side by side; the layout that was shown before."""
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    before = int(node.GetViewArrangement())
    if not node.IsLayoutDescription(COMPARE):
        node.AddLayoutDescription(COMPARE, _description())
    node.SetViewArrangement(COMPARE)
    return before


def restore_layout(number: int) -> None:
    """Show a layout again, unless the person has chosen another one meanwhile."""
    node = slicer.app.layoutManager().layoutLogic().GetLayoutNode()
    if node.GetViewArrangement() == COMPARE:
        node.SetViewArrangement(number)


def _description() -> str:
    views = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        f'<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{short[0]}</property>'
        f'<property name="viewcolor" action="default">{colour}</property></view></item>'
        for name, short, colour in zip(view_names(), VIEWS, ("#6EB4D2", "#DD8265"), strict=True)
    )
    return f'<layout type="horizontal" split="true">{views}</layout>'
