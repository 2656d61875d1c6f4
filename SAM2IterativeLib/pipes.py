"""The worker's own ends of its pipes: messages alone pass them, whatever libraries print.

Standard output is turned over to standard error, on the level of the operating system too, before any library is imported; the real one is
kept for messages. Standard input is kept likewise, so that no library can swallow a request.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator

from .messages import Message, to_line


class Pipes:
    """Where requests come from and messages go to.

    Args:
        requests, messages: file descriptors.
    """

    def __init__(self, requests: int, messages: int) -> None:
        # Unbuffered: a buffer's lock, held by the reading thread, would abort the interpreter at its end.
        self._requests = open(requests, "rb", buffering=0)  # noqa: SIM115 - open as long as the process
        self._messages = open(messages, "wb", buffering=0)  # noqa: SIM115
        self._lock = threading.Lock()
        self.on_broken: Callable[[], None] = lambda: None
        """Called when nobody reads the messages any more."""

    @classmethod
    def take_over(cls) -> Pipes:
        """Keep the process's standard input and output for the protocol alone."""
        sys.stdout.flush()
        pipes = cls(os.dup(0), os.dup(1))
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        return pipes

    def send(self, message: Message) -> None:
        """Send a message, from any thread; where nobody reads any more, ``on_broken`` is told and the work at hand goes on."""
        line = memoryview(to_line(message).encode() + b"\n")
        try:
            with self._lock:
                while line:
                    line = line[self._messages.write(line) or 0 :]
        except OSError:
            self.on_broken()

    def lines(self) -> Iterator[str]:
        """Every line of the other side, until it closes its end."""
        while line := self._requests.readline():
            yield line.decode(errors="replace")
