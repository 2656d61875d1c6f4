"""What a finished round is remembered by: means over its cases, scores of validation cases, what made it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from . import __version__
from .learning import learning_of
from .methods.method import RunContext
from .metrics import score_case, summarise
from .project import Case, Project
from .settings import to_table
from .volumes import LabelMap, read_label_map

_MEANS = ("uncertainty", "agreement", "stability", "key_frames", "abstained_classes", "foundation_share")


def round_numbers(run: RunContext, round: int, cases: Sequence[Case], scored: Mapping[str, str]) -> dict[str, Any]:
    """The numbers of a round as plain JSON values.

    A validation case that an earlier round, or SAM2, learned from is left out of the scores: it would flatter them.

    Args:
        cases: that took part: unlabelled ones, which the means are over, and validation cases.
        scored: label maps that the round left per case: name in tables -> file name.
    """
    unlabelled = [case for case in cases if case.role == "unlabelled"]
    learning = learning_of(run.project)
    left_out = [case.id for case in cases if case.role == "validation" and learning.teachers_of(case.id)]
    validation = [case for case in cases if case.role == "validation" and case.id not in left_out]
    # What people decided stands still, or jumps once, whatever the rounds do: it says nothing about converging.
    still_open = [case for case in unlabelled if run.review.is_open(case)]
    means = {name: _mean(run.project, round, still_open if name == "stability" else unlabelled, name) for name in _MEANS}
    return {
        **means,
        "cases": len(unlabelled),
        "open_cases": len(still_open),
        "decided_cases": len(run.review.decided()),
        "validation": _validation(run, round, validation, scored),
        "validation_cases": len(validation),
        "validation_scored": [case.id for case in validation],
        "validation_left_out": left_out,
        "provenance": provenance(run),
    }


def _mean(project: Project, round: int, cases: Sequence[Case], name: str) -> float | None:
    values = [project.journal.numbers(round, case.id).get(name) for case in cases]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _validation(run: RunContext, round: int, cases: Sequence[Case], scored: Mapping[str, str]) -> dict[str, Any]:
    """Scores of the validation cases, whose label maps nothing but this looks at."""
    project, references = run.project, {case.id: _reference(run, case) for case in cases}
    table: dict[str, Any] = {}
    for name, file in scored.items() if cases else ():
        scores = {}
        for case in cases:
            reference = references[case.id]
            found = read_label_map(project.artefact(round, case, file), trusted=True)
            scores[case.id] = score_case(found.array, reference.array, reference.geometry.spacing, project.values)
        summary = summarise(scores)
        table[name] = {key: summary[key] for key in ("dice", "hd95_mm", "missed")}
    return table


def _reference(run: RunContext, case: Case) -> LabelMap:
    """The case's own label map as people corrected it. A rejection does not say what is true: then it is the map as it came."""
    said = run.review.training_labels(case)
    return said.labels if said is not None and said.complete else run.project.read_case_label(case)


def provenance(run: RunContext) -> dict[str, Any]:
    """What made a result: versions, settings, plan, seed, device; no paths, no names."""
    settings = json.dumps(to_table(run.settings), sort_keys=True)
    packages = ("torch", "sam2", "monai", "numpy", "SimpleITK")
    return {
        "sam2_iterative": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in packages},
        "settings_sha256": hashlib.sha256(settings.encode()).hexdigest(),
        "plan_sha256": run.plan.digest,
        "weights": PurePath(run.settings.foundation.weights).name,
        "method": run.settings.method,
        "seed": run.settings.seed,
        "device": run.device.sentence,
    }


def _version(package: str) -> str:
    """What is installed of a package; one that was put on Python's path by hand has no metadata, but may say it itself."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", "unknown"))
