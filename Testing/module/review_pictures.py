"""Draws the tab Review beside two slice views of the same case: ``python Testing/module/review_pictures.py``.

A generated case, drawn by Slicer's own MRML and by Qt outside the application.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_REPOSITORY / part) for part in ("Testing", "SAM2Iterative", "")]

import harness  # noqa: E402  found in the folders above
from generated_case import generated_case  # noqa: E402
from reviewed_project import make_project  # noqa: E402

UI = _REPOSITORY / "SAM2Iterative" / "Resources" / "UI" / "SAM2IterativeReview.ui"
_TAB_WIDTH, _SIDE, _GAP = 500, 500, 8


def draw_review_tab(path: Path) -> Path:
    """A case before its decision: the tab on the left, mask with uncertainty and outlines with prompts on the right."""

    def between(panel: Any) -> None:
        for name in ("uncertainty", "outlines", "coarse", "prompts"):
            getattr(panel.ui, f"{name}Button").click()

    return _draw(path, "Dr. A", lambda panel: None, between)


def draw_second_opinion(path: Path) -> Path:
    """A second reviewer accepted what the first corrected: the other's mask in pale outlines, the overlap, the keys."""

    def before(panel: Any) -> None:
        panel.toggle_correcting()
        _stroke(panel)
        panel.accept()
        panel.ui.reviewerLine.text = panel.session.reviewer = "Dr. B"
        panel.reopen()
        panel.accept()
        panel.ui.otherButton.click()
        panel.ui.queueSection.collapsed = True
        panel.ui.legendSection.collapsed = False
        panel.decisions.select(7)
        panel.ui.lockButton.click()

    return _draw(path, "Dr. A", before, lambda panel: panel.ui.uncertaintyButton.click())


def _stroke(panel: Any) -> None:
    scene, k = panel.view.scene, panel.view.current_slice()
    gland = scene.proposal().array == 7
    drawn = np.zeros_like(gland)
    drawn[k] = np.roll(gland[k], (-8, 6), axis=(0, 1))
    harness.paint_segment(scene.node("proposal"), "segment_of_label_7", drawn, panel.ui.editor)
    panel.correction.look()


def _draw(path: Path, reviewer: str, before: Callable[[Any], object], between: Callable[[Any], object]) -> Path:
    """The tab beside a slice view, which is drawn before and after ``between``."""
    import qt
    import slicer.util

    from SAM2IterativeGUI.review_panel import ReviewPanel
    from SAM2IterativeGUI.session import Session

    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder) / "project", generated_case(size=(24, 128, 128), spacing=(2.5, 0.8, 0.8))).close()
        session = Session()
        session.reviewer = reviewer
        panel = ReviewPanel(slicer.util.loadUI(str(UI)), session)
        session.open(Path(folder) / "project")
        panel.enter()
        view = harness.SliceView("Red", (_SIDE, _SIDE))
        panel.step(1)
        before(panel)
        view.fit()
        panel.view.jump(0)
        harness.process_events()
        height = max(2 * _SIDE + _GAP, panel.widget.sizeHint().height())  # in Slicer the panel scrolls
        harness.render_widget_png(panel.widget, Path(folder) / "tab.png", (_TAB_WIDTH, height))
        tab = qt.QImage(str(Path(folder) / "tab.png"))
        pictures = [_image(view)]
        between(panel)
        pictures.append(_image(view))
        view.close()
        panel.cleanup()
        session.cleanup()
    sheet = qt.QImage(_TAB_WIDTH + _GAP + _SIDE, max(2 * _SIDE + _GAP, tab.height()), qt.QImage.Format_RGB888)
    sheet.fill(qt.QColor("white"))
    painter = qt.QPainter(sheet)
    painter.drawImage(0, 0, tab)
    for number, picture in enumerate(pictures):
        painter.drawImage(_TAB_WIDTH + _GAP, number * (_SIDE + _GAP), picture)
    painter.end()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_small(sheet, path, _TAB_WIDTH)
    return path


def save_small(sheet: Any, path: Path, tab_width: int = 0) -> None:
    """Write a PNG with every eighth grey and 224 other colours: the noise of the image would make it three times as large.

    Args:
        sheet: a QImage in RGB888.
        tab_width: pixels at the left that show widgets, whose greys stay.
    """
    rows = np.frombuffer(sheet.constBits(), np.uint8).reshape(sheet.height(), sheet.bytesPerLine())
    pixels = rows[:, : 3 * sheet.width()].reshape(sheet.height(), sheet.width(), 3).copy()
    grey = np.ptp(pixels.astype(int), axis=2) < 12
    grey[:, :tab_width] = False
    pixels[grey] = pixels[grey] // 8 * 8
    palette = Image.new("P", (1, 1))
    palette.putpalette([*np.repeat(np.arange(0, 256, 8), 3).tolist(), *_colours(pixels[~grey])])
    Image.fromarray(pixels).quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def _colours(pixels: np.ndarray) -> list[int]:
    """224 colours for pixels (n, 3), as a flat list."""
    found = Image.fromarray(pixels[None]).quantize(224, dither=Image.Dither.NONE).getpalette() or []
    return [*found, *[0] * (3 * 224 - len(found))][: 3 * 224]


def _image(view: Any) -> Any:
    import qt

    pixels = view.picture()
    return qt.QImage(pixels.data, pixels.shape[1], pixels.shape[0], pixels.strides[0], qt.QImage.Format_RGB888).copy()


if __name__ == "__main__":
    harness.start()
    for draw, name in ((draw_review_tab, "review_tab.png"), (draw_second_opinion, "second_opinion.png")):
        print(f"wrote {draw(_REPOSITORY / 'Resources' / 'Screenshots' / name)}")
