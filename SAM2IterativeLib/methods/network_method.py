"""What methods share that train the dedicated network in every round from its last weights, and whose proposals people review."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..dedicated.training import PseudoLabelObjective, Task, TrainedNetwork, checkpoint_files, train
from ..dedicated.weights import load_weights, network_path, save_weights
from ..foundation.checkpoints import load_foundation, locate
from ..foundation.features import FeatureCache, VolumeFeatures, Window
from ..guidance.convergence import label_stability
from ..guidance.prompts import Prompt
from ..messages import Warned
from ..presets import weights_in_use
from ..project import Case, save_arrays
from ..review import PROPOSAL
from ..round_files import LABEL_MAPS, KeyFramePrompt
from ..volumes import LabelMap, Volume, read_label_map, write_label_map
from ..wording import duration
from .method import FractionDone, Method, Outcome, RunContext
from .training_set import AGREEMENT, WEIGHTS, training_cases
from .working_grid import WorkingGrid

PROBABILITIES = "probabilities.npz"
"""What today's network says of a case."""


class NetworkMethod(Method):
    """Train, mark coarsely, ask SAM2, propose; how a method asks and what it proposes is its own."""

    stages = ("coarse", "propagation", "pseudo_label")
    scored = LABEL_MAPS
    remembered: ClassVar[tuple[str, ...]] = (PROPOSAL,)
    """Files of a case that the next round reads."""

    def __init__(self, run: RunContext) -> None:
        super().__init__(run)
        self._features: FeatureCache | None = None
        self._pasts: dict[tuple[int, str], bool] = {}

    def require_ready(self) -> None:
        """See ``Method``; SAM2's weights are needed only after the first training."""
        locate(weights_in_use(self.run.settings.foundation.weights, self.run.project.models_folder))

    @abstractmethod
    def share_learned(self, round: int) -> float:
        """Share (0..1) of the open volumes with a pseudo-label, best agreement first, that the network of ``round`` learns from."""

    def train(self, round: int, progress: FractionDone) -> Sequence[Path]:
        """Train f_t from f_{t-1} (round 0: from random weights, on the labelled cases alone)."""
        run = self.run
        start = None if round == 0 else load_weights(weights_path(run, round - 1))[0]
        task = Task(
            plan=run.plan,
            cases=training_cases(run, round, self.share_learned(round)),
            device=run.device,
            seed=run.settings.seed + 1000 * round,
            start=start,
            objective=PseudoLabelObjective(run.settings.rounds.unlabelled_weight),
            checkpoint=self._unfinished(round),
        )
        labelled = sum(case.labelled for case in task.cases)
        text = f"{labelled} labelled, {len(task.cases) - labelled} pseudo-labelled cases"

        def tell(done: float, loss: float, seconds_left: float | None) -> None:
            left = "" if seconds_left is None else f", about {duration(seconds_left)} more"
            progress(done, f"{text}, loss {loss:.3f}{left}")

        result = train(task, stop=run.stop_asked, progress=tell)
        notes = {"kind": "network", "round": round, "plan": run.plan.digest, "precision": result.precision}
        save_weights(weights_path(run, round), result.weights, notes)
        besides = self.keep_besides(round, result, notes)
        # An earlier attempt under another plan may have had more snapshots, which would be taken for this one's.
        for stale in set(run.project.models_folder.glob(f"round_{round}_snapshot_*.safetensors")) - set(besides):
            stale.unlink(missing_ok=True)
        return [weights_path(run, round), *besides]

    def _unfinished(self, round: int) -> Path:
        """Where the state of a training lies until the journal knows its outcome."""
        return self.run.project.models_folder / f"round_{round}_unfinished.safetensors"

    def keep_besides(self, round: int, result: TrainedNetwork, notes: Mapping[str, Any]) -> Sequence[Path]:
        """Write what a method needs of a training besides the network; returns the files."""
        return ()

    def process(self, round: int, stage: str, case: Case) -> Outcome:
        """See ``stages``."""
        for file in checkpoint_files(self._unfinished(round)):  # not in ``train``: what failed before the journal's row would train again
            file.unlink(missing_ok=True)
        action = {"coarse": self.mark, "propagation": self.ask, "pseudo_label": self.propose}[stage]
        return action(round, case)

    @abstractmethod
    def mark(self, round: int, case: Case) -> Outcome:
        """The network's coarse mask, and how much it doubts."""

    @abstractmethod
    def ask(self, round: int, case: Case) -> Outcome:
        """SAM2's masks."""

    @abstractmethod
    def propose(self, round: int, case: Case) -> Outcome:
        """The pseudo-label."""

    def no_longer_needed(self, round: int) -> Sequence[str]:
        """A round's probabilities serve the round after it only."""
        return ("*.npz",)

    # SAM2

    def features_of(self, array: np.ndarray, foreground: np.ndarray) -> VolumeFeatures:
        """The frozen encoder's view of a volume (k, j, i) around the ``foreground`` (bool), computed once for all rounds of a run."""
        return self.feature_cache.get(array, Window.around(foreground))

    @property
    def feature_cache(self) -> FeatureCache:
        """SAM2 as the settings want it, with the features of the volumes seen last; loaded when first asked for."""
        if self._features is None:
            weights = weights_in_use(self.run.settings.foundation.weights, self.run.project.models_folder)
            self._features = FeatureCache(load_foundation(weights, self.run.device), self.run.device)
        return self._features

    # What a round leaves of a case

    def has_past(self, round: int, case: Case) -> bool:
        """Whether the round before left of the case what this method remembers, and that is whole.

        Not if the case was imported, or taken back, since; nor if another method labelled it then.
        """
        if round == 0:
            return False
        key = round, case.id
        if key not in self._pasts:
            journal = self.run.project.journal
            files = {name for stage in self.stages if (unit := journal.unit(round - 1, stage, case.id)) for name in unit.files}
            known = {self.run.project.relative(self.path(round - 1, case, name)) for name in self.remembered} <= files
            self._pasts[key] = known and all(journal.unit_done(round - 1, stage, case.id) for stage in self.stages)
            if known and not self._pasts[key]:
                lost = f"{case.id}: files of round {round - 1} are missing or were changed; its history begins anew."
                self.run.report(Warned(lost))
        return self._pasts[key]

    def path(self, round: int, case: Case, name: str) -> Path:
        """Where a file of a case's round lies."""
        return self.run.project.artefact(round, case, name)

    def outcome(self, round: int, case: Case, names: Sequence[str], numbers: Mapping[str, float | None]) -> Outcome:
        """These files of the case's round, and its numbers."""
        return Outcome([self.path(round, case, name) for name in names], numbers)

    def write_classes(self, round: int, case: Case, name: str, classes: np.ndarray, volume: Volume) -> None:
        """A label map of class indices (k, j, i) on the case's own grid."""
        write_label_map(self.path(round, case, name), LabelMap.of_classes(classes, self.run.project.values, volume.geometry))

    def write_proposal(
        self,
        round: int,
        case: Case,
        volume: Volume,
        classes: np.ndarray,
        weights: np.ndarray,
        numbers: Mapping[str, float | None],
    ) -> Outcome:
        """The pseudo-label that people review, under what they decided already, and how it changed since the round before.

        Args:
            classes: (k, j, i) class indices; weights: (k, j, i) in [0, 1], what each voxel may teach.
            numbers: of the case, with its agreement.
        """
        run = self.run
        values = LabelMap.of_classes(classes, run.project.values, volume.geometry).array
        said = run.review.training_labels(case) if case.role == "unlabelled" else None
        if said is not None:
            values, weights = said.over(values, weights)
        write_label_map(self.path(round, case, PROPOSAL), LabelMap(values, volume.geometry))
        save_arrays(self.path(round, case, WEIGHTS), {"weights": np.rint(weights * 255).astype(np.uint8)})
        assert AGREEMENT in numbers  # by which the next round chooses what it learns from
        if self.has_past(round, case):
            before = read_label_map(self.path(round - 1, case, PROPOSAL), trusted=True).classes(run.project.values)
            now = LabelMap(values, volume.geometry).classes(run.project.values)
            numbers = {**numbers, "stability": label_stability(now, before, run.class_count)}
        return self.outcome(round, case, (PROPOSAL, WEIGHTS), numbers)


def weights_path(run: RunContext, round: int) -> Path:
    """Where the network of a round lies."""
    return network_path(run.project.models_folder, round)


def for_people(prompt: Prompt, grid: WorkingGrid, value: int) -> KeyFramePrompt:
    """A prompt in RAS mm and label values, as people may see it."""
    z = prompt.slice_index
    corners: list[list[float]] = []
    if prompt.box is not None:
        j0, i0, j1, i1 = (edge - 0.5 for edge in prompt.box)
        corners = [[z, j0, i0], [z, j0, i1], [z, j1, i1], [z, j1, i0]]
    positive, negative = ([[z, *point] for point in points.tolist()] for points in (prompt.positive_points, prompt.negative_points))
    box, inside, outside = (grid.ras_of(np.array(found)) if found else np.empty((0, 3)) for found in (corners, positive, negative))
    return KeyFramePrompt(value, z, prompt.mask is not None, box, inside, outside)
