"""The project's own copies of a case's image and label map: read with their hashes checked."""

from __future__ import annotations

from pathlib import Path

from ..errors import ProjectError
from ..files import sha256_of
from ..geometry import Geometry
from ..volumes import LabelMap, Volume, read_header, read_label_map, read_volume
from .case import Case

_CURE = "Restore it from a copy, or exclude the case and import it again."


def require_whole(case: Case) -> None:
    """Check the hashes of a case's files.

    Raises:
        ProjectError: a copy was changed or is missing.
    """
    for path, digest in ((case.label, case.label_sha256), (case.image, case.image_sha256)):
        if path is not None:
            _verified(path, digest, case.id)


def read_case_header(case: Case) -> tuple[Geometry, int]:
    """The grid of a case's image and its values per voxel, without reading the voxels or checking their hash.

    Raises:
        ProjectError: the copy is missing.
    """
    _require_there(case.image, case.id)
    return read_header(case.image)


def read_case_image(case: Case) -> Volume:
    """The case's image, its hash checked.

    Raises:
        ProjectError: the copy was changed or is missing.
    """
    return read_volume(_verified(case.image, case.image_sha256, case.id), trusted=True)


def read_case_label(case: Case) -> LabelMap:
    """The label map that came with the case, its hash checked.

    Raises:
        ProjectError: there is none, or the copy was changed.
    """
    if case.label is None:
        raise ProjectError("the case has no label map.", where=case.id, cure="Add one, or review its pseudo-label.")
    return read_label_map(_verified(case.label, case.label_sha256, case.id), trusted=True)


def _require_there(path: Path, case: str) -> None:
    if not path.is_file():
        raise ProjectError(f"the file {path.name} is missing.", where=case, cure=_CURE)


def _verified(path: Path, digest: str, case: str) -> Path:
    _require_there(path, case)
    if sha256_of(path) != digest:
        raise ProjectError(f"the file {path.name} changed since it was imported.", where=case, cure=_CURE)
    return path
