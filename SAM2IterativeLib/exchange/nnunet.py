"""nnU-Net raw datasets (version 2), in and out: imagesTr, labelsTr, imagesTs, dataset.json."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import DataError, ProjectError
from ..files import require_empty, suffix_of, write_text
from ..project import Case, Project, Role, case_id_of
from ..volumes import LabelMap, write_label_map, write_volume
from .dataset_json import described_channels, described_labels, ignored_value, read_description
from .importing import Candidate, ImportOptions, ImportReport, OnCase, import_candidates
from .names import composed, matching_stem
from .outgoing import labels_to_export


def import_nnunet(
    project: Project,
    folder: str | Path,
    *,
    role: Role | None = None,
    options: ImportOptions | None = None,
    on_case: OnCase | None = None,
) -> ImportReport:
    """Import a raw dataset: labelsTr make labelled cases, imagesTr without a label map and imagesTs unlabelled ones.

    Args:
        project: takes the dataset's label names if it has none of its own.
        folder: holds dataset.json.
        role: give every case this role.
        options: see ``ImportOptions``; which of several channels to take must be said there.
        on_case: progress.

    Raises:
        DataError: no readable dataset.json, several channels, or labels that are regions.
    """
    root = Path(folder)
    description = read_description(root / "dataset.json")
    number = _chosen_channel(description, options.channel if options else None, root.name)
    if not project.values:
        project.add_labels(described_labels(description, root.name))
    ending = str(description.get("file_ending", ".nii.gz"))
    candidates = [*_candidates(root / "imagesTr", root / "labelsTr", ending, number)]
    candidates += _candidates(root / "imagesTs", None, ending, number)
    ignore = ignored_value(description, root.name)
    candidates = [replace(candidate, role=role, ignore=ignore) for candidate in candidates]
    if not candidates:
        raise DataError(f"there is no image *_{number:04d}{ending} in imagesTr or imagesTs.", where=root.name, cure="Check the folder.")
    return import_candidates(project, candidates, options=options, on_case=on_case)


def export_nnunet(
    project: Project, folder: str | Path, *, pseudo_labels: bool = False, number: int = 501, on_case: OnCase | None = None
) -> tuple[Path, dict[str, str]]:
    """Write a raw dataset that nnU-Net takes as it is; labels are renumbered 1..C.

    Args:
        project: the cases come from here.
        folder: gets a subfolder ``Dataset501_<name>``, unless its own name is of this form.
        pseudo_labels: whether cases that only the software labelled become training cases too. What has no labels to give, as a
            rejected case, goes to imagesTs.
        number: the dataset's number.
        on_case: progress.

    Returns:
        The dataset's folder, and for each case that is no training case the sentence why.

    Raises:
        ProjectError: the dataset's folder is not empty.
        ResourceError: the disk is full. Whatever ends the export, the dataset's folder is removed again.
    """
    root = Path(folder)
    if not re.fullmatch(r"Dataset\d{3}_.+", root.name):
        root = root / f"Dataset{number:03d}_{case_id_of(project.settings.name or 'SAM2Iterative')}"
    require_empty(root)
    refused, training = {}, 0
    cases = project.cases(usable=True)
    colour = bool(cases) and project.read_case_image(cases[0]).colour
    for done, case in enumerate(cases):
        if on_case:
            on_case(done, len(cases), case.id)
        try:
            _export_case(project, case, root, colour, pseudo_labels)
            training += 1
        except (DataError, ProjectError) as error:
            refused[case.id] = error.sentence
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)  # half a dataset would pass for a whole one, and stand in the way of the next
            raise
    names = {"background": 0} | {label.name: n for n, label in enumerate(project.settings.labels, 1)}
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"} if colour else {"0": "image"},
        "labels": names,
        "numTraining": training,
        "file_ending": ".png" if colour else ".nii.gz",
    }
    write_text(root / "dataset.json", json.dumps(description, indent=2, ensure_ascii=False) + "\n")
    return root, refused


def _export_case(project: Project, case: Case, root: Path, colour: bool, pseudo_labels: bool) -> None:
    """Write one case as a training case.

    Raises:
        DataError: it has no labels to give; its image alone was written, to imagesTs.
    """
    image = project.read_case_image(case)
    if image.colour != colour:
        raise DataError("colour and grey images do not fit into one dataset.", where=case.id, cure="Export them from two projects.")
    ending = ".png" if colour else ".nii.gz"
    try:
        classes = labels_to_export(project, case, pseudo_labels).label_map.classes(project.values)
    except DataError as error:
        write_volume(root / "imagesTs" / f"{case.id}_0000{ending}", image)
        raise DataError(f"{error.what} Its image is in imagesTs.", where=case.id, cure=error.cure) from error
    write_volume(root / "imagesTr" / f"{case.id}_0000{ending}", image)
    write_label_map(root / "labelsTr" / f"{case.id}{ending}", LabelMap(classes, image.geometry))


def _candidates(images: Path, labels: Path | None, ending: str, channel: int) -> list[Candidate]:
    mark = f"_{channel:04d}{ending}"
    found = sorted(p for p in images.iterdir() if p.name.endswith(mark) and not p.name.startswith(".")) if images.is_dir() else []
    masks = {matching_stem(p): p for p in labels.iterdir() if suffix_of(p) == suffix_of(ending)} if labels and labels.is_dir() else {}
    names = [(p, p.name.removesuffix(mark)) for p in found]
    return [Candidate(name, path, masks.get(composed(name))) for path, name in names]


def _chosen_channel(description: dict[str, Any], channel: int | None, where: str) -> int:
    names = described_channels(description)
    colour = sorted(name.upper() for name in names) == ["B", "G", "R"]
    if channel is None and len(names) > 1 and not colour:
        cure = "Say which channel to take (--channel, counted from 0)."
        raise DataError(f"the images have {len(names)} channels ({', '.join(names)}); one is expected.", where=where, cure=cure)
    return channel or 0
