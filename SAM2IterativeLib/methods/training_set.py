"""What a round learns from: labelled cases, what reviewers decided, and the best pseudo-labels of the round before (methods (h), (i))."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..dedicated.cases import TrainingCase, prepare_image, prepare_labels
from ..errors import ProjectError
from ..files import allow_open_files, atomic_write, explained, sha256_of, write_text
from ..guidance.pseudo_label import choose_training_volumes
from ..learning import note_training
from ..messages import Warned
from ..project import Case, load_arrays
from ..review import PROPOSAL, TrainingLabels
from ..round_files import RoundFiles
from ..volumes import LabelMap, Volume
from .method import RunContext

WEIGHTS = "weights.npz"
AGREEMENT = "agreement"
_Mapped = Callable[[np.ndarray], np.ndarray]
"""Finds an array in a file's bytes."""


def training_cases(run: RunContext, round: int, share: float) -> list[TrainingCase]:
    """The cases that the network of ``round`` is trained on.

    What a person vouches for counts with weight 1, and what was rejected is left out; labelled cases, and those decided as a whole, are
    the labelled ones; of the other unlabelled cases those whose pseudo-labels of the round before agree best with the network, as many as
    ``share`` (0..1) allows, and in any case those of which a person decided a part. Where such a case has no pseudo-label yet, in round 0
    or because it joined since, that part alone is learned from. The journal remembers them all. Their arrays are memory-mapped.
    """
    shelf = _Shelf(run.project.cache_folder / "prepared")
    open_cases: dict[str, tuple[Case, TrainingLabels | None]] = {}
    review = run.review
    for case in run.project.cases("labelled", "unlabelled", usable=True):
        run.check_stop()
        said = review.training_labels(case)
        if said is not None and said.rejected and not said.reviewed.any():
            continue
        if said is not None and said.complete:
            shelf.add(_prepared(run, case, said.labels.array, None, labelled=True))
        elif case.role == "unlabelled":
            open_cases[case.id] = case, said
        elif said is not None:  # a label map of which a reviewer rejected a part
            shelf.add(_prepared(run, case, said.labels.array, said.reviewed.astype(np.float32), labelled=True))
    partly = {name: said for name, (_, said) in open_cases.items() if said is not None and said.reviewed.any()}
    before = _labelled_before(run, round, list(partly))
    chosen = choose_training_volumes(_labelled_before(run, round, list(open_cases)), share) if round > 0 else ()
    files = RoundFiles(run.project)
    allow_open_files(len(run.project.cases()))  # each prepared image is one
    for name in dict.fromkeys([*chosen, *before]):
        try:
            shelf.add(_pseudo_labelled(run, files, round - 1, *open_cases[name]))
        except ProjectError as error:
            run.report(Warned(f"{error.sentence} This round learns nothing from it."))
    for name, said in partly.items():
        if name not in before:
            shelf.add(_prepared(run, open_cases[name][0], said.labels.array, said.reviewed.astype(np.float32), labelled=True))
    cases = shelf.cases()
    from_people = [case.name for case in cases if case.labelled or case.name in partly]
    note_training(run.project, round, [case.name for case in cases], from_people)
    return cases


class _Shelf:
    """Cases whose labels and weights lie in one nameless file, which is gone with the last of them, or with the process.

    All cases together need not fit into memory; and not a file for each, of which a process may have few open (256 on macOS).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cases: list[tuple[str, np.ndarray, _Mapped, _Mapped, bool]] = []
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open until its arrays are mapped)

    def add(self, case: TrainingCase) -> None:
        """Write a case's labels and weights, and let go of them."""
        self._cases.append((case.name, case.image, self._put(case.labels), self._put(case.weights), case.labelled))

    def cases(self) -> list[TrainingCase]:
        """All of them, in the order in which they came, memory-mapped."""
        if not self._cases:
            return []
        with explained(self._folder):
            self._stream.flush()
        content = np.memmap(self._stream, np.uint8, "r")
        return [TrainingCase(name, image, labels(content), weights(content), known) for name, image, labels, weights, known in self._cases]

    def _put(self, array: np.ndarray) -> _Mapped:
        if not any(array.strides):  # weights of 1 everywhere: a single number
            return lambda content: array
        with explained(self._folder):
            start = self._stream.seek(-self._stream.tell() % array.itemsize, os.SEEK_CUR)
            self._stream.write(np.ascontiguousarray(array).data)
        return partial(_at, slice(start, start + array.nbytes), array.dtype, array.shape)


def _at(place: slice, dtype: np.dtype, shape: tuple[int, ...], content: np.ndarray) -> np.ndarray:
    return content[place].view(dtype).reshape(shape)


def _labelled_before(run: RunContext, round: int, names: Sequence[str]) -> dict[str, float]:
    """Of these cases those that the round before gave a pseudo-label, with their agreement."""
    journal = run.project.journal
    return {name: value for name in names if (value := journal.numbers(round - 1, name).get(AGREEMENT)) is not None}


def _pseudo_labelled(run: RunContext, files: RoundFiles, round: int, case: Case, said: TrainingLabels | None) -> TrainingCase:
    proposal, trust = files.label_map(round, case, PROPOSAL), files.path(round, case, WEIGHTS)
    assert proposal is not None and trust is not None  # both come with the agreement by which the case was chosen
    labels, weights = proposal.array, load_arrays(trust)["weights"].astype(np.float32) / 255
    if said is not None:
        labels, weights = said.over(labels, weights)
    return _prepared(run, case, labels, weights, labelled=False)


def _prepared(run: RunContext, case: Case, values: np.ndarray, weights: np.ndarray | None, *, labelled: bool) -> TrainingCase:
    """``values`` are label values (k, j, i) on the case's own grid."""
    volume = run.project.read_case_image(case)
    classes = LabelMap(values, volume.geometry).classes(run.project.values)
    labels, planned = prepare_labels(classes, volume.geometry, run.plan, weights)
    return TrainingCase(case.id, prepared_image(run, case, volume), labels, planned, labelled)


def prepared_image(run: RunContext, case: Case, volume: Volume) -> np.ndarray:
    """The image on the plan's grid, (channels, k, j, i) float32, memory-mapped from the project's cache.

    The cache's key is the image's and the plan's content, so nothing stale is ever found; it may be deleted at any time. What is not
    what was written, by the hash beside it, is made again.
    """
    path = run.project.cache_folder / "prepared" / f"{case.image_sha256[:20]}-{run.plan.digest[:12]}.npy"
    written = path.with_suffix(".sha256")
    if not (path.is_file() and written.is_file() and written.read_bytes() == sha256_of(path).encode()):
        with atomic_write(path) as temporary, open(temporary, "wb") as stream:
            np.save(stream, prepare_image(volume.array, volume.geometry, run.plan))
        write_text(written, sha256_of(path))
    return np.load(path, mmap_mode="r", allow_pickle=False)
