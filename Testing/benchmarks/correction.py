"""What "propagate my correction" is worth: mean Dice of the slices that nobody corrected, before and after, and the seconds it takes.

    python Testing/benchmarks/correction.py --weights compact --data ../shared/data

On phantoms and, with ``--data``, on real volumes, label maps are spoilt in four ways; one or three of the worst slices are replaced by the
reference, as a person would correct them, and the correction is carried. "alone" are SAM2's masks from the same slices, taken as they are.
"scratch": nothing was labelled before. Processor time counts, with one thread, so that other programs do not matter.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "library"))

from simulated_network import network_snapshots

from SAM2IterativeLib.correction import Correction, Corrector
from SAM2IterativeLib.device import choose_device
from SAM2IterativeLib.foundation.checkpoints import load_foundation
from SAM2IterativeLib.foundation.features import Window, encode_volume
from SAM2IterativeLib.foundation.propagation import Guidance, Propagator
from SAM2IterativeLib.guidance.prompts import reviewed_prompt
from SAM2IterativeLib.metrics import class_dice
from SAM2IterativeLib.phantom import phantom_case
from SAM2IterativeLib.settings import MemorySettings
from SAM2IterativeLib.volumes import read_label_map, read_volume

NEAR = 3
"""Slices from a corrected one that count as near."""


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", default="compact", help="a preset or a file")
    parser.add_argument("--data", type=Path, help="folder with hippocampus and left_atrium")
    parser.add_argument("--cases", type=int, default=3, help="of each kind")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    device = choose_device("cpu")
    corrector = Corrector(load_foundation(chosen.weights, device), device)
    table: dict[str, list[list[float]]] = defaultdict(list)
    for name, image, reference in volumes(chosen.data, chosen.cases):
        for number, (kind, present) in enumerate(spoilt(reference, seed=len(table[""]))):
            for count in (1, 3):
                table[kind].append(one(corrector, f"{name} {number}", image, reference, present, count))
        table[""].append([])
    print("labels     near: before after | all: before alone after | seconds")
    for kind, rows in table.items():
        if kind:
            print(f"{kind:10}" + "".join(f"{value:8.3f}" for value in np.nanmean(rows, axis=0)))


def volumes(data: Path | None, count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, image and class indices (k, j, i)."""
    for seed in range(count):
        volume, labels = phantom_case(100 + seed)
        yield f"phantom {seed}", volume.array, labels.array
    for folder, part in (("hippocampus", slice(None)), ("left_atrium", slice(20, 60))):
        for path in sorted((data / folder / "images").iterdir())[-count:] if data else ():
            yield path.name, read_volume(path).array[part], read_label_map(data / folder / "labels" / path.name).array[part]  # type: ignore[operator]


def spoilt(reference: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Label maps to be corrected."""
    random = np.random.default_rng(seed)
    classes, slices = int(reference.max()), np.flatnonzero((reference > 0).any(axis=(1, 2)))
    middle = int(random.choice(slices[len(slices) // 4 : -len(slices) // 4]))
    slab = range(max(0, middle - 4), min(len(reference), middle + 5))
    for kind, difficulty, where in (("slab", 0.7, slab), ("everywhere", 2.5, ())):
        yield (
            kind,
            np.mean(network_snapshots(reference, classes, seed, difficulty=difficulty, slab=where), axis=0).argmax(0).astype(np.uint8),
        )
    side = float(np.sqrt((reference[slices] > 0).sum(axis=(1, 2)).mean()))
    yield "shift", np.roll(reference, max(2, round(side / 8)), axis=2)
    yield "leak", leaking(reference, int(slices[len(slices) // 3]))
    yield "scratch", np.zeros_like(reference)


def leaking(reference: np.ndarray, first: int) -> np.ndarray:
    """The first class leaks to the right, 10 by 6 pixels, on nine slices."""
    result = reference.copy()
    for z in range(first, min(len(reference), first + 9)):
        rows, columns = np.nonzero(reference[z] == 1)
        if len(rows):
            leak = result[z, max(0, int(rows.mean()) - 5) : int(rows.mean()) + 5, columns.max() : columns.max() + 6]
            leak[leak == 0] = 1
    return result


def worst_slices(reference: np.ndarray, present: np.ndarray, count: int) -> tuple[int, ...]:
    """The slices that a person would look at; where nothing is labelled, evenly spread ones."""
    if not present.any():
        slices = np.flatnonzero((reference > 0).any(axis=(1, 2)))
        return tuple(int(slices[round((n + 0.5) / count * len(slices) - 0.5)]) for n in range(count))
    wrong = (reference != present).sum(axis=(1, 2)).astype(float)
    found: list[int] = []
    for _ in range(count):
        found.append(int(wrong.argmax()))
        wrong[max(0, found[-1] - NEAR) : found[-1] + NEAR + 1] = -1
    return tuple(sorted(found))


def one(corrector: Corrector, key: str, image: np.ndarray, reference: np.ndarray, present: np.ndarray, count: int) -> list[float]:
    """Near before and after, all before, alone and after, seconds of the second call."""
    slices = worst_slices(reference, present, count)
    labels = present.copy()
    labels[list(slices)] = reference[list(slices)]
    correction = Correction(labels, slices, before=present)
    corrector.propagate(key, image, correction)
    began = time.process_time()
    carried = corrector.propagate(key, image, correction).labels
    seconds = time.process_time() - began
    rest = [z for z in range(len(labels)) if z not in slices]
    near = [z for z in rest if min(abs(z - q) for q in slices) <= NEAR]

    def dice(found: np.ndarray, where: list[int]) -> float:
        return float(np.nanmean(class_dice(found[where], reference[where], int(reference.max()))))

    alone = sam2_alone(corrector, image, labels, slices)
    return [dice(present, near), dice(carried, near), dice(present, rest), dice(alone, rest), dice(carried, rest), seconds]


def sam2_alone(corrector: Corrector, image: np.ndarray, labels: np.ndarray, slices: tuple[int, ...]) -> np.ndarray:
    """What SAM2 says, given the corrected slices."""
    classes = [c for c in range(1, int(labels.max()) + 1) if (labels[list(slices)] == c).any()]
    prompts = {c: [reviewed_prompt(labels[z] == c, z, c) for z in slices] for c in classes}
    device = choose_device("cpu")
    features = encode_volume(corrector.foundation, image, Window.around(labels > 0), device)
    propagator = Propagator(corrector.foundation.model, device, MemorySettings())
    return propagator.propagate(features, Guidance(int(labels.max()), prompts)).probabilities().argmax(0)


if __name__ == "__main__":
    main()
