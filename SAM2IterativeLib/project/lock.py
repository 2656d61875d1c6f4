"""One writer per project: an operating system's lock, which a dead process cannot keep, with a note about who holds it."""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from ..errors import ProjectError
from ..files import explained

_FAR = 1 << 30  # Windows forbids others to read locked bytes, so the byte that is locked lies far behind the note


class ProjectLock:
    """Holds ``path`` until ``release`` or the end of the process."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self._stream: IO[bytes] | None = stream

    @classmethod
    def acquire(cls, path: Path) -> ProjectLock | None:
        """Take the lock; None while another process (or another opener in this one) holds it.

        Raises:
            ResourceError: the disk is full, or the folder may not be written to.
        """
        note = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
        with explained(path), ExitStack() as on_failure:
            stream = open(path, "ab+", buffering=0)  # noqa: SIM115 - held open as long as the lock
            on_failure.callback(stream.close)
            if not _lock(stream):
                return None
            stream.truncate(0)
            stream.write(note)
            on_failure.pop_all()
        return cls(path, stream)

    def release(self) -> None:
        """Give the lock back; harmless when done twice."""
        if self._stream is not None:
            self._stream.truncate(0)
            _unlock(self._stream)
            self._stream.close()
            self._stream = None


def holder_of(path: Path) -> tuple[int, str]:
    """Process id and host of who holds (or last held) the lock; (0, "") if unknown."""
    try:
        note = json.loads(path.read_bytes() or b"{}")
        return int(note["pid"]), str(note["host"])
    except (OSError, ValueError, KeyError):
        return 0, ""


def require_shared(path: Path, holder: int) -> None:
    """Raise ProjectError unless process ``holder`` of this computer holds the lock and so may let a child of its write."""
    probe = ProjectLock.acquire(path)
    if probe is not None:
        probe.release()
    pid, host = holder_of(path)
    if probe is not None or (pid, host) != (holder, socket.gethostname()):
        raise ProjectError(
            f"process {holder} no longer holds this project.",
            where=path.parent.name,
            cure="Open the project there, then start again.",
        )


if sys.platform == "win32":
    import msvcrt

    def _lock(stream: IO[bytes]) -> bool:
        stream.seek(_FAR)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(stream: IO[bytes]) -> None:
        stream.seek(_FAR)
        msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(stream: IO[bytes]) -> bool:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(stream: IO[bytes]) -> None:
        fcntl.flock(stream.fileno(), fcntl.LOCK_UN)
