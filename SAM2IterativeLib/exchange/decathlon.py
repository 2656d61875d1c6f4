"""Medical Segmentation Decathlon datasets: a dataset.json that lists its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..files import resolve_under, stem_of
from ..project import Project, Role
from .dataset_json import described_labels, ignored_value, listed, read_description
from .importing import Candidate, ImportOptions, ImportReport, OnCase, import_candidates


def import_decathlon(
    project: Project,
    folder: str | Path,
    *,
    role: Role | None = None,
    options: ImportOptions | None = None,
    on_case: OnCase | None = None,
) -> ImportReport:
    """Import a dataset: its training list makes labelled cases, its test list unlabelled ones.

    Args:
        project: takes the dataset's label names if it has none of its own.
        folder: holds dataset.json.
        role: give every case this role.
        options: see ``ImportOptions``.
        on_case: progress.

    Raises:
        DataError: no readable dataset.json, or a listed name that leads out of the folder.
    """
    root = Path(folder)
    description = read_description(root / "dataset.json")
    if not project.values:
        project.add_labels(described_labels(description, root.name))
    entries = [entry for name in ("training", "test") for entry in listed(description, name, root.name)]
    ignore = ignored_value(description, root.name)
    candidates = [replace(_candidate(root, entry, role), ignore=ignore) for entry in entries]
    if not candidates:
        raise DataError("dataset.json lists no images.", where=root.name, cure="Choose the folder of a decathlon dataset.")
    return import_candidates(project, candidates, options=options, on_case=on_case)


def _candidate(root: Path, entry: Any, role: Role | None) -> Candidate:
    table = {"image": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict) or not isinstance(table.get("image"), str):
        raise DataError(f"dataset.json lists {entry!r}, which names no image.", where=root.name, cure="Correct it.")
    image = _below(root, table["image"])
    label = _below(root, table["label"]) if isinstance(table.get("label"), str) else None
    return Candidate(stem_of(image), image, label, role)


def _below(root: Path, name: str) -> Path:
    """A listed file, by the name that the list gives it: what a link leads to may be called anything, or not be here."""
    resolve_under(root, name)
    return root / name
