"""One case in Slicer's scene: the image, its masks, its uncertainty, its prompts, and what the reviewer does with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import GeometryError, ProjectError
from SAM2IterativeLib.guidance.prompts import Prompt
from SAM2IterativeLib.settings import Label
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume

from . import ownership, prompt_markups, segmentations, slices, uncertainty
from .segmentations import Status
from .undo import EditorHistory, SegmentationHistory, UndoHistory
from .volumes import add_volume

Layer = Literal["coarse", "propagated", "other", "proposal"]
"""A mask of the case: the network's, SAM2's, another reviewer's, and the one under review, which alone can be changed."""


@dataclass(frozen=True)
class Style:
    """How a layer looks in the slice views, so that two layers in the same colours can be told apart.

    Attributes:
        name: as it stands in Slicer's lists; translated when it is used.
        fill: opacity of the areas, 0-1.
        thickness: of the outline, in pixels.
        paleness: share of white in the label's colour, 0-1.
    """

    name: str
    fill: float
    thickness: int
    paleness: float = 0.0


LAYERS: dict[Layer, Style] = {
    "coarse": Style("coarse mask", 0.0, 2, 0.45),
    "propagated": Style("SAM2 result", 0.0, 3),
    "other": Style("other reviewer", 0.0, 1, 0.4),
    "proposal": Style("to review", 0.25, 3),
}


