"""A project with cases that wait for review, made without a round: what a round leaves is written directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from generated_case import LABELS, GeneratedCase, generated_case

from SAM2IterativeLib.guidance.prompts import Prompt
from SAM2IterativeLib.project import Case, Project
from SAM2IterativeLib.review import PROPOSAL
from SAM2IterativeLib.round_files import COARSE, PROMPTS, PROPAGATED, UNCERTAINTY
from SAM2IterativeLib.settings import Settings
from SAM2IterativeLib.volumes import Geometry, LabelMap, Volume, write_label_map, write_volume

UNCERTAINTIES = (0.2, 0.4, 0.1)
"""Of case_1, case_2, case_3: the second one comes first."""


def make_project(
    folder: Path, case: GeneratedCase | None = None, *, cases: int = 3, round: int = 1, settings: Settings | None = None
) -> Project:
    """A project whose unlabelled cases all look like ``case``; the caller closes it."""
    case = case or generated_case()
    project = Project.create(folder, settings or Settings(name="review", labels=LABELS))
    project.add_case("known", case.image, case.truth)
    for number in range(1, cases + 1):
        added = project.add_case(f"case_{number}", case.image)
        if round:
            write_round(project, added, case, round, UNCERTAINTIES[(number - 1) % 3])
    return project


def write_round(
    project: Project, added: Case, case: GeneratedCase, round: int, uncertainty: float, proposal: LabelMap | None = None
) -> None:
    """What a round leaves of one case."""
    masks = {COARSE: case.coarse, PROPAGATED: case.propagated, PROPOSAL: proposal or case.propagated}
    for name, mask in masks.items():
        write_label_map(project.artefact(round, added, name), mask)
    write_volume(project.artefact(round, added, UNCERTAINTY), Volume(case.uncertainty.astype(np.float32), case.image.geometry))
    table = {"coordinates": "RAS mm", "prompts": [prompt_entry(prompt, case.image.geometry) for prompt in case.prompts]}
    project.artefact(round, added, PROMPTS).write_text(json.dumps(table), encoding="utf-8")
    files = [project.artefact(round, added, name) for name in (*masks, UNCERTAINTY, PROMPTS)]
    project.journal.finish_unit(round, "everything", added.id, files, numbers={"uncertainty": uncertainty})


def prompt_entry(prompt: Prompt, geometry: Geometry) -> dict[str, Any]:
    """A prompt as a round's file has it, on a case in its own orientation."""

    def places(points: Any) -> list[list[float]]:
        return [geometry.ras_of((prompt.slice_index, *point)).tolist() for point in points]

    j0, i0, j1, i1 = (edge - 0.5 for edge in prompt.box or (0.5, 0.5, 0.5, 0.5))
    corners = ((j0, i0), (j0, i1), (j1, i1), (j1, i0)) if prompt.box is not None else ()
    return {
        "label": LABELS[prompt.class_index - 1].value,
        "slice": prompt.slice_index,
        "reviewed": prompt.mask is not None,
        "box": places(corners),
        "positive": places(prompt.positive_points),
        "negative": places(prompt.negative_points),
    }
