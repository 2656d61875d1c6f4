"""The GUI's end of the worker, against real child processes that play workers of many kinds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from worker_talk import Talk

from SAM2IterativeLib import __version__
from SAM2IterativeLib.messages import EstimateNeeds, Log, Message, Ready, Refused, RunFinished, StartRun, StopRun, WorkerEnded
from SAM2IterativeLib.worker_client import WorkerClient, WorkerError, worker_command, worker_environment

_REPOSITORY = Path(__file__).resolve().parents[2]

_PLAYER = """
import json, os, signal, subprocess, sys, threading, time

def tell(kind, **fields):
    print(json.dumps({"protocol": 1, "type": kind, **fields}), flush=True)

def requests():
    for line in sys.stdin:
        yield json.loads(line)

"""
_OBEDIENT = """
for request in requests():
    if request["type"] == "Hello":
        tell("Ready", version=request["version"], device=str(request["process"]))
    elif request["type"] == "StartRun":
        tell("RunFinished", rounds=1, converged=False, reason="done")
    elif request["type"] == "EstimateNeeds":
        tell("Refused", request="EstimateNeeds", sentence="busy")
    elif request["type"] == "Shutdown":
        break
"""
_STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tell("Ready", version="0", device="")
while True:
    time.sleep(0.05)
"""

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals.")


@pytest.fixture
def play() -> Iterator[Callable[..., Talk]]:
    """Start a client whose worker runs the given lines of Python; none survives the test."""
    clients: list[WorkerClient] = []

    def start(program: str, **options: object) -> Talk:
        clients.append(WorkerClient([sys.executable, "-c", _PLAYER + program], **options))  # type: ignore[arg-type]
        clients[-1].start()
        return Talk(clients[-1])

    yield start
    for client in clients:
        client.end(polite=0, terminate=0.1)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if Path("/proc").is_dir() else "R"
        os.kill(pid, 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_it_greets_and_leaves_when_asked(play: Callable[..., Talk]) -> None:
    talk = play(_OBEDIENT)
    assert talk.next(Ready) == Ready(__version__, str(os.getpid()))
    assert talk.client.running and not talk.client.busy
    assert talk.client.end(polite=30)
    assert talk.next(WorkerEnded) == WorkerEnded(True, "The worker has ended.")
    assert not talk.client.running
    with pytest.raises(WorkerError, match="does not run"):
        talk.client.send(StartRun("p", 1))


def test_it_knows_when_a_job_is_under_way(play: Callable[..., Talk]) -> None:
    talk = play(_OBEDIENT)
    for request, answer in ((StartRun("p", 1), RunFinished), (EstimateNeeds("p", 1), Refused)):
        talk.client.send(request)
        talk.next(answer)
        assert not talk.client.busy
    waiting = play("time.sleep(60)").client
    waiting.send(StartRun("p", 1))
    assert waiting.busy


def test_a_callback_may_take_the_messages_instead() -> None:
    came: list[Message] = []
    client = WorkerClient([sys.executable, "-c", _PLAYER + _OBEDIENT], on_event=came.append)
    client.start()
    client.end(polite=30)
    assert [type(m) for m in came] == [Ready, WorkerEnded]
    assert client.poll() == []


def test_missed_heartbeats_are_noticed(play: Callable[..., Talk]) -> None:
    client = play('for r in requests():\n    if r["type"] != "Hello":\n        tell("Heartbeat", seconds=2.0)', heartbeat_limit=0.3).client
    time.sleep(0.4)
    assert client.unresponsive and client.silent_for > 0.3
    deadline = time.monotonic() + 20
    while client.unresponsive and time.monotonic() < deadline:
        client.send(StopRun())
        time.sleep(0.01)
    assert not client.unresponsive
    assert client.poll() == [], "heartbeats are counted, not shown"


def test_lines_that_are_no_messages_are_logged_without_paths(play: Callable[..., Talk]) -> None:
    talk = play('print("loading /home/jane/model", flush=True)\ntell("Ready", version="0", device="")\ntime.sleep(60)')
    assert "loading model" in talk.next(Log).text
    talk.next(Ready)


def test_it_tells_why_a_worker_died(play: Callable[..., Talk]) -> None:
    talk = play(
        'tell("StageStarted", round=2, stage="propagation", case="b", done=0, total=1)\n'
        'print("first line", file=sys.stderr)\nprint("cannot read /home/jane/x.nii", file=sys.stderr)\nsys.exit(3)'
    )
    ended = talk.next(WorkerEnded)
    assert not ended.expected
    assert "while it worked on propagation, round 2, case b" in ended.sentence and "code 3" in ended.sentence
    assert ended.details == "first line\ncannot read x.nii"


def test_it_understands_slicers_launcher(play: Callable[..., Talk]) -> None:
    """PythonSlicer ends with 1 whatever became of the real Python, and says so."""
    talk = play('print("error: [/opt/Slicer/bin/PythonSlicer-real] exit abnormally - Report the problem.", file=sys.stderr)\nsys.exit(1)')
    sentence = talk.next(WorkerEnded).sentence
    assert "crashed" in sentence and "memory of this computer" in sentence and "code 1" not in sentence


@posix
@pytest.mark.parametrize(("number", "says"), [(signal.SIGKILL, "memory of this computer"), (signal.SIGSEGV, "crashed (SIGSEGV)")])
def test_it_tells_a_signal(play: Callable[..., Talk], number: signal.Signals, says: str) -> None:
    talk = play(f'for r in requests():\n    if r["type"] == "StartRun":\n        os.kill(os.getpid(), {int(number)})')
    talk.client.send(StartRun("p", 1))
    sentence = talk.next(WorkerEnded).sentence
    assert says in sentence and "start the run again to continue" in sentence
    assert not talk.client.busy


@posix
def test_one_that_does_not_listen_is_killed_with_all_its_children(play: Callable[..., Talk]) -> None:
    talk = play(
        'child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])\ntell("Log", text=str(child.pid))' + _STUBBORN
    )
    child = int(talk.next(Log).text)
    talk.next(Ready)
    assert alive(child)
    talk.client.end(polite=0.2, terminate=0.5)
    assert not talk.client.running and gone(child)
    assert talk.next(WorkerEnded).expected


@posix
def test_where_the_launcher_dies_the_real_worker_goes_too(play: Callable[..., Talk]) -> None:
    """Slicer's Python is a launcher: the process that was started is not the one that works."""
    real = _PLAYER + 'tell("Ready", version=str(os.getpid()), device=str(os.getppid()))\nwhile True: time.sleep(0.05)'
    talk = play(f'subprocess.run([sys.executable, "-c", {real!r}])')
    ready = talk.next(Ready)
    worker, launcher = int(ready.version), int(ready.device)
    os.kill(launcher, signal.SIGKILL)
    talk.next(WorkerEnded)
    assert gone(worker)


def test_a_program_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    client = WorkerClient(worker_command(tmp_path / "PythonSlicer"))
    with pytest.raises(WorkerError, match="PythonSlicer could not be started"):
        client.start()
    assert client.end()


def test_the_client_needs_nothing_that_slicer_lacks() -> None:
    program = "import sys, SAM2IterativeLib.worker_client; print([m for m in ('torch', 'sam2', 'monai', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=worker_environment(), check=True)
    assert done.stdout.strip() == "[]"
    assert worker_environment()["PYTHONPATH"].split(os.pathsep)[0] == str(_REPOSITORY)
