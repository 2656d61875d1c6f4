"""Mean teacher (Tarvainen & Valpola, NeurIPS 2017; for volumes as in UA-MT, Yu et al., MICCAI 2019): the plain semi-supervised peer.

Same network, augmentation, sampling, steps and weight averaging as the project's own training; only what unlabelled images
teach differs: agreement with the running average of the network instead of pseudo-labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from SAM2IterativeLib.dedicated.cases import TrainingCase
from SAM2IterativeLib.dedicated.losses import segmentation_loss
from SAM2IterativeLib.dedicated.plan import Plan
from SAM2IterativeLib.dedicated.sampling import Batch
from SAM2IterativeLib.dedicated.training import Task, TrainedNetwork, train
from SAM2IterativeLib.device import Device


@dataclass(frozen=True)
class Consistency:
    """(CE + Dice) on labelled images + w(t) · mean squared difference of student's and teacher's probabilities on the others.

    Both see the same varied image, each with its own Gaussian noise. w(t) = ``weight`` · exp(-5 (1 - t/T)²) up to T = ``ramp`` of the
    steps, then ``weight``.
    """

    weight: float = 1.0
    ramp: float = 0.4
    noise: float = 0.1

    def __call__(self, network: nn.Module, average: nn.Module, batch: Batch, fraction: float) -> Tensor:
        """``average`` is the teacher."""
        generator = torch.Generator(batch.image.device).manual_seed(round(fraction * 1e9))
        n = batch.labelled
        shaken = torch.cat([batch.image[:n], self._noisy(batch.image[n:], generator)])
        logits: Tensor = network(shaken.contiguous(memory_format=_format_of(batch.image)))
        loss = segmentation_loss(logits[:n], batch.labels[:n], batch.weights[:n])
        with torch.no_grad():
            teacher = average(self._noisy(batch.image[n:], generator)).float().softmax(1)
        difference = (logits[n:].float().softmax(1) - teacher).square().mean(1)
        inside = batch.weights[n:] > 0
        return loss + self.weight_at(fraction) * (difference * inside).sum() / inside.sum().clamp_min(1)

    def weight_at(self, fraction: float) -> float:
        """w(t)."""
        return self.weight * math.exp(-5 * max(0.0, 1 - fraction / self.ramp) ** 2)

    def _noisy(self, image: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(image.shape, generator=generator, device=image.device) * self.noise
        return image + noise.clamp(-2 * self.noise, 2 * self.noise)


def train_mean_teacher(
    plan: Plan,
    labelled: Sequence[TrainingCase],
    unlabelled: Sequence[TrainingCase],
    device: Device,
    seed: int = 0,
    *,
    steps: int = 0,
    objective: Consistency = Consistency(),
    checkpoint: Path | None = None,
    progress: Callable[[float, float, float | None], None] = lambda *_: None,
) -> TrainedNetwork:
    """Train from scratch; the result's ``weights`` are the teacher's.

    Args:
        plan: the one of the run it is compared with.
        labelled, unlabelled: the same cases; whatever labels the unlabelled ones carry are thrown away first.
        device, seed, checkpoint, progress: see ``Task`` and ``train``.
        steps: all steps of the compared run together (round 0 and later rounds); 0: those of round 0.
        objective: weight and ramp of the consistency.
    """
    blank = [replace(c, labels=np.zeros_like(c.labels), weights=np.ones_like(c.weights), labelled=False) for c in unlabelled]
    plan = replace(plan, first_steps=steps or plan.first_steps)
    return train(Task(plan, [*labelled, *blank], device, seed, objective=objective, checkpoint=checkpoint), progress=progress)


def _format_of(image: Tensor) -> torch.memory_format:
    return torch.channels_last if image.dim() == 4 else torch.channels_last_3d
