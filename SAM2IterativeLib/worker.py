"""``python -m SAM2IterativeLib.worker``: does for the Slicer module what needs a model, in a process of its own.

Requests come as JSON lines on standard input, messages go as JSON lines to standard output (see ``messages``); no network port is opened.
One job at a time; models stay loaded between jobs. A request to stop is followed at the next safe point. When the other side closes its
end, as Slicer does when it is closed or dies, the step at hand is finished and the process ends. Nothing heavy is imported before the
greeting, so a missing package is told in a sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import importlib
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

from . import __version__
from .errors import MissingPackageError, Stopped
from .log_text import fault_sentence, records_sent_to, traceback_text, without_paths
from .messages import (
    EstimateNeeds,
    FolderPredicted,
    Heartbeat,
    Hello,
    Log,
    Message,
    MessageError,
    PredictFolder,
    PropagateCorrection,
    Ready,
    Refused,
    RunFailed,
    RunFinished,
    Shutdown,
    StartRun,
    StopRun,
    from_line,
    to_line,
)
from .pipes import Pipes
from .presets import weights_in_use
from .project import Project
from .worker_client import JOB_ENDS

if TYPE_CHECKING:
    from .correction import Corrector
    from .device import Device

_HEAVY = ("iteration", "correction", "inference", "needs")
"""Modules of this package that a job may need; importing them shows whether all packages are there."""
_UNLOADABLE = (ImportError, OSError, RuntimeError, ValueError, AttributeError)
"""How packages fail while they are imported: absent, a DLL that does not start, made for another torch or NumPy."""
_DLL_NOT_LOADED = (126, 127, 1114)
"""Windows' codes: a DLL or one that it needs is absent, lacks a function, or does not start."""
_RUNTIME = "https://aka.ms/vs/17/release/vc_redist.x64.exe"


