"""Downloading weights beside Slicer: a child process that a timer looks after, with progress, and an end at any moment."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import qt
from slicer.i18n import tr as _

from SAM2IterativeLib import fetching
from SAM2IterativeLib.errors import ResourceError, SAM2IterativeError, WeightsError
from SAM2IterativeLib.presets import PRESETS, preset_path
from SAM2IterativeLib.process_tree import exit_sentence, kill_tree, start_tree
from SAM2IterativeLib.worker_client import worker_environment

from .worker_process import python_of_slicer

_POLL_MILLISECONDS = 200
_KILL_SECONDS = 5.0

Ended = Callable[[str, SAM2IterativeError | None], object]
"""(preset's name, why it failed or None)."""


class WeightsDownload:
    """One download at a time.

    Args:
        on_progress: called several times a second.
        on_end: called when one came to its end, but not when it was cancelled.
        command: what fetches, before the address and the file; Slicer's own Python with ``fetching`` by default.
    """

    def __init__(self, on_progress: Callable[[], object], on_end: Ended, command: Sequence[str] = ()) -> None:
        self.command = tuple(command)
        self._on_progress, self._on_end = on_progress, on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._name = ""
        self._timer = qt.QTimer()
        self._timer.setInterval(_POLL_MILLISECONDS)
        self._timer.connect("timeout()", self.poll)

    @property
    def name(self) -> str:
        """The preset that is being fetched; "" for none."""
        return self._name if self._process is not None else ""

    @property
    def received(self) -> int:
        """Bytes that came so far."""
        part = fetching.part_of(preset_path(self._name)) if self.name else None
        try:
            return part.stat().st_size if part is not None else 0
        except OSError:  # nothing came yet, or it has just become the file itself
            return 0

    def start(self, name: str) -> None:
        """Begin to fetch a preset's file; the person has agreed.

        Raises:
            ResourceError: Python cannot be started, or another download goes on.
        """
        if self._process is not None:
            raise ResourceError(_("another download goes on."), cure=_("Wait until it is done, or cancel it."))
        preset = PRESETS[name]
        command = self.command or (python_of_slicer(), fetching.__file__)
        arguments = (preset.url, str(preset_path(name)), preset.sha256, str(preset.size))
        try:
            self._process = start_tree([*command, *arguments], worker_environment())
        except OSError as error:
            raise ResourceError(_("the download could not begin ({reason}).").format(reason=error.strerror)) from error
        self._name = name
        self._timer.start()

    def cancel(self) -> None:
        """End it; what came is kept where it can be continued."""
        process, self._process = self._process, None
        self._timer.stop()
        if process is not None:
            kill_tree(process)
            _finish(process)
            if not PRESETS[self._name].sha256:
                fetching.part_of(preset_path(self._name)).unlink(missing_ok=True)

    def poll(self) -> None:
        """Look how far it is; the timer does this."""
        process = self._process
        if process is None:
            return
        code = process.poll()
        if code is None:
            self._on_progress()
            return
        self._timer.stop()
        self._process = None
        said = _finish(process)
        self._on_end(self._name, None if code == fetching.FETCHED else _failure(self._name, code, said))


def _finish(process: subprocess.Popen[bytes]) -> str:
    """Close the pipes of a process that has ended; what it said."""
    try:
        said, _errors = process.communicate(timeout=_KILL_SECONDS)
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return ""
    return said.decode(errors="replace").strip()


def _failure(name: str, code: int, said: str) -> SAM2IterativeError:
    preset = PRESETS[name]
    if code == fetching.NOT_THE_PUBLISHED_ONE:
        return WeightsError(
            _("the file that came is not the published one, and was deleted."), where=preset.file, cure=_("Try again later.")
        )
    if code == fetching.NO_CHECKPOINT:
        return WeightsError(_("what came is no checkpoint of PyTorch, and was deleted."), where=preset.file, cure=_("Try again later."))
    reason = said.splitlines()[-1] if said else exit_sentence(code)
    return ResourceError(
        _("{url} could not be fetched ({reason}).").format(url=preset.url, reason=reason),
        cure=_("Check the internet connection and the disk, or get the file elsewhere and place it here: {file}").format(
            file=Path(preset_path(name))
        ),
    )
