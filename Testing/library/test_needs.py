"""What a run would take: tried out, plausible, and with a sentence where it will not fit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_projects import CPU, small_project, tiny_weights

from SAM2IterativeLib import needs
from SAM2IterativeLib.dedicated.plan import Plan
from SAM2IterativeLib.foundation.checkpoints import Foundation, load_foundation
from SAM2IterativeLib.memory import computer_memory, peak_of_process
from SAM2IterativeLib.needs import estimate_needs
from SAM2IterativeLib.preparation import Preparation
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.worker_client import worker_environment


@pytest.fixture(scope="module")
def foundation(tmp_path_factory: pytest.TempPathFactory) -> Foundation:
    torch.set_num_threads(1)
    return load_foundation(str(tiny_weights(tmp_path_factory.mktemp("weights"))), CPU)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with small_project(tmp_path / "project", "compact", labelled=1, unlabelled=1, steps=4) as made:
        yield made


@pytest.fixture
def plan(project: Project) -> Plan:
    return Preparation(project, CPU, lambda message: None).planned()


def test_a_trial_gives_plausible_numbers(project: Project, plan: Plan, foundation: Foundation) -> None:
    found = estimate_needs(project, plan, CPU, foundation, rounds=2)
    assert found.device == CPU.sentence
    assert found.device_memory and found.device_memory_free and found.device_memory > found.device_memory_free
    assert found.memory and found.memory >= (peak_of_process() or 0)
    assert found.seconds and 0.01 < found.seconds < 600
    assert 0 < found.disk < found.disk_free
    assert found.remarks == ()


def test_more_rounds_take_more(project: Project, plan: Plan, foundation: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_tried", lambda *given: needs._Trial(step=1.0, encoding=0.1, tracking=0.1, memory=10**8))
    one, three = (estimate_needs(project, plan, CPU, foundation, rounds) for rounds in (1, 3))
    assert one.seconds and three.seconds and one.seconds > plan.first_steps + plan.round_steps
    assert three.seconds > one.seconds + 2 * plan.round_steps and three.disk > one.disk, "round 0 comes on top"


def test_rounds_that_were_done_are_the_better_witness(project: Project, plan: Plan, foundation: Foundation) -> None:
    for round, seconds in enumerate((900.0, 100.0, 140.0)):
        project.journal.finish_round(round, {"seconds": seconds})
    assert estimate_needs(project, plan, CPU, foundation, rounds=2).seconds == pytest.approx(240)


def test_what_does_not_fit_is_said(project: Project, plan: Plan, foundation: Foundation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "_tried", lambda *given: needs._Trial(1.0, 0.1, 0.1, memory=10**15))
    monkeypatch.setattr(needs, "SPACE_PER_VOXEL", 10**15)
    remarks = " ".join(estimate_needs(project, plan, CPU, foundation, rounds=1).remarks)
    assert "too little free memory" in remarks and "too little free space" in remarks


@pytest.mark.parametrize("full", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("MPS backend out of memory (MPS …)")])
def test_a_step_that_exhausts_the_device_is_told(
    project: Project, plan: Plan, foundation: Foundation, monkeypatch: pytest.MonkeyPatch, full: RuntimeError
) -> None:
    def exhausted(*given: object) -> None:
        raise full

    monkeypatch.setattr(needs, "_tried", exhausted)
    found = estimate_needs(project, plan, CPU, foundation, rounds=1)
    assert found.seconds is None and found.memory is None and "smaller batch or patch" in found.remarks[0]


def test_a_fault_in_the_trial_is_no_full_memory(
    project: Project, plan: Plan, foundation: Foundation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*given: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(needs, "_tried", faulty)
    with pytest.raises(RuntimeError, match="a fault"):
        estimate_needs(project, plan, CPU, foundation, rounds=1)


@pytest.mark.skipif(sys.platform != "linux", reason="Other systems tell less.")
def test_memory_of_this_computer() -> None:
    total, free = computer_memory()
    assert total and free and total > free > 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows is not asked.")
def test_the_peak_of_a_process_grows_with_what_it_holds() -> None:
    program = "from SAM2IterativeLib.memory import peak_of_process as p; a = p(); b = b'x' * 200_000_000; print(p() - a)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=worker_environment(), check=True)
    assert int(done.stdout) == pytest.approx(200e6, rel=0.1)
