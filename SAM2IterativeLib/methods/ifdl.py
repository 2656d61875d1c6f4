"""IFDL, Iterative Foundation-Dedicated Learning (Yin et al., MICCAI 2025, doi 10.1007/978-3-032-04984-1_25).

A U-Net learns from the few labels and marks the rest; its history over the rounds gives an uncertainty; the surest slices become key
frames whose prompts drive SAM2 through the volume, a memory bank grouped by meaning bringing in the labelled cases; SAM2's answer and the
history become a pseudo-label, from which the next round learns. Letters (a) to (j) in comments are the steps of the method's
specification; the paper leaves most formulas open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..dedicated.prediction import Predictor
from ..dedicated.training import TrainedNetwork
from ..dedicated.weights import load_weights, save_weights
from ..files import write_text
from ..foundation.features import VolumeFeatures
from ..foundation.memory_bank import Entry
from ..foundation.propagation import Guidance, Propagator, allowed_slices, axial_positions, classes_per_slice
from ..guidance.arrays import classes_of
from ..guidance.key_frames import PromptRecord, select_key_frames, slice_dice, slice_quality
from ..guidance.prompts import Prompt, prompts_on, with_reviewed, with_reviewed_masks
from ..guidance.pseudo_label import foundation_shares, fuse
from ..guidance.uncertainty import case_uncertainty, first_history, in_steps, uncertainty, update_history
from ..project import Case, load_arrays, load_probabilities, save_arrays, save_probabilities
from ..review import PROPOSAL
from ..round_files import COARSE, PROMPTS, PROPAGATED, UNCERTAINTY, prompts_text
from ..volumes import Volume, read_volume, write_volume
from .method import SUPPORT_CASES, Outcome, RunContext
from .network_method import PROBABILITIES, NetworkMethod, for_people, weights_path
from .training_set import AGREEMENT
from .trial import error_on
from .working_grid import WorkingGrid

_HISTORY, _ANSWER, _RECORD = "history.npz", "foundation.npz", "prompt_record.npz"


@dataclass
class _Loaded:
    """What a stage keeps in memory while it goes over the cases."""

    predictors: Sequence[Predictor] = ()
    propagator: Propagator | None = None
    support: Sequence[Entry] = ()
    error: np.ndarray | None = None
    """(C,) 1 - Dice of SAM2 per class on a labelled case; None where there is none to try it on."""


class IFDL(NetworkMethod):
    """See the module's text."""

    remembered = (PROPOSAL, _HISTORY, _RECORD)

    def __init__(self, run: RunContext) -> None:
        super().__init__(run)
        self._loaded = _Loaded()

    # (a), (i): the dedicated network

    def share_learned(self, round: int) -> float:
        """The rho_t of the settings, the last of which repeats."""
        shares = self.run.settings.rounds.shares
        return shares[min(round, len(shares)) - 1] if round else 0.0

    def keep_besides(self, round: int, result: TrainedNetwork, notes: Mapping[str, Any]) -> Sequence[Path]:
        """The snapshots of round 0, whose mean is the first history."""
        folder = self.run.project.models_folder
        files = [folder / f"round_0_snapshot_{index}.safetensors" for index in range(len(result.snapshots) if round == 0 else 0)]
        for file, snapshot in zip(files, result.snapshots, strict=False):
            save_weights(file, snapshot, notes)
        return files

    def begin_stage(self, round: int, stage: str) -> None:
        """Load the round's networks, or SAM2 and the labelled cases' memories."""
        if stage == "coarse":
            weights = (load_weights(file)[0] for file in self.history_files(round))
            self._loaded.predictors = [Predictor(self.run.plan, each, self.run.device) for each in weights]
        elif stage == "propagation":
            self._load_foundation()

    def end_stage(self) -> None:
        """Let go of networks; the feature cache stays for the next round."""
        self._loaded = _Loaded()

    # (a), (b): coarse mask, history, uncertainty

    def mark(self, round: int, case: Case) -> Outcome:
        """The network's mask, its history and the uncertainty."""
        volume = self.run.project.read_case_image(case)
        stop = self.run.stop_asked
        network, *earlier = (partial(p.predict, volume.array, volume.geometry, stop=stop) for p in self._loaded.predictors)
        today = network()
        answer = heard = None
        if self.has_past(round, case):
            before = load_probabilities(self.path(round - 1, case, _HISTORY))
            now = update_history(before, today, self.run.settings.uncertainty.momentum)
            answer, heard = self._previous_answer(round, case, today)
        else:
            before = now = first_history(chain([today], (snapshot() for snapshot in earlier)))
        doubt = uncertainty(today, before, now, answer, heard)
        save_probabilities(self.path(round, case, PROBABILITIES), today)
        save_probabilities(self.path(round, case, _HISTORY), now)
        self.write_classes(round, case, COARSE, classes_of(today), volume)
        write_volume(self.path(round, case, UNCERTAINTY), Volume(in_steps(doubt.map), volume.geometry))
        return self.outcome(
            round,
            case,
            (PROBABILITIES, _HISTORY, COARSE, UNCERTAINTY),
            {"uncertainty": case_uncertainty(doubt.map, classes_of(now), self.run.plan.always_shown)},
        )

    def history_files(self, round: int) -> list[Path]:
        """The weights of f_t, and in round 0 of the earlier snapshots, whose mean with it is the first history."""
        files = [weights_path(self.run, round)]
        if round == 0:  # the last snapshot is f_0 itself
            files += sorted(self.run.project.models_folder.glob("round_0_snapshot_*.safetensors"), key=_number)[:-1]
        return files

    def _previous_answer(self, round: int, case: Case, today: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """SAM2's last answer, and where it counts: not where the network sees a class that SAM2 was not asked about."""
        path = self.path(round - 1, case, _ANSWER)
        if not path.is_file():
            return None, None
        abstained = load_arrays(self.path(round - 1, case, _RECORD))["abstained"]
        return load_probabilities(path), ~np.isin(classes_of(today), abstained)

    # (c)-(g): key frames, prompts, memories, propagation

    def ask(self, round: int, case: Case) -> Outcome:
        """Key frames, prompts, SAM2's answer, and the record of how well it agreed."""
        run, volume = self.run, self.run.project.read_case_image(case)
        grid = WorkingGrid(volume.geometry, run.plan.orientation)
        history = grid.turned(load_probabilities(self.path(round, case, _HISTORY)))
        doubt = grid.turned(self._read_uncertainty(round, case))
        record = self._record(round, case, history.shape)
        prompts = self._prompts(round, case, grid, history, doubt, record)
        answer, abstained = self._answer(volume, grid, history, prompts)
        error = np.full(run.class_count, np.nan) if self._loaded.error is None else self._loaded.error
        files = [PROMPTS, _RECORD]
        shown = [for_people(prompt, grid, run.project.values[c - 1]) for c, found in sorted(prompts.items()) for prompt in found]
        write_text(self.path(round, case, PROMPTS), prompts_text(shown))
        labels = classes_of(history)
        if answer is None:
            self.path(round, case, _ANSWER).unlink(missing_ok=True)  # of an attempt with other prompts that was interrupted
        else:
            network = classes_of(grid.turned(load_probabilities(self.path(round, case, PROBABILITIES))))
            answered = classes_of(answer)
            agreed = slice_dice(answered, network, run.class_count)
            record = record.updated(agreed, {c: [p.slice_index for p in found] for c, found in prompts.items()})
            save_probabilities(self.path(round, case, _ANSWER), grid.turned_back(answer))
            files.append(_ANSWER)
            labels = np.where(np.isin(labels, list(abstained)), labels, answered) if abstained else answered
        self.write_classes(round, case, PROPAGATED, grid.turned_back(labels), volume)
        save_arrays(
            self.path(round, case, _RECORD),
            {"mean": record.mean, "count": record.count, "abstained": np.array(sorted(abstained)), "error": error},
        )
        counts = {
            "key_frames": float(sum(len(p) for p in prompts.values())),
            "abstained_classes": float(len(abstained)),
        }
        return self.outcome(round, case, (*files, PROPAGATED), counts)

    def _prompts(
        self, round: int, case: Case, grid: WorkingGrid, history: np.ndarray, doubt: np.ndarray, record: PromptRecord
    ) -> dict[int, list[Prompt]]:
        """Key frames by quality, and every slice that a person decided, with exactly the person's mask."""
        settings = self.run.settings
        seen, stability = classes_of(history), None
        if self.has_past(round, case):
            before = classes_of(grid.turned(load_probabilities(self.path(round - 1, case, _HISTORY))))
            stability = slice_dice(seen, before, self.run.class_count)
        quality = slice_quality(history, doubt, settings.key_frames, reliability=record.reliability, stability=stability)
        frames = select_key_frames(quality, seen, settings.key_frames)
        prompts = prompts_on(frames, history, doubt, settings.prompts, settings.key_frames.margin)
        said = self.run.review.training_labels(case) if case.role == "unlabelled" else None
        if said is not None:
            labels, reviewed = grid.turned(said.labels.array), grid.turned(said.reviewed)
            for c, value in enumerate(self.run.project.values, 1):
                placed = np.broadcast_to(said.placed[:, c - 1, None, None], said.reviewed.shape)
                known = reviewed | grid.turned(placed)
                prompts[c] = with_reviewed(prompts.get(c, []), (labels == value) & reviewed, known, c)
        return {c: found for c, found in prompts.items() if found}

    def _answer(
        self, volume: Volume, grid: WorkingGrid, history: np.ndarray, prompts: Mapping[int, Sequence[Prompt]]
    ) -> tuple[np.ndarray | None, frozenset[int]]:
        """SAM2's probabilities (C+1, k, j, i) in the working orientation, and the classes that it said nothing about."""
        propagator, labels = self._loaded.propagator, with_reviewed_masks(classes_of(history), prompts)
        assert propagator is not None  # loaded by begin_stage
        if not prompts and not self._loaded.support:
            return None, frozenset(range(1, self.run.class_count + 1))
        guidance = Guidance(
            self.run.class_count,
            prompts,
            allowed_slices(history),
            axial_positions(labels > 0),
            classes_per_slice(labels),
            history if self.run.settings.prompts.dense == "everywhere" else None,
        )
        features = self.features_of(grid.turned(volume.array), labels > 0)
        result = propagator.propagate(features, guidance, self._loaded.support)
        return result.probabilities(), result.abstained

    def _load_foundation(self) -> None:
        run, settings = self.run, self.run.settings
        model = self.feature_cache.foundation.model
        propagator = Propagator(model, run.device, settings.memory, settings.foundation.decay, run.check_stop)
        self._loaded.propagator = propagator
        self._loaded.support, self._loaded.error = self._support_and_error(propagator)

    def _support_and_error(self, propagator: Propagator) -> tuple[list[Entry], np.ndarray | None]:
        """Memories of the cases that people vouch for; the last one, which adapting holds out too, is the trial's."""
        run = self.run
        entries: list[Entry] = []
        last: tuple[str, VolumeFeatures, np.ndarray] | None = None
        for case, said in run.review.vouched(SUPPORT_CASES):
            run.check_stop()
            volume = run.project.read_case_image(case)
            grid = WorkingGrid(volume.geometry, run.plan.orientation)
            labels = grid.turned(said.labels.classes(run.project.values))
            features = self.features_of(grid.turned(volume.array), labels > 0)
            if run.settings.memory.mode != "G0":
                entries += propagator.support_entries(case.id, features, labels, run.class_count)
            last = case.id, features, labels
        if last is None:
            return entries, None
        others = [entry for entry in entries if entry.case != last[0]]
        return entries, error_on(propagator, last[1], last[2], run.class_count, run.settings, others)

    # (h): pseudo-label

    def propose(self, round: int, case: Case) -> Outcome:
        """SAM2's answer and the history fused."""
        run, volume = self.run, self.run.project.read_case_image(case)
        history = load_probabilities(self.path(round, case, _HISTORY))
        record = load_arrays(self.path(round, case, _RECORD))
        path = self.path(round, case, _ANSWER)
        answer = load_probabilities(path) if path.is_file() else None
        shares = foundation_shares(record["error"].tolist(), answer, history, run.settings.pseudo_label)
        fused = fuse(
            answer,
            history,
            run.settings.pseudo_label,
            run.plan.single_component,
            always_shown=run.plan.always_shown,
            abstained=record["abstained"].tolist(),
            shares=shares.tolist(),
            spacing=volume.geometry.spacing,
        )
        numbers = {AGREEMENT: fused.agreement, "foundation_share": float(shares.mean())}
        return self.write_proposal(round, case, volume, fused.labels, fused.weights, numbers)

    # Files

    def _read_uncertainty(self, round: int, case: Case) -> np.ndarray:
        return read_volume(self.path(round, case, UNCERTAINTY), trusted=True).array.astype(np.float32)

    def _record(self, round: int, case: Case, shape: tuple[int, ...]) -> PromptRecord:
        if not self.has_past(round, case):
            return PromptRecord.empty(shape[0] - 1, shape[1])
        arrays = load_arrays(self.path(round - 1, case, _RECORD))
        if arrays["mean"].shape != (shape[0] - 1, shape[1]):  # plan.toml has another orientation since
            return PromptRecord.empty(shape[0] - 1, shape[1])
        return PromptRecord(arrays["mean"], arrays["count"])


METHOD = IFDL


def _number(path: Path) -> int:
    """The number at the end of a snapshot's name; sorted as text, 10 would come before 9."""
    return int(path.stem.rsplit("_", 1)[1])
