"""How well SAM2 weights carry the truth of a few slices through volumes they have never seen.

    python Testing/benchmarks/propagation.py --weights compact --cases 12

Per class, the true mask, a box or three points are given on the class's middle slice, or on three key frames, and carried to both ends;
mean 3-D Dice. Beside it: copying the prompted slices' true masks, the same model with random weights, and (``--adapt N``) the weights after
``adapt`` on the first N cases of a real set. Real sets are measured on their last cases. Last, the time per slice of each part on one core.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from SAM2IterativeLib.device import Device, choose_device
from SAM2IterativeLib.foundation.arithmetic import fast_arithmetic
from SAM2IterativeLib.foundation.checkpoints import Foundation, load_foundation, locate, read_tensors
from SAM2IterativeLib.foundation.features import Window, encode_volume, prepare_images
from SAM2IterativeLib.foundation.sam2_model import encode_images
from SAM2IterativeLib.foundation.tracking import Memories, encode_memory, track_slice
from SAM2IterativeLib.pretraining.adaptation import AdaptationPlan, adapt
from SAM2IterativeLib.pretraining.evaluation import (
    FIRST_UNSEEN_SEED,
    LabelledVolume,
    PromptKind,
    copied_dice,
    generated_volumes,
    propagation_dice,
    random_foundation,
)
from SAM2IterativeLib.settings import MemorySettings
from SAM2IterativeLib.volumes import read_label_map, read_volume

DATA = Path(os.environ.get("SAM2_ITERATIVE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
KINDS: tuple[PromptKind, ...] = ("mask", "box", "points")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="compact")
    parser.add_argument("--cases", type=int, default=12, help="volumes per data set")
    parser.add_argument("--adapt", type=int, default=0, help="also after adapting to the first N cases of each real set")
    parser.add_argument("--adapt-steps", type=int, default=150)
    parser.add_argument("--skip", type=int, default=0, help="generated volumes from that many seeds later on")
    parser.add_argument("--sets", default="generated,hippocampus,left_atrium")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = choose_device("cpu")
    foundation = load_foundation(options.weights, device)
    _, architecture = read_tensors(locate(options.weights)[0])
    print("| data | model | prompts | mask | box | 3 points |\n|---|---|---|---|---|---|")
    for name in options.sets.split(","):
        volumes = (
            generated_volumes(options.cases, first_seed=FIRST_UNSEEN_SEED + options.skip)
            if name == "generated"
            else real_volumes(name, last=options.cases)
        )
        for keys in (1, 3):
            copied = _mean(copied_dice(volumes, keys))
            print(f"| {name} | copying the true mask | {keys} | {copied:.3f} | | |", flush=True)
        for keys in (1, 3):
            _row(name, "compact", foundation, device, volumes, keys)
        _row(name, "compact, stock memory (G0)", foundation, device, volumes, 1, MemorySettings(mode="G0"))
        if architecture is not None:
            _row(name, "random weights", random_foundation(architecture, device), device, volumes, 1)
        if options.adapt and name != "generated":
            few = real_volumes(name, first=options.adapt)
            before, after, model = adapt(foundation, few[:-1], few[-1], AdaptationPlan(options.adapt_steps), device)
            title = f"adapted to {options.adapt} cases (held-out one {before:.3f} to {after:.3f})"
            for keys in (1, 3):
                _row(name, title, replace(foundation, model=model), device, volumes, keys)
    print_times(foundation, device)


def real_volumes(name: str, *, first: int = 0, last: int = 0) -> list[LabelledVolume]:
    """The first or the last cases of a real set."""
    files = sorted((DATA / name / "images").iterdir())
    chosen = files[:first] if first else files[-last:]
    return [
        LabelledVolume(f.name.split(".")[0], read_volume(f).array, read_label_map(DATA / name / "labels" / f.name).array.astype(np.uint8))
        for f in chosen
    ]


def _row(
    data: str,
    title: str,
    foundation: Foundation,
    device: Device,
    volumes: Sequence[LabelledVolume],
    keys: int,
    memory: MemorySettings | None = None,
) -> None:
    scores = [_mean(propagation_dice(foundation, device, volumes, kind, keys, memory)) for kind in KINDS]
    print(f"| {data} | {title} | {keys} | " + " | ".join(f"{score:.3f}" for score in scores) + " |", flush=True)


def _mean(scores: dict[str, float]) -> float:
    return float(np.mean(list(scores.values())))


def print_times(foundation: Foundation, device: Device, slices: int = 30) -> None:
    """Milliseconds per slice of each part, and of a whole slice with seven memories; median of repeats."""
    model = foundation.model
    array = np.random.default_rng(0).normal(size=(slices, 96, 96)).astype(np.float32)
    window = Window.whole((96, 96))
    volume = encode_volume(foundation, array, window, device)
    mask = torch.zeros(1, 1, foundation.side, foundation.side)
    mask[..., 40:80, 40:80] = 1
    with torch.inference_mode(), fast_arithmetic(device):
        here = volume.of_slice(0)
        entry = track_slice(model, here, 0, Memories({}, {}, 1), mask=mask).entry
        memories = Memories({990: entry, 991: entry, 992: entry, 1008: entry}, {997: entry, 998: entry, 999: entry}, 2000)
        tokens, positions, _ = here.tokens()
        images = prepare_images(array, window, foundation)
        memory = torch.randn(7 * tokens[-1].shape[0], 1, model.mem_dim)
        coarse = here.levels[-1]
        parts: dict[str, Callable[[], object]] = {
            "image encoder": lambda: encode_images(model, images[:1]),
            "memory attention": lambda: model.memory_attention(
                curr=[tokens[-1]], curr_pos=[positions[-1]], memory=memory, memory_pos=memory, num_obj_ptr_tokens=0
            ),
            "decoder": lambda: model._forward_sam_heads(coarse, high_res_features=here.levels[:-1]),
            "memory encoder": lambda: encode_memory(model, here, {"object_score_logits": torch.ones(1, 1)}, 20 * mask - 10, prompted=False),
            "whole slice after encoding, one class": lambda: track_slice(model, here, 1000, memories),
        }
        print(f"\n| part | ms a slice ({device.sentence}) |\n|---|---|")
        for name, part in parts.items():
            print(f"| {name} | {1000 * _median_seconds(part):.1f} |")


def _median_seconds(action: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


if __name__ == "__main__":
    main()
