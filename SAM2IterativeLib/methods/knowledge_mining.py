"""KM, Knowledge Mining from large models (Mao et al., arXiv 2503.06816).

A U-Net++ learns from the labelled images and marks the others; each piece of its masks prompts SAM2, slice by slice; where SAM2's mask fits
the piece it takes its place, else the network's own is kept, and the network learns on from these. Made for 2-D images, grey or colour;
volumes go slice by slice. SAM2 is taken as the settings name it: it is not adapted for this method, and remembers nothing. Pieces smaller
than ``key_frames.minimum_area`` pixels do not prompt. An image in which SAM2 and the network agree on nothing is not learned from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

from ..dedicated.prediction import Predictor
from ..dedicated.weights import load_weights
from ..files import write_text
from ..foundation.slice_masks import masks_of_prompts
from ..guidance.arrays import classes_of
from ..guidance.pieces import Piece, pieces_of, prompt_for
from ..guidance.prompts import Prompt
from ..guidance.pseudo_label import agreement, lacks
from ..guidance.uncertainty import case_uncertainty, entropy, in_steps
from ..project import Case, load_arrays, load_probabilities, save_arrays, save_probabilities
from ..round_files import COARSE, PROMPTS, PROPAGATED, UNCERTAINTY, KeyFramePrompt, prompts_text
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
    looks = 1
    has_history = False

    def __init__(self, run: RunContext) -> None:
        super().__init__(run)
        self._predictor: Predictor | None = None

    def share_learned(self, round: int) -> float:
        """Every image in which SAM2 and the network agree on anything."""
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
        labels = classes_of(said)
        self.write_classes(round, case, COARSE, labels, volume)
        write_volume(self.path(round, case, UNCERTAINTY), Volume(in_steps(doubt), volume.geometry))
        numbers = {"uncertainty": case_uncertainty(doubt, labels, self.run.plan.always_shown)}
        return self.outcome(round, case, (PROBABILITIES, COARSE, UNCERTAINTY), numbers)

    def ask(self, round: int, case: Case) -> Outcome:
        """SAM2's mask for every piece, and what is learned: that mask where it fits, else the piece."""
        run, volume = self.run, self.run.project.read_case_image(case)
        grid = WorkingGrid(volume.geometry, run.plan.orientation)
        network = grid.turned(load_probabilities(self.path(round, case, PROBABILITIES)))
        labels = grid.turned(read_label_map(self.path(round, case, COARSE), trusted=True).classes(run.project.values))
        pieces = list(pieces_of(labels, run.settings.key_frames.minimum_area))
        shown: list[KeyFramePrompt] = []

        def prompts() -> Iterator[Prompt]:
            for piece in pieces:
                prompt = prompt_for(piece, labels[piece.slice_index], network[piece.class_index, piece.slice_index])
                shown.append(for_people(prompt, grid, run.project.values[piece.class_index - 1]))
                yield prompt

        answer, mined, accepted = self._answered(grid.turned(volume.array), labels, pieces, prompts())
        self.write_classes(round, case, PROPAGATED, grid.turned_back(answer), volume)
        agreed = agreement(answer, labels, run.class_count, run.plan.always_shown)
        learned = {"labels": grid.turned_back(mined), "agreement": np.array(agreed), "accepted": np.array(accepted)}
        save_arrays(self.path(round, case, _MINED), learned)
        write_text(self.path(round, case, PROMPTS), prompts_text(shown))
        numbers = {
            "key_frames": float(len({(piece.class_index, piece.slice_index) for piece in pieces})),
            "abstained_classes": float(run.class_count - len({piece.class_index for piece in pieces})),
        }
        return self.outcome(round, case, (PROPAGATED, PROMPTS, _MINED), numbers)

    def _answered(
        self, array: np.ndarray, labels: np.ndarray, pieces: Sequence[Piece], prompts: Iterable[Prompt]
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """SAM2's label map, the one to learn from, both (k, j, i) uint8, and the share of the pieces' area in which SAM2's mask is taken.

        Where masks of several pieces meet, the largest logit wins; pieces too small to prompt stay as they are in the one to learn from.
        NaN for the share where nothing was asked.
        """
        answer, mined = np.zeros(labels.shape, np.uint8), labels.astype(np.uint8)
        if not pieces:
            return answer, mined, float("nan")
        prompted = np.zeros(labels.shape, bool)
        for piece in pieces:
            prompted[piece.slice_index][piece.window] |= piece.mask
        features = self.features_of(array, prompted)
        masks = masks_of_prompts(self.feature_cache.foundation.model, features, prompts, self.run.device)
        taken = 0
        for z, on_slice in groupby(zip(pieces, masks, strict=True), key=lambda found: found[0].slice_index):
            said, fitting = _Claims(labels.shape[1:]), _Claims(labels.shape[1:])
            for piece, tensor in on_slice:
                self.run.check_stop()
                logits = tensor.numpy()
                said.add(piece.class_index, logits)
                if piece.overlap(logits > 0) >= self.run.settings.knowledge_mining.acceptance:
                    fitting.add(piece.class_index, logits)
                    mined[z][piece.window][piece.mask] = 0
                    taken += int(piece.mask.sum())
            answer[z] = said.labels
            mined[z] = np.where(mined[z] > 0, mined[z], fitting.labels)
        return answer, mined, taken / int(prompted.sum())

    def propose(self, round: int, case: Case) -> Outcome:
        """What is to be learned, every voxel with the same weight; but no background where a class is missing that every case has."""
        volume = self.run.project.read_case_image(case)
        mined = load_arrays(self.path(round, case, _MINED))
        weights, accepted = np.ones(volume.geometry.size, np.float32), float(mined["accepted"])
        if lacks(mined["labels"], self.run.plan.always_shown):
            weights[mined["labels"] == 0] = 0.0
        numbers = {AGREEMENT: float(mined["agreement"]), "foundation_share": None if np.isnan(accepted) else accepted}
        return self.write_proposal(round, case, volume, mined["labels"], weights, numbers)


class _Claims:
    """Who has each pixel of a slice: of the masks laid over each other the one with the largest logit above 0."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.labels = np.zeros(shape, np.uint8)
        self._logits = np.zeros(shape, np.float32)

    def add(self, class_index: int, logits: np.ndarray) -> None:
        """A mask's logits (j, i)."""
        higher = logits > self._logits
        self.labels[higher] = class_index
        self._logits[higher] = logits[higher]


METHOD = KnowledgeMining
