"""KM, Knowledge Mining from large models (Mao et al., arXiv 2503.06816).

A U-Net++ learns from the labelled images and marks the others; each piece of its masks prompts SAM2, slice by slice; where SAM2's mask fits
the piece it takes its place, else the network's own is kept, and the network learns on from all of them. Made for 2-D images, grey or
colour; volumes go slice by slice. SAM2 stays as it is: it is not adapted, and it remembers nothing.
"""

from __future__ import annotations

import numpy as np

from ..dedicated.prediction import Predictor
from ..dedicated.weights import load_weights
from ..files import write_text
from ..foundation.slice_masks import masks_of_prompts
from ..guidance.pieces import Piece, best_fit, pieces_of
from ..guidance.pseudo_label import agreement
from ..guidance.uncertainty import case_uncertainty, entropy
from ..project import Case, load_arrays, load_probabilities, save_arrays, save_probabilities
from ..round_files import COARSE, PROMPTS, PROPAGATED, UNCERTAINTY, prompts_text
from ..volumes import Volume, read_label_map, write_volume
from .method import Outcome, RunContext
from .network_method import PROBABILITIES, NetworkMethod, for_people, weights_path
from .training_set import AGREEMENT
from .working_grid import WorkingGrid

_MINED = "mined.npz"


class KnowledgeMining(NetworkMethod):
    """See the module's text."""

    network = "unetplusplus"
    adapts = False

    def __init__(self, run: RunContext) -> None:
        super().__init__(run)
        self._predictor: Predictor | None = None

    def share_learned(self, round: int) -> float:
        """Every image that was marked."""
        return 1.0

    def begin_stage(self, round: int, stage: str) -> None:
        """Load the round's network; SAM2 is loaded when first asked."""
        if stage == "coarse":
            self._predictor = Predictor(self.run.plan, load_weights(weights_path(self.run, round))[0], self.run.device)

    def end_stage(self) -> None:
        """Let go of the network."""
        self._predictor = None

    def mark(self, round: int, case: Case) -> Outcome:
        """The network's mask, and its entropy."""
        assert self._predictor is not None  # loaded by begin_stage
        volume = self.run.project.read_case_image(case)
        said = self._predictor.predict(volume.array, volume.geometry, stop=self.run.stop_asked)
        doubt = entropy(said)
        save_probabilities(self.path(round, case, PROBABILITIES), said)
        self.write_classes(round, case, COARSE, said.argmax(0), volume)
        write_volume(self.path(round, case, UNCERTAINTY), Volume(doubt, volume.geometry))
        numbers = {"uncertainty": case_uncertainty(doubt, said.argmax(0), self.run.plan.always_shown)}
        return self.outcome(round, case, (PROBABILITIES, COARSE, UNCERTAINTY), numbers)

    def ask(self, round: int, case: Case) -> Outcome:
        """SAM2's mask for every piece, and what is learned: that mask where it fits, else the piece."""
        run, volume = self.run, self.run.project.read_case_image(case)
        grid = WorkingGrid(volume.geometry, run.plan.orientation)
        network = grid.turned(load_probabilities(self.path(round, case, PROBABILITIES)))
        labels = grid.turned(read_label_map(self.path(round, case, COARSE), trusted=True).classes(run.project.values))
        pieces = sorted(pieces_of(labels, network, run.settings.key_frames.minimum_area), key=lambda piece: piece.prompt.slice_index)
        answer, mined, accepted = self._answered(grid.turned(volume.array), labels, pieces)
        self.write_classes(round, case, PROPAGATED, grid.turned_back(answer), volume)
        agreed = agreement(answer, labels, run.class_count, run.plan.always_shown)
        learned = {"labels": grid.turned_back(mined).astype(np.uint16), "agreement": np.array(agreed), "accepted": np.array(accepted)}
        save_arrays(self.path(round, case, _MINED), learned)
        shown = [for_people(piece.prompt, grid, run.project.values[piece.prompt.class_index - 1]) for piece in pieces]
        write_text(self.path(round, case, PROMPTS), prompts_text(shown))
        asked = {piece.prompt.class_index for piece in pieces}
        numbers = {
            "key_frames": float(len({(piece.prompt.class_index, piece.prompt.slice_index) for piece in pieces})),
            "abstained_classes": float(run.class_count - len(asked)),
        }
        return self.outcome(round, case, (PROPAGATED, PROMPTS, _MINED), numbers)

    def _answered(self, array: np.ndarray, labels: np.ndarray, pieces: list[Piece]) -> tuple[np.ndarray, np.ndarray, float]:
        """SAM2's label map, the one to learn from, both (k, j, i), and the share of the pieces' area in which SAM2's mask is taken.

        NaN for the share where nothing was asked.
        Where masks of several pieces meet, the largest logit wins; pieces too small to prompt stay as they are in the one to learn from.
        """
        if not pieces:
            return np.zeros_like(labels), labels, float("nan")
        acceptance = self.run.settings.knowledge_mining.acceptance
        features = self.features_of(array, labels > 0)
        model, prompts = self.feature_cache.foundation.model, [piece.prompt for piece in pieces]
        answer, fitting, kept = _Claims(labels.shape), _Claims(labels.shape), labels.copy()
        taken = total = 0
        for piece, candidates in zip(pieces, masks_of_prompts(model, features, prompts, self.run.device), strict=True):
            self.run.check_stop()
            z, c, area = piece.prompt.slice_index, piece.prompt.class_index, int(piece.mask.sum())
            best, overlap = best_fit(candidates.numpy() > 0, piece.mask)
            answer.add(z, c, candidates[best].numpy())
            total += area
            if overlap >= acceptance:
                fitting.add(z, c, candidates[best].numpy())
                kept[z][piece.mask] = 0
                taken += area
        return answer.labels, np.where(kept > 0, kept, fitting.labels), taken / total

    def propose(self, round: int, case: Case) -> Outcome:
        """What is to be learned, every voxel with the same weight."""
        volume = self.run.project.read_case_image(case)
        mined = load_arrays(self.path(round, case, _MINED))
        weights, accepted = np.ones(volume.geometry.size, np.float32), float(mined["accepted"])
        numbers = {AGREEMENT: float(mined["agreement"]), "foundation_share": None if np.isnan(accepted) else accepted}
        return self.write_proposal(round, case, volume, mined["labels"], weights, numbers)


class _Claims:
    """Who has each pixel: of the masks laid over each other the one with the largest logit above 0."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.labels = np.zeros(shape, np.int64)
        self._logits = np.zeros(shape, np.float32)

    def add(self, slice_index: int, class_index: int, logits: np.ndarray) -> None:
        """A mask's logits (j, i)."""
        higher = logits > self._logits[slice_index]
        self.labels[slice_index][higher] = class_index
        self._logits[slice_index][higher] = logits[higher]


METHOD = KnowledgeMining