class CaseScene:
    """Shows one case at a time. Everything is looked up in the scene when it is needed; only the undo history, the locked masks
    and the person's own view layers are remembered, and ``forget`` drops them when the scene closes.

    Args:
        labels: the project's labels, in class order.
    """

    def __init__(self, labels: Sequence[Label]) -> None:
        self.labels = tuple(labels)
        self._geometry: Geometry | None = None
        self._history: UndoHistory | None = None
        self._locked: dict[int, np.ndarray] = {}
        self._read: tuple[tuple[Any, ...], LabelMap] | None = None
        self._layers_before: dict[str, slices.Layers] | None = None

    # The case

    @property
    def case(self) -> str | None:
        """The id of the case that is shown; None where none is."""
        return ownership.shown_case() if self._geometry is not None else None

    @property
    def geometry(self) -> Geometry:
        """The grid of the case that is shown.

        Raises:
            ProjectError: no case is shown, for instance because the scene was closed.
        """
        if self._geometry is None or ownership.shown_case() is None:
            raise ProjectError(_("no case is shown."), cure=_("Open a case of the queue."))
        return self._geometry

    def show(self, case: str, image: Volume, title: str = "") -> Any:
        """Show a case's image in all slice views, in place of the case before; its volume node."""
        if self._layers_before is None:
            self._layers_before = slices.layers_of_views()
        self._drop()
        node = add_volume(image, title or case, "image", case)
        self._geometry = image.geometry
        slices.show_image(node)
        return node

    def remove(self) -> None:
        """Take the case out of the scene and show again what the views showed before."""
        self._drop()
        if self._layers_before is not None:
            slices.restore_layers(self._layers_before)
            self._layers_before = None

    def forget(self) -> None:
        """The scene was closed: everything is gone, nothing is to be restored."""
        self._geometry, self._history, self._layers_before, self._read = None, None, None, None
        self._locked.clear()

    # Masks

    def show_layer(self, layer: Layer, label_map: LabelMap) -> Any:
        """Show a mask, in place of the one before; its segmentation node.

        Raises:
            GeometryError: it does not lie on the image's grid.
        """
        self._require_grid(label_map)
        style = LAYERS[layer]
        part = f"segmentation.{layer}"
        visible = self.visible(layer) if self.node(layer) is not None else True
        ownership.remove(part)
        name = f"{self.case}: {_(style.name)}"
        node = segmentations.add_segmentation(self.labels, name, part, str(self.case), self._image_node())
        segmentations.write_labels(node, label_map, self.labels)
        self._style(node, style)
        self.set_visible(layer, visible)
        if layer == "proposal":
            self._history = SegmentationHistory(node)
            self._locked.clear()
        return node

    def node(self, layer: Layer) -> Any:
        """The segmentation node of a layer; None where it is not shown."""
        return ownership.the_owned(f"segmentation.{layer}")

    def image_node(self) -> Any:
        """The image's volume node; None where no case is shown."""
        return ownership.the_owned("image")

    def visible(self, layer: Layer) -> bool:
        """Whether a layer is to be seen; False where it does not exist."""
        node = self.node(layer)
        return node is not None and bool(node.GetDisplayNode().GetVisibility())

    def set_visible(self, layer: Layer, visible: bool) -> None:
        """Show or hide a layer; nothing happens where it does not exist."""
        node = self.node(layer)
        if node is not None:
            node.GetDisplayNode().SetVisibility(visible)

    def set_filled(self, layer: Layer, filled: bool) -> None:
        """Show a layer's areas filled, or only their outlines."""
        node = self.node(layer)
        if node is not None:
            node.GetDisplayNode().SetVisibility2DFill(filled)
            node.GetDisplayNode().SetOpacity2DFill(LAYERS[layer].fill or LAYERS["proposal"].fill)

    def compare(self, views: dict[str, Layer]) -> None:
        """Keep layers to slice views by the views' names, e.g. one left, one right; all layers in all views for {}."""
        for layer in LAYERS:
            node = self.node(layer)
            if node is not None:
                names = [name for name, wanted in views.items() if wanted == layer]
                slices.keep_to_views(node.GetDisplayNode(), names)
                if views:
                    node.GetDisplayNode().SetVisibility(bool(names))
        if views:
            slices.align_views(list(views), self.geometry)

    def show_3d(self, shown: bool) -> None:
        """Show the proposal's surfaces in the 3-D views, made anew from what it is now."""
        node = self.node("proposal")
        if node is None:
            return
        if shown:
            # A result that was written, or an undo, leaves surfaces as they were.
            node.RemoveClosedSurfaceRepresentation()
            node.CreateClosedSurfaceRepresentation()
        node.GetDisplayNode().SetVisibility3D(shown)

    # Uncertainty

    def show_uncertainty(self, values: np.ndarray) -> Any:
        """Lay an uncertainty map (k, j, i) in [0, 1] over the image, in place of the one before; its volume node."""
        ownership.remove(uncertainty.PART)
        node = uncertainty.add_uncertainty(values, self.geometry, _("Uncertainty"), str(self.case))
        self.set_uncertainty_visible(True)
        return node

    def set_uncertainty_visible(self, visible: bool) -> None:
        """Show or hide the overlay and its legend."""
        node = ownership.the_owned(uncertainty.PART)
        slices.show_foreground(node if visible else None, uncertainty.OPACITY)
        if node is not None:
            uncertainty.show_legend(node, visible)

    def set_uncertainty_hidden_below(self, value: float) -> None:
        """Do not show uncertainties below ``value`` (0-1)."""
        node = ownership.the_owned(uncertainty.PART)
        if node is not None:
            uncertainty.set_hidden_below(node, value)

    # Prompts

    def show_prompts(self, prompts: Sequence[Prompt], geometry: Geometry | None = None) -> None:
        """Show key frames and prompts as markups, in place of the ones before.

        Args:
            prompts: of any key frames and classes.
            geometry: the grid that they count in, where SAM2 saw the case along other slices than its own.
        """
        prompt_markups.show_prompts(prompts, self.labels, geometry or self.geometry, str(self.case))

    def set_prompts_visible(self, visible: bool) -> None:
        """Show or hide the prompts."""
        prompt_markups.set_visibility(visible)

    # Slices

    def current_slice(self) -> int | None:
        """The slice (k, 0-based) that the views along the slices show; None where no view looks along them."""
        return slices.current_slice(self.geometry)

    def jump_to_slice(self, k: int) -> None:
        """Show slice k (0-based; clipped to the volume) in the views along the slices."""
        slices.jump_to_slice(self.geometry, k)

    def jump_to_place(self, kji: Sequence[float]) -> None:
        """Show a voxel in all views."""
        slices.jump_to_place(self.geometry, kji)

    # The reviewer's work on the proposal

    def use_editor_history(self, editor: Any) -> None:
        """Let the Segment Editor, which was given the proposal, keep its undo states: strokes and results are taken back alike."""
        self._history = EditorHistory(editor)

    def proposal(self, *, skip_foreign: bool = False) -> LabelMap:
        """The proposal as it stands, corrections included, on the image's grid; locked segments are as they were locked.

        Args:
            skip_foreign: leave out segments that are none of the project's labels, instead of refusing them.

        Raises:
            DataError: a person added a segment that is none of the project's labels.
        """
        return self._with_locked(self._drawn(skip_foreign))

    def foreign_segments(self) -> tuple[str, ...]:
        """The names of the proposal's segments that are none of the project's labels."""
        return segmentations.foreign_names(self._proposal_node())

    def write_result(self, label_map: LabelMap) -> None:
        """Put an AI result into the proposal; locked segments stay as they are, and one undo takes it back."""
        self._require_grid(label_map)
        node = self._proposal_node()
        if self._locked:
            label_map = self._beside_locked(label_map)
        if self._history is not None:
            self._history.saveStateForUndo()
        segmentations.write_labels(node, label_map, self.labels)

    @property
    def can_undo(self) -> bool:
        """Whether there is a stroke or an AI result to take back."""
        return self._history is not None and self.node("proposal") is not None and self._history.can_undo

    def undo(self) -> None:
        """Take the last stroke or AI result back; nothing happens where there is none."""
        if self._history is not None:
            self._history.undo()
            self._mark_locks()  # the state before may be from before a lock

    def lock(self, value: int, locked: bool) -> None:
        """Lock the segment of a label value: neither a stroke nor an AI result changes it from now on."""
        if locked:
            self._locked[value] = self.proposal().array == value
        else:
            self._locked.pop(value, None)
        self._mark_locks()

    def locked(self) -> tuple[int, ...]:
        """The locked label values, ascending."""
        return tuple(sorted(self._locked))

    def restore_locked(self) -> bool:
        """Undo what strokes did to locked segments; whether there was anything to undo."""
        node = self._proposal_node()
        drawn = self._drawn()
        kept = self._with_locked(drawn)
        if kept is drawn:
            return False
        segmentations.write_labels(node, kept, self.labels)
        return True

    def mark(self, marks: Mapping[int, tuple[Status, str]]) -> None:
        """Set the status of the proposal's segments and who decided, by label value, as far as they are there; others are not started.

        Only what differs is written: a change of a segment, even of its status alone, is one that the person could undo.
        """
        node = self._proposal_node()
        for label in self.labels:
            if segmentations.segment_id_of(node, label.value) is None:  # a person removed it
                continue
            status, reviewer = marks.get(label.value, ("not started", ""))
            if segmentations.status_of(node, label.value) != status:
                segmentations.set_status(node, label.value, status)
            if segmentations.tag_of(node, label.value, segmentations.REVIEWER) != reviewer:
                segmentations.set_tag(node, label.value, segmentations.REVIEWER, reviewer)

    def status(self, value: int) -> Status:
        """The status of a label's segment."""
        return segmentations.status_of(self._proposal_node(), value)

    def _mark_locks(self) -> None:
        """Say in the segments' tags which of them are locked."""
        node = self._proposal_node()
        for label in self.labels:
            text = "yes" if label.value in self._locked else ""
            if segmentations.segment_id_of(node, label.value) and segmentations.tag_of(node, label.value, segmentations.LOCKED) != text:
                segmentations.set_tag(node, label.value, segmentations.LOCKED, text)

    def _drop(self) -> None:
        ownership.remove()
        self._geometry, self._history, self._read = None, None, None
        self._locked.clear()

    def _image_node(self) -> Any:
        node = self.image_node()
        if node is None:
            raise ProjectError(_("no case is shown."), cure=_("Open a case of the queue."))
        return node

    def _proposal_node(self) -> Any:
        self._image_node()
        node = self.node("proposal")
        if node is None:
            raise ProjectError(_("no proposal is shown."), where=self.case, cure=_("Open a case of the queue."))
        return node

    def _require_grid(self, label_map: LabelMap) -> None:
        difference = label_map.geometry.mismatch(self.geometry)
        if difference:
            text = _("the mask does not lie on its image: {difference}.").format(difference=difference)
            raise GeometryError(text, where=self.case, cure=_("Run the round again."))

    def _beside_locked(self, label_map: LabelMap) -> LabelMap:
        """A result that neither takes voxels from locked segments nor gives them any."""
        before = self.proposal().array
        kept = np.isin(before, list(self._locked)) | np.isin(label_map.array, list(self._locked))
        return LabelMap(np.where(kept, before, label_map.array).astype(label_map.array.dtype), label_map.geometry)

    def _drawn(self, skip_foreign: bool = False) -> LabelMap:
        """The proposal as it stands in the scene, read anew only where it changed: every stroke asks for it several times."""
        node = self._proposal_node()
        if not skip_foreign:
            segmentations.require_known(node)
        state = segmentations.state_of(node)
        if self._read is None or self._read[0] != state:
            self._read = None
            label_map = segmentations.read_labels(node, self.geometry)
            label_map.array.flags.writeable = False
            self._read = state, label_map
        return self._read[1]

    def _with_locked(self, label_map: LabelMap) -> LabelMap:
        """The map with the locked segments as they were locked; the same object where they are so."""
        if all(np.array_equal(label_map.array == value, mask) for value, mask in self._locked.items()):
            return label_map
        array = label_map.array.copy()
        for value, mask in self._locked.items():
            array[(array == value) & ~mask] = 0
        for value, mask in self._locked.items():
            array[mask] = value
        return LabelMap(array, label_map.geometry)

    def _style(self, node: Any, style: Style) -> None:
        display = node.GetDisplayNode()
        display.SetVisibility2DFill(style.fill > 0)
        display.SetOpacity2DFill(style.fill)
        display.SetOpacity2DOutline(1.0)
        display.SetSliceIntersectionThickness(style.thickness)
        for label in self.labels if style.paleness else ():
            segment_id = segmentations.segment_id_of(node, label.value)
            colour = [style.paleness + (1 - style.paleness) * channel / 255 for channel in label.colour]
            display.SetSegmentOverrideColor(segment_id, *colour)
