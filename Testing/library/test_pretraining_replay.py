from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_sam2
import torch

from SAM2IterativeLib.device import choose_device
from SAM2IterativeLib.errors import SettingsError
from SAM2IterativeLib.pretraining.replay import ConstantsOnDevice, Recorder, repertoire
from SAM2IterativeLib.pretraining.tasks import Exercise, make_clip
from SAM2IterativeLib.pretraining.training import Pretraining, PretrainingPlan

SIDE = 64
SIZES = replace(tiny_sam2.TINY, image_size=SIDE)


def test_constants_are_made_once_and_everything_else_as_ever() -> None:
    with ConstantsOnDevice(torch.device("cpu")):
        first, again, other = torch.tensor([1, 2]), torch.tensor([1, 2]), torch.tensor([1, 3])
        wide = torch.tensor([1, 2], dtype=torch.float64)
        assert torch.equal(torch.arange(3) + torch.ones(3, dtype=torch.long), torch.tensor([1, 2, 3]))
    assert first is again and first is not other
    assert first.tolist() == [1, 2] and other.tolist() == [1, 3]
    assert wide.dtype == torch.float64 and first.dtype == torch.int64
    assert torch.tensor([1, 2]) is not first


def test_a_repertoire_holds_the_kinds_that_the_end_of_the_curriculum_shows() -> None:
    kinds = repertoire(3, 60, 1.0)
    assert kinds == repertoire(3, 60, 1.0) != repertoire(4, 60, 1.0)
    assert len(kinds) == 60
    assert {1, 4, 8} <= {kind.length for kind in kinds}
    assert {"box", "mask", "dense"} <= {kind.prompt for kind in kinds}
    assert any(kind.guided for kind in kinds) and any(kind.support for kind in kinds)


@pytest.mark.parametrize("begin", [0.0, 0.6])
def test_recording_without_a_gpu_is_refused(tmp_path: Path, begin: float) -> None:
    plan = PretrainingPlan(steps=1, recorded=4, curriculum_from=begin)
    with pytest.raises(SettingsError, match="CUDA GPU"):
        Pretraining(plan, tmp_path / "checkpoint.safetensors", tiny_sam2.CPU, SIZES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("exercise", [Exercise(2, 2, 3, "mask"), Exercise(2, 2, 3, "mask", support=1)], ids=["clip", "support"])
def test_a_replay_gives_the_loss_and_the_gradients_of_the_step_itself(tmp_path: Path, exercise: Exercise) -> None:
    training = Pretraining(PretrainingPlan(), tmp_path / "checkpoint.safetensors", choose_device("cuda"), SIZES)
    training.model.train()
    generator = torch.Generator("cuda").manual_seed(0)
    clips = [make_clip(exercise, generator, SIDE) for _ in range(2)]
    recorder = Recorder(list(training.model.parameters()), training._loss, generator)
    for clip in clips:
        recorded = float(recorder.loss(exercise, clip))
        gradients = [parameter.grad.clone() for parameter in training.model.parameters() if parameter.grad is not None]
        held = [parameter.grad for parameter in training.model.parameters()]
        training.optimiser.zero_grad(set_to_none=True)
        loss = training._loss(exercise, clip, generator)
        loss.backward()
        itself = [torch.zeros_like(p) if p.grad is None else p.grad for p in training.model.parameters()]
        for parameter, gradient in zip(training.model.parameters(), held, strict=True):
            parameter.grad = gradient
        assert recorded == pytest.approx(float(loss.detach()), rel=1e-3)
        together = torch.cat([g.flatten() for g in gradients]), torch.cat([g.flatten() for g in itself])
        assert float((together[0] - together[1]).norm() / together[1].norm()) < 0.05
