"""Which stage of a round loses: one network, then SAM2 and fusion again and again with other settings, on the same cases.

    python Testing/benchmarks/stages.py hippocampus --labelled 3 --cases 10 --seed 0 --work WORK
        --variant "" --variant prompts.dense=everywhere --variant "memory.mode=G0 foundation.weights=compact"

Trains round 0 once, with SAM2 adapted as the settings say, then redoes propagation and fusion of that round per variant (settings separated
by blanks; the empty one is the default) and prints mean Dice over cases and classes. The cases are unlabelled training cases, not those
that the loop is judged on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from loop_on_real_volumes import DATA, SETS, parsed, prepared_project, tell

from SAM2IterativeLib.device import choose_device
from SAM2IterativeLib.iteration import Iteration
from SAM2IterativeLib.methods import load_method
from SAM2IterativeLib.methods.method import Method, RunContext
from SAM2IterativeLib.metrics import score_case, summarise
from SAM2IterativeLib.pretraining.adaptation import adapt_before_rounds
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.round_files import LABEL_MAPS
from SAM2IterativeLib.settings import Settings, replaced
from SAM2IterativeLib.volumes import read_label_map


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(SETS))
    parser.add_argument("--labelled", type=int, default=3)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all variants")
    parser.add_argument("--variant", action="append", default=[], metavar="SETTINGS")
    parser.add_argument("--work", type=Path, required=True, help="folder for the project; deleted first")
    options = parser.parse_args()
    data = DATA / options.dataset
    files = sorted((data / "images").iterdir())
    labelled, others = files[: options.labelled], files[options.labelled : options.labelled + options.cases]
    project = prepared_project(options.work, SETS[options.dataset][0], options.seed, options.set, data, labelled, others)
    device = choose_device("auto")
    plan = Iteration(project, device, tell).plan()
    method = load_method(project.settings.method)(RunContext(project, plan, device, tell))
    result = adapt_before_rounds(project, device, lambda done, text: print(text, file=sys.stderr), lambda: False)
    print(result.sentence if result else "SAM2 was not adapted.", flush=True)
    method.train(0, lambda done, text: None)
    _stage(method, project, "coarse")
    print("| settings | coarse | propagated | pseudo-label | SAM2's share | seconds a case |\n|---|---|---|---|---|---|", flush=True)
    common = project.settings
    for variant in options.variant or [""]:
        project.change_settings(_with(common, variant.split()))
        began = time.monotonic()
        method = load_method(project.settings.method)(RunContext(project, plan, device, tell))
        _stage(method, project, "propagation")
        seconds = (time.monotonic() - began) / len(others)
        numbers = _stage(method, project, "pseudo_label")
        cells = " | ".join(f"{_dice(project, file, data):.3f}" for file in LABEL_MAPS.values())
        print(f"| {variant or 'default'} | {cells} | {numbers['foundation_share']:.2f} | {seconds:.1f} |", flush=True)
    project.close()


def _with(settings: Settings, changes: Sequence[str]) -> Settings:
    for text in changes:
        name, _, value = text.partition("=")
        settings = replaced(settings, name, parsed(value))
    return settings


def _stage(method: Method, project: Project, stage: str) -> dict[str, float]:
    """Run a stage over the cases; returns the mean of each number that it records."""
    method.begin_stage(0, stage)
    numbers = [method.process(0, stage, case).numbers for case in project.cases("unlabelled")]
    method.end_stage()
    return {name: float(np.mean([n[name] or 0.0 for n in numbers])) for name in numbers[0]}


def _dice(project: Project, file: str, data: Path) -> float:
    scores = {}
    for case in project.cases("unlabelled"):
        found = read_label_map(project.artefact(0, case, file), trusted=True)
        truth = read_label_map(next((data / "labels").glob(f"{case.id}.*")))
        scores[case.id] = score_case(found.array, truth.array, truth.geometry.spacing, project.values)
    return float(summarise(scores)["dice"])


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    main()
