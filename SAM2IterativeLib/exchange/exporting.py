"""Labels going out: seg.nrrd for Slicer, NIfTI, an nnU-Net dataset, DICOM segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import DataError, ProjectError
from ..files import require_empty
from ..project import Case, Project
from ..review import FinalLabels
from ..volumes import write_label_map
from .importing import OnCase
from .nnunet import export_nnunet
from .outgoing import labels_to_export
from .slicer_segmentation import write_slicer_segmentation

ExportFormat = Literal["nrrd", "nifti", "nnunet", "dicom"]
_SUFFIXES = {"nrrd": ".seg.nrrd", "nifti": ".nii.gz", "dicom": ".seg.dcm"}
_SLICER_STATUS = {"accepted": "completed", "corrected": "completed", "rejected": "flagged"}


@dataclass(frozen=True)
class ExportReport:
    """What was written, and for each case whose labels were left out (id, sentence) why."""

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
        ResourceError: the disk is full. Whatever ends the export, nothing is left in the folder then.
    """
    target = Path(folder)
    require_empty(target)
    if format == "nnunet":
        root, left_out = export_nnunet(project, target, pseudo_labels=pseudo_labels, on_case=on_case)
        return ExportReport(tuple(sorted(p for p in root.rglob("*") if p.is_file())), tuple(left_out.items()))
    if format not in _SUFFIXES:
        raise ProjectError(f"{format!r} is no export format; known are {', '.join((*_SUFFIXES, 'nnunet'))}.")
    chosen = list(project.cases(usable=True) if cases is None else cases)
    written, refused = [], []
    for done, case in enumerate(chosen):
        if on_case:
            on_case(done, len(chosen), case.id)
        try:
            final = labels_to_export(project, case, pseudo_labels)
            path = target / f"{case.id}{_SUFFIXES[format]}"
            _write(project, case, final, path, format)
            written.append(path)
        except (DataError, ProjectError) as error:
            refused.append((case.id, error.sentence))
        except BaseException:
            for path in written:  # half an export would pass for a whole one, and stand in the way of the next
                path.unlink(missing_ok=True)
            raise
    return ExportReport(tuple(written), tuple(refused))


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
