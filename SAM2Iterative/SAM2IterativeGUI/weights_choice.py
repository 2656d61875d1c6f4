"""The choice of SAM2 weights in the setup tab: shipped, downloaded after asking, or a file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import ResourceError, WeightsError
from SAM2IterativeLib.presets import PRESETS, Preset, preset_path
from SAM2IterativeLib.settings import replaced

from .guarding import guarded
from .session import Session

Fetch = Callable[[str, str, str], object]
"""(address, file, checksum or ""): download a file."""


class WeightsChoice:
    """The combo box with its three buttons.

    Args:
        ui: the form's widgets by name.
        fetch: downloads; Slicer's own unless a test brings another.
    """

    def __init__(self, ui: Any, session: Session, fetch: Fetch | None = None) -> None:
        self._ui, self._session, self._fetch = ui, session, fetch or _fetch
        self._names: list[str] = []
        ui.weightsCombo.connect("activated(int)", lambda number: self._choose(self._names[number]))
        ui.downloadButton.connect("clicked(bool)", lambda _checked: self.download())
        ui.weightsFileButton.connect("clicked(bool)", lambda _checked: self.choose_file())
        ui.removeWeightsButton.connect("clicked(bool)", lambda _checked: self.remove())

    @property
    def chosen(self) -> str:
        """The project's weights: a preset's name or a file."""
        project = self._session.project
        return project.settings.foundation.weights if project else "compact"

    def refresh(self) -> None:
        """Show the choices and what is on this computer."""
        self._names = [*PRESETS, *([] if self.chosen in PRESETS else [self.chosen])]
        combo = self._ui.weightsCombo
        combo.clear()
        for name in self._names:
            combo.addItem(_title(name))
        combo.setCurrentIndex(self._names.index(self.chosen))
        self._ui.weightsLabel.setText(about(self.chosen))

    def why_not_download(self) -> str:
        """Why the chosen weights cannot be downloaded; "" where they can."""
        preset = PRESETS.get(self.chosen)
        if preset is None or preset.shipped:
            return _("Nothing to download for this choice.")
        return _("It is on this computer already.") if preset_path(self.chosen).is_file() else ""

    def why_not_remove(self) -> str:
        """Why there is no downloaded file to delete; "" where there is."""
        preset = PRESETS.get(self.chosen)
        downloaded = preset is not None and not preset.shipped and preset_path(self.chosen).is_file()
        return "" if downloaded else _("Only weights that were downloaded can be deleted.")

    def download(self) -> None:
        """Fetch the chosen weights, if the person agrees."""
        name, preset = self.chosen, PRESETS[self.chosen]
        question = _("Download {name} ({size}) from\n{url}?\n\nSlicer does not react meanwhile. The file goes to\n{folder}").format(
            name=name, size=_size(preset), url=preset.url, folder=preset_path(name).parent
        )
        if slicer.util.confirmOkCancelDisplay(question):
            guarded(lambda: fetch_preset(name, self._fetch), _("The weights could not be downloaded."))
            self._session.notify("settings")

    def choose_file(self) -> None:
        """Take a checkpoint file."""
        path = qt.QFileDialog.getOpenFileName(
            self._ui.weightsCombo.window(), _("A checkpoint of SAM2"), "", _("Checkpoints") + " (*.pt *.pth *.safetensors)"
        )
        if path:
            self._choose(str(path))

    def remove(self) -> None:
        """Delete the downloaded file, if the person agrees."""
        path = preset_path(self.chosen)
        if slicer.util.confirmOkCancelDisplay(_("Delete {file} from this computer?").format(file=path.name)):
            path.unlink(missing_ok=True)
            self._session.notify("settings")

    def _choose(self, name: str) -> None:
        project = self._session.project
        if project is not None:
            guarded(lambda: project.change_settings(replaced(project.settings, "foundation.weights", name)))
            self._session.notify("settings")


def weights_problem(weights: str) -> str:
    """Why these weights cannot be used; "" where their file is there."""
    if weights in PRESETS:
        if preset_path(weights).is_file():
            return ""
        cure = _("Reinstall SAM2Iterative, or choose other weights") if PRESETS[weights].shipped else _("Download them")
        return _("The SAM2 weights '{name}' are not on this computer. {cure} in the tab Setup.").format(name=weights, cure=cure)
    missing = _("The weight file {name} is not there any more. Choose another one in the tab Setup.")
    return "" if Path(weights).expanduser().is_file() else missing.format(name=Path(weights).name)


def about(weights: str) -> str:
    """What a person should know about a choice."""
    preset = PRESETS.get(weights)
    if preset is None:
        return _("Your own file.") if Path(weights).is_file() else weights_problem(weights)
    here = preset_path(weights).is_file()
    state = _("On this computer.") if here else _("Not on this computer yet: {size}.").format(size=_size(preset))
    return f"{preset.about} {state if here or not preset.shipped else weights_problem(weights)}"


def fetch_preset(name: str, fetch: Fetch) -> Path:
    """Download a preset's file and check it.

    Raises:
        ResourceError: no connection, or the disk is full.
        WeightsError: the file that came is not the published one; it is deleted.
    """
    preset, path = PRESETS[name], preset_path(name)
    arriving = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch(preset.url, str(arriving), f"SHA256:{preset.sha256}" if preset.sha256 else "")
        if not arriving.is_file():
            raise ResourceError(_("nothing came from {url}.").format(url=preset.url), cure=_("Check the internet connection."))
        if preset.size and arriving.stat().st_size != preset.size:
            raise WeightsError(_("the file that came has another length than the published one."), where=preset.file, cure=_("Try again."))
        arriving.replace(path)
    except (OSError, ValueError) as error:
        raise ResourceError(
            _("{url} could not be fetched ({reason}).").format(url=preset.url, reason=error),
            cure=_("Check the internet connection and the disk, or get the file elsewhere and use 'From a file'."),
        ) from error
    finally:
        with contextlib.suppress(OSError):
            arriving.unlink(missing_ok=True)
    return path


def _fetch(url: str, path: str, checksum: str) -> None:
    slicer.util.downloadFile(url, path, checksum or None)


def _size(preset: Preset) -> str:
    return f"{preset.size / 1e6:.0f} MB" if preset.size else _("size not published")


def _title(name: str) -> str:
    return name if name in PRESETS else Path(name).name
