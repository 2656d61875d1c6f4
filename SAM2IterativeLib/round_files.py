"""What a round leaves for each case, for people, the report and the evaluation: the files' names, and how they are read safely."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ProjectError
from .files import sha256_of
from .project import Case, Project
from .review import PROPOSAL
from .volumes import LabelMap, read_label_map, read_volume

COARSE, PROPAGATED, UNCERTAINTY, PROMPTS = "coarse.nii.gz", "propagated.nii.gz", "uncertainty.nii.gz", "prompts.json"

_POINTS = ("box", "positive", "negative")

LABEL_MAPS = {"coarse": COARSE, "propagated": PROPAGATED, "pseudo_label": PROPOSAL}
"""The label maps of a round in the order in which they are made: name in tables -> file; they hold label values."""


@dataclass(frozen=True)
class KeyFramePrompt:
    """A prompt as a person may see it; points are (n, 3) RAS mm.

    Attributes:
        label: label value.
        slice_index: 0-based, in the orientation in which SAM2 saw the case.
        reviewed: a person's own mask was given instead of points and box.
        box: its four corners, or none.
        positive, negative: points inside and outside of the structure.
    """

    label: int
    slice_index: int
    reviewed: bool
    box: np.ndarray
    positive: np.ndarray
    negative: np.ndarray


def prompts_text(prompts: Sequence[KeyFramePrompt]) -> str:
    """The content of ``PROMPTS``: JSON for people's eyes, points rounded to a micrometre."""
    table = [
        {"label": prompt.label, "slice": prompt.slice_index, "reviewed": prompt.reviewed}
        | {name: np.round(getattr(prompt, name), 3).tolist() for name in _POINTS}
        for prompt in prompts
    ]
    return json.dumps({"coordinates": "RAS mm", "prompts": table}, indent=1, sort_keys=True)


class RoundFiles:
    """The finished files of a project's rounds: only what the journal knows as done, and only while the content is what it was then."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._digests = {name: digest for unit in project.journal.units() for name, digest in unit.files.items()}

    def path(self, round: int, case: Case, name: str) -> Path | None:
        """Where a finished file lies; None if the round did not make it.

        Raises:
            ProjectError: it is missing, or was changed since.
        """
        path = self.project.artefact(round, case, name)
        digest = self._digests.get(self.project.relative(path))
        if digest is None:
            return None
        if not path.is_file() or sha256_of(path) != digest:
            raise ProjectError(
                f"{name} of round {round} is missing or was changed.",
                where=case.id,
                cure="Restore it from a copy; the next round makes a new one.",
            )
        return path

    def label_map(self, round: int, case: Case, name: str) -> LabelMap | None:
        """A finished label map (file name, see ``LABEL_MAPS``); None if the round did not make it; raises as ``path``."""
        path = self.path(round, case, name)
        return None if path is None else read_label_map(path, trusted=True)

    def uncertainty(self, round: int, case: Case) -> np.ndarray | None:
        """u (k, j, i) float32 in [0, 1]; None if the round did not make it; raises as ``path``."""
        path = self.path(round, case, UNCERTAINTY)
        return None if path is None else read_volume(path, trusted=True).array.astype(np.float32, copy=False)

    def prompts(self, round: int, case: Case) -> tuple[KeyFramePrompt, ...]:
        """What SAM2 was told about the case; empty if it was told nothing; raises as ``path``."""
        path = self.path(round, case, PROMPTS)
        table = json.loads(path.read_text(encoding="utf-8")) if path else {"prompts": []}
        return tuple(_prompt(entry) for entry in table["prompts"])


def _prompt(entry: dict[str, Any]) -> KeyFramePrompt:
    points = {name: np.array(entry[name], dtype=float).reshape(-1, 3) for name in _POINTS}
    return KeyFramePrompt(int(entry["label"]), int(entry["slice"]), bool(entry["reviewed"]), **points)
