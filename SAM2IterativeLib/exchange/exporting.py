"""Labels going out: seg.nrrd for Slicer, NIfTI, an nnU-Net dataset, DICOM segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk

from ..errors import DataError, ProjectError, ResourceError
from ..files import atomic_write, path_for_itk
from ..project import Case, Project
from ..review import FinalLabels, Review
from ..settings import Label
from ..volumes import LabelMap, read_label_map, write_label_map
from .importing import OnCase
from .nnunet import export_nnunet
from .terminology import tag_of

ExportFormat = Literal["nrrd", "nifti", "nnunet", "dicom"]
_SPACE = "Free some space or check the disk, then try again."
_SUFFIXES = {"nrrd": ".seg.nrrd", "nifti": ".nii.gz", "dicom": ".seg.dcm"}
_SLICER_STATUS = {"accepted": "completed", "corrected": "completed", "rejected": "flagged"}


@dataclass(frozen=True)
class ExportReport:
    """What was written, and for each case that was left out (id, sentence) why."""

    written: tuple[Path, ...]
    refused: tuple[tuple[str, str], ...]


def export_labels(
    project: Project,
    folder: str | Path,
    format: ExportFormat,
    *,
    cases: Sequence[Case] | None = None,
    pseudo_labels: bool = True,
    on_case: OnCase | None = None,
) -> ExportReport:
    """Write the best labels of every case: a person's where a person spoke, else the newest pseudo-label.

    Args:
        project: may be open for reading only.
        folder: new or empty, so that nothing is overwritten.
        format: "nrrd" (Slicer segmentations), "nifti", "nnunet" (a raw dataset with images) or "dicom" (segmentation objects).
        cases: these only; all that are usable if None. An nnU-Net dataset always holds all.
        pseudo_labels: False leaves out what no person vouches for.
        on_case: progress.

    Raises:
        ProjectError: the folder is not empty, or the format is unknown.
        ResourceError: the disk is full; nothing is left in the folder then.
    """
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()):
        raise ProjectError("the folder is not empty; nothing is overwritten.", where=target.name, cure="Choose a new folder.")
    if format == "nnunet":
        root, left_out = export_nnunet(project, target, pseudo_labels=pseudo_labels)
        return ExportReport(tuple(sorted(p for p in root.rglob("*") if p.is_file())), tuple(left_out.items()))
    if format not in _SUFFIXES:
        raise ProjectError(f"{format!r} is no export format; known are {', '.join((*_SUFFIXES, 'nnunet'))}.")
    chosen = list(project.cases(usable=True) if cases is None else cases)
    written, refused = [], []
    for done, case in enumerate(chosen):
        if on_case:
            on_case(done, len(chosen), case.id)
        try:
            final = _labels_to_export(project, case, pseudo_labels)
            path = target / f"{case.id}{_SUFFIXES[format]}"
            _write(project, case, final, path, format)
            written.append(path)
        except (DataError, ProjectError) as error:
            refused.append((case.id, error.sentence))
        except ResourceError:
            for path in written:  # half an export would pass for a whole one, and stand in the way of the next
                path.unlink(missing_ok=True)
            raise
    return ExportReport(tuple(written), tuple(refused))


def write_slicer_segmentation(
    path: str | Path, label_map: LabelMap, labels: Sequence[Label], *, status: str = "", reviewer: str = ""
) -> None:
    """Write a segmentation as Slicer does: one layer; name, colour, terminology and status of each segment in the header.

    Args:
        path: ends in ``.seg.nrrd``.
        label_map: values as in ``labels``.
        labels: one segment each, present or not.
        status: Slicer's segment status ("notstarted", "inprogress", "completed", "flagged"); empty for none.
        reviewer: kept in a tag of its own; empty for none.
    """
    path = Path(path)
    image = sitk.GetImageFromArray(label_map.array)
    replace(label_map.geometry, planar=False).apply_to(image)
    for key, value in _slicer_header(label_map, labels, status, reviewer).items():
        image.SetMetaData(key, value)
    with atomic_write(path) as temporary:
        try:
            with path_for_itk(temporary, output=True) as writable:
                sitk.WriteImage(image, str(writable), True)
            whole = np.array_equal(read_label_map(temporary).array, label_map.array)
        except (RuntimeError, DataError) as error:
            raise ResourceError("the file could not be written whole.", where=path.name, cure=_SPACE) from error
        if not whole:
            raise ResourceError("what was written differs when read back.", where=path.name, cure=_SPACE)


def _labels_to_export(project: Project, case: Case, pseudo_labels: bool) -> FinalLabels:
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


def _write(project: Project, case: Case, final: FinalLabels, path: Path, format: ExportFormat) -> None:
    reviewer = final.decision.reviewer if final.decision and final.by_person else ""  # a part is no signature under the whole
    if format == "nifti":
        write_label_map(path, final.label_map)
    elif format == "dicom":
        from .dicom_segmentation import write_segmentation  # here, since loading highdicom takes a second

        write_segmentation(case, final.label_map, project.settings.labels, path, reviewer)
    else:
        if final.by_person:
            status = _SLICER_STATUS[final.decision.kind] if final.decision else "completed"
        else:
            status = "inprogress" if final.decision else "notstarted"
        write_slicer_segmentation(path, final.label_map, project.settings.labels, status=status, reviewer=reviewer)


def _slicer_header(label_map: LabelMap, labels: Sequence[Label], status: str, reviewer: str) -> dict[str, str]:
    header = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for n, label in enumerate(labels):
        tags = {"TerminologyEntry": tag_of(label.terminology)}
        tags |= {"Segmentation.Status": status} if status else {}
        tags |= {"SAM2Iterative.Reviewer": _plain(reviewer)} if reviewer else {}
        fields = {
            "ID": f"Segment_{label.value}",
            "Name": label.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{v / 255:.6g}" for v in label.colour),
            "ColorAutoGenerated": "0",
            "LabelValue": str(label.value),
            "Layer": "0",
            "Extent": " ".join(str(v) for v in _extent(label_map.array == label.value)),
            "Tags": "".join(f"{name}:{value}|" for name, value in tags.items()),
        }
        header |= {f"Segment{n}_{name}": value for name, value in fields.items()}
    return header


def _extent(mask: np.ndarray) -> tuple[int, ...]:
    """First and last i, j, k of a mask (k, j, i); Slicer's empty extent where it is empty."""
    if not mask.any():
        return (0, -1, 0, -1, 0, -1)
    k, j, i = np.nonzero(mask)
    return (int(i.min()), int(i.max()), int(j.min()), int(j.max()), int(k.min()), int(k.max()))


def _plain(text: str) -> str:
    """Without the signs that divide Slicer's tags."""
    return text.replace("|", " ").replace(":", " ")
