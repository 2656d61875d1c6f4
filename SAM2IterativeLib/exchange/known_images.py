"""Which images a project knows already: by a file's bytes, or by its name and what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError, ProjectError
from ..files import sha256_of
from ..project import Case, Project, Role
from ..volumes import Volume
from .names import composed


class KnownImages:
    """The images of a project, excluded ones too: what a person took out stays out, unless the project's copy of it is damaged."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._cases = [case for case in project.cases() if "source" in case.details]

    def remember(self, case: Case) -> None:
        """Add a case that has just come in."""
        self._cases.append(case)

    def of_bytes(self, digest: str) -> list[Case]:
        """The cases that came from a file of this SHA-256 (or a source of this identity), those in use first."""
        return self._staying([case for case in self._cases if case.details["source"] == digest])

    def of_name(self, name: str) -> list[Case]:
        """The cases that came from a file of this name, those in use first."""
        return self._staying([case for case in self._cases if composed(case.source) == composed(name)])

    def shows(self, case: Case, image: Volume) -> bool:
        """Whether a case's image is this one, voxel for voxel on the same grid; not if the project's copy is damaged."""
        try:
            known = self._project.read_case_image(case)
        except ProjectError:
            return False
        return known.geometry.mismatch(image.geometry) is None and np.array_equal(known.array, image.array)

    def _staying(self, cases: list[Case]) -> list[Case]:
        return sorted(filter(self._stays, cases), key=lambda case: case.role == "excluded")

    def _stays(self, case: Case) -> bool:
        """A copy that was damaged in the project is replaced by excluding its case and importing the image again."""
        if case.role != "excluded":
            return True
        try:
            self._project.require_whole(case)
        except ProjectError:
            return False
        return True


def digest_of(image: Path) -> str:
    """The SHA-256 of an image's file; "" for what is no file, such as the folder of a series.

    Raises:
        DataError: the file may not be read.
    """
    try:
        return sha256_of(image) if image.is_file() else ""
    except OSError as error:
        cure = "Check its permissions, or copy it again."
        raise DataError(f"it cannot be read ({error.strerror}).", where=image.name, cure=cure) from error


def require_no_leak(twins: Sequence[Case], role: Role, name: str) -> None:
    """Refuse a second copy of an image where one of the two would be learned from and the other one measure what was learned.

    Args:
        twins: the cases of the same image.
        role: of the new case.
        name: of its file.
    """
    for twin in twins:
        if twin.role != "excluded" and (twin.role == "validation") != (role == "validation"):
            what = "it would be learned from" if twin.role == "validation" else "the rounds know it already"
            sentence = f"its image is that of case {twin.id}, which is {twin.role}: {what}."
            raise DataError(sentence, where=name, cure="Keep only one of the two files.")
