"""A row of small pictures: the middle slice of each case, with its labels in their colours.

Made one by one while Slicer is idle, and kept in the project's cache, which may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qt
import SimpleITK as sitk
import slicer

from SAM2IterativeLib.errors import SAM2IterativeError
from SAM2IterativeLib.project import Case, Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.volumes import LabelMap, Volume

from .session import Session

SIDE = 72
_IDLE_MILLISECONDS = 20
_OPACITY = 0.45


class Thumbnails:
    """Fills a QListWidget.

    Args:
        view: a QListWidget in icon mode.
        on_chosen: called with the id of the case that a person clicked.
    """

    def __init__(self, view: Any, session: Session, on_chosen: Callable[[str], object]) -> None:
        self._view, self._session, self._on_chosen = view, session, on_chosen
        self._waiting: list[tuple[Any, Case]] = []
        self._shown: tuple[Any, ...] = ()
        self._timer = qt.QTimer()
        self._timer.setInterval(_IDLE_MILLISECONDS)
        self._timer.connect("timeout()", self._make_next)
        view.connect("itemClicked(QListWidgetItem*)", lambda item: self._on_chosen(item.text()))

    def refresh(self) -> None:
        """Show the project's cases; pictures follow."""
        project = self._session.project
        cases = project.cases() if project else ()
        wanted = tuple((case.id, _version(project, case)) for case in cases) if project else ()
        if wanted == self._shown:
            return
        self._shown = wanted
        self._view.clear()
        self._waiting = []
        for case in cases:
            item = qt.QListWidgetItem(_blank(), case.id)
            item.setToolTip(case.id)
            self._view.addItem(item)
            self._waiting.append((item, case))
        if self._waiting:
            self._timer.start()

    def stop(self) -> None:
        """Make no further pictures."""
        self._timer.stop()
        self._waiting, self._shown = [], ()

    def _make_next(self) -> None:
        project = self._session.project
        if not self._waiting or project is None:
            self._timer.stop()
            return
        item, case = self._waiting.pop(0)
        try:
            item.setIcon(qt.QIcon(str(thumbnail(project, case))))
        except SAM2IterativeError as error:  # a changed or missing file: the table says more
            item.setToolTip(error.sentence)


def thumbnail(project: Project, case: Case) -> Path:
    """The file of a case's small picture; made where it is missing or older than its labels."""
    folder = Path(slicer.app.temporaryPath) if project.read_only else project.cache_folder / "thumbnails"
    path = folder / f"{case.id}_{_version(project, case)}.png"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        final = Review(project).final_labels(case) if case.usable else None
        picture = draw(project.read_case_image(case), final.label_map if final else None, project)
        sitk.WriteImage(sitk.GetImageFromArray(picture, isVector=True), str(path))
    return path


def draw(image: Volume, labels: LabelMap | None, project: Project) -> np.ndarray:
    """The slice with most labels, or the middle one, as RGB (SIDE, SIDE, 3) uint8 in the image's own proportions."""
    k = image.geometry.slices // 2
    if labels is not None and labels.array.any():
        k = int((labels.array > 0).sum(axis=(1, 2)).argmax())
    plane = image.array[k]
    colours = plane.astype(np.float32) if image.colour else np.repeat(_grey(plane)[..., None], 3, axis=2)
    for label in project.settings.labels if labels is not None else ():
        where = labels.array[k] == label.value  # type: ignore[union-attr]
        colours[where] = (1 - _OPACITY) * colours[where] + _OPACITY * np.array(label.colour, np.float32)
    return _fitted(colours, image.geometry.pixel_spacing)


def _version(project: Project, case: Case) -> str:
    """Changes with what the picture shows."""
    decisions = Review(project).decisions(case)
    last = decisions[-1].number if decisions else 0
    return f"{Review(project).proposal_round(case)}_{last}_{case.label_sha256[:6]}"


def _grey(plane: np.ndarray) -> np.ndarray:
    values = plane[np.isfinite(plane)].astype(np.float32)
    low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 1.0)
    scaled = (plane.astype(np.float32) - low) / max(float(high - low), 1e-6)
    return np.asarray(np.nan_to_num(scaled).clip(0, 1) * 255, dtype=np.float32)


def _fitted(colours: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Nearest pixels, centred on black."""
    height, width = colours.shape[0] * spacing[0], colours.shape[1] * spacing[1]
    scale = SIDE / max(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    j = np.arange(rows) * colours.shape[0] // rows
    i = np.arange(columns) * colours.shape[1] // columns
    sheet = np.zeros((SIDE, SIDE, 3), np.uint8)
    top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
    sheet[top : top + rows, left : left + columns] = colours[j][:, i].astype(np.uint8)
    return sheet


def _blank() -> Any:
    picture = qt.QPixmap(SIDE, SIDE)
    picture.fill(qt.QColor("black"))
    return qt.QIcon(picture)
