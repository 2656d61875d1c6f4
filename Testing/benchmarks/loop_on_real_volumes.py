"""The whole loop on real volumes against its yardsticks, one (data set, labelled cases, seed) a call.

    python Testing/benchmarks/loop_on_real_volumes.py hippocampus --labelled 3 --seed 0 --work WORK --results results.jsonl
    python Testing/benchmarks/loop_on_real_volumes.py --table results.jsonl

The first ``--labelled`` cases are labelled, the last ones (40 of hippocampus, 10 of left atrium) are for validation and never seen in
training, the others are unlabelled (hippocampus: up to case 140). Printed, and appended to ``--results`` as one JSON line:

- few alone: the network of round 0; "few alone, as long" has as many training steps as all rounds together;
- mean teacher: the plain semi-supervised peer, as many steps;
- coarse, propagated, pseudo-label: per round, on the unlabelled cases, against their references;
- final: the last round's network on the validation cases;
- all labelled: the ceiling, as many steps.

With ``--corrected N`` a reviewer corrects the N most uncertain cases after every round but the last and round 0; the references play the
reviewer. Only the final network is scored then.

Nothing is chosen on the validation cases and the last round counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from mean_teacher import train_mean_teacher

from SAM2IterativeLib.dedicated.cases import TrainingCase, prepare_case
from SAM2IterativeLib.dedicated.networks import Weights
from SAM2IterativeLib.dedicated.plan import Plan
from SAM2IterativeLib.dedicated.prediction import Predictor
from SAM2IterativeLib.dedicated.training import Task, train
from SAM2IterativeLib.dedicated.weights import load_weights, network_path
from SAM2IterativeLib.device import Device, choose_device
from SAM2IterativeLib.evaluation import evaluate
from SAM2IterativeLib.inference import labels_of
from SAM2IterativeLib.iteration import Iteration
from SAM2IterativeLib.messages import CaseSetAside, Message, RoundFinished
from SAM2IterativeLib.metrics import score_case, summarise
from SAM2IterativeLib.presets import PRESETS
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.review import Review
from SAM2IterativeLib.settings import Label, Settings, replaced
from SAM2IterativeLib.volumes import LabelMap, Volume, read_label_map, read_volume

SETS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "hippocampus": (("anterior", "posterior"), 140, 40),
    "left_atrium": (("left atrium",), 70, 10),
}
"""Label names, training cases (labelled and unlabelled), validation cases."""
DATA = Path(os.environ.get("SAM2_ITERATIVE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def main() -> None:
    """One run, or the table of many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", choices=sorted(SETS))
    parser.add_argument("--labelled", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, such as memory.mode=G0")
    parser.add_argument("--only", default="loop,few,teacher,all", help="which of loop, few, teacher, all")
    parser.add_argument("--unlabelled", type=int, default=0, help="at most so many unlabelled cases (0: all)")
    parser.add_argument("--corrected", type=int, default=0, help="cases that a reviewer corrects between two rounds")
    parser.add_argument("--work", type=Path, help="folder for the project; deleted first")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of a results file")
    options = parser.parse_args()
    if options.table:
        print(table([json.loads(line) for line in options.table.read_text().splitlines()]))
        return
    result = one_run(options)
    line = json.dumps(result)
    print(line)
    if options.results:
        with open(options.results, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def one_run(options: argparse.Namespace) -> dict[str, Any]:
    """All that was asked of one (data set, labelled, seed)."""
    names, training, validation = SETS[options.dataset]
    data = DATA / options.dataset
    files = sorted((data / "images").iterdir())
    unlabelled = files[options.labelled : training][: options.unlabelled or None]
    device = choose_device("auto")
    project = prepared_project(options.work, names, options.seed, options.set, data, files[: options.labelled], unlabelled)
    iteration = Iteration(project, device, tell)
    plan = iteration.plan()
    steps = plan.first_steps + options.rounds * plan.round_steps
    judge = Judge(data, files[-validation:], project.values, plan, device)
    result: dict[str, Any] = {
        "dataset": options.dataset, "labelled": options.labelled, "unlabelled": len(unlabelled), "seed": options.seed,
        "settings": options.set, "views": list(plan.views), "steps": [plan.first_steps, plan.round_steps], "device": device.sentence,
        "later_rounds": options.rounds, "corrected": options.corrected, "plan": plan.digest[:12], "compact": PRESETS["compact"].sha256[:12],
    }  # fmt: skip
    wanted = options.only.split(",")
    if "loop" in wanted:
        run_rounds(iteration, options.rounds, options.corrected, data / "labels")
        if not options.corrected:
            result["rounds"] = [
                {name: (row.get(name) or {}).get("dice") for name in ("coarse", "propagated", "pseudo_label")}
                | {"spearman": row.get("uncertainty_error_spearman")}
                for row in evaluate(project, data / "labels")["rounds"]
            ]
        networks = [load_weights(network_path(project.models_folder, n))[0] for n in range(options.rounds + 1)]
        result["few"] = judge.score(networks[0])
        result["final"] = judge.score(networks[-1])
    as_long = replace(plan, first_steps=steps)
    labelled = [judge.case(path, labelled=True) for path in files[: options.labelled]]
    if "few" in wanted:
        result["few_as_long"] = judge.score(_trained(as_long, labelled, device, options.seed))
    if "teacher" in wanted:
        others = [judge.case(path, labelled=False) for path in unlabelled]
        result["mean_teacher"] = judge.score(train_mean_teacher(as_long, labelled, others, device, options.seed).weights)
    if "all" in wanted:
        everyone = [judge.case(path, labelled=True) for path in files[:training]]
        result["all_labelled"] = judge.score(_trained(as_long, everyone, device, options.seed))
    project.close()
    return result


def run_rounds(iteration: Iteration, rounds: int, corrected: int, references: Path) -> None:
    """Round 0 and ``rounds`` more; after each but round 0 and the last, the ``corrected`` most uncertain cases get their references."""
    for round in range(1, rounds + 1):
        iteration.run(1)
        review = Review(iteration.project)
        for entry in review.queue("uncertainty")[: corrected if round < rounds else 0]:
            [file] = references.glob(f"{entry.case.id}.*")
            review.correct(entry.case, read_label_map(file), reviewer="reference")


def prepared_project(
    folder: Path, names: Sequence[str], seed: int, changes: Sequence[str], data: Path, labelled: Sequence[Path], unlabelled: Sequence[Path]
) -> Project:
    """A new project in ``folder`` (deleted first) with these cases and settings (NAME=VALUE)."""
    shutil.rmtree(folder, ignore_errors=True)
    settings = Settings(labels=tuple(Label(n, name) for n, name in enumerate(names, 1)), seed=seed)
    for text in changes:
        name, _, value = text.partition("=")
        settings = replaced(settings, name, parsed(value))
    project = Project.create(folder, settings)
    for path in [*labelled, *unlabelled]:
        label = read_label_map(data / "labels" / path.name) if path in labelled else None
        project.add_case(path.name.split(".")[0], read_volume(path), label)
    return project


def parsed(text: str) -> Any:
    """A setting's value as typed: JSON, or a plain string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def tell(message: Message) -> None:
    """Say what matters of a run's messages."""
    if isinstance(message, CaseSetAside):
        print(message.sentence, file=sys.stderr)
    elif isinstance(message, RoundFinished):
        keys = ("uncertainty", "agreement", "stability", "key_frames", "abstained_classes", "seconds")
        print(f"round {message.round}", {k: message.numbers.get(k) for k in keys}, file=sys.stderr, flush=True)


def _trained(plan: Plan, cases: Sequence[TrainingCase], device: Device, seed: int) -> Weights:
    return train(Task(plan, cases, device, seed)).weights


class Judge:
    """Scores networks on cases with references.

    Args:
        data: the data set's folder; files: the images of the cases; values: label values in class order.
    """

    def __init__(self, data: Path, files: Sequence[Path], values: tuple[int, ...], plan: Plan, device: Device) -> None:
        self.data, self.files, self.values, self.plan, self.device = data, files, values, plan, device

    def read(self, path: Path) -> tuple[Volume, LabelMap]:
        return read_volume(path), read_label_map(self.data / "labels" / path.name)

    def case(self, path: Path, *, labelled: bool) -> TrainingCase:
        """A case for training; without ``labelled`` its labels are not looked at (all 0, as the mean teacher needs none)."""
        volume = read_volume(path)
        truth = self.read(path)[1].classes(self.values) if labelled else np.zeros(volume.geometry.size, np.uint8)
        return prepare_case(path.name, volume.array, volume.geometry, self.plan, truth, labelled=labelled)

    def score(self, weights: Weights) -> dict[str, float]:
        """Mean Dice and HD95 over cases and classes of what ``predict`` writes."""
        predictor, scores = Predictor(self.plan, weights, self.device), {}
        for path in self.files:
            volume, truth = self.read(path)
            classes = labels_of(predictor.predict(volume.array, volume.geometry), self.plan, volume.geometry.spacing)
            found = LabelMap.of_classes(classes, self.values, volume.geometry)
            scores[path.name] = score_case(found.array, truth.array, truth.geometry.spacing, self.values)
        summary = summarise(scores)
        return {key: summary[key] for key in ("dice", "hd95_mm", "missed")}


_ROWS = (
    ("few labels alone (round 0)", "few"),
    ("few labels alone, as long", "few_as_long"),
    ("mean teacher", "mean_teacher"),
    ("**final network of the loop**", "final"),
    ("all labelled", "all_labelled"),
)


def table(results: Sequence[dict[str, Any]]) -> str:
    """A Markdown table per data set and number of labelled cases: mean and spread over seeds.

    Loops with other compact weights than those of the last one in a table are left out of it; the other rows do not use them.
    """
    parts = []
    for key in sorted({_kind(r) for r in results}):
        group = [r for r in results if _kind(r) == key]
        weights = [r.get("compact", "")[:8] for r in group if "rounds" in r][-1:]
        group = [r for r in group if "rounds" not in r or r.get("compact", "")[:8] in weights]
        dataset, labelled, unlabelled, corrected, rounds, steps, views, settings, plan = key
        seeds = ", ".join(str(seed) for seed in sorted({r["seed"] for r in group}))
        changed = f"; {', '.join(settings)}" if settings else ""
        planned = (f"; plan {plan}" if plan else "") + "".join(f"; weights {digest}" for digest in weights if digest)
        reviewed = f", {corrected} corrected between two rounds" if corrected else ""
        seen = "one view" if len(views) == 1 else f"{len(views)} views"
        title = f"**{dataset}, {labelled} labelled, {unlabelled} unlabelled{reviewed}**"
        parts.append(f"\n{title} (seeds {seeds}; {seen}; {steps[0]} steps, then {rounds} rounds of {steps[1]}{changed}{planned})\n")
        parts.append("| on the validation cases | Dice | HD95 mm |\n|---|---|---|")
        for title, name in _ROWS:
            found = [r[name] for r in group if name in r]
            if found:
                parts.append(f"| {title} | {_spread([f['dice'] for f in found])} | {_spread([f['hd95_mm'] for f in found], 2)} |")
        loops = [r["rounds"] for r in group if "rounds" in r]
        if loops:
            parts.append("\n| on the unlabelled cases, Dice | coarse | propagated | pseudo-label | Spearman |\n|---|---|---|---|---|")
            for n in range(len(loops[0])):
                cells = (_spread([loop[n][c] for loop in loops]) for c in ("coarse", "propagated", "pseudo_label", "spearman"))
                parts.append(f"| round {n} | {' | '.join(cells)} |")
    return "\n".join(parts)


def _kind(result: dict[str, Any]) -> tuple[str, int, int, int, int, tuple[int, ...], tuple[int, ...], tuple[str, ...], str]:
    """What must agree for results to stand in one table.

    Older results lack "corrected" and "plan" (its hash); without "later_rounds" there were two, without "views" one.
    """
    views = tuple(result.get("views", (0,)))
    return (
        result["dataset"],
        result["labelled"],
        result["unlabelled"],
        result.get("corrected", 0),
        result.get("later_rounds", 2),
        tuple(result["steps"]),
        views,
        tuple(result["settings"]),
        result.get("plan", ""),
    )


def _spread(values: Sequence[float | None], digits: int = 3) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return "–"
    spread = f" ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{np.mean(known):.{digits}f}{spread}"


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads())
    main()
