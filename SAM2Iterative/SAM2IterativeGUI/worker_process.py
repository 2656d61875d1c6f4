"""The worker in Slicer: a child process of PythonSlicer, polled from a timer, started with its first request.

A worker that died is replaced by a new one with the next request; what the dead one had finished stands in the project.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import qt

from SAM2IterativeLib.messages import Message, Ready, WorkerEnded
from SAM2IterativeLib.worker_client import WorkerClient, worker_command

from .observable import Observable

ClientFactory = Callable[[Sequence[str]], WorkerClient]

_POLL_MILLISECONDS = 150
_POLITE_SECONDS = 3.0
"""How long Slicer waits for a worker that finishes its unit before it ends it: every unit can be done again."""


class WorkerProcess(Observable[Message]):
    """One worker at a time, and word of everything it says (``observe``).

    Args:
        command: how to start it; Slicer's own Python by default.
        make_client: for tests that bring their own worker.

    Attributes:
        make_client: makes the next worker's client.
        ready: what the living worker said on starting (its device, or why it cannot compute); None before.
    """

    def __init__(self, command: Sequence[str] | None = None, make_client: ClientFactory = WorkerClient) -> None:
        super().__init__()
        self._command = list(command) if command is not None else None
        self.make_client = make_client
        self._client: WorkerClient | None = None
        self.ready: Ready | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(_POLL_MILLISECONDS)
        self._timer.connect("timeout()", self.poll)

    def request(self, message: Message) -> None:
        """Send a request, starting a worker where none lives; answers come to the observers.

        Raises:
            WorkerError: it cannot be started.
        """
        if self._client is None or not self._client.running:
            self.poll()  # the last words of a dead one
            self.ready = None
            self._client = self.make_client(self._command or worker_command(python_of_slicer()))
            self._client.start()
            self._timer.start()
        self._client.send(message)

    @property
    def running(self) -> bool:
        """Whether a worker lives."""
        return self._client is not None and self._client.running

    @property
    def busy(self) -> bool:
        """Whether it has work that has not ended."""
        return self._client is not None and self._client.busy

    @property
    def unresponsive(self) -> bool:
        """Whether it lives but gave no sign of life for long."""
        return self._client is not None and self._client.unresponsive

    def stop_run(self) -> None:
        """Ask for a stop at the next safe point; nothing happens where nothing runs."""
        if self._client is not None:
            self._client.stop_run()

    def end(self, polite: float = _POLITE_SECONDS) -> None:
        """End the worker and everything it started, waiting ``polite`` seconds for it to go by itself."""
        if self._client is not None:
            self._client.end(polite, terminate=2.0)
            self.poll()
            self._timer.stop()
            self._client, self.ready = None, None

    def poll(self) -> None:
        """Hand on what came; the timer does this."""
        client = self._client
        if client is None:
            return
        for message in client.poll():
            if isinstance(message, Ready):
                self.ready = message
            if isinstance(message, WorkerEnded):
                self._timer.stop()
            self.notify(message)


def python_of_slicer() -> str:
    """Slicer's PythonSlicer, which finds Slicer's libraries; elsewhere the Python that runs."""
    return shutil.which("PythonSlicer") or str(Path(sys.executable))
