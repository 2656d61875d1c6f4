"""The section "Add volumes" of the project tab: from a folder, from DICOM, from what is loaded in Slicer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.exchange import ImportOptions, ImportReport, import_any
from SAM2IterativeLib.exchange.importing import OnMismatch

from .guarding import guarded
from .loaded_volumes import add_loaded
from .session import Session

_MISMATCH: tuple[OnMismatch, ...] = ("refuse", "copy geometry", "resample")
_LABEL_FOLDERS = ("labels", "labelmaps", "masks", "segmentations", "labelsTr")
_NAMED = 5
"""Files that are named one by one; the rest is counted."""


class VolumeAdding:
    """Adds volumes.

    Args:
        ui: the form's widgets by name.
        root: the whole panel, which takes no clicks while files are copied.
    """

    def __init__(self, ui: Any, root: Any, session: Session) -> None:
        self._ui, self._root, self._session = ui, root, session
        ui.importProgress.hide()
        ui.importLabel.hide()
        ui.imagesEdit.connect("currentPathChanged(QString)", self._on_images)
        ui.addFolderButton.connect("clicked(bool)", lambda _checked: self.add_folder())
        ui.addLoadedButton.connect("clicked(bool)", lambda _checked: self.add_loaded())

    def add_folder(self) -> None:
        """Import the chosen folder."""
        images, labels = self._ui.imagesEdit.currentPath, self._ui.labelMapsEdit.currentPath
        names = [name.strip() for name in self._ui.labelNamesEdit.text.split(",") if name.strip()]
        options = ImportOptions(
            resample_sheared=self._ui.resampleShearedBox.checked,
            on_mismatch=_MISMATCH[self._ui.mismatchCombo.currentIndex],
            opaque_ids=self._ui.opaqueIdsBox.checked,
        )
        project = self._session.require_project()

        def add() -> ImportReport:
            if not images:
                raise DataError(_("no folder is chosen."), cure=_("Choose the folder of the volumes."))
            return import_any(project, images, labels or None, label_names=names, options=options, on_case=self.show_progress)

        self._run(add, _("This folder could not be added."))

    def add_loaded(self) -> None:
        """Import the chosen volume of the scene."""
        project, ui = self._session.require_project(), self._ui
        self._run(
            lambda: add_loaded(project, ui.volumeSelector.currentNode(), ui.segmentationSelector.currentNode()),
            _("This volume could not be added."),
        )

    def show_progress(self, done: int, total: int, name: str) -> None:
        """Show how far copying is, and let the screen follow."""
        bar = self._ui.importProgress
        bar.setMaximum(max(total, 1))
        bar.setValue(done)
        bar.setFormat(_("{done} of {total}: {name}").format(done=done + 1, total=total, name=name))
        bar.show()
        slicer.app.processEvents()

    def _run(self, action: Callable[[], ImportReport], message: str) -> None:
        reports: list[ImportReport] = []
        self._root.setEnabled(False)  # the screen is kept alive meanwhile; a second click must not begin a second import
        try:
            guarded(lambda: reports.append(action()), message)
        finally:
            self._root.setEnabled(True)
            self._ui.importProgress.hide()
        for report in reports:
            self._ui.importLabel.setText(told(report))
            self._ui.importLabel.show()
        self._session.notify("cases")
        self._session.notify("settings")

    def _on_images(self, path: str) -> None:
        """Find the label maps that lie beside the volumes."""
        folder = Path(path)
        if not path or not folder.is_dir() or self._ui.labelMapsEdit.currentPath:
            return
        if (folder / "images").is_dir() and any((folder / name).is_dir() for name in _LABEL_FOLDERS):
            self._ui.imagesEdit.setCurrentPath(str(folder / "images"))
            return
        places = [folder.parent / name for name in _LABEL_FOLDERS] if folder.name.lower().startswith(("image", "volume")) else []
        beside = next((place for place in places if place.is_dir()), None)
        if beside is not None and not (folder / "dataset.json").is_file():
            self._ui.labelMapsEdit.setCurrentPath(str(beside))


def told(report: ImportReport) -> str:
    """What became of an import, for a person."""
    labelled = sum(case.label is not None for case in report.added) + len(report.completed)
    lines = [_("{count} cases added, {labelled} of them labelled.").format(count=len(report.added), labelled=labelled)]
    if report.known:
        lines.append(_("{count} were in the project already.").format(count=len(report.known)))
    for heading, entries in ((_("Set aside:"), report.set_aside), (_("Note:"), report.remarks)):
        lines += [f"{heading} {name}: {sentence}" for name, sentence in entries[:_NAMED]]
        if len(entries) > _NAMED:
            lines.append(_("… and {count} more.").format(count=len(entries) - _NAMED))
    if report.ignored:
        names = ", ".join(report.ignored[:_NAMED]) + (", …" if len(report.ignored) > _NAMED else "")
        lines.append(
            _("Left out: {names}. These are no volumes, or label maps of no volume here; a label map bears its volume's name.").format(
                names=names
            )
        )
    return "\n".join(lines)
