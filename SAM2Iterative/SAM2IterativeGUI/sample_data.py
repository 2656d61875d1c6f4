"""Something to try everything out on: a generated project made offline, and a public data set for those with internet."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import slicer.util
from slicer.i18n import tr as _

from SAM2IterativeLib.errors import DataError, ResourceError
from SAM2IterativeLib.exchange import Candidate, import_any, import_candidates
from SAM2IterativeLib.phantom import LABEL_NAMES, write_phantom_dataset
from SAM2IterativeLib.project import Project
from SAM2IterativeLib.settings import DedicatedSettings, FoundationSettings, RoundSettings, Settings

from .guarding import guarded
from .project_folder import last_folder
from .public_sets import HIPPOCAMPUS
from .session import Session

CASES, LABELLED, SEED = 8, 3, 7
_STEPS = DedicatedSettings(first_steps=150, round_steps=80)
_ADAPTED = FoundationSettings(adaptation_steps=40)
"""Few, so that the first run on a computer without a GPU ends within minutes."""


def make_sample_project(session: Session, folder: Path, size: tuple[int, int, int] = (16, 64, 64), cases: int = CASES) -> Project:
    """Generate volumes, make a project of them, and open it.

    Args:
        folder: the project folder, which must not exist or be empty.
        size: voxels along k, j, i of each volume.
    """
    settings = Settings(name=_("Sample"), seed=SEED, dedicated=_STEPS, foundation=_ADAPTED, rounds=RoundSettings(maximum=3))
    with tempfile.TemporaryDirectory() as temporary:
        write_phantom_dataset(Path(temporary), cases, LABELLED, SEED, size=size)
        project = session.create(folder, settings=settings)
        import_any(project, Path(temporary) / "images", Path(temporary) / "labels", label_names=LABEL_NAMES[:2])
    session.notify("project")
    return project


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or with the first number that is free."""
    candidates = (parent / (name if number == 1 else f"{name} {number}") for number in range(1, 10_000))
    return next(path for path in candidates if not path.exists())


def take_download(source: Any) -> None:
    """Called by Slicer's module Sample Data: download, make a project, and open it in this module."""
    import SampleData

    about = _("{about}\n\n{megabytes} MB are downloaded from\n{url}").format(
        about=HIPPOCAMPUS.about, megabytes=HIPPOCAMPUS.megabytes, url=HIPPOCAMPUS.url
    )
    if not slicer.util.confirmOkCancelDisplay(about):
        return
    archives: list[str] = []

    def download() -> None:
        try:
            archives.append(SampleData.SampleDataLogic().downloadFileIntoCache(HIPPOCAMPUS.url, HIPPOCAMPUS.file, HIPPOCAMPUS.checksum))
        except (OSError, ValueError) as error:
            raise ResourceError(str(error), where=HIPPOCAMPUS.url, cure=_("Check the internet connection.")) from error

    if not guarded(download, _("The sample set could not be downloaded.")):
        return
    slicer.util.selectModule("SAM2Iterative")
    widget = slicer.modules.SAM2IterativeWidget
    if not widget.session.may_close():
        return
    folder = free_folder(Path(last_folder()), _("SAM2Iterative hippocampus"))
    guarded(lambda: make_public_project(widget.session, Path(archives[0]), folder), _("The sample set could not be made a project."))


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a data set that was downloaded; the folder with its dataset.json.

    Raises:
        DataError: no archive, or none with a dataset in it, or one that would write elsewhere.
    """
    try:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise DataError(_("the archive cannot be unpacked."), where=archive.name, cure=_("Download it again.")) from error
    found = sorted(path.parent for path in folder.rglob("dataset.json") if not path.name.startswith("._"))
    if not found:
        raise DataError(_("the archive holds no dataset.json."), where=archive.name, cure=_("Download it again."))
    return found[0]


def make_public_project(
    session: Session, archive: Path, folder: Path, labelled: int = 10, on_case: Callable[[int, int, str], None] | None = None
) -> Project:
    """Make a project of a downloaded Decathlon data set: the first ``labelled`` cases teach, the last 20 measure, the rest is labelled.

    The label maps of the others are left out, as in a real project where nobody drew them yet.
    """
    with tempfile.TemporaryDirectory() as temporary:
        dataset = unpack(archive, Path(temporary))
        project = session.create(folder, settings=Settings(name=_("Hippocampus")))
        _import_part(project, dataset, labelled, on_case)
    session.notify("project")
    return project


def _import_part(project: Project, dataset: Path, labelled: int, on_case: Callable[[int, int, str], None] | None) -> None:
    images = sorted(path for path in (dataset / "imagesTr").glob("*.nii.gz") if not path.name.startswith("."))
    found = []
    for number, image in enumerate(images):
        validation = number >= len(images) - 20
        label = dataset / "labelsTr" / image.name if number < labelled or validation else None
        found.append(Candidate(image.name.removesuffix(".nii.gz"), image, label, "validation" if validation else None))
    import_candidates(project, found, label_names=("anterior", "posterior"), on_case=on_case)
