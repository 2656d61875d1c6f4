"""Training a round's network, method (i): half of each batch labelled, pseudo-labels weighted, repeatable, resumable, stoppable.

Step n draws all its chance from (seed, n) alone. So a run that was stopped and continued gives the same weights as one that was not.
"""

from __future__ import annotations

import copy
import logging
import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..device import Device, repeatable, with_smaller_batches
from ..errors import SettingsError, Stopped, WeightsError
from ..files import replace
from .augmentation import augment, reach, sample_augmentation
from .cases import TrainingCase
from .losses import segmentation_loss
from .networks import Weights, build_network, load_weights_into, memory_format, weights_of
from .plan import Plan
from .sampling import Batch, Sampler
from .weights import load_weights, save_weights

log = logging.getLogger(__name__)

Progress = Callable[[float, float, float | None], None]
"""Called with the fraction done (0..1), the running loss, and the seconds left (None while unknown)."""

_KEEP_EVERY = 100  # steps between the states that a loss that is not finite goes back to
_SAVE_SECONDS = 120.0  # between resumable checkpoints
_REPORT_SECONDS = 0.5
_LARGEST_GRADIENT = 12.0  # nnU-Net's limit
_SNAPSHOT_PART = 0.4  # snapshots are spread over this last part of training
_RAMP = 0.1  # share of the steps after which pseudo-labels have their full weight


@dataclass(frozen=True)
class TrainedNetwork:
    """What a training gives.

    ``weights`` for prediction and for the next round; ``snapshots`` oldest first, the last equals ``weights``;
    ``losses`` one per step; ``precision`` the number format it ended with.
    """

    weights: Weights
    snapshots: tuple[Weights, ...]
    losses: tuple[float, ...]
    precision: str


class Objective(Protocol):
    """What a step minimises. The default is ``PseudoLabelObjective``; other training schemes bring their own."""

    def __call__(self, network: nn.Module, average: nn.Module, batch: Batch, fraction: float) -> Tensor:
        """The loss of a batch. ``average`` holds the running average of the weights; ``fraction`` is the share of steps done."""
        ...


@dataclass(frozen=True)
class PseudoLabelObjective:
    """(CE + Dice) on labelled images + λ(t) · weighted (CE + Dice) on pseudo-labelled ones, method (i).

    λ rises linearly from 0 to ``weight`` over the first tenth of the steps.
    """

    weight: float = 1.0

    def __call__(self, network: nn.Module, average: nn.Module, batch: Batch, fraction: float) -> Tensor:
        """One pass for both halves, then a loss for each."""
        logits: Tensor = network(batch.image)
        n = batch.labelled
        loss = logits.new_zeros((), dtype=torch.float32)
        if n > 0:
            loss = loss + segmentation_loss(logits[:n], batch.labels[:n], batch.weights[:n])
        if n < len(logits):
            pseudo = segmentation_loss(logits[n:], batch.labels[n:], batch.weights[n:])
            loss = loss + self.weight * min(1.0, fraction / _RAMP) * pseudo
        return loss


