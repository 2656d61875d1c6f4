"""Rounds that look finished, written directly: label maps, uncertainty, prompts and numbers as a method leaves them, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from SAM2IterativeLib.project import Case, Project
from SAM2IterativeLib.review import PROPOSAL
from SAM2IterativeLib.round_files import COARSE, PROMPTS, PROPAGATED, UNCERTAINTY
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume, write_label_map, write_volume


def write_round(
    project: Project,
    round: int,
    case: Case,
    *,
    coarse: np.ndarray | None = None,
    propagated: np.ndarray | None = None,
    pseudo_label: np.ndarray | None = None,
    uncertainty: np.ndarray | None = None,
    prompts: Sequence[Mapping[str, Any]] | None = None,
    numbers: Mapping[str, float] | None = None,
) -> None:
    """Write what a round left of a case, and record it as done; arrays are (k, j, i), what is None was not made."""
    geometry = project.read_case_image(case).geometry
    written = []
    for name, values in ((COARSE, coarse), (PROPAGATED, propagated), (PROPOSAL, pseudo_label)):
        if values is not None:
            written.append(project.artefact(round, case, name))
            write_label_map(written[-1], LabelMap(values.astype(np.uint8), geometry))
    if uncertainty is not None:
        written.append(project.artefact(round, case, UNCERTAINTY))
        write_volume(written[-1], Volume(uncertainty.astype(np.float32), geometry))
    if prompts is not None:
        written.append(project.artefact(round, case, PROMPTS))
        written[-1].parent.mkdir(parents=True, exist_ok=True)
        written[-1].write_text(json.dumps({"coordinates": "RAS mm", "prompts": list(prompts)}), encoding="utf-8")
    project.journal.finish_unit(round, "everything", case.id, written, numbers=numbers)


def prompt(geometry: Geometry, label: int, slice_index: int, box: Sequence[float], inside: Sequence[float]) -> dict[str, Any]:
    """An entry of ``prompts.json`` on one slice: box (j0, i0, j1, i1) at pixel edges, one point inside (j, i), none outside."""
    j0, i0, j1, i1 = (edge - 0.5 for edge in box)
    corners = np.array([(slice_index, *corner) for corner in ((j0, i0), (j0, i1), (j1, i1), (j1, i0))])
    return {
        "label": label,
        "slice": slice_index,
        "reviewed": False,
        "box": geometry.ras_of(corners).tolist(),
        "positive": geometry.ras_of(np.array([(slice_index, *inside)])).tolist(),
        "negative": [],
    }
