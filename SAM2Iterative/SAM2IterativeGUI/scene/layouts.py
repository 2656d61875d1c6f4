"""The layout for comparing two layers: two slice views side by side, over Slicer's own layouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import qt
import slicer

COMPARE = 5281
"""Number of our layout; Slicer's own are below 100, and extensions choose at random above."""
VIEWS = ("Left", "Right")
_PREFIX = "SAM2Iterative"


@dataclass(frozen=True)
class Shown:
    """A layout as a person had it: its number, and the ids of views that filled it alone (a double click does that)."""

    number: int
    maximized: tuple[str, ...]


def view_names() -> tuple[str, str]:
    """The names of the two views, left and right."""
    return f"{_PREFIX}{VIEWS[0]}", f"{_PREFIX}{VIEWS[1]}"


def comparing() -> bool:
    """Whether our layout is shown."""
    return int(_layout_node().GetViewArrangement()) == COMPARE


def show_compare_layout() -> Shown:
    """Show two slice views side by side; what was shown before."""
    node = _layout_node()
    maximized = [node.GetMaximizedViewNode(n) for n in range(node.GetNumberOfMaximizedViewNodes())]
    before = Shown(int(node.GetViewArrangement()), tuple(view.GetID() for view in maximized if view is not None))
    if not node.IsLayoutDescription(COMPARE):
        node.AddLayoutDescription(COMPARE, _description())
    node.RemoveAllMaximizedViewNodes()  # a view that fills the window would go on doing so in any layout
    node.SetViewArrangement(COMPARE)
    slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)  # new views get their size, to which images are fitted
    return before


def restore_layout(before: Shown) -> None:
    """Show a layout again, unless the person has chosen another one meanwhile."""
    node = _layout_node()
    if node.GetViewArrangement() != COMPARE:
        return
    node.RemoveAllMaximizedViewNodes()
    node.SetViewArrangement(before.number)
    for view in map(slicer.mrmlScene.GetNodeByID, before.maximized):
        if view is not None:
            node.AddMaximizedViewNode(view)


def _layout_node() -> Any:
    return slicer.app.layoutManager().layoutLogic().GetLayoutNode()


def _description() -> str:
    views = "".join(
        f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">'
        f'<property name="orientation" action="default">Axial</property>'
        f'<property name="viewgroup" action="default">{COMPARE}</property>'  # linked with each other, not with the person's own views
        f'<property name="viewlabel" action="default">{short[0]}</property>'
        f'<property name="viewcolor" action="default">{colour}</property></view></item>'
        for name, short, colour in zip(view_names(), VIEWS, ("#6EB4D2", "#DD8265"), strict=True)
    )
    return f'<layout type="horizontal" split="true">{views}</layout>'
