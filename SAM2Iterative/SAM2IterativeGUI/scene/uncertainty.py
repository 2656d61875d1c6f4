"""The uncertainty overlay: a float volume in the foreground, with colours that mean the same in every case.

Nothing is shown where the methods agree; then lilac, violet and magenta, which no label has by default: anatomy is red, brown and
green. The window is fixed to 0-1, so that a magenta spot in one case is as uncertain as a magenta spot in another.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import GeometryError
from SAM2IterativeLib.volumes import Geometry, Volume

from .ownership import own, the_owned
from .volumes import add_volume

PART, COLOURS_PART = "uncertainty", "uncertainty_colours"

HIDDEN_BELOW = 0.2
"""Values below are not shown: every border between two structures is a little uncertain."""
OPACITY = 0.5
_COLOURS = ((0.0, 0.8, 0.75, 1.0), (0.25, 0.75, 0.55, 1.0), (0.5, 0.8, 0.3, 1.0), (0.75, 0.95, 0.1, 0.9), (1.0, 1.0, 0.0, 0.55))
"""(uncertainty, red, green, blue): away from the greys of the image and from the colours of anatomy."""


def add_uncertainty(uncertainty: np.ndarray, geometry: Geometry, name: str, case: str) -> Any:
    """The volume node of an uncertainty map, with its colours and threshold, owned.

    Args:
        uncertainty: (k, j, i) in [0, 1].
        geometry: the image's grid.
        name: as it stands in Slicer's lists and above its legend.
        case: the case's id.

    Raises:
        GeometryError: the map has another size than the grid.
    """
    if uncertainty.shape != geometry.size:
        text = _("the uncertainty map has {map} voxels, the image {image}.").format(map=uncertainty.shape, image=geometry.size)
        raise GeometryError(text, where=case, cure=_("Run the round again."))
    # Kept as it is, in floats: as 8-bit numbers it would come out flat.
    if uncertainty.min(initial=0.0) < 0 or uncertainty.max(initial=0.0) > 1:
        uncertainty = np.clip(uncertainty, 0.0, 1.0)
    node = add_volume(Volume(uncertainty.astype(np.float32, copy=False), geometry), name, PART, case, window=(0.0, 1.0))
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_colour_node(case).GetID())
    display.SetInterpolate(True)
    set_hidden_below(node, HIDDEN_BELOW)
    return node


def set_hidden_below(node: Any, value: float) -> None:
    """Do not show uncertainties below ``value`` (0-1)."""
    display = node.GetDisplayNode()
    display.SetThreshold(value, 1.0)
    display.SetApplyThreshold(True)


def show_legend(node: Any, visible: bool) -> None:
    """Show or take away the legend.

    It is made anew each time: Slicer's legends neither appear in views that were made after them, such as another layout's, nor
    go when a program takes their volume out of the views.
    """
    logic = slicer.modules.colors.logic()
    legend = logic.GetColorLegendDisplayNode(node)
    if legend is not None:
        slicer.mrmlScene.RemoveNode(legend)
    if visible:
        _add_legend(node)


def _colour_node(case: str) -> Any:
    node = the_owned(COLOURS_PART)
    if node is None:
        node = slicer.vtkMRMLProceduralColorNode()
        node.SetName("Uncertainty")
        slicer.mrmlScene.AddNode(own(node, COLOURS_PART, case))
    function = node.GetColorTransferFunction()
    function.RemoveAllPoints()
    for point in _COLOURS:
        function.AddRGBPoint(*point)
    return node


def _add_legend(node: Any) -> None:
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(node.GetName())
    legend.SetLabelFormat("%.2g")
    legend.SetNumberOfLabels(5)
    legend.SetSize(0.12, 0.4)
    legend.SetPosition(0.97, 0.08)
    legend.SetSaveWithScene(False)
