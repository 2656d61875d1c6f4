"""What goes wrong where no test would notice: VTK's complaints, and exceptions in slots and observers, which only get printed."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import vtk

from .answering import dialogs

vtk_messages: list[str] = []
"""VTK's warnings and errors since the last ``forget``."""
exceptions: list[BaseException] = []
"""Exceptions that no one caught since the last ``forget``."""


def install() -> None:
    """Begin to record; both still reach the terminal, so that a crash can be understood."""
    vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)  # it would say everything twice
    output = vtk.vtkStringOutputWindow()
    vtk.vtkOutputWindow.SetInstance(output)
    for event in ("WarningEvent", "ErrorEvent"):
        output.AddObserver(event, _record_vtk)
    sys.excepthook = _record_exception


def forget() -> None:
    """Start afresh."""
    vtk_messages.clear()
    exceptions.clear()


def unexpected() -> list[str]:
    """What was recorded, without the exceptions of which a person was told (``slicer.util.tryWithErrorDisplay``)."""
    told = "\n".join(dialogs.texts("error"))
    untold = ["".join(traceback.format_exception(e)) for e in exceptions if str(e) not in told or not str(e)]
    return [*vtk_messages, *untold]


@vtk.calldata_type(vtk.VTK_STRING)
def _record_vtk(_caller: Any, _event: str, text: str) -> None:
    vtk_messages.append(text)
    sys.stderr.write(text)


def _record_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    exceptions.append(error)
    traceback.print_exception(kind, error, trace)
