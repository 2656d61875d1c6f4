"""dedicated.training: learns, repeats itself, stops and goes on, survives a loss that is not finite and a full memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dedicated_cases import CPU, PLAN_2D, PLAN_3D, case
from torch import Tensor, nn

from SAM2IterativeLib.dedicated import training
from SAM2IterativeLib.dedicated.augmentation import augment, reach, sample_augmentation
from SAM2IterativeLib.dedicated.cases import TrainingCase
from SAM2IterativeLib.dedicated.networks import Weights
from SAM2IterativeLib.dedicated.plan import Plan
from SAM2IterativeLib.dedicated.sampling import Batch, Sampler
from SAM2IterativeLib.dedicated.training import PseudoLabelObjective, Task, checkpoint_files, schedule, snapshot_steps, split, train
from SAM2IterativeLib.dedicated.weights import content_hash
from SAM2IterativeLib.device import Device
from SAM2IterativeLib.errors import SettingsError, Stopped, WeightsError

SHORT = replace(PLAN_2D, first_steps=6, batch=4)


def cases(plan: Plan, labelled: int = 2, pseudo: int = 0) -> list[TrainingCase]:
    return [case(n, plan, labelled=n < labelled) for n in range(labelled + pseudo)]


def after(count: int) -> Callable[[], bool]:
    """A stop button that is pressed after ``count`` questions."""
    asked = iter(range(10**6))
    return lambda: next(asked) >= count


@pytest.mark.parametrize("plan", [PLAN_2D, PLAN_3D])
def test_the_loss_falls(plan: Plan) -> None:
    result = train(Task(plan, cases(plan), CPU))
    assert len(result.losses) == plan.first_steps
    assert np.mean(result.losses[-5:]) < 0.7 * np.mean(result.losses[:3])


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    one, again, other = (content_hash(train(Task(SHORT, cases(SHORT, 2, 2), CPU, seed)).weights) for seed in (3, 3, 4))
    assert one == again != other


def test_snapshots_are_from_the_last_part_and_end_with_the_weights() -> None:
    result = train(Task(SHORT, cases(SHORT), CPU))
    hashes = [content_hash(snapshot) for snapshot in result.snapshots]
    assert len(set(hashes)) == len(hashes) == SHORT.snapshots
    assert hashes[-1] == content_hash(result.weights)
    assert snapshot_steps(1000, 5) == (680, 760, 840, 920, 1000)
    assert snapshot_steps(2, 5) == (1, 2)


@pytest.mark.parametrize("device", [CPU, Device("cpu", torch.bfloat16)])
def test_stopped_and_continued_equals_never_stopped(tmp_path: Path, device: Device) -> None:
    task = Task(replace(SHORT, first_steps=8), cases(SHORT, 2, 1), device, checkpoint=tmp_path / "training.safetensors")
    whole = train(replace(task, checkpoint=None))
    for count in (3, 2):
        with pytest.raises(Stopped):
            train(task, stop=after(count))
    resumed = train(task)
    assert resumed.losses == whole.losses
    assert content_hash(resumed.weights) == content_hash(whole.weights)
    assert [content_hash(s) for s in resumed.snapshots] == [content_hash(s) for s in whole.snapshots]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    task = Task(SHORT, cases(SHORT, 2, 1), CPU, checkpoint=tmp_path / "training.safetensors")
    with pytest.raises(Stopped):
        train(task, stop=after(2))
    weights = train(replace(task, checkpoint=None)).weights
    for other in (
        replace(task, seed=9),
        replace(task, plan=replace(SHORT, learning_rate=0.1)),
        replace(task, start=weights),
    ):
        with pytest.raises(WeightsError, match=r"training\.safetensors: the checkpoint belongs to another plan, seed"):
            train(other)
    assert task.checkpoint is not None
    task.checkpoint.write_bytes(task.checkpoint.read_bytes()[:-50])
    with pytest.raises(WeightsError, match="no whole safetensors"):
        train(task)


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = Task(replace(SHORT, first_steps=8), cases(SHORT, 2, 1), CPU, checkpoint=tmp_path / "training.safetensors")
    whole = train(replace(task, checkpoint=None))
    for count in (3, 2):
        with pytest.raises(Stopped):
            train(task, stop=after(count))
    newest, before = checkpoint_files(tmp_path / "training.safetensors")
    assert sorted(tmp_path.iterdir()) == sorted([newest, before])
    newest.write_bytes(newest.read_bytes()[:-50])
    resumed = train(task)
    assert content_hash(resumed.weights) == content_hash(whole.weights) and resumed.losses == whole.losses
    assert "goes on from the state before it" in caplog.text
    newest.unlink()  # killed between the two renamings
    assert train(task).losses == whole.losses


@pytest.mark.parametrize("part", ["labels", "weights"])
def test_after_a_review_an_unfinished_training_begins_anew(tmp_path: Path, part: str) -> None:
    task = Task(SHORT, cases(SHORT, 2, 1), CPU, checkpoint=tmp_path / "training.safetensors")
    with pytest.raises(Stopped):
        train(task, stop=after(2))
    decided = replace(task.cases[2], **{part: np.zeros_like(getattr(task.cases[2], part))})
    after_review = replace(task, cases=[*task.cases[:2], decided])
    assert content_hash(train(after_review).weights) == content_hash(train(replace(after_review, checkpoint=None)).weights)


def test_the_identity_is_that_of_all_labels_and_weights_as_one(tmp_path: Path) -> None:
    """So that checkpoints of older versions still count; and weights of 1 everywhere are the same as those written out."""
    task = Task(SHORT, cases(SHORT, 1, 1), CPU, start={"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)})
    content = b"".join(c.name.encode() + bytes([c.labelled]) + c.labels.tobytes() + c.weights.tobytes() for c in task.cases)
    assert task.start is not None and not any(task.cases[0].weights.strides)
    start = b"".join(tensor.numpy().tobytes() for tensor in task.start.values())
    assert task.identity() == {"plan": SHORT.digest, "seed": 0, "cases": zlib.crc32(content), "start": zlib.crc32(start)}


def test_all_labels_are_looked_through_once_however_often_it_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, identity = [], Task.identity
    monkeypatch.setattr(training, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(Task, "identity", lambda task: looks.append(task) or identity(task))
    task = Task(SHORT, cases(SHORT), CPU, checkpoint=tmp_path / "training.safetensors")
    with pytest.raises(Stopped):
        train(task, stop=after(3))
    assert len(looks) == 1
    train(task)
    assert len(looks) == 2
    train(replace(task, checkpoint=None))
    assert len(looks) == 2


def test_a_later_round_goes_on_from_the_weights_it_is_given() -> None:
    first = train(Task(PLAN_2D, cases(PLAN_2D), CPU))
    later = train(Task(PLAN_2D, cases(PLAN_2D), CPU, start=first.weights))
    assert len(later.losses) == PLAN_2D.round_steps
    assert np.mean(later.losses[:3]) < 0.8 * np.mean(first.losses[:3])
    assert content_hash(later.weights) != content_hash(first.weights)


def test_the_given_weights_are_not_changed() -> None:
    first = train(Task(SHORT, cases(SHORT), CPU)).weights
    before = content_hash(first)
    train(Task(SHORT, cases(SHORT), CPU, start=first))
    assert content_hash(first) == before


def test_a_voxel_of_weight_zero_teaches_nothing() -> None:
    pseudo = case(5, SHORT, labelled=False)
    blind = replace(pseudo, weights=np.where(pseudo.labels == 2, 0, 1).astype(np.float32))
    lying = replace(blind, labels=np.where(pseudo.labels == 2, 1, pseudo.labels).astype(np.uint8))
    plan = replace(SHORT, foreground_share=0.0)  # otherwise the label decides which slices are seen
    one, other = (train(Task(plan, [*cases(plan), c], CPU)).weights for c in (blind, lying))
    assert content_hash(one) == content_hash(other)


def test_pseudo_labels_count_by_their_weight() -> None:
    batch = _batch()
    network = nn.Conv2d(3, 3, 1)
    none, half, full = (float(PseudoLabelObjective(w)(network, network, batch, 1.0).detach()) for w in (0.0, 0.5, 1.0))
    assert half == pytest.approx((none + full) / 2) and none < half < full
    ramp = [float(PseudoLabelObjective(1.0)(network, network, batch, f).detach()) for f in (0.0, 0.05, 0.1, 0.7)]
    assert ramp[0] == pytest.approx(none) and ramp[1] == pytest.approx(half) and ramp[2] == ramp[3] == pytest.approx(full)


def test_progress_reaches_one_and_counts_down() -> None:
    told: list[tuple[float, float, float | None]] = []
    train(Task(SHORT, cases(SHORT), CPU), progress=lambda *values: told.append(values))
    assert told[-1][0] == 1.0 and told[-1][2] == 0.0
    assert all(np.isfinite(loss) for _, loss, _ in told)


@dataclass(frozen=True)
class Overflowing(PseudoLabelObjective):
    """Not finite in half precision once three steps are done, as a float16 loss may be."""

    always: bool = False

    def __call__(self, network: nn.Module, average: nn.Module, batch: Batch, fraction: float) -> Tensor:
        loss = super().__call__(network, average, batch, fraction)
        half = torch.is_autocast_enabled("cpu")
        return loss * float("nan") if fraction >= 0.5 and (half or self.always) else loss


def test_a_loss_that_is_not_finite_goes_back_and_on_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_KEEP_EVERY", 2)
    task = Task(SHORT, cases(SHORT), Device("cpu", torch.bfloat16))
    result = train(replace(task, objective=Overflowing()))
    assert result.precision == "float32" and len(result.losses) == SHORT.first_steps
    assert all(np.isfinite(result.losses)) and all(torch.isfinite(t).all() for t in result.weights.values())
    plain = train(task)
    assert plain.precision == "bfloat16"
    assert result.losses[:2] == plain.losses[:2] and result.losses[2:] != plain.losses[2:]  # back to the state after two steps


@pytest.mark.parametrize("at", [2, 3, 6])
def test_a_gradient_that_is_not_finite_goes_back_too(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Where the loss itself is: just before a state is kept, after it, and in the last step."""
    monkeypatch.setattr(training, "_KEEP_EVERY", 2)
    clip, calls = nn.utils.clip_grad_norm_, iter(range(1, 100))

    def overflowing(parameters: Any, largest: float) -> Tensor:
        held = list(parameters)
        if next(calls) == at:
            held[0].grad[...] = float("inf")
        return clip(held, largest)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", overflowing)
    result = train(Task(SHORT, cases(SHORT), Device("cpu", torch.bfloat16)))
    assert result.precision == "float32" and len(result.losses) == SHORT.first_steps
    assert all(torch.isfinite(t).all() for t in result.weights.values())


