"""Reference label maps from outside of the project, matched to its cases by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from .errors import DataError
from .exchange import is_mask, labelled_mask, read_labels
from .exchange.names import matching_stem
from .files import IMAGE_SUFFIXES, suffix_of
from .intake import broken_link
from .project import Case, Project
from .volumes import LabelMap, require_same_grid

_ENDING = re.compile(r"[_-](labels?|seg|segmentation|mask|gt)$", re.IGNORECASE)
_CHANNEL = "_0000"


@dataclass
class References:
    """Which reference belongs to which case.

    Attributes:
        of_case: case id -> the case and its reference, for the cases that rounds label.
        labelled: ids of labelled cases that have a reference; the loop learned from their labels, so they are not scored.
        cases_without: ids of cases that rounds label and that have none.
        without_case: names of files that fit no case, and of second files for one case.
    """

    of_case: dict[str, tuple[Case, Path]] = field(default_factory=dict)
    labelled: list[str] = field(default_factory=list)
    cases_without: list[str] = field(default_factory=list)
    without_case: list[str] = field(default_factory=list)


def match_references(project: Project, folder: Path) -> References:
    """Give each case the label map that bears its id or its source's name.

    Raises:
        DataError: no such folder, or nothing in it fits a case that rounds label.
    """
    if not folder.is_dir():
        raise DataError("there is no such folder.", where=folder.name, cure="Check the name.")
    present = (p for p in folder.iterdir() if p.is_file() or broken_link(p))  # reading the link will name it
    files = sorted(p for p in present if not p.name.startswith(".") and suffix_of(p) in IMAGE_SUFFIXES)
    cases = [case for case in project.cases() if case.role != "excluded"]
    found = References()
    taken: dict[str, Path] = {}
    for path in files:
        case = _case_of(path, cases)
        if case is None or case.id in taken:
            found.without_case.append(path.name)
        else:
            taken[case.id] = path
    for case in cases:
        if case.role == "labelled":
            found.labelled += [case.id] if case.id in taken else []
        elif case.id in taken:
            found.of_case[case.id] = case, taken[case.id]
        else:
            found.cases_without.append(case.id)
    if not found.of_case:
        raise DataError(
            f"none of its {len(files)} label maps bears the name of a case that the rounds label.",
            where=folder.name,
            cure="Name each reference after its image.",
        )
    return found


def read_reference(project: Project, case: Case, path: Path) -> tuple[LabelMap, str]:
    """A reference on its case's grid, and a sentence about what was done to it (empty: nothing).

    Raises:
        DataError: unreadable, or none of its values is a label of the project.
        GeometryError: it does not lie on the case's image.
    """
    label = read_labels(path, project.settings.labels)
    require_same_grid(label.geometry, project.read_case_image(case).geometry, case.id)
    labels = project.settings.labels
    if is_mask(label, labels):
        return labelled_mask(label, labels, case.id), f"255 was taken as label {labels[0].value}."
    known, foreign = set(project.values), sorted(set(label.values) - set(project.values))
    if foreign and not known & set(label.values):
        raise DataError(
            f"its reference holds the values {foreign}, none of which is a label of the project ({sorted(known)}).",
            where=case.id,
            cure="Give the references the project's label values.",
        )
    return label, f"the values {foreign} are no labels of the project and count as background." if foreign else ""


def _case_of(path: Path, cases: list[Case]) -> Case | None:
    """The only case whose source bore the file's name, else the one whose id it bears: an id may look like another source's name."""
    names = (matching_stem(path), _ENDING.sub("", matching_stem(path)))
    sources = [(case, matching_stem(case.source)) for case in cases if case.source]
    for name in names:
        by_source = [case for case, stem in sources if name in (stem, stem.removesuffix(_CHANNEL))]
        by_id = [case for case in cases if case.id == name]
        if len(by_source or by_id) == 1:
            return (by_source or by_id)[0]
    return None
