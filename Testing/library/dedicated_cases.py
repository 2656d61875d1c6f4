"""Small generated cases and plans for the tests of the dedicated network: a bright ball (class 1) with a dark core (class 2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from SAM2IterativeLib.dedicated.cases import TrainingCase, prepare_case
from SAM2IterativeLib.dedicated.plan import AugmentationPlan, Plan
from SAM2IterativeLib.device import Device
from SAM2IterativeLib.volumes import Geometry

torch.set_num_threads(1)  # small networks: more threads only wait for each other

CPU = Device("cpu")

PLAN_2D = Plan(
    network="unet2d",
    classes=2,
    neighbours=1,
    patch=(1, 32, 32),
    features=(8, 16, 32),
    strides=((1, 1, 1), (1, 2, 2), (1, 2, 2)),
    kernels=((1, 3, 3),) * 3,
    batch=8,
    first_steps=30,
    round_steps=10,
    learning_rate=1e-2,
    round_learning_rate=5e-3,
    averaging=0.9,
    snapshots=3,
)
PLAN_3D = replace(
    PLAN_2D,
    network="unet3d",
    neighbours=0,
    patch=(16, 32, 32),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    batch=2,
)
STILL = AugmentationPlan(**{name: 0.0 for name in AugmentationPlan.__dataclass_fields__ if name.endswith("_chance")}, mirror_axes=())


def ball(seed: int, size: tuple[int, int, int] = (14, 32, 30)) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """An image (k, j, i) and its classes; centre, radius and noise vary with the seed."""
    random = np.random.default_rng(seed)
    centre = np.array(size) / 2 + random.uniform(-2, 2, 3)
    axes = np.indices(size) - centre.reshape(3, 1, 1, 1)
    distance = np.sqrt((axes[0] * 2) ** 2 + axes[1] ** 2 + axes[2] ** 2)
    radius = random.uniform(8, 11)
    labels = (distance < radius).astype(np.uint8) + (distance < radius / 2)
    image = np.array([0.0, 100.0, -60.0])[labels] + random.normal(0, 15, size)
    return image.astype(np.float32), labels.astype(np.uint8)


def case(seed: int, plan: Plan, *, labelled: bool = True) -> TrainingCase:
    """A ball on the plan's grid."""
    image, labels = ball(seed)
    return prepare_case(f"ball_{seed}", image, Geometry(labels.shape), plan, labels, labelled=labelled)
