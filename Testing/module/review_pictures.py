"""Draws the tab Review beside two slice views of the same case: ``python Testing/module/review_pictures.py``.

A generated case, drawn by Slicer's own MRML and by Qt outside the application.
"""

from __future__ import annotations

import sys
import tempfile
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
    """A case with a correction under way: the tab on the left, mask with uncertainty and outlines with prompts on the right."""
    import qt
    import slicer.util

    from SAM2IterativeGUI.review_panel import ReviewPanel
    from SAM2IterativeGUI.session import Session

    with tempfile.TemporaryDirectory() as folder:
        make_project(Path(folder) / "project", generated_case(size=(24, 128, 128), spacing=(2.5, 0.8, 0.8))).close()
        session = Session()
        session.reviewer = "Dr. A"
        panel = ReviewPanel(slicer.util.loadUI(str(UI)), session)
        session.open(Path(folder) / "project")
        panel.enter()
        view = harness.SliceView("Red", (_SIDE, _SIDE))
        panel.step(1)
        view.fit()
        panel.view.jump(0)
        harness.process_events()
        harness.render_widget_png(panel.widget, Path(folder) / "tab.png", (_TAB_WIDTH, 2 * _SIDE + _GAP))
        tab = qt.QImage(str(Path(folder) / "tab.png"))
        pictures = [_image(view)]
        for name in ("uncertainty", "outlines", "coarse", "prompts"):
            getattr(panel.ui, f"{name}Button").click()
        pictures.append(_image(view))
        view.close()
        panel.cleanup()
        session.cleanup()
    sheet = qt.QImage(_TAB_WIDTH + _GAP + _SIDE, 2 * _SIDE + _GAP, qt.QImage.Format_RGB888)
    sheet.fill(qt.QColor("white"))
    painter = qt.QPainter(sheet)
    painter.drawImage(0, 0, tab)
    for number, picture in enumerate(pictures):
        painter.drawImage(_TAB_WIDTH + _GAP, number * (_SIDE + _GAP), picture)
    painter.end()
    path.parent.mkdir(parents=True, exist_ok=True)
    _save_small(sheet, path)
    return path


def _save_small(sheet: Any, path: Path) -> None:
    """Write a PNG with every eighth grey and 256 colours: the noise of the image would make it three times as large."""
    rows = np.frombuffer(sheet.constBits(), np.uint8).reshape(sheet.height(), sheet.bytesPerLine())
    pixels = rows[:, : 3 * sheet.width()].reshape(sheet.height(), sheet.width(), 3).copy()
    grey = np.ptp(pixels.astype(int), axis=2) < 12
    grey[:, :_TAB_WIDTH] = False
    pixels[grey] = pixels[grey] // 8 * 8
    Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _image(view: Any) -> Any:
    import qt

    pixels = view.picture()
    return qt.QImage(pixels.data, pixels.shape[1], pixels.shape[0], pixels.strides[0], qt.QImage.Format_RGB888).copy()


if __name__ == "__main__":
    harness.start()
    print(f"wrote {draw_review_tab(_REPOSITORY / 'Resources' / 'Screenshots' / 'review_tab.png')}")
