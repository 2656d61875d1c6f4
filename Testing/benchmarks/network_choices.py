"""What a decision of the plan is worth to the network alone: trained on few labels, judged on cases that are not for validation.

    python Testing/benchmarks/network_choices.py hippocampus --labelled 3 --steps 800 --seed 0 --plan views=[0] --plan view_patches=[]

Judged on hippocampus 100 to 129 and left atrium 58 to 67 (counted from 0): neither labelled nor validation cases.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from loop_on_real_volumes import DATA, SETS, Judge, parsed

from SAM2IterativeLib.dedicated.fingerprint import fingerprint_of
from SAM2IterativeLib.dedicated.plan import Plan
from SAM2IterativeLib.dedicated.planning import make_plan
from SAM2IterativeLib.dedicated.training import Task, train
from SAM2IterativeLib.device import choose_device
from SAM2IterativeLib.settings import DedicatedSettings, from_table, to_table
from SAM2IterativeLib.volumes import read_label_map, read_volume

JUDGED = {"hippocampus": slice(100, 130), "left_atrium": slice(58, 68)}


def main() -> None:
    """One training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=sorted(SETS))
    parser.add_argument("--labelled", type=int, default=3)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default="auto", help="the wish dedicated.network")
    parser.add_argument("--plan", action="append", default=[], metavar="NAME=VALUE", help="a decision to change, such as views=[0]")
    options = parser.parse_args()
    device, data = choose_device("auto"), DATA / options.dataset
    files = sorted((data / "images").iterdir())
    values = tuple(range(1, len(SETS[options.dataset][0]) + 1))
    volumes = [(read_volume(file), read_label_map(data / "labels" / file.name)) for file in files[: options.labelled]]
    prints = [fingerprint_of(v.array, v.geometry, truth.classes(values)) for v, truth in volumes]
    plan = changed(make_plan(prints, len(values), DedicatedSettings(network=options.network), device), options.plan)
    plan = replace(plan, first_steps=options.steps)
    judge = Judge(data, files[JUDGED[options.dataset]], values, plan, device)
    began = time.monotonic()
    weights = train(Task(plan, [judge.case(file, labelled=True) for file in files[: options.labelled]], device, options.seed)).weights
    seconds = time.monotonic() - began
    print(json.dumps(vars(options) | judge.score(weights) | {"training_seconds": round(seconds, 1), "device": device.sentence}))


def changed(plan: Plan, changes: list[str]) -> Plan:
    """The plan with decisions changed (NAME=VALUE; a name may lie in a section, as augmentation.curve does)."""
    table: dict[str, Any] = to_table(plan)
    for text in changes:
        name, _, value = text.partition("=")
        section, _, last = name.rpartition(".")
        (table[section] if section else table)[last] = parsed(value)
    return from_table(Plan, table, "--plan")


if __name__ == "__main__":
    main()
