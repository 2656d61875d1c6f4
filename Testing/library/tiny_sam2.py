"""A SAM2 of the smallest sizes that Hiera takes, with seeded random weights, and volumes for it: every path runs within milliseconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from SAM2IterativeLib.device import Device
from SAM2IterativeLib.foundation.checkpoints import Foundation
from SAM2IterativeLib.foundation.features import VolumeFeatures, Window, encode_volume
from SAM2IterativeLib.foundation.sam2_model import CompactArchitecture, SAM2Base, build_compact
from SAM2IterativeLib.guidance.prompts import Prompt

torch.set_num_threads(1)  # models this small only get slower with more

CPU = Device("cpu", torch.float32, "CPU", "Chosen by the test.")
TINY = CompactArchitecture(
    image_size=64,
    embed_dim=8,
    stages=(1, 1, 2, 1),
    global_blocks=(3,),
    windows=(8, 4, 4, 2),
    model_dim=32,
    memory_dim=16,
    attention_layers=1,
    feedforward=64,
)
SIDE = TINY.image_size


def tiny_model(seed: int = 0, kind: type[SAM2Base] = SAM2Base, architecture: CompactArchitecture = TINY) -> SAM2Base:
    """In evaluation mode, without gradients."""
    torch.manual_seed(seed)
    return build_compact(architecture, kind).eval().requires_grad_(False)


def tiny_foundation(seed: int = 0) -> Foundation:
    """The model above as the library loads it."""
    return Foundation(tiny_model(seed), "tiny", f"tiny-{seed}", SIDE, imagenet=False)


def ball_volume(slices: int = 8, rows: int = SIDE, columns: int = SIDE, classes: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image (k, j, i) and its labels: balls side by side, brighter from class to class, that drift along the slices and end."""
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(np.arange(slices), np.arange(rows), np.arange(columns), indexing="ij")
    middle, labels = (slices - 1) / 2, np.zeros((slices, rows, columns), np.uint8)
    for c in range(1, classes + 1):
        radius = 0.4 * min(rows, columns / classes)
        column = columns * (c - 0.5) / classes + 0.02 * columns * (z - middle) / slices
        inside = ((y - rows / 2) / radius) ** 2 + ((x - column) / radius) ** 2 + ((z - middle) / (0.45 * slices)) ** 2 < 1
        labels[inside] = c
    image = labels * 100.0 + random.normal(0, 15, labels.shape)
    return image.astype(np.float32), labels


def encoded(foundation: Foundation, image: np.ndarray, window: Window | None = None) -> VolumeFeatures:
    """The whole slices' features."""
    return encode_volume(foundation, image, window or Window.whole(image.shape[1:3]), CPU)


def box_prompt(mask: np.ndarray, slice_index: int, class_index: int = 1) -> Prompt:
    """The box of a mask (j, i), and a point in its middle."""
    rows, columns = np.nonzero(mask)
    box = (float(rows.min()), float(columns.min()), float(rows.max() + 1), float(columns.max() + 1))
    centre = np.array([[rows.mean(), columns.mean()]], np.float32)
    return Prompt(slice_index, class_index, box, centre, np.empty((0, 2), np.float32))


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes, as on a full disk; skips where the system cannot do that."""
    resource = pytest.importorskip("resource", reason="File sizes cannot be limited on this system.")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
