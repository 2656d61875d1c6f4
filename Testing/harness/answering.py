"""Dialogs that a test answers instead of a person, and a record of what was shown.

A modal dialog would wait for ever. Every question must have been answered beforehand; one that was not fails the test, because
a module that asks when it should not is wrong as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import slicer.util

from .qt_module import QtGui, QtWidgets, qt


@dataclass(frozen=True)
class Shown:
    """A message that a person would have seen: ``kind`` is info, warning, error, status, question, exec or url."""

    kind: str
    text: str


@dataclass
class Dialogs:
    """What was shown, and what will be answered."""

    shown: list[Shown] = field(default_factory=list)
    _answers: list[Any] = field(default_factory=list)

    def answer(self, *values: Any) -> None:
        """Answers to the next questions, in order: True or False, a chosen path or text, or ``function(dialog)`` for a dialog.

        A function may click within the dialog; it returns the dialog's result.
        """
        self._answers.extend(values)

    def texts(self, kind: str) -> list[str]:
        """The texts of one kind, oldest first."""
        return [message.text for message in self.shown if message.kind == kind]

    def forget(self) -> list[Any]:
        """Start afresh; the answers that nobody asked for."""
        unused = list(self._answers)
        self.shown.clear()
        self._answers.clear()
        return unused

    def next_answer(self, question: str) -> Any:
        """Take the next answer.

        Raises:
            AssertionError: nobody answered.
        """
        self.shown.append(Shown("question", question))
        if not self._answers:
            raise AssertionError(f"the module asked '{question}', and the test had no answer to it")
        return self._answers.pop(0)


dialogs = Dialogs()


def install() -> None:
    """Take the place of Slicer's and Qt's modal dialogs."""
    for name, kind in (
        ("infoDisplay", "info"),
        ("warningDisplay", "warning"),
        ("errorDisplay", "error"),
        ("delayDisplay", "info"),
    ):
        setattr(slicer.util, name, _record(kind))
    for name in ("confirmOkCancelDisplay", "confirmYesNoDisplay", "confirmRetryCloseDisplay", "messageBox"):
        setattr(slicer.util, name, lambda text, *_, **__: dialogs.next_answer(str(text)))
    slicer.util.showStatusMessage = _record("status")
    for name in ("getExistingDirectory", "getOpenFileName", "getSaveFileName", "getOpenFileNames"):
        _static(QtWidgets.QFileDialog, name, lambda *texts, **_: dialogs.next_answer(_first_text(texts)))
    for name in ("getText", "getItem", "getInt", "getDouble"):
        _static(QtWidgets.QInputDialog, name, lambda *texts, **_: dialogs.next_answer(_first_text(texts)))
    _static(QtWidgets.QColorDialog, "getColor", lambda *_, **__: dialogs.next_answer("which colour?"))
    for name in ("information", "warning", "critical", "question"):
        _static(QtWidgets.QMessageBox, name, lambda *texts, **_: dialogs.next_answer(_first_text(texts)))
    for dialog in (QtWidgets.QDialog, QtWidgets.QMessageBox, QtWidgets.QFileDialog, QtWidgets.QMenu):
        for name in ("exec", "exec_"):
            setattr(dialog, name, _executed)
    _static(QtGui.QDesktopServices, "openUrl", _opened)


def _record(kind: str) -> Callable[..., bool]:
    def show(text: Any, *_: Any, **__: Any) -> bool:
        dialogs.shown.append(Shown(kind, str(text)))
        return True

    return show


def _opened(url: Any) -> bool:
    dialogs.shown.append(Shown("url", qt.QUrl(url).toString()))
    return True


def _static(kind: type, name: str, function: Callable[..., Any]) -> None:
    setattr(kind, name, staticmethod(function))


def _first_text(arguments: tuple[Any, ...]) -> str:
    texts = [argument for argument in arguments if isinstance(argument, str)]
    return ": ".join(texts[:2])


def _executed(self: Any, *_: Any) -> Any:
    answer = dialogs.next_answer(getattr(self, "windowTitle", "") or getattr(self, "text", "") or type(self).__name__)
    return answer(self) if callable(answer) else answer
