"""Small generated projects and weights, so that whole rounds run within seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from SAM2IterativeLib.device import Device
from SAM2IterativeLib.files import sha256_of
from SAM2IterativeLib.foundation.checkpoints import save_compact
from SAM2IterativeLib.foundation.sam2_model import CompactArchitecture, build_compact
from SAM2IterativeLib.iteration import Iteration
from SAM2IterativeLib.messages import Message
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.presets import PRESETS, preset_path
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.settings import DedicatedSettings, FoundationSettings, Label, Settings

CPU = Device("cpu", torch.float32, "CPU", "Chosen by the test.")
TINY = CompactArchitecture(image_size=64)


def tiny_weights(folder: Path, seed: int = 0) -> Path:
    """Random weights of a small model whose object score is positive: they run every path, and segment nothing sensible."""
    path = folder / "tiny.safetensors"
    if not path.is_file():
        torch.manual_seed(seed)
        save_compact(build_compact(TINY), TINY, path, {"made_for": "tests"})
    return path


def shipped_weights() -> str:
    """The shipped compact weights, or a skip that says why."""
    if not preset_path("compact").is_file():
        pytest.skip(f"The shipped weights {PRESETS['compact'].file} are not there.")
    return "compact"


def small_project(
    folder: Path,
    weights: str | Path,
    *,
    labelled: int = 2,
    unlabelled: int = 2,
    validation: int = 0,
    steps: int = 8,
    size: tuple[int, int, int] = (8, 32, 32),
) -> Project:
    """A project of phantoms with two labels; the caller closes it."""
    settings = Settings(
        name="small",
        labels=(Label(1, "organ"), Label(2, "gland")),
        dedicated=DedicatedSettings(first_steps=steps, round_steps=max(1, steps // 2), batch=4, snapshots=2),
        foundation=FoundationSettings(weights=str(weights), adaptation_steps=0),
    )
    project = Project.create(folder, settings)
    for number in range(labelled + unlabelled + validation):
        image, label = phantom_case(number, size=size)
        with_label = number < labelled or number >= labelled + unlabelled
        role = "validation" if number >= labelled + unlabelled else None
        project.add_case(f"case_{number}", image, label if with_label else None, role=role)
    return project


def run_rounds(project: Project, rounds: int, messages: list[Message] | None = None) -> None:
    """Run on the CPU in float32."""
    Iteration(project, CPU, (messages if messages is not None else []).append).run(rounds)


def artefact_hashes(project: Project, roles: tuple[str, ...] = ("unlabelled", "validation")) -> dict[str, str]:
    """SHA-256 of every file of every round, and of the models."""
    names = {case.id for case in project.cases() if case.role in roles}
    files = [p for p in (project.folder / "rounds").rglob("*") if p.is_file() and p.parent.name in names]
    files += (project.folder / "models").glob("round_*.safetensors")
    return {project.relative(path): sha256_of(path) for path in sorted(files)}
