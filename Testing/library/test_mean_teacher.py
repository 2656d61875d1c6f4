"""benchmarks.mean_teacher: a fair peer that cannot see hidden labels."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dedicated_cases import CPU, PLAN_2D, case
from torch import nn

from SAM2IterativeLib.dedicated.sampling import Batch
from SAM2IterativeLib.dedicated.weights import content_hash

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from mean_teacher import Consistency, train_mean_teacher

PLAN = replace(PLAN_2D, first_steps=4, batch=4)
LABELLED = [case(0, PLAN)]
UNLABELLED = [case(n, PLAN, labelled=False) for n in (1, 2)]


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(4, 3, 8, 8, generator=generator), torch.zeros(4, 8, 8, dtype=torch.long), torch.ones(4, 8, 8), 2)


def test_hidden_labels_cannot_matter() -> None:
    garbage = [replace(c, labels=np.full_like(c.labels, 2), weights=np.full_like(c.weights, 0.3)) for c in UNLABELLED]
    one, other = (train_mean_teacher(PLAN, LABELLED, u, CPU).weights for u in (UNLABELLED, garbage))
    assert content_hash(one) == content_hash(other)


def test_unlabelled_images_do_matter_and_steps_are_counted() -> None:
    one = train_mean_teacher(PLAN, LABELLED, UNLABELLED, CPU, steps=6)
    other = train_mean_teacher(PLAN, LABELLED, UNLABELLED[:1], CPU, steps=6)
    assert len(one.losses) == 6
    assert content_hash(one.weights) != content_hash(other.weights)


def test_agreement_costs_nothing_and_disagreement_something() -> None:
    student, other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    silent = Consistency(noise=0.0)
    alone = float(Consistency(weight=0.0, noise=0.0)(student, student, batch(), 1.0).detach())
    assert float(silent(student, student, batch(), 1.0).detach()) == pytest.approx(alone)
    assert float(silent(student, other, batch(), 1.0).detach()) > alone + 1e-4


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    Consistency()(student, teacher, batch(), 1.0).backward()
    assert student.weight.grad is not None and teacher.weight.grad is None


def test_consistency_rises() -> None:
    weights = [Consistency(weight=2.0, ramp=0.5).weight_at(f) for f in (0.0, 0.2, 0.5, 1.0)]
    assert weights[0] == pytest.approx(2 * np.exp(-5)) and weights == sorted(weights) and weights[2] == weights[3] == 2.0