@dataclass(frozen=True)
class Task:
    """One training: what, from where, how long.

    ``plan`` decides steps and network; ``cases`` on the plan's grid, at least one labelled; ``start`` weights of the previous round,
    None for round 0; ``checkpoint`` where a resumable state is kept, None for nowhere. If that file exists, training goes on from it,
    and where it is damaged from the one before it (``checkpoint_files``).
    """

    plan: Plan
    cases: Sequence[TrainingCase]
    device: Device
    seed: int = 0
    start: Weights | None = None
    objective: Objective = PseudoLabelObjective()
    checkpoint: Path | None = None

    @property
    def steps(self) -> int:
        """Steps of round 0, or of a later round."""
        return self.plan.first_steps if self.start is None else self.plan.round_steps

    @property
    def learning_rate(self) -> float:
        """The largest learning rate of this training."""
        return self.plan.learning_rate if self.start is None else self.plan.round_learning_rate

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be continued; looks through all labels and weights."""
        cases = start = 0
        for case in self.cases:
            cases = zlib.crc32(case.name.encode() + bytes([case.labelled]), cases)
            for plane in (*case.labels, *case.weights):  # one at a time: weights of 1 everywhere are a single number until copied
                cases = zlib.crc32(np.ascontiguousarray(plane).data, cases)
        for tensor in () if self.start is None else self.start.values():
            start = zlib.crc32(np.ascontiguousarray(tensor.numpy()).data, start)
        return {"plan": self.plan.digest, "seed": self.seed, "cases": cases, "start": start}


def train(task: Task, *, stop: Callable[[], bool] = lambda: False, progress: Progress = lambda *_: None) -> TrainedNetwork:
    """Train, or go on with a training that was stopped.

    If the cases are others than then, training begins anew and the log says so: a person who decides on cases while a training rests
    wants it to learn from that.

    Args:
        task: see ``Task``.
        stop: asked before every step.
        progress: told at most twice a second, and at the end.

    Raises:
        Stopped: ``stop`` said so; the state was written to ``task.checkpoint`` first.
        WeightsError: the checkpoint belongs to another plan, seed or start, or is damaged like the one before it.
        SettingsError: the loss was not finite a second time, in float32.
        ResourceError: not even one image at a time fits into the device's memory, or the disk is full.
    """
    with repeatable():
        training = _Training(task)
        if task.checkpoint is not None:
            training.go_on_from(task.checkpoint)
        training.run(stop, progress)
    return training.result()


def checkpoint_files(checkpoint: Path) -> tuple[Path, Path]:
    """The newest state of a training, and the one before it, which is kept for a disk that loses what it wrote last."""
    return checkpoint, checkpoint.with_name(f"{checkpoint.stem}.previous{checkpoint.suffix}")


class _Training:
    """The state of a training between two steps."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.device = task.device
        self.sampler = Sampler(task.cases, task.plan)
        self.step = 0
        self.losses: list[float] = []
        self.snapshots: list[Weights] = []
        self.network = build_network(task.plan, task.seed)
        if task.start is not None:
            load_weights_into(self.network, task.start)
        self.network.to(self.device.torch).train()
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=task.learning_rate, weight_decay=task.plan.weight_decay, betas=(0.9, 0.99)
        )
        self.scaler = torch.amp.GradScaler(self.device.kind, enabled=self.device.precision == torch.float16)
        self.together = task.plan.batch  # images that fit into memory at once
        self.snapshot_steps = snapshot_steps(task.steps, task.plan.snapshots)
        self.good = self.state()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The task's, which stays the same for as long as it trains; asked for where there is a checkpoint only."""
        return self.task.identity()

    def run(self, stop: Callable[[], bool], progress: Progress) -> None:
        """Steps until the end, with the duties between them: stop, report, keep, save."""
        began, first = time.monotonic(), self.step
        reported = saved = began
        while self.step < self.task.steps:
            if stop():
                self.save()
                raise Stopped
            self.advance()
            now = time.monotonic()
            if now - reported >= _REPORT_SECONDS or self.step == self.task.steps:
                left = (now - began) / max(1, self.step - first) * (self.task.steps - self.step)
                progress(self.step / self.task.steps, float(np.mean(self.losses[-20:])), left)
                reported = now
            if now - saved >= _SAVE_SECONDS:
                self.save()
                saved = now

    def advance(self) -> None:
        """One step; back to the last good state, in float32, if its loss or its gradient is not finite."""
        random = np.random.default_rng((self.task.seed, self.step))
        spots = self.sampler.sample_spots(random)
        plan = self.task.plan.across(spots[0].view)
        drawn = sample_augmentation(random, plan, len(spots))
        cutouts = self.sampler.cut(spots, reach(drawn, plan)).to(self.device.torch)
        batch = augment(cutouts, drawn, plan)
        loss, self.together = with_smaller_batches(lambda size: self.gradients(batch, size), self.together)
        if not math.isfinite(loss):
            self.recover()
            return
        for group in self.optimiser.param_groups:
            group["lr"] = self.task.learning_rate * schedule(self.step, self.task.steps)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        if not self.scaler.is_enabled() and not math.isfinite(float(norm)):  # in float16 the scaler leaves such a step out
            self.recover()
            return
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        self.losses.append(loss)
        self.update_average()
        if self.step in self.snapshot_steps:
            self.snapshots.append(weights_of(self.average))
        if self.step % _KEEP_EVERY == 0:
            self.good = self.state()

    def gradients(self, batch: Batch, together: int) -> float:
        """Add up the gradients of a batch, in parts of at most ``together`` images; returns the loss."""
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        parts = split(batch, together)
        for part in parts:
            part = Batch(part.image.contiguous(memory_format=memory_format(self.task.plan)), part.labels, part.weights, part.labelled)
            with self.device.autocast():
                loss = self.task.objective(self.network, self.average, part, self.step / self.task.steps) / len(parts)
            self.scaler.scale(loss).backward()
            total += float(loss.detach())
        return total

    def update_average(self) -> None:
        """Running average of the weights; a shorter memory at first, so that the untrained weights are soon forgotten."""
        momentum = min(self.task.plan.averaging, (1 + self.step) / (10 + self.step)) if self.task.plan.averaging else 0.0
        with torch.no_grad():
            now = [*self.network.parameters(), *self.network.buffers()]
            for mean, value in zip([*self.average.parameters(), *self.average.buffers()], now, strict=True):
                mean.lerp_(value, 1 - momentum) if mean.is_floating_point() else mean.copy_(value)

    def recover(self) -> None:
        """Go back to the last good state and on in float32; the second time give up."""
        if self.device.precision == torch.float32:
            raise SettingsError(
                f"the loss is not finite at step {self.step}.",
                where="training",
                cure="Look for images with extreme values, or lower learning_rate in plan.toml.",
            )
        self.device = self.device.in_full_precision()
        self.scaler = torch.amp.GradScaler(self.device.kind, enabled=False)
        self.restore(*self.good)
        self.good = self.state()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next steps depend on, as tensors and plain values; copies."""
        tensors = {f"network.{n}": t for n, t in weights_of(self.network).items()}
        tensors |= {f"average.{n}": t for n, t in weights_of(self.average).items()}
        for index, snapshot in enumerate(self.snapshots):
            tensors |= {f"snapshot.{index}.{n}": t for n, t in snapshot.items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{n}": t.detach().cpu().clone() for n, t in values.items()}
        precision = str(self.device.precision).removeprefix("torch.")
        return tensors, {
            "step": self.step,
            "losses": list(self.losses),
            "precision": precision,
            "scale": self.scaler.state_dict(),
            "snapshots": len(self.snapshots),
        }

    def restore(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """The reverse of ``state``, but for the precision, which the caller decides."""
        self.step, self.losses = values["step"], list(values["losses"])
        load_weights_into(self.network, _under("network.", tensors))
        load_weights_into(self.average, _under("average.", tensors))
        self.snapshots = [_under(f"snapshot.{n}.", tensors) for n in range(values["snapshots"])]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimiser.", tensors).items():
            index, _, entry = name.partition(".")
            moments.setdefault(int(index), {})[entry] = tensor.clone()
        self.optimiser.load_state_dict({"state": moments, "param_groups": self.optimiser.state_dict()["param_groups"]})
        if self.scaler.is_enabled() and values["scale"]:
            self.scaler.load_state_dict(values["scale"])

    def save(self) -> None:
        """Write the resumable checkpoint, if there is a place for one."""
        if self.task.checkpoint is not None:
            newest, before = checkpoint_files(self.task.checkpoint)
            if newest.exists():
                replace(newest, before)
            tensors, values = self.state()
            save_weights(self.task.checkpoint, tensors, {"kind": "training", "identity": self.identity, **values})

    def go_on_from(self, checkpoint: Path) -> None:
        """Go on from the newest whole state of the same task, if there is one; one of other cases is left alone."""
        there = [file for file in checkpoint_files(checkpoint) if file.exists()]
        for path in there:
            try:
                held = load_weights(path, cure="Remove it to begin this round's training again.")
            except WeightsError as error:
                if path == there[-1]:
                    raise
                log.warning("%s: %s Training goes on from the state before it.", path.name, error.what)
            else:
                self.load(path, *held)
                return

    def load(self, path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint held."""
        theirs, ours = values.get("identity"), self.identity
        if values.get("kind") != "training" or not isinstance(theirs, dict) or theirs | {"cases": 0} != ours | {"cases": 0}:
            raise WeightsError(
                "the checkpoint belongs to another plan, seed or starting point.",
                where=f"{path.parent.name}/{path.name}",
                cure="Undo the change, or remove the file to begin this round's training again.",
            )
        if theirs != ours:
            log.warning("%s had other cases or labels: this training begins anew.", path.name)
            return
        if values["precision"] == "float32":
            self.device = self.device.in_full_precision()
            self.scaler = torch.amp.GradScaler(self.device.kind, enabled=False)
        self.restore(tensors, values)
        self.good = self.state()

    def result(self) -> TrainedNetwork:
        """The outcome, after the last step."""
        precision = str(self.device.precision).removeprefix("torch.")
        return TrainedNetwork(weights_of(self.average), tuple(self.snapshots), tuple(self.losses), precision)


def schedule(step: int, steps: int) -> float:
    """Learning rate as a factor: a short linear rise, then nnU-Net's polynomial fall (1 - t)^0.9."""
    rise = min(1.0, (step + 1) / max(1.0, min(50.0, 0.05 * steps)))
    return float(rise * (1 - step / steps) ** 0.9)


def snapshot_steps(steps: int, count: int) -> tuple[int, ...]:
    """After which steps a snapshot is kept: evenly over the last part of training, the last one after the last step."""
    gap = _SNAPSHOT_PART * steps / max(1, count)
    return tuple(sorted({max(1, round(steps - n * gap)) for n in range(count)}))


def split(batch: Batch, together: int) -> list[Batch]:
    """A batch in parts of at most ``together`` images, labelled and pseudo-labelled ones dealt out evenly."""
    count = math.ceil(len(batch.image) / together)
    if count == 1:
        return [batch]
    parts = []
    for first in range(count):
        chosen = list(range(first, len(batch.image), count))
        labelled = sum(n < batch.labelled for n in chosen)
        parts.append(Batch(batch.image[chosen], batch.labels[chosen], batch.weights[chosen], labelled))
    return parts


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
