"""Every round's label maps against references; rounds are compared by the cases that every round labelled and no person had a hand in.

Read, compared and forgotten: no reference is ever copied into the project, and nothing here writes. Floor 4, yet torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dedicated.plan import read_plan
from .errors import DataError, ProjectError
from .guidance.key_frames import slice_dice
from .guidance.uncertainty import slice_uncertainty
from .learning import learning_of
from .metrics import CaseScore, score_case, spearman, summarise
from .orientation import orientation_of, turn
from .project import Case, Project
from .references import References, match_references, read_reference
from .review import Review
from .round_files import LABEL_MAPS, RoundFiles
from .volumes import Geometry
from .wording import counted

OnCase = Callable[[int, int, str], None]
"""Called before each case with: cases done, cases in all, case id."""
_NAMED = 3
"""Reasons told at most where no reference can be used."""


def evaluate(project: Project, references_folder: str | Path, on_case: OnCase | None = None) -> dict[str, Any]:
    """Score every finished round.

    A reference belongs to the case whose id, or whose source file's name, it bears; an ending such as ``_seg`` is allowed. Labelled
    cases are left out: the loop learned from their label maps. A reference that cannot be used is named with the reason, and
    the others go on.

    Args:
        project: may be open for reading only.
        references_folder: label maps with the project's label values.
        on_case: progress.

    Returns:
        One JSON object: ``cases`` (scored), ``labels`` (names, the keys of every ``per_class``), ``label_values`` (by name),
        ``rounds``; ``reviewed_cases`` (scored ones that people decided on), ``touched_cases`` (scored ones in which people had a hand
        when the newest round labelled them, see ``touched_by_people``), ``late_cases`` (scored ones that some round did not label) and
        ``compared_cases`` (the others, by which rounds are compared; where there are none, late ones too); and what did not take part:
        ``labelled_cases``, ``cases_without_reference``, ``references_without_case``, ``errors`` and ``remarks`` (sentences by case id).
        Each round: ``round``; ``coarse``, ``propagated`` and ``pseudo_label`` as ``metrics.summarise`` has them, misses counted;
        ``missing``, case ids by label map that the round did not make, or that were changed since; ``uncertainty_error_spearman``,
        see ``SliceErrors``, and ``uncertainty_error`` with its numbers of slices and its values ``per_class`` and ``per_case``; and
        ``compared``: the three summaries and the correlation once more, without ``per_case``, of the ``compared_cases``.

    Raises:
        DataError: no round is finished, no such folder, no reference fits a case, or none could be compared with a label map.
    """
    if not project.journal.rounds():
        raise DataError("no round is finished yet, so there is nothing to compare.", cure="Run a round first.")
    matched = match_references(project, Path(references_folder))
    files = RoundFiles(project)
    rounds = {round: _RoundScores() for round in project.journal.rounds()}
    orientation = read_plan(project.plan_path).orientation if project.plan_path.is_file() else ""
    errors: dict[str, str] = {}
    remarks: dict[str, str] = {}
    for done, (case, path) in enumerate(matched.of_case.values()):
        if on_case:
            on_case(done, len(matched.of_case), case.id)
        try:
            reference, remark = read_reference(project, case, path)
            remarks |= {case.id: remark} if remark else {}
        except (DataError, ProjectError) as error:
            errors[case.id] = error.sentence
            continue
        for round, scores in rounds.items():
            try:
                _Comparison(project, files, round, case, orientation).into(scores, reference.array, reference.geometry)
            except ProjectError as error:
                errors[case.id] = error.sentence
                for cases in scores.missing.values():
                    cases.append(case.id)
    result = _result(project, matched, rounds) | {"errors": errors, "remarks": remarks}
    if not result["cases"]:
        why = f"none of {counted(len(matched.of_case), 'reference')} could be compared with a round's label map"
        more = [f"and {len(errors) - _NAMED} more"] if len(errors) > _NAMED else []
        reasons = "; ".join([*list(errors.values())[:_NAMED], *more])
        raise DataError(f"{why}{': ' + reasons if reasons else '.'}", where=Path(references_folder).name)
    return result


def touched_by_people(project: Project, round: int) -> set[str]:
    """Ids of the cases in whose label maps of ``round`` people had a hand.

    They decided on a proposal of an earlier round, or the models had learned from their labels. A decision on the round's own proposal
    leaves its label maps as they are.
    """
    review = Review(project)
    earlier = {d.case for d in review.decisions() if d.round < round or review.proposal_round(project.case(d.case), d.round) is None}
    return earlier | learning_of(project).from_people(round)


@dataclass
class SliceErrors:
    """Doubt and error of the coarse mask, slice by slice: case id -> (2, C, k), U(z, c) and 1 - Dice to the reference.

    Slices are those that SAM2 saw. NaN where the coarse mask does not have the class: there is no uncertainty of nothing. Slices where
    the reference has it all the same are counted in ``missed``.
    """

    of_case: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    missed: int = 0

    def spearman(self, case: str | None = None, class_index: int | None = None) -> float | None:
        """Rank correlation of doubt and error over all slices (of one case, of one class 1..C); None where it is not defined."""
        tables = [table for name, table in self.of_case.items() if case in (None, name)]
        chosen = slice(None) if class_index is None else slice(class_index - 1, class_index)
        doubt, error = (np.concatenate([table[n, chosen].ravel() for table in tables] or [np.empty(0)]) for n in (0, 1))
        return spearman(doubt, error)

    @property
    def slices(self) -> int:
        """Pairs of class and slice that were compared."""
        return sum(int(np.isfinite(table[0]).sum()) for table in self.of_case.values())


@dataclass
class _RoundScores:
    """What one round's label maps are worth: scores by label map and case id, and which label maps are missing."""

    scores: dict[str, dict[str, CaseScore]] = field(default_factory=lambda: {name: {} for name in LABEL_MAPS})
    missing: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in LABEL_MAPS})
    slice_errors: SliceErrors = field(default_factory=SliceErrors)

    def without(self, cases: Collection[str]) -> _RoundScores:
        """The same of the other cases."""
        scores = {name: {case: score for case, score in found.items() if case not in cases} for name, found in self.scores.items()}
        tables = {case: table for case, table in self.slice_errors.of_case.items() if case not in cases}
        return _RoundScores(scores, slice_errors=SliceErrors(tables))

    def means(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The summary of each label map, and the rank correlation of doubt and error."""
        table = {name: _with_names(summarise(found), names) for name, found in self.scores.items()}
        return {**table, "uncertainty_error_spearman": self.slice_errors.spearman()}


@dataclass(frozen=True)
class _Comparison:
    """One case of one round against its reference; ``orientation`` is the plan's, empty for the case's own."""

    project: Project
    files: RoundFiles
    round: int
    case: Case
    orientation: str

    def into(self, scores: _RoundScores, reference: np.ndarray, geometry: Geometry) -> None:
        """Score all label maps; ``reference`` holds label values (k, j, i) on the case's grid, ``geometry``.

        Raises:
            ProjectError: a file was changed; then nothing of the case was added to the round.
        """
        maps = {name: self.files.label_map(self.round, self.case, file) for name, file in LABEL_MAPS.items()}
        uncertainty = self.files.uncertainty(self.round, self.case)
        for name, found in maps.items():
            if found is None:
                scores.missing[name].append(self.case.id)
            else:
                scores.scores[name][self.case.id] = score_case(found.array, reference, geometry.spacing, self.project.values)
        coarse = maps["coarse"]
        if coarse is not None and uncertainty is not None:
            own = orientation_of(geometry.direction)
            layers = (self._classes(coarse.array), self._classes(reference), uncertainty)
            self._compare_slices(scores.slice_errors, *(turn(layer, own, self.orientation or own) for layer in layers))

    def _compare_slices(self, errors: SliceErrors, found: np.ndarray, true: np.ndarray, doubt: np.ndarray) -> None:
        """Class maps and u, (k, j, i) as SAM2 saw them."""
        classes = len(self.project.values)
        table = slice_uncertainty(found, doubt, classes, self.project.settings.key_frames.margin)
        errors.of_case[self.case.id] = np.stack([table, 1.0 - slice_dice(found, true, classes)])
        present = np.stack([(true == c).any(axis=(1, 2)) for c in range(1, classes + 1)])
        errors.missed += int((present & np.isnan(table)).sum())

    def _classes(self, values: np.ndarray) -> np.ndarray:
        """Class indices of label values; unlike ``LabelMap.classes`` it takes what is no label of the project for background.

        For a reference may hold more than the project asks for (``read_reference`` says so), and an early round a label that is gone since.
        """
        classes = np.zeros(values.shape, np.uint8)
        for c, value in enumerate(self.project.values, 1):
            classes[values == value] = c
        return classes


def _result(project: Project, matched: References, rounds: Mapping[int, _RoundScores]) -> dict[str, Any]:
    names = dict(zip(map(str, project.values), project.label_names, strict=True))
    scored = {case for scores in rounds.values() for found in scores.scores.values() for case in found}
    reviewed = {decision.case for decision in Review(project).decisions()}
    touched = scored & touched_by_people(project, max(rounds))
    late = {case for case in scored if any(case not in scores.scores["pseudo_label"] for scores in rounds.values())}
    compared = scored - touched - late or scored - touched
    return {
        "cases": len(scored),
        "labels": list(names.values()),
        "label_values": {name: int(value) for value, name in names.items()},
        "rounds": [_round_result(round, scores, names, scored - compared) for round, scores in sorted(rounds.items())],
        "reviewed_cases": sorted(scored & reviewed),
        "touched_cases": sorted(touched),
        "late_cases": sorted(late),
        "compared_cases": sorted(compared),
        "labelled_cases": matched.labelled,
        "cases_without_reference": matched.cases_without,
        "references_without_case": matched.without_case,
    }


def _round_result(round: int, scores: _RoundScores, names: Mapping[str, str], left_out: Collection[str]) -> dict[str, Any]:
    errors = scores.slice_errors
    table: dict[str, Any] = {"round": round, **scores.means(names)}
    table["missing"] = {name: cases for name, cases in scores.missing.items() if cases}
    table["uncertainty_error"] = {
        "slices": errors.slices,
        "missed_slices": errors.missed,
        "per_class": {name: errors.spearman(class_index=c) for c, name in enumerate(names.values(), 1)},
        "per_case": {case: errors.spearman(case=case) for case in errors.of_case},
    }
    compared = scores.without(left_out).means(names)
    for name in LABEL_MAPS:
        del compared[name]["per_case"]  # the round's own has them
    table["compared"] = compared
    return table


def _with_names(summary: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The same summary with label names instead of label values as keys of every "per_class"."""
    named = dict(summary)
    named["per_class"] = {names[value]: found for value, found in summary["per_class"].items()}
    if "per_case" in summary:
        named["per_case"] = {case: _with_names(found, names) for case, found in summary["per_case"].items()}
    return named
