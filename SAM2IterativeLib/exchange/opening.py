"""One door for all kinds of folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError
from ..project import Project, Role
from .dataset_json import read_description
from .decathlon import import_decathlon
from .dicom import holds_image_files, import_dicom
from .folders import import_folder
from .importing import ImportOptions, ImportReport, OnCase
from .nnunet import import_nnunet


def import_any(
    project: Project,
    images: str | Path,
    labels: str | Path | None = None,
    *,
    label_names: Sequence[str] = (),
    role: Role | None = None,
    options: ImportOptions | None = None,
    on_case: OnCase | None = None,
) -> ImportReport:
    """Import whatever a folder holds.

    A dataset.json (or its folder) is read as a Decathlon or nnU-Net dataset, a folder with image files as these, and any other
    folder is searched for DICOM series, in its subfolders too.

    Args:
        project: open for writing.
        images: the folder, or a dataset.json.
        labels: folder of label maps: named after the image files, or after the cases that DICOM series are or become.
        label_names: names in order of value, background first or left out, for a project without labels.
        role: give every case this role.
        options: see ``ImportOptions``.
        on_case: progress.

    Raises:
        DataError: nothing there that could be imported, or image files and DICOM in one folder. Single bad files are set aside in the
            report instead.
    """
    folder = Path(images)
    if folder.name == "dataset.json":
        folder = folder.parent
    if labels is None and (folder / "dataset.json").is_file():
        reader = import_decathlon if "training" in read_description(folder / "dataset.json") else import_nnunet
        return reader(project, folder, role=role, options=options, on_case=on_case)
    if not folder.is_dir():
        raise DataError("there is no such folder.", where=folder.name, cure="Check the name.")
    if holds_image_files(folder):
        return import_folder(project, folder, labels, label_names=label_names, role=role, options=options, on_case=on_case)
    return import_dicom(project, folder, labels, label_names=label_names, role=role, options=options, on_case=on_case)
