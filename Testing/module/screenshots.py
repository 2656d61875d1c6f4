"""Draws the picture of the review that README and Extensions Index show: ``python Testing/module/screenshots.py``.

A generated case in Slicer's own slice views, drawn outside the application.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_REPOSITORY / "Testing"), str(_REPOSITORY / "SAM2Iterative"), str(_REPOSITORY)]

import harness  # noqa: E402  found in the folders above
from generated_case import LABELS, GeneratedCase, generated_case  # noqa: E402
from review_pictures import save_small  # noqa: E402

REVIEW = _REPOSITORY / "Resources" / "Screenshots" / "review.png"
_CAPTION = 30


def draw_review(path: Path, case: GeneratedCase, side: int = 480) -> None:
    """Four views of one slice: the mask under review, the uncertainty, the prompts, coarse mask against SAM2 result."""
    import qt

    from SAM2IterativeGUI.scene import CaseScene

    shown = CaseScene(LABELS)
    shown.show("generated", case.image)
    view = harness.SliceView("Red", (side, side))
    view.fit()
    shown.jump_to_slice(case.key_slice)
    masks = {"coarse": case.coarse, "propagated": case.propagated, "proposal": case.truth}
    for layer, mask in masks.items():
        shown.show_layer(layer, mask)  # type: ignore[arg-type]
    shown.show_uncertainty(case.uncertainty)
    shown.show_prompts(case.prompts)
    scenes = (
        ("Mask under review", ("proposal",), False, False),
        ("Uncertainty", (), True, False),
        ("Coarse mask (pale) and SAM2 result", ("coarse", "propagated"), False, False),
        ("Key frame with its prompts", ("coarse",), False, True),
    )
    sheet = qt.QImage(2 * side, 2 * (side + _CAPTION), qt.QImage.Format_RGB888)
    sheet.fill(qt.QColor("black"))
    painter = qt.QPainter(sheet)
    painter.setPen(qt.QColor("white"))
    for number, (caption, layers, uncertainty, prompts) in enumerate(scenes):
        for layer in masks:
            shown.set_visible(layer, layer in layers)  # type: ignore[arg-type]
        shown.set_uncertainty_visible(uncertainty)
        shown.set_prompts_visible(prompts)
        left, top = number % 2 * side, number // 2 * (side + _CAPTION)
        painter.drawText(left + 10, top + 20, caption)
        painter.drawImage(left, top + _CAPTION, _as_image(view))
    painter.end()
    view.close()
    shown.remove()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_small(sheet, path)


def _as_image(view: Any) -> Any:
    import qt

    pixels = view.picture()
    return qt.QImage(pixels.data, pixels.shape[1], pixels.shape[0], pixels.strides[0], qt.QImage.Format_RGB888).copy()


if __name__ == "__main__":
    harness.start()
    draw_review(REVIEW, generated_case(size=(24, 128, 128), spacing=(2.5, 0.8, 0.8)))
    print(f"wrote {REVIEW}")
