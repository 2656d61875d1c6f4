"""The trained dedicated network on images outside the project: a folder in, a folder of label maps out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .dedicated.cases import require_channels
from .dedicated.plan import Plan, read_plan
from .dedicated.prediction import Predictor
from .dedicated.weights import load_weights, network_path
from .device import Device, full_memory, release_memory
from .errors import DataError, ProjectError, Stopped
from .exchange.importing import implausible
from .exchange.new_images import NewImage, new_images
from .files import is_temporary, sha256_of, write_text
from .guidance.pseudo_label import fuse
from .messages import CaseSetAside, Progress, Reporter, Warned
from .project import Project
from .settings import PseudoLabelSettings
from .volumes import LabelMap, read_label_map, write_label_map

RECORD = "sam2-iterative.json"
"""Stands beside the label maps and says which network made which file; a run that was stopped goes on by it."""
_BEGUN = ""
"""Stands in the record in the place of the hash of a file that is not finished."""


@dataclass(frozen=True)
class FolderPrediction:
    """The names of the label maps in the output folder, and of the images left out with the sentence why."""

    written: tuple[str, ...]
    set_aside: tuple[tuple[str, str], ...]


def labels_of(probabilities: np.ndarray, plan: Plan, spacing: tuple[float, float, float]) -> np.ndarray:
    """What a network alone says of a case: class indices (k, j, i) uint8, without what strayed from classes that are in one piece.

    Args:
        probabilities: (C+1, k, j, i) in 0..1.
        spacing: voxel size (k, j, i) in mm.
    """
    return fuse(None, probabilities, PseudoLabelSettings(), plan.single_component, spacing=spacing).labels


def predict_folder(
    project: Project,
    images: str | Path,
    output: str | Path,
    device: Device,
    *,
    channel: int | None = None,
    report: Reporter = lambda message: None,
    stop: Callable[[], bool] = lambda: False,
) -> FolderPrediction:
    """Label every image of a folder, or every DICOM series in or below it, with the network of the newest round.

    Label maps bear their images' names, or those of their series' folders, and lie on their grids. An image that cannot be used is set
    aside and named; the others go on.

    Args:
        output: a new or empty folder, or one that this project's same network began to fill: finished files are kept, and so is what
            a person corrected there or put there (the image is set aside).
        channel: which to take of images with several channels (``x_0000``, ``x_0001``).

    Raises:
        DataError: no image there, several channels and none chosen, or the output folder holds something else.
        ProjectError: no round has trained a network yet.
        Stopped: ``stop`` said so; the same call goes on.
    """
    found, unusable = new_images(images, channel)
    round, path = trained_network(project)
    plan = read_plan(project.plan_path, classes=len(project.values))
    record = _Record.of(Path(output), sha256_of(path), round)
    predictor = Predictor(plan, load_weights(path)[0], device)
    written: list[str] = []
    set_aside = list(unusable)
    for name, sentence in unusable:
        report(CaseSetAside(name, sentence))
    for done, image in enumerate(found):
        if stop():
            raise Stopped
        report(Progress(round, "prediction", done / len(found), None, image.name))
        name = image.label_name
        try:
            if not record.has(name, image):
                volume = image.read()
                for remark in (*volume.remarks, *implausible(volume.geometry)):
                    report(Warned(f"{image.name}: {remark}"))
                require_channels(volume.array.shape[-1] if volume.colour else 1, plan.channels, image.name)
                probabilities = predictor.predict(volume.array, volume.geometry, stop=stop)
                classes = labels_of(probabilities, plan, volume.geometry.spacing)
                record.begin(name, image)
                write_label_map(record.folder / name, LabelMap.of_classes(classes, project.values, volume.geometry))
                record.finish(name, image)
            written.append(name)
        except (DataError, MemoryError, RuntimeError) as error:
            sentence = _why_not(error, image.name)
            set_aside.append((image.name, sentence))
            report(CaseSetAside(image.name, sentence))
            release_memory()
    report(Progress(round, "prediction", 1.0, 0.0))
    return FolderPrediction(tuple(written), tuple(set_aside))


def _why_not(error: DataError | MemoryError | RuntimeError, name: str) -> str:
    """Why an image is set aside; other errors than of the image or of memory are faults and go up."""
    if isinstance(error, DataError):
        return error.sentence
    cure = "Close other programs and run again, or cut it to the part that matters."
    return f"{name}: {full_memory(error)} does not suffice for this image. {cure}"


def _is_whole(path: Path) -> bool:
    """Whether a label map can be read: what a person saved can, what was cut off cannot."""
    try:
        read_label_map(path)
    except DataError:
        return False
    return True


def trained_network(project: Project) -> tuple[int, Path]:
    """The newest round whose network is finished, and its file, the hash checked.

    Raises:
        ProjectError: there is none.
    """
    for unit in sorted(project.journal.units(), key=lambda u: u.round, reverse=True):
        path = network_path(project.models_folder, unit.round)
        if project.relative(path) in unit.files and project.journal.unit_done(unit.round, unit.stage, unit.case):
            return unit.round, path
    raise ProjectError("there is no trained network yet.", where=project.folder.name, cure="Run a round first.")


@dataclass
class _Record:
    """What the output folder holds already, and by which network."""

    folder: Path
    table: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, network: str, round: int) -> _Record:
        path = folder / RECORD
        head = {"version": __version__, "network_sha256": network, "round": round}
        if path.is_file():
            try:
                table = json.loads(path.read_text(encoding="utf-8"))
                same = table["network_sha256"] == network and isinstance(table["files"], dict)
            except (ValueError, TypeError, KeyError):
                same = False
            if not same:
                raise DataError("the output folder holds label maps of another network.", where=folder.name, cure="Choose an empty folder.")
            return cls(folder, table)
        if folder.exists() and any(not is_temporary(path) for path in folder.iterdir()):
            raise DataError("the output folder is not empty.", where=folder.name, cure="Choose a new or empty folder.")
        record = cls(folder, {**head, "files": {}})
        record.write()  # before any label map, so that a kill after the first one leaves a folder that the same call goes on with
        return record

    def has(self, name: str, image: NewImage) -> bool:
        """Whether this label map is finished, whole, and of this very image.

        Raises:
            DataError: another image of the same name made it, or a person made or changed it, who keeps it.
        """
        entry, path = self.table["files"].get(name), self.folder / name
        if entry is not None and entry["image"] != image.name:
            raise DataError(f"its label map would overwrite that of {entry['image']}.", where=image.name, cure="Rename one of them.")
        if not path.exists():
            return False
        cure = "Move it elsewhere to have the network's instead."
        if entry is None:
            raise DataError(f"{name} lies in the output folder, is not the network's, and is kept.", where=image.name, cure=cure)
        if entry["sha256"] == _BEGUN:
            return False
        if entry["sha256"] != sha256_of(path):
            if not _is_whole(path):
                return False
            raise DataError(f"its label map {name} was changed after it was written, and is kept.", where=image.name, cure=cure)
        return bool(entry["image_sha256"] == image.digest())

    def begin(self, name: str, image: NewImage) -> None:
        """Say that this label map is about to be written: what a kill leaves of it is nobody else's."""
        self._note(name, image, _BEGUN)

    def finish(self, name: str, image: NewImage) -> None:
        """Say that it is whole."""
        self._note(name, image, sha256_of(self.folder / name))

    def _note(self, name: str, image: NewImage, digest: str) -> None:
        self.table["files"][name] = {"image": image.name, "image_sha256": image.digest(), "sha256": digest}
        self.write()

    def write(self) -> None:
        """Replace the file in the folder, which is made if it is not there."""
        write_text(self.folder / RECORD, json.dumps(self.table, indent=1, sort_keys=True))