class Worker:
    """Takes requests from ``pipes`` until it is told to shut down, or the other side is gone."""

    def __init__(self, pipes: Pipes, heartbeat: float) -> None:
        self.pipes = pipes
        self._heartbeat = heartbeat
        self._began = time.monotonic()
        self._requests: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._stop, self._leaving = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._job: Message | None = None
        self._process: int | None = None
        self._log: IO[str] | None = None
        self._loaded: tuple[object, Corrector] | None = None
        self._jobs: dict[type[Message], Callable[..., None]] = {
            StartRun: self._run,
            PropagateCorrection: self._propagate,
            PredictFolder: self._predict,
            EstimateNeeds: self._estimate,
        }
        pipes.on_broken = self._leave

    def serve(self) -> int:
        """Work until it is time to leave; returns the exit code.

        Everything that touches a project happens in this thread: a journal belongs to the thread that opened it.
        """
        for action in (self._beat, self._listen):
            threading.Thread(target=action, daemon=True).start()
        while (request := self._requests.get()) is not None:
            if isinstance(request, Hello):
                self._greet(request)
            else:
                self._do(request)
        return 0

    # Threads beside the work

    def _beat(self) -> None:
        while not self._leaving.wait(self._heartbeat):
            self.pipes.send(Heartbeat(time.monotonic() - self._began))

    def _listen(self) -> None:
        for line in self.pipes.lines():
            try:
                self._take(from_line(line))
            except MessageError as error:
                self.pipes.send(Refused("", error.sentence))
        self._leave()

    def _take(self, request: Message) -> None:
        name = type(request).__name__
        if isinstance(request, StopRun):
            self._stop.set()
        elif isinstance(request, Shutdown):
            self._leave()
        elif isinstance(request, Hello):
            self._requests.put(request)
        elif type(request) not in self._jobs:
            self.pipes.send(Refused(name, f"'{name}' is nothing that a worker can do."))
        else:
            self._accept(request, name)

    def _accept(self, request: Message, name: str) -> None:
        with self._lock:
            busy = self._job
            if busy is None:
                self._job = request
                self._stop.clear()
        if busy is not None:
            doing = type(busy).__name__
            self.pipes.send(Refused(name, f"The worker is busy with '{doing}': wait until that is done, or stop it first."))
        else:
            self._requests.put(request)

    def _leave(self) -> None:
        self._leaving.set()
        self._stop.set()
        self._requests.put(None)

    def _stop_asked(self) -> bool:
        return self._stop.is_set() or self._leaving.is_set()

    def _check_stop(self) -> None:
        if self._stop_asked():
            raise Stopped

    # The work

    def _greet(self, request: Hello) -> None:
        if request.version != __version__:
            sentence = f"This worker is of version {__version__}, the program that started it of {request.version}: install one version."
            self.pipes.send(Refused("Hello", sentence))
            return
        self._process = request.process
        try:
            _load()
            from .device import choose_device

            device = choose_device("auto")
        except (MissingPackageError, ImportError, OSError, RuntimeError) as error:
            if not isinstance(error.__cause__, ModuleNotFoundError):  # what is absent is told in full by the sentence
                self.pipes.send(Log(traceback_text(error)))
            self.pipes.send(Ready(__version__, "", _missing(error).sentence))
            return
        self.pipes.send(Ready(__version__, device.title or device.name, device.reason))

    def _do(self, request: Message) -> None:
        """Do one job; whatever goes wrong becomes a message, and the worker lives on."""
        name = type(request).__name__
        if self._process is None:
            self._end_job(Refused(name, "The worker was not greeted: send 'Hello' first."))
            return

        def fail(error: Exception, sentence: str, kind: str) -> None:
            self._end_job(RunFailed(sentence, kind, traceback_text(error), name))

        try:
            _load()
            from .iteration import run_safely

            run_safely(lambda: self._jobs[type(request)](request), self._tell)
        except (ImportError, MissingPackageError) as error:
            fail(error, _missing(error).sentence, MissingPackageError.__name__)
        except Exception as error:  # the one place where anything may end: a fault in one job must not cost the others
            fail(error, fault_sentence(error), type(error).__name__)
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _tell(self, message: Message) -> None:
        """Send a message, and write it to the project's log."""
        if isinstance(message, JOB_ENDS):
            self._end_job(_signed(message, type(self._job).__name__))
        else:
            self._send_and_log(message)

    def _end_job(self, message: Message) -> None:
        """The last message of a job: who reads it may send the next job at once."""
        with self._lock:
            self._job = None
        self._send_and_log(message)

    def _send_and_log(self, message: Message) -> None:
        if self._log is not None:  # first, so that whoever hears of it finds it there
            with contextlib.suppress(OSError):  # a full disk shows where it matters, with a sentence
                self._log.write(to_line(message) + "\n")
                self._log.flush()
        self.pipes.send(message)

    def _run(self, request: StartRun) -> None:
        from .iteration import Iteration

        with self._project(request.project) as (project, device):
            run = Iteration(project, device, self._tell, self._stop_asked)
            run.run(request.rounds, until_converged=request.until_converged)

    def _propagate(self, request: PropagateCorrection) -> None:
        from .correction import answer_correction

        with self._project(request.project) as (project, device):
            self._tell(answer_correction(project, self._corrector(project, device), request))

    def _predict(self, request: PredictFolder) -> None:
        from .device import choose_device
        from .inference import predict_folder

        began = time.monotonic()
        with Project.open(request.project, read_only=True) as project:
            device = choose_device(project.settings.device)
            result = predict_folder(project, request.images, request.output, device, report=self._tell, stop=self._stop_asked)
        self._tell(FolderPredicted(len(result.written), dict(result.set_aside), time.monotonic() - began))

    def _estimate(self, request: EstimateNeeds) -> None:
        from .needs import estimate_needs
        from .preparation import Preparation

        with self._project(request.project) as (project, device):
            plan = Preparation(project, device, self._tell).planned()
            self._tell(estimate_needs(project, plan, device, self._corrector(project, device).foundation, request.rounds))

    @contextlib.contextmanager
    def _project(self, folder: str) -> Iterator[tuple[Project, Device]]:
        """The project opened on behalf of the greeting process, and its device; from here on the project's log is written."""
        from .device import choose_device

        with Project.open(folder, shared_with=self._process) as project:
            self._log = open(project.log_path, "a", encoding="utf-8")  # noqa: SIM115 - closed after the job's last message
            yield project, choose_device(project.settings.device)

    def _corrector(self, project: Project, device: Device) -> Corrector:
        """The loaded SAM2, loaded anew where settings or file changed."""
        from .correction import Corrector
        from .foundation.checkpoints import load_foundation, locate

        settings = project.settings
        weights = weights_in_use(settings.foundation.weights, project.models_folder)
        file = locate(weights)[0].stat()
        key = (settings.foundation, settings.memory, device, file.st_mtime_ns, file.st_size)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # not two models in memory at once
            foundation = load_foundation(weights, device)
            self._loaded = key, Corrector(foundation, device, settings.memory, settings.foundation.decay, self._check_stop)
        return self._loaded[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """The process: take over the pipes before anything can print into them, then work."""
    parser = argparse.ArgumentParser(
        prog="python -m SAM2IterativeLib.worker", description="Speaks JSON lines; started by the Slicer module."
    )
    parser.add_argument("--heartbeat", type=float, default=2.0, help="seconds between signs of life")
    chosen = parser.parse_args(arguments)
    pipes = Pipes.take_over()
    faulthandler.enable(sys.stderr)
    with records_sent_to(lambda text: pipes.send(Log(text))):
        return Worker(pipes, chosen.heartbeat).serve()


def _signed(message: Message, request: str) -> Message:
    return dataclasses.replace(message, request=request) if isinstance(message, (RunFailed, RunFinished)) else message


def _load() -> None:
    """Import what the jobs need.

    Raises:
        MissingPackageError: a package is absent or cannot be loaded.
    """
    try:
        for name in _HEAVY:
            importlib.import_module(f".{name}", __package__)
    except _UNLOADABLE as error:
        raise _missing(error) from error


def _missing(error: Exception) -> MissingPackageError:
    """The sentence for a package that is absent or does not work."""
    if isinstance(error, MissingPackageError):
        return error
    named = error.name if isinstance(error, ImportError) else None
    name = (named or "").partition(".")[0] or _package_of(error)
    if isinstance(error, ModuleNotFoundError):
        return MissingPackageError(f"the package '{name}' is not installed.", cure="Install what is missing in the Setup tab.")
    cure = "Install it anew in the Setup tab."
    if getattr(error, "winerror", None) in _DLL_NOT_LOADED:
        cure = f"Install Microsoft's Visual C++ Redistributable ({_RUNTIME}), then try again; if it is there, install the package anew."
    return MissingPackageError(f"the package '{name}' is installed but does not work here ({without_paths(str(error))}).", cure=cure)


def _package_of(error: Exception) -> str:
    """The package in which an error arose: the innermost that is neither Python's own nor, where there is another, ours."""
    names = [str(frame.f_globals.get("__name__", "")).partition(".")[0] for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = str(__package__)
    return next((name for name in reversed(names) if name not in (ours, "__main__", *sys.stdlib_module_names)), ours)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # nothing is open any more, and torch takes seconds to take itself down while Slicer waits
