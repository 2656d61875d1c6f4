"""The GUI's end of the worker: start it, send requests, collect events, notice when it falls silent or dies, end it.

No Qt and no torch: threads move lines between pipes and queues, and the GUI polls from a timer. One worker does one job at a time; to
review while a run goes on, start a second one: both may write to the project that this process has open.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import __version__
from .errors import SAM2IterativeError
from .log_text import without_paths
from .messages import (
    CorrectionPropagated,
    EstimateNeeds,
    FolderPredicted,
    Heartbeat,
    Hello,
    Log,
    Message,
    MessageError,
    Needs,
    PredictFolder,
    PropagateCorrection,
    Refused,
    RunFailed,
    RunFinished,
    Shutdown,
    StageStarted,
    StartRun,
    StopRun,
    WorkerEnded,
    from_line,
    to_line,
)
from .process_tree import exit_sentence, kill_tree, start_tree, terminate_tree
from .project import Case, Project
from .volumes import LabelMap, write_label_map

JOBS = (StartRun, PropagateCorrection, PredictFolder, EstimateNeeds)
"""Requests that are work."""
JOB_ENDS = (RunFinished, RunFailed, CorrectionPropagated, FolderPredicted, Needs)
"""Each job ends with one of these, or is ``Refused``."""
_STDERR_LINES = 40


class WorkerError(SAM2IterativeError):
    """The worker could not be started, or is gone."""


def worker_command(python: str | Path) -> list[str]:
    """The command line of a worker, given a Python (in Slicer: PythonSlicer)."""
    return [str(python), "-m", "SAM2IterativeLib.worker"]


def worker_environment() -> dict[str, str]:
    """This process's environment, with the folder of this very library first on Python's path."""
    folder = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(part for part in (folder, os.environ.get("PYTHONPATH", "")) if part)
    # Threads that wait must not spin: the GUI beside the worker needs the processor too.
    return {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}


class WorkerClient:
    """One worker process.

    Args:
        command: see ``worker_command``.
        heartbeat_limit: seconds without a sign of life after which it counts as unresponsive.
        environment: see ``worker_environment``, the default.
        on_event: called from a thread with every message, instead of collecting them for ``poll``.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        heartbeat_limit: float = 30.0,
        environment: Mapping[str, str] | None = None,
        on_event: Callable[[Message], None] | None = None,
    ) -> None:
        self.command = list(command)
        self.heartbeat_limit = heartbeat_limit
        self._environment = worker_environment() if environment is None else environment
        self._events: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._deliver = on_event or self._events.put
        self._process: subprocess.Popen[bytes] | None = None
        self._write_lock = threading.Lock()
        self._last_sign = time.monotonic()
        self._stderr: deque[str] = deque(maxlen=_STDERR_LINES)
        self._unanswered = 0
        self._stage = ""
        self._leaving = False
        self._gone = False
        self._told = threading.Event()

    # Life

    def start(self) -> None:
        """Start the process and say hello; ``Ready`` comes through ``poll``.

        Raises:
            WorkerError: the program cannot be started, or was started before.
        """
        if self._process is not None:
            raise WorkerError("this worker was started before.", cure="Make a new one.")
        try:
            self._process = start_tree(self.command, self._environment)
        except OSError as error:
            raise WorkerError(
                f"{Path(self.command[0]).name} could not be started ({error.strerror}).", cure="Check the installation of Slicer's Python."
            ) from error
        self._last_sign = time.monotonic()
        readers = [threading.Thread(target=read, daemon=True) for read in (self._read_messages, self._read_errors)]
        for thread in readers:
            thread.start()
        threading.Thread(target=self._watch, args=(self._process, readers), daemon=True).start()
        with contextlib.suppress(WorkerError):  # gone already: WorkerEnded tells why
            self.send(Hello(__version__, os.getpid()))

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and not self._gone

    @property
    def busy(self) -> bool:
        """Whether a job was sent that has not ended."""
        return self._unanswered > 0 and not self._gone

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._last_sign

    @property
    def unresponsive(self) -> bool:
        """Whether it lives but missed its heartbeats: frozen, or the computer was asleep."""
        return self.running and self.silent_for > self.heartbeat_limit

    @property
    def stderr_tail(self) -> str:
        """The last lines of its standard error, without absolute paths."""
        return without_paths("\n".join(self._stderr))

    # Talk

    def send(self, request: Message) -> None:
        """Send a request.

        Raises:
            WorkerError: the worker is gone.
        """
        process = self._process
        if process is None or process.stdin is None or self._gone:
            raise WorkerError("the worker does not run.", cure="Start it again.")
        try:
            with self._write_lock:
                self._unanswered += isinstance(request, JOBS)  # before it is sent: the answer may be there at once
                process.stdin.write(to_line(request).encode() + b"\n")
                process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: the pipe was closed by the other thread
            raise WorkerError("the worker is gone.", cure="Start it again.") from error

    def poll(self) -> list[Message]:
        """The messages that came since the last call; never waits."""
        found: list[Message] = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._events.get_nowait())
        return found

    def stop_run(self) -> None:
        """Ask the run to stop at its next safe point; ``RunFinished`` tells when it did."""
        with contextlib.suppress(WorkerError):
            self.send(StopRun())

    def end(self, polite: float = 10.0, terminate: float = 5.0) -> bool:
        """End the worker: ask, wait ``polite`` seconds, terminate, wait ``terminate`` seconds, kill the whole tree.

        Returns:
            Whether it went by itself. What it had finished is kept in any case.
        """
        process = self._process
        if process is None:
            return True
        self._leaving = True
        with contextlib.suppress(WorkerError):
            self.send(Shutdown())
        went = self._told.wait(polite)
        if not went:
            terminate_tree(process)
            if not self._told.wait(terminate):
                kill_tree(process)
                self._told.wait(terminate)
        return went

    # Threads

    def _read_messages(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            try:
                message = from_line(line.decode(errors="replace").rstrip())
            except MessageError as error:
                self._deliver(Log(without_paths(error.sentence)))
                continue
            self._last_sign = time.monotonic()
            self._note(message)
            if not isinstance(message, Heartbeat):
                self._deliver(message)

    def _note(self, message: Message) -> None:
        if isinstance(message, StageStarted):
            self._stage = f"{message.stage}, round {message.round}" + (f", case {message.case}" if message.case else "")
        refused = isinstance(message, Refused) and message.request in {kind.__name__ for kind in JOBS}
        if isinstance(message, JOB_ENDS):
            self._stage = ""
        if refused or isinstance(message, JOB_ENDS):
            with self._write_lock:
                self._unanswered -= 1

    def _read_errors(self) -> None:
        assert self._process is not None and self._process.stderr is not None
        for line in self._process.stderr:
            self._stderr.append(line.decode(errors="replace").rstrip())

    def _watch(self, process: subprocess.Popen[bytes], readers: Sequence[threading.Thread]) -> None:
        code = process.wait()
        kill_tree(process)  # where the launcher died, its child may live on
        for thread in readers:
            thread.join(timeout=5)
        ended = WorkerEnded(self._leaving, self._last_words(code), self.stderr_tail)
        self._gone, self._unanswered = True, 0
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        self._deliver(ended)
        self._told.set()

    def _last_words(self, code: int) -> str:
        if self._leaving:
            return "The worker has ended."
        doing = f" while it worked on {self._stage}" if self._stage else ""
        after = " What was finished is kept: start the run again to continue." if self.busy else ""
        return f"The worker died{doing}. {exit_sentence(code, self.stderr_tail)}{after}"


def correction_request(
    project: Project,
    case: Case,
    label_map: LabelMap,
    slices: Sequence[int],
    values: Sequence[int] = (),
    *,
    before: LabelMap | None = None,
    axis: int = 0,
    reach: int = 0,
) -> PropagateCorrection:
    """Write what a correction needs where the worker finds it (the project's cache), and make the request; see ``PropagateCorrection``."""
    folder = project.cache_folder / "corrections" / case.id
    names = []
    for name, given in (("corrected.nrrd", label_map), ("before.nrrd", before)):
        if given is not None:
            write_label_map(folder / name, given)
        names.append(project.relative(folder / name) if given is not None else "")
    return PropagateCorrection(
        str(project.folder), case.id, names[0], tuple(int(z) for z in slices), tuple(int(v) for v in values), names[1], axis, reach
    )
