"""Draws the tabs of the module as they look on a project: ``python Testing/module/tab_pictures.py PROJECT``.

Take a project after a real run, such as the one that ``make demo`` leaves. It is opened from a copy, so nothing in it changes. The tabs
are drawn by Qt outside Slicer, the plot plainly; README.md of the harness says how far such a picture can be trusted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_REPOSITORY / part) for part in ("Testing", "SAM2Iterative", "")]

import harness  # noqa: E402  found in the folders above

PICTURES = _REPOSITORY / "Resources" / "Screenshots"
_WIDTH = 560
_HEIGHTS = {"project": 860, "setup": 640, "rounds": 800, "results": 640}
_IDLE_SECONDS = 4.0
"""For the small pictures of the cases, which are made while nothing else is done."""


def draw_tabs(project: Path, folder: Path) -> list[Path]:
    """Draw every tab but the review, whose picture is another script's; the PNG files."""
    module = harness.load_module(_REPOSITORY / "SAM2Iterative" / "SAM2Iterative.py")
    module.enter()
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copytree(project, Path(temporary) / "project")
        module.widget.session.open(Path(temporary) / "project")
        _wait(_IDLE_SECONDS)
        module.widget.ui.projectLabel.setText("<b>Demo</b><br/><small>Documents/Demo</small>")
        written = [_draw(module, number, name, folder) for number, name in enumerate(("project", "setup", "rounds", "", "results")) if name]
        module.unload()
    return written


def _draw(module: Any, number: int, name: str, folder: Path) -> Path:
    label = module.widget.ui.projectLabel.text
    module.widget.tabs.setCurrentIndex(number)
    module.widget.ui.projectLabel.setText(label)
    _wait(0.2)
    return Path(harness.render_widget_png(module.parent, folder / f"tab_{name}.png", (_WIDTH, _HEIGHTS[name])))


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        harness.process_events()
        time.sleep(0.01)


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path, help="a project folder, after a run")
    parser.add_argument("--folder", type=Path, default=PICTURES)
    chosen = parser.parse_args()
    harness.start()
    for path in draw_tabs(chosen.project, chosen.folder):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
