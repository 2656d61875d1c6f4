"""The labels that leave a project, or the sentence why a case has none to give."""

from __future__ import annotations

from ..errors import DataError
from ..project import Case, Project
from ..review import FinalLabels, Review


def labels_to_export(project: Project, case: Case, pseudo_labels: bool) -> FinalLabels:
    """The best labels of a case: a person's where a person spoke, else the newest pseudo-label.

    Args:
        pseudo_labels: False refuses what no person vouches for.

    Raises:
        DataError: there are none, they were rejected, no person vouches for them, or they hold a value that is no label any more.
    """
    review = Review(project)
    final = review.final_labels(case)
    if final is None:
        rejected = review.status(case) == "rejected"
        what = "its pseudo-label was rejected." if rejected else "there are no labels for it yet."
        raise DataError(what, where=case.id, cure="Correct it in the review." if rejected else "Run a round, or label it.")
    if not final.by_person and not pseudo_labels:
        raise DataError("no person vouches for its labels yet.", where=case.id, cure="Review it, or allow pseudo-labels.")
    final.label_map.classes(project.values)  # refuses a value that project.toml has lost: the file would hold what nothing names
    return final
