"""A child process and all that it starts, ended together: Slicer's Python is a launcher, the real one is its child."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence


def start_tree(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own, with pipes for input, output and errors.

    A Ctrl-C in a terminal does not reach it, and no console window opens on Windows.

    Raises:
        OSError: the program does not exist or may not be run.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        start_new_session=sys.platform != "win32",
        creationflags=flags,
    )


def terminate_tree(process: subprocess.Popen[bytes]) -> None:
    """Ask every process of the tree to end; on Windows, which knows no such request, this is ``kill_tree``."""
    if sys.platform == "win32":
        kill_tree(process)
    else:
        _signal_group(process, signal.SIGTERM)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End every process of the tree at once; harmless when there is none left."""
    if sys.platform == "win32":
        # The system follows the parents' numbers itself; a tree whose root is gone already is not found.
        command = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
        subprocess.run(command, capture_output=True, check=False, creationflags=subprocess.CREATE_NO_WINDOW)
    else:
        _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    # The group bears the number of its first process, and keeps it while any member lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def exit_sentence(code: int, said: str = "") -> str:
    """How a process ended, for a person.

    Shells pass a signal on as 128 + its number; Slicer's launcher, which PythonSlicer is, ends with 1 whatever happened and says so.

    Args:
        said: the end of what it wrote to standard error.
    """
    if code == 1 and _LAUNCHER in said:
        return "It crashed, or was ended from outside, by a person or because the memory of this computer did not suffice."
    number = -code if code < 0 else code - 128
    name = _signal_name(number) if sys.platform != "win32" else ""
    if name == "SIGKILL":
        return "It was ended from outside (SIGKILL), by a person or because the memory of this computer did not suffice."
    if name in ("SIGTERM", "SIGINT", "SIGHUP"):
        return f"It was asked to end from outside ({name})."
    if name:
        return f"It crashed ({name})."
    if code & 0xFFFFFFFF in _WINDOWS_ENDINGS:
        return _WINDOWS_ENDINGS[code & 0xFFFFFFFF]
    return f"It ended with the code {code}."


_LAUNCHER = "exit abnormally"
"""What Slicer's launcher (commontk/AppLauncher) says where its child crashed or was killed."""
_WINDOWS_ENDINGS = {
    0xC0000005: "It crashed (access violation).",
    0xC0000017: "It ended because the memory of this computer did not suffice.",
    0xC00000FD: "It crashed (stack overflow).",
    0xC0000135: "It could not start: a library file (DLL) is missing.",
    0xC000013A: "It was asked to end from outside (Ctrl-C).",
}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""