def test_in_float32_a_loss_that_is_not_finite_ends_with_advice() -> None:
    with pytest.raises(SettingsError, match=r"training: the loss is not finite at step 3.*learning_rate"):
        train(Task(SHORT, cases(SHORT), Device("cpu", torch.bfloat16), objective=Overflowing(always=True)))


@dataclass(frozen=True)
class Hungry(PseudoLabelObjective):
    """Needs more memory than there is for more than two images."""

    def __call__(self, network: nn.Module, average: nn.Module, batch: Batch, fraction: float) -> Tensor:
        if len(batch.image) > 2:
            raise torch.OutOfMemoryError("full")
        return super().__call__(network, average, batch, fraction)


def test_full_memory_is_answered_by_adding_up_gradients() -> None:
    sound, hungry = (train(Task(SHORT, cases(SHORT, 2, 2), CPU, objective=o)) for o in (PseudoLabelObjective(), Hungry()))
    assert len(hungry.losses) == SHORT.first_steps
    assert hungry.losses[0] == pytest.approx(sound.losses[0], rel=0.3)


def test_parts_of_a_batch_have_both_kinds() -> None:
    batch = _batch()
    parts = split(batch, 2)
    assert [part.labelled for part in parts] == [1, 1] and [len(part.image) for part in parts] == [2, 2]
    assert torch.equal(torch.cat([p.image for p in parts]).sort(0).values, batch.image.sort(0).values)
    assert split(batch, 4) == [batch]


def test_learning_rate_rises_shortly_and_falls_to_zero() -> None:
    values = [schedule(step, 1000) for step in range(1000)]
    assert values[0] < 0.03 and max(values) > 0.9 and values[-1] < 0.01
    assert np.argmax(values) == 49 and all(np.diff(values[50:]) < 0)
    assert schedule(0, 1) == 1.0


def _batch() -> Batch:
    sampler, random = Sampler(cases(SHORT, 2, 2), SHORT), np.random.default_rng(0)
    spots, drawn = sampler.sample_spots(random), sample_augmentation(random, SHORT, SHORT.batch)
    return augment(sampler.cut(spots, reach(drawn, SHORT)), drawn, SHORT)


def test_weights_are_plain_tensors() -> None:
    weights: Weights = train(Task(replace(SHORT, first_steps=1), cases(SHORT), CPU)).weights
    assert all(type(t) is Tensor and t.dtype == torch.float32 and t.device.type == "cpu" for t in weights.values())
