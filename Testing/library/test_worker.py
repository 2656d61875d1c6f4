"""The worker as the Slicer module meets it: a real child process, real rounds on small phantoms, every answer over its pipes."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_projects import small_project, tiny_weights
from worker_talk import Talk

from SAM2IterativeLib import __version__
from SAM2IterativeLib import device as devices
from SAM2IterativeLib.messages import (
    CorrectionPropagated,
    EstimateNeeds,
    FolderPredicted,
    Hello,
    Log,
    Needs,
    PredictFolder,
    Progress,
    PropagateCorrection,
    Ready,
    Refused,
    RunFailed,
    RunFinished,
    StageStarted,
    StartRun,
    WorkerEnded,
)
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.volumes import read_label_map, write_volume
from SAM2IterativeLib.worker import Worker
from SAM2IterativeLib.worker_client import WorkerClient, correction_request, worker_command, worker_environment


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project that this process has open, as Slicer would."""
    folder = tmp_path_factory.mktemp("worker")
    with small_project(folder / "project", tiny_weights(folder), labelled=1, unlabelled=1, steps=4) as made:
        yield made


@pytest.fixture(scope="module")
def talk(project: Project) -> Iterator[Talk]:
    """One worker for this module: torch takes its time to load."""
    command = [*worker_command(sys.executable), "--heartbeat", "0.2"]
    client = WorkerClient(command, environment={**worker_environment(), "OMP_NUM_THREADS": "1"}, heartbeat_limit=60)
    client.start()
    yield Talk(client)
    client.end(polite=0, terminate=0.1)


def start_lines(program: str) -> Talk:
    """A worker whose process runs some lines of Python before it."""
    lines = textwrap.dedent(program) + "\nfrom SAM2IterativeLib.worker import main\nraise SystemExit(main())"
    client = WorkerClient([sys.executable, "-c", lines])
    client.start()
    return Talk(client)


def test_it_greets_with_its_version_and_device(talk: Talk) -> None:
    ready = talk.next(Ready)
    assert ready.version == __version__
    assert ready.device and ready.reason


def test_it_estimates_what_a_run_needs(talk: Talk, project: Project) -> None:
    talk.client.send(EstimateNeeds(str(project.folder), 1))
    needs = talk.next(Needs, RunFailed)
    assert isinstance(needs, Needs), needs
    assert needs.seconds and needs.seconds > 0
    assert needs.memory and needs.memory > 50e6, "torch alone takes more"
    assert needs.disk_free > needs.disk > 0
    assert not project.plan_path.exists(), "an estimate decides nothing"


def test_one_job_at_a_time_and_a_stop_that_is_continued(talk: Talk, project: Project) -> None:
    run = StartRun(str(project.folder), 1)
    talk.client.send(run)
    talk.next(StageStarted)
    talk.client.send(run)
    assert "busy with 'StartRun'" in talk.next(Refused).sentence
    talk.client.stop_run()
    stopped = talk.next(RunFinished, RunFailed)
    assert isinstance(stopped, RunFinished) and "stopped" in stopped.reason and stopped.request == "StartRun"
    assert not project.journal.rounds()
    talk.client.send(run)
    finished = talk.next(RunFinished, RunFailed)
    assert isinstance(finished, RunFinished) and finished.request == "StartRun", finished
    assert sorted(project.journal.rounds()) == [0, 1]
    assert any(isinstance(m, Progress) and m.stage == "pseudo_label" for m in talk.passed)
    assert talk.client.silent_for < 30, "heartbeats come while torch computes"


def test_a_correction_is_carried_and_models_are_kept(talk: Talk, project: Project) -> None:
    case = project.cases("unlabelled")[0]
    labels = phantom_case(1, size=(8, 32, 32))[1]
    for _ in range(2):
        talk.client.send(correction_request(project, case, labels, [4], [1]))
        answer = talk.next(CorrectionPropagated, RunFailed)
        assert isinstance(answer, CorrectionPropagated), answer
    found = read_label_map(project.folder / answer.label_map)
    np.testing.assert_array_equal(found.array[4], labels.array[4])
    np.testing.assert_array_equal(found.array == 2, labels.array == 2)


def test_a_folder_of_new_images_is_labelled(talk: Talk, project: Project, tmp_path: Path) -> None:
    image = phantom_case(9, size=(8, 32, 32))[0]
    write_volume(tmp_path / "images" / "new.nii.gz", image)
    (tmp_path / "images" / "broken.nii.gz").write_bytes(b"no image")
    talk.client.send(PredictFolder(str(project.folder), str(tmp_path / "images"), str(tmp_path / "labels")))
    answer = talk.next(FolderPredicted, RunFailed)
    assert isinstance(answer, FolderPredicted), answer
    assert answer.written == 1 and list(answer.set_aside) == ["broken.nii.gz"]
    assert read_label_map(tmp_path / "labels" / "new.nii.gz").geometry.mismatch(image.geometry) is None


