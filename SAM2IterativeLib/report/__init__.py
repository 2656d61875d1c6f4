"""The report: what happened in a project, as one HTML file that needs nothing else, for a clinician first and a researcher below.

No file path and nothing from an image's header stands in it: cases are called by their ids. Floor 1: it reads the journal, the settings
and the label maps of the rounds, and needs neither torch nor a GPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MissingPackageError, ProjectError
from ..files import write_text
from ..project import Project

_NEEDED = ("jinja2", "matplotlib")
_TITLE = b"SAM2Iterative report</title>"
"""Stands in the head of every report; so a file that may be written anew is told from one that may not."""
_HEAD_BYTES = 4096


def write_report(
    project: Project, path: str | Path | None = None, evaluation: Mapping[str, Any] | None = None, references: str | Path | None = None
) -> Path:
    """Write the report of a project.

    Args:
        project: may be open for reading only if ``path`` lies elsewhere.
        path: the HTML file; ``report.html`` in the project folder unless given.
        evaluation: what ``evaluation.evaluate`` returned; without it, quality is told by validation cases, or by agreement and change.
        references: the folder of label maps that it came from; they are outlined in the pictures.

    Returns:
        The file.

    Raises:
        MissingPackageError: jinja2 or matplotlib is not installed.
        DataError: no reference fits a case.
        ProjectError: ``path`` is a file that is no report.
        ResourceError: the file cannot be written.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingPackageError(f"the report needs {' and '.join(missing)}.", cure=f"Install with: pip install {' '.join(missing)}")
    from .page import rendered

    target = project.report_path if path is None else Path(path)
    if path is None:
        project.require_writable()
    elif target.exists() and not _is_report(target):
        raise ProjectError("a file of that name is there and is no report; it is kept.", where=target.name, cure="Choose another name.")
    write_text(target, rendered(project, evaluation, Path(references) if references else None))
    return target


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as stream:
        return _TITLE in stream.read(_HEAD_BYTES)
