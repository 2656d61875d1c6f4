"""The open case in Slicer's views: which layers are seen, and which slice."""

from __future__ import annotations

from typing import Any

import numpy as np
import qt
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.doubtful_slices import doubt_per_slice, most_uncertain_place, uncertain_slices
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import Review

from .explaining import Explained
from .guarding import guarded
from .review_material import Material, Others, mask_of, others_of
from .scene import CaseScene, Layer, layouts
from .scene.uncertainty import HIDDEN_BELOW

_PROFILE = (480, 44)
"""Pixels of the picture of all slices."""
_BAR, _CURRENT_BAR = (176, 110, 225), (30, 90, 200)
"""Their colours."""


class CaseView:
    """Shows the material of one case, and follows the switches.

    Args:
        ui: the form's widgets by name. The switches keep their state from case to case.

    Attributes:
        scene: the case in Slicer's scene; None where no case is open.
        material: what is shown; None where no case is open.
    """

    def __init__(self, ui: Any) -> None:
        self._ui = ui
        self.scene: CaseScene | None = None
        self.material: Material | None = None
        self._uncertain: tuple[int, ...] = ()
        self._doubt: np.ndarray | None = None
        self._rank: int | None = None
        self._layout_before: layouts.Shown | None = None
        self._review: Review | None = None
        self._others = Others()
        self._other_shown = ""
        switches = (*self._layer_buttons().values(), ui.uncertaintyButton, ui.promptsButton, ui.outlinesButton, ui.surfacesButton)
        self._explained = Explained(
            ui.layerLabel, *switches, ui.compareButton, ui.thresholdSlider, ui.nextUncertainButton, ui.previousUncertainButton
        )
        self._explained_other = Explained(None, ui.otherButton, ui.otherCombo)
        ui.thresholdSlider.value = HIDDEN_BELOW
        ui.thresholdSlider.connect("valueChanged(double)", lambda _value: self.apply())
        for button in (ui.coarseButton, ui.propagatedButton, ui.proposalButton):
            button.connect("toggled(bool)", lambda _on: self.apply())
        ui.otherButton.connect("toggled(bool)", lambda _on: self._show_other())
        for button in (ui.uncertaintyButton, ui.promptsButton, ui.outlinesButton):
            button.connect("toggled(bool)", lambda _on: self.apply())
        ui.surfacesButton.connect("toggled(bool)", lambda _on: self.refresh_surfaces())
        ui.compareButton.connect("toggled(bool)", self._compare)
        ui.otherCombo.connect("activated(int)", lambda _number: self._show_other())
        ui.nextUncertainButton.connect("clicked(bool)", lambda _on: self.jump(1))
        ui.previousUncertainButton.connect("clicked(bool)", lambda _on: self.jump(-1))
        self.offer_others()
        self.refresh()

    # The case

    def open(self, project: Project, material: Material) -> CaseScene:
        """Show a case in place of the one before, at its most uncertain slice."""
        if self.scene is None or self.scene.labels != project.settings.labels:
            self._leave_compare()
            if self.scene is not None:
                self.scene.remove()
            self.scene = CaseScene(project.settings.labels)
        scene = self.scene
        self.material = None
        scene.show(material.case.id, material.image)
        for layer, mask in (("coarse", material.coarse), ("propagated", material.propagated), ("proposal", material.start)):
            if mask is not None:
                scene.show_layer(layer, mask)  # type: ignore[arg-type]
        if material.uncertainty is not None:
            scene.show_uncertainty(material.uncertainty)
        scene.show_prompts(material.prompts, material.prompt_geometry)
        self.material, self._review, self._other_shown = material, Review(project), ""
        self.offer_others()
        if material.uncertainty is not None:
            self._uncertain = uncertain_slices(material.uncertainty, material.structures)
            self._doubt = doubt_per_slice(material.uncertainty, material.structures)
        else:
            self._uncertain, self._doubt = (), None
        self._rank = None
        if self._ui.compareButton.checked:
            self._enter_compare()
        self.refresh()
        self.refresh_surfaces()
        self.jump(1)
        return scene

    def close(self) -> None:
        """Take the case out of the scene, and show what was shown before."""
        self._leave_compare()
        if self.scene is not None:
            self.scene.remove()
        self._drop()

    def forget(self) -> None:
        """Slicer's scene was closed: everything is gone."""
        if self.scene is not None:
            self.scene.forget()
        self._leave_compare()
        self._drop()

    def leave(self) -> None:
        """Another module or tab is opened: its layout is the person's again; the case stays in the scene."""
        self._leave_compare()

    # Layers

    def refresh(self) -> None:
        """Enable the switches of what there is to see; the others say why not."""
        material, ui = self.material, self._ui
        no_case = "" if material is not None else _("Open a case first.")
        coarse, propagated, doubt = (
            (False, False, False)
            if material is None
            else (material.coarse is not None, material.propagated is not None, material.uncertainty is not None)
        )
        no_round = _("No round made a coarse mask, a SAM2 result or an uncertainty map of this case yet.")
        no_doubt = "" if doubt else no_case or (_("This round made no uncertainty map.") if coarse or propagated else no_round)
        no_both = "" if coarse and propagated else no_case or no_round
        reasons = {
            ui.proposalButton: no_case,
            ui.outlinesButton: no_case,
            ui.surfacesButton: no_case,
            ui.coarseButton: "" if coarse else no_case or no_round,
            ui.propagatedButton: "" if propagated else no_case or no_round,
            ui.uncertaintyButton: no_doubt,
            ui.promptsButton: "" if material is not None and material.prompts else no_case or _("SAM2 was told nothing about this case."),
            ui.compareButton: no_both,
            ui.thresholdSlider: no_doubt,
        }
        nowhere = no_doubt or ("" if self._uncertain else _("Nothing in this case is uncertain."))
        self._explained.set({**reasons, ui.nextUncertainButton: nowhere, ui.previousUncertainButton: nowhere})
        self.apply()

    def apply(self) -> None:
        """Show what the switches say."""
        scene, ui = self.scene, self._ui
        if scene is None or scene.case is None or self.material is None:
            return
        comparing = self._layout_before is not None
        for layer, button in self._layer_buttons().items():
            if not comparing:
                scene.set_visible(layer, button.checked and (layer != "other" or self._others.seen))
            filled = not ui.outlinesButton.checked and (comparing or layer == "proposal")
            scene.set_filled(layer, filled)
        scene.set_uncertainty_visible(ui.uncertaintyButton.checked)
        scene.set_uncertainty_hidden_below(ui.thresholdSlider.value)
        scene.set_prompts_visible(ui.promptsButton.checked)

    def refresh_surfaces(self) -> None:
        """Make the surfaces of the 3-D view from the mask as it is now, if they are to be seen."""
        if self.scene is not None and self.scene.case is not None:
            self.scene.show_3d(self._ui.surfacesButton.checked)

    def _layer_buttons(self) -> dict[Layer, Any]:
        ui = self._ui
        return {
            "coarse": ui.coarseButton,
            "propagated": ui.propagatedButton,
            "other": ui.otherButton,
            "proposal": ui.proposalButton,
        }

    # The other reviewers

    def offer_others(self) -> None:
        """Offer the masks of others who decided, once this reviewer has; where nobody did, nothing is said of it."""
        ui, material, review = self._ui, self.material, self._review
        self._others = others_of(review, material.case, material.reviewer) if material is not None and review is not None else Others()
        names, chosen = self._others.names, ui.otherCombo.currentText
        ui.otherCombo.clear()
        for name in names:
            ui.otherCombo.addItem(name)
        ui.otherCombo.setCurrentIndex(names.index(chosen) if chosen in names else 0)
        first = _("Decide about the whole case first, so that another reviewer's mask does not sway you.")
        reason = "" if self._others.seen else first if names else _("No other reviewer has a mask of this case.")
        self._explained_other.set({ui.otherButton: reason, ui.otherCombo: reason})
        ui.otherButton.setVisible(bool(names))
        ui.otherCombo.setVisible(len(names) > 1)
        self._show_other()

    def _show_other(self) -> None:
        """Show the mask of the chosen other reviewer where it is wanted; it is read then, and not before."""
        scene, ui, name = self.scene, self._ui, self._ui.otherCombo.currentText
        if scene is None or self.material is None or not self._others.names:
            return
        ui.otherButton.text = _("Mask of {name} (K)").format(name=name)
        wanted = self._others.seen and ui.otherButton.checked and self._layout_before is None
        if wanted and name != self._other_shown:
            if not guarded(lambda: self._read_other(name), _("The other reviewer's mask could not be shown.")):
                ui.otherButton.checked = False  # which comes here again
                return
            self._other_shown = name
        self.apply()

    def _read_other(self, name: str) -> None:
        assert self.scene is not None and self.material is not None and self._review is not None
        self.scene.show_layer("other", mask_of(self._review, self.material.case, name))

    # Side by side

    def _compare(self, wanted: bool) -> None:
        if self.material is None:
            return
        if wanted:
            self._enter_compare()
        else:
            self._leave_compare()
            self._show_other()
        self.apply()

    def _enter_compare(self) -> None:
        assert self.scene is not None
        slice_before = self.scene.current_slice()
        if self._layout_before is None:
            self._layout_before = layouts.show_compare_layout()
        left, right = layouts.view_names()
        slicer.util.setSliceViewerLayers(background=self.scene.image_node(), fit=True)
        self.scene.compare({left: "coarse", right: "propagated"})
        if slice_before is not None:
            self.scene.jump_to_slice(slice_before)

    def _leave_compare(self) -> None:
        if self._layout_before is None:
            return
        k = self.current_slice()
        before, self._layout_before = self._layout_before, None
        layouts.restore_layout(before)
        if self.scene is not None and self.scene.case is not None:
            self.scene.compare({})
            if k is not None:
                self.scene.jump_to_slice(k)
        self._ui.compareButton.checked = False

    # Slices

    def jump(self, step: int) -> None:
        """Go to the next (1) or previous (-1) slice in the order of uncertainty; at first to the most uncertain one."""
        if self.scene is None or self.scene.case is None or self.material is None:
            return
        if not self._uncertain:
            self._show_structures()
            return
        rank = 0 if self._rank is None else self._rank + step
        self._rank = min(max(rank, 0), len(self._uncertain) - 1)
        assert self.material.uncertainty is not None
        self.scene.jump_to_place(most_uncertain_place(self.material.uncertainty, self.material.structures, self._uncertain[self._rank]))
        self.show_slice()

    def current_slice(self) -> int | None:
        """The slice (k) that is seen; None where no view looks along the slices."""
        return self.scene.current_slice() if self.scene is not None and self.scene.case is not None else None

    def show_slice(self) -> None:
        """Say which slice is seen, and mark it in the picture of all slices."""
        k, material = self.current_slice(), self.material
        text = ""
        if material is not None and k is not None:
            text = _("Slice {number} of {count}").format(number=k + 1, count=material.image.geometry.slices)
            if k in self._uncertain:
                rank = self._uncertain.index(k) + 1
                text += _(", number {rank} of {count} in uncertainty").format(rank=rank, count=len(self._uncertain))
        self._ui.sliceLabel.text = text
        self._ui.profileLabel.setVisible(self._doubt is not None)
        if self._doubt is not None:
            self._ui.profileLabel.setPixmap(_profile(self._doubt, k))

    def _show_structures(self) -> None:
        """Nothing is uncertain: go to the middle of what is labelled, or of the image."""
        assert self.scene is not None and self.material is not None
        labelled = np.argwhere(self.material.start.array > 0)
        place = np.median(labelled, axis=0) if len(labelled) else np.array(self.material.image.geometry.size) // 2
        self.scene.jump_to_place([int(v) for v in place])
        self.show_slice()

    def _drop(self) -> None:
        self.material, self._review, self._uncertain, self._doubt, self._rank = None, None, (), None, None
        self.offer_others()
        self.refresh()
        self.show_slice()


def _profile(doubt: np.ndarray, current: int | None) -> Any:
    """A bar per slice: its height is the doubt that it holds, against the largest."""
    width, height = _PROFILE
    shares = doubt / max(float(doubt.max()), 1e-6)
    picture = qt.QPixmap(width, height)
    picture.fill(qt.QColor(238, 238, 238))
    painter = qt.QPainter(picture)
    step = width / len(shares)
    for k, share in enumerate(shares):
        left, right = round(k * step), max(round((k + 1) * step) - 1, round(k * step) + 1)
        high = round(float(share) * (height - 6))
        painter.fillRect(left, height - high, right - left, high, qt.QColor(*_BAR))
        if k == current:
            painter.fillRect(left, 0, max(right - left, 2), 4, qt.QColor(*_CURRENT_BAR))
            painter.setPen(qt.QColor(*_CURRENT_BAR))
            painter.drawRect(left, 0, max(right - left, 2), height - 1)
    painter.end()
    return picture
