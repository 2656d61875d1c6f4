"""The choice of SAM2 weights in the setup tab: shipped, downloaded after asking, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import SAM2IterativeError
from SAM2IterativeLib.presets import ADAPTED, PRESETS, Preset, preset_path, weights_in_use
from SAM2IterativeLib.settings import replaced

from .guarding import guarded
from .session import Session
from .weights_download import WeightsDownload
from .wording import bytes_text


class WeightsChoice:
    """The combo box with its buttons, and the download.

    Args:
        ui: the form's widgets by name.
    """

    def __init__(self, ui: Any, session: Session) -> None:
        self._ui, self._session = ui, session
        self._names: list[str] = []
        self.transfer = WeightsDownload(self._show_download, self._download_ended)
        ui.weightsCombo.connect("activated(int)", lambda number: self._choose(self._names[number]))
        ui.downloadButton.connect("clicked(bool)", lambda _checked: self.download())
        ui.cancelDownloadButton.connect("clicked(bool)", lambda _checked: self.cancel_download())
        ui.weightsFileButton.connect("clicked(bool)", lambda _checked: self.choose_file())
        ui.removeWeightsButton.connect("clicked(bool)", lambda _checked: self.remove())

    @property
    def chosen(self) -> str:
        """The project's weights: a preset's name or a file."""
        project = self._session.project
        return project.settings.foundation.weights if project else "compact"

    def refresh(self) -> None:
        """Show the choices and what is on this computer."""
        project = self._session.project
        adapted = project is not None and Path(weights_in_use(ADAPTED, project.models_folder)).is_file()
        self._names = [*PRESETS, *([ADAPTED] if adapted else [])]
        self._names += [] if self.chosen in self._names else [self.chosen]
        combo = self._ui.weightsCombo
        combo.clear()
        for name in self._names:
            combo.addItem(_title(name))
        combo.setCurrentIndex(self._names.index(self.chosen))
        self._ui.weightsLabel.setText(about(self.chosen))
        self._show_download()

    def why_not_download(self) -> str:
        """Why the chosen weights cannot be downloaded; "" where they can."""
        if self.transfer.name:
            return _("A download is under way.")
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
        """Fetch the chosen weights in the background, if the person agrees."""
        name, preset = self.chosen, PRESETS[self.chosen]
        question = _("Download {name} ({size}) from\n{url}?\n\nYou can go on working meanwhile. The file goes to\n{folder}").format(
            name=name, size=_size(preset), url=preset.url, folder=preset_path(name).parent
        )
        if slicer.util.confirmOkCancelDisplay(question):
            guarded(lambda: self.transfer.start(name), _("The weights could not be downloaded."))
            self._session.notify("settings")

    def cancel_download(self) -> None:
        """End the download."""
        self.transfer.cancel()
        self._session.notify("settings")

    def _show_download(self) -> None:
        ui, name = self._ui, self.transfer.name
        for widget in (ui.downloadProgress, ui.cancelDownloadButton):
            widget.setVisible(bool(name))
        if not name:
            return
        received, size = self.transfer.received, PRESETS[name].size
        ui.downloadProgress.setMaximum(100 if size else 0)  # without an end that is known, the bar only shows that something goes on
        ui.downloadProgress.setValue(round(100 * min(received / size, 1.0)) if size else 0)
        whole = _(" of {size}").format(size=bytes_text(size)) if size else ""
        ui.downloadProgress.setFormat(f"{name}: {bytes_text(received)}{whole}")
        ui.downloadProgress.setToolTip(_("{received} of {name} came so far.").format(received=bytes_text(received), name=name))

    def _download_ended(self, name: str, error: SAM2IterativeError | None) -> None:
        self._session.notify("settings")
        if error is None:
            slicer.util.showStatusMessage(_arrived(name), 8000)
        else:
            slicer.util.errorDisplay(_("The weights could not be downloaded.") + "\n\n" + error.sentence)

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
    if weights == ADAPTED:
        return _("Fine-tuned on this project's labelled cases, because that helped on one that they did not see.")
    preset = PRESETS.get(weights)
    if preset is None:
        return _("Your own file.") if Path(weights).is_file() else weights_problem(weights)
    here = preset_path(weights).is_file()
    state = _("On this computer.") if here else _("Not on this computer yet: {size}.").format(size=_size(preset))
    return f"{preset.about} {state if here or not preset.shipped else weights_problem(weights)}"


def _arrived(name: str) -> str:
    if PRESETS[name].sha256:
        return _("{name} was downloaded, and is the published file.").format(name=name)
    return _("{name} was downloaded. No checksum of it is published: that it is the published file was not checked.").format(name=name)


def _size(preset: Preset) -> str:
    return f"{preset.size / 1e6:.0f} MB" if preset.size else _("size not published")


def _title(name: str) -> str:
    if name == ADAPTED:
        return _("compact, adapted to this project")
    return name if name in PRESETS else Path(name).name
