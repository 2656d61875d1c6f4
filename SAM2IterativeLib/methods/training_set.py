"""What a round learns from: labelled cases, what reviewers decided, and the best pseudo-labels of the round before (methods (h), (i))."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dedicated.cases import TrainingCase, prepare_image, prepare_labels
from ..errors import ProjectError
from ..files import atomic_write, sha256_of, write_text
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


def training_cases(run: RunContext, round: int, share: float) -> list[TrainingCase]:
    """The cases that the network of ``round`` is trained on.

    What a person vouches for counts with weight 1, and what was rejected is left out; labelled cases, and those decided as a whole, are
    the labelled ones; of the other unlabelled cases those whose pseudo-labels of the round before agree best with the network, as many as
    ``share`` (0..1) allows, and in any case those of which a person decided a part. Where such a case has no pseudo-label yet, in round 0
    or because it joined since, that part alone is learned from. The journal remembers them all.
    """
    cases: list[TrainingCase] = []
    open_cases: dict[str, tuple[Case, TrainingLabels | None]] = {}
    review = run.review
    for case in run.project.cases("labelled", "unlabelled", usable=True):
        run.check_stop()
        said = review.training_labels(case)
        if said is not None and said.rejected and not said.reviewed.any():
            continue
        if said is not None and said.complete:
            cases.append(_prepared(run, case, said.labels.array, None, labelled=True))
        elif case.role == "unlabelled":
            open_cases[case.id] = case, said
        elif said is not None:  # a label map of which a reviewer rejected a part
            cases.append(_prepared(run, case, said.labels.array, said.reviewed.astype(np.float32), labelled=True))
    partly = {name: said for name, (_, said) in open_cases.items() if said is not None and said.reviewed.any()}
    before = _labelled_before(run, round, list(partly))
    chosen = choose_training_volumes(_labelled_before(run, round, list(open_cases)), share) if round > 0 else ()
    files = RoundFiles(run.project)
    for name in dict.fromkeys([*chosen, *before]):
        try:
            cases.append(_pseudo_labelled(run, files, round - 1, *open_cases[name]))
        except ProjectError as error:
            run.report(Warned(f"{error.sentence} This round learns nothing from it."))
    for name, said in partly.items():
        if name not in before:
            cases.append(_prepared(run, open_cases[name][0], said.labels.array, said.reviewed.astype(np.float32), labelled=True))
    from_people = [case.name for case in cases if case.labelled or case.name in partly]
    note_training(run.project, round, [case.name for case in cases], from_people)
    return cases


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
