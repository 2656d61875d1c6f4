"""Draws the tabs of the module as they look on a project: ``python Testing/module/tab_pictures.py PROJECT``.

Take a project after a real run, such as the one that ``make demo`` leaves. It is opened from a copy, so nothing in it changes; only the
run that is seen going on is pretended. The tabs are drawn by Qt outside Slicer, the plot plainly; README.md of the harness says how far
such a picture can be trusted.
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
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from SAM2IterativeLib.messages import Progress, WorkerEnded  # noqa: E402

PICTURES = _REPOSITORY / "Resources" / "Screenshots"
_WIDTH, _HEIGHT, _MARGIN = 560, 900, 12
_IDLE_SECONDS = 4.0
"""For the small pictures of the cases, which are made while nothing else is done."""


def draw_tabs(project: Path, folder: Path) -> list[Path]:
    """Draw every tab but the review, whose picture is another script's, and a run that goes on and breaks off; the PNG files."""
    module = harness.load_module(_REPOSITORY / "SAM2Iterative" / "SAM2Iterative.py")
    module.enter()
    with tempfile.TemporaryDirectory() as temporary:
        shutil.copytree(project, Path(temporary) / "project")
        module.widget.session.open(Path(temporary) / "project")
        _wait(_IDLE_SECONDS)
        written = [_draw(module, number, name, folder) for number, name in enumerate(("project", "setup", "rounds", "", "results")) if name]
        written += _draw_run(module, folder)
        module.widget.session.close()
        module.unload()
    return written


def _draw_run(module: Any, folder: Path) -> list[Path]:
    """The tab Rounds in the middle of a run, and after its worker died. The worker pretends."""
    from SAM2IterativeGUI.pretended_worker import PretendedClient

    session, ui = module.widget.session, module.widget.ui
    session.worker.make_client = PretendedClient
    module.widget.goTo("rounds")
    ui.logSection.collapsed = False
    ui.startButton.click()
    session.worker._timer.stop()
    round = max(session.project.journal.rounds(), default=-1) + 1
    for _step in range(9):
        session.worker.poll()
    case = session.project.cases("unlabelled")[3].id
    session.worker._client._messages.append(Progress(round, "propagation", 0.4, 190.0, f"{case}: slice 13 of 32"))
    session.worker.poll()
    written = [_draw(module, 2, "rounds_running", folder)]
    died = f"The worker died while it worked on propagation, round {round}, case {case}. It was ended from outside (SIGKILL), by a person"
    died += " or because the memory of this computer did not suffice. What was finished is kept: start the run again to continue."
    module.widget.panels["rounds"]._went_on = True  # a first time it would go on by itself
    session.worker._client._job, session.worker._client.running = None, False
    session.worker._client._messages.append(WorkerEnded(False, died))
    session.worker.poll()
    return [*written, _draw(module, 2, "rounds_died", folder)]


def _draw(module: Any, number: int, name: str, folder: Path) -> Path:
    module.widget.tabs.setCurrentIndex(number)
    module.widget.ui.projectLabel.setText("<b>Demo</b><br/><small>Documents/Demo</small>")
    _wait(0.2)
    path = Path(harness.render_widget_png(module.parent, folder / f"tab_{name}.png", (_WIDTH, _HEIGHT)))
    _cut_empty_rows(path)
    return path


def _cut_empty_rows(path: Path) -> None:
    """Below the last thing that is to be seen."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    last = int(np.flatnonzero((pixels != pixels[-1, 0]).any(axis=(1, 2)))[-1])
    Image.fromarray(pixels[: last + _MARGIN]).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


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