def test_errors_are_told_in_sentences_and_it_lives_on(talk: Talk, project: Project, tmp_path: Path) -> None:
    talk.client.send(StartRun(str(tmp_path / "nothing here"), 1))
    failed = talk.next(RunFailed)
    assert (failed.kind, failed.request) == ("ProjectError", "StartRun") and "there is no project here" in failed.sentence
    talk.client.send(PropagateCorrection(str(project.folder), "nobody", "x.nrrd", (0,)))
    assert "no case 'nobody'" in talk.next(RunFailed).sentence
    assert "no case 'nobody'" in project.log_path.read_text(encoding="utf-8"), "the log tells failures too"
    talk.client.send(StartRun("\0", 1))
    failed = talk.next(RunFailed)
    assert failed.kind == "ValueError" and "unexpected" in failed.sentence
    assert "Traceback" in failed.details and "worker.py" in failed.details
    assert str(Path(__file__).parents[2]) not in failed.details
    assert talk.client.running and not talk.client.busy


def test_another_process_must_have_the_project_open(talk: Talk, tmp_path: Path) -> None:
    with small_project(tmp_path / "closed", "compact", labelled=1, unlabelled=1):
        pass
    talk.client.send(StartRun(str(tmp_path / "closed"), 1))
    assert "no longer holds this project" in talk.next(RunFailed).sentence


def test_when_slicer_goes_it_finishes_the_step_and_leaves(talk: Talk, project: Project) -> None:
    talk.client.send(StartRun(str(project.folder), 1))
    talk.next(StageStarted)
    process = talk.client._process
    assert process is not None and process.stdin is not None
    process.stdin.close()
    talk.next(WorkerEnded)
    assert process.returncode == 0
    assert sorted(project.journal.rounds()) == [0, 1]
    log = project.log_path.read_text(encoding="utf-8")
    assert '"type":"RunStarted"' in log and str(project.folder) not in log


def test_without_torch_and_among_noisy_libraries() -> None:
    """What is missing is told with its cure; what is printed on any level passes the protocol by."""
    talk = start_lines(
        """
        import os, sys
        print("noise before")
        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "torch":
                    print("noise from python", flush=True)
                    os.write(1, b"noise from C")
                    os.system("echo noise from a child")
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Blocked())
        """
    )
    ready = talk.next(Ready)
    assert ready.device == "" and "the package 'torch' is not installed" in ready.reason and "Setup" in ready.reason
    talk.client.send(StartRun("anything", 1))
    failed = talk.next(RunFailed)
    assert (failed.kind, failed.request) == ("MissingPackageError", "StartRun") and "'torch' is not installed" in failed.sentence
    noise = [m.text for m in talk.passed if isinstance(m, Log)]
    assert not any("from" in text for text in noise), "only what was printed before the worker began can reach the pipe"
    assert all(f"noise from {who}" in talk.client.stderr_tail for who in ("python", "C", "a child"))
    assert talk.client.running
    talk.client.send(Hello("0.0.0", os.getpid()))
    refused = talk.next(Refused)
    assert refused.request == "Hello" and "install one version" in refused.sentence
    assert talk.client.end(polite=30)


@pytest.mark.parametrize(
    ("raised", "code", "told", "cure"),
    [
        (
            r"""OSError('[WinError 126] Error loading "C:\\Users\\Jane\\torch\\lib\\c10.dll" or one of its dependencies.')""",
            126,
            "c10.dll",
            "Visual C",
        ),
        ("RuntimeError('operator torchvision::nms does not exist')", 0, "torchvision::nms does not exist", "anew in the Setup tab"),
    ],
)
def test_a_torch_that_does_not_load_is_told_with_its_cure(tmp_path: Path, raised: str, code: int, told: str, cure: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(f"error = {raised}\nerror.winerror = {code}\nraise error\n", encoding="utf-8")
    environment = worker_environment()
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    client = WorkerClient(worker_command(sys.executable), environment=environment)
    client.start()
    talk = Talk(client)
    ready = talk.next(Ready)
    assert ready.device == "" and "'torch' is installed but does not work here" in ready.reason
    assert told in ready.reason and cure in ready.reason and "Jane" not in ready.reason
    assert any("Traceback" in m.text for m in talk.passed if isinstance(m, Log))
    talk.client.send(StartRun("anything", 1))
    failed = talk.next(RunFailed)
    assert (failed.kind, failed.sentence) == ("MissingPackageError", ready.reason)
    assert talk.client.end(polite=30)


def test_a_device_that_cannot_be_asked_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(wish: str) -> Any:
        raise RuntimeError("CUDA driver initialization failed")

    class Ends:
        sent: list[Any] = []  # noqa: RUF012

        def send(self, message: Any) -> None:
            self.sent.append(message)

    monkeypatch.setattr(devices, "choose_device", refuse)
    Worker(Ends(), heartbeat=1)._greet(Hello(__version__, os.getpid()))  # type: ignore[arg-type]
    assert isinstance(Ends.sent[-1], Ready) and "CUDA driver initialization failed" in Ends.sent[-1].reason


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals.")
def test_killed_from_outside_it_is_told_why() -> None:
    talk = start_lines("import os")
    process = talk.client._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    ended = talk.next(WorkerEnded)
    assert not ended.expected and "SIGKILL" in ended.sentence
