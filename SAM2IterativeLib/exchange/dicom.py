"""DICOM series in, DICOM segmentations out.

Nothing of a DICOM header enters the project but the geometry; the journal alone remembers where the series lay, because a
segmentation object must name the images it belongs to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset

from ..errors import DataError
from ..files import IMAGE_SUFFIXES, path_for_itk, sha256_of, suffix_of
from ..intake import NotOrthonormalError, broken_link
from ..project import Case, Project, Role
from ..project.case import opaque_case_id
from ..volumes import Volume
from .dicom_series import DICOM_SUFFIXES, Series, header_of, name_in_folder, ordered_slices, series_below, series_uid
from .folders import by_image_stem, label_files
from .importing import Candidate, ImportOptions, ImportReport, OnCase, import_candidates
from .known_images import KnownImages
from .subfolders import not_searched


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM image lies directly in a folder."""
    headers = (header_of(p) for p in sorted(folder.iterdir()) if p.is_file() and p.suffix.lower() in DICOM_SUFFIXES)
    return any(header is not None and "Rows" in header for header in headers)


def holds_image_files(folder: Path) -> bool:
    """Whether image files lie directly in a folder; else it may hold DICOM series.

    Raises:
        DataError: both lie there.
    """
    if not any(suffix_of(p) in IMAGE_SUFFIXES for p in folder.iterdir() if p.is_file() or broken_link(p)):
        return False
    if holds_dicom(folder):
        raise DataError("it holds both image files and DICOM series.", where=folder.name, cure="Put them into folders of their own.")
    return True


def import_dicom(
    project: Project,
    folder: str | Path,
    labels: str | Path | None = None,
    *,
    label_names: Sequence[str] = (),
    role: Role | None = None,
    options: ImportOptions | None = None,
    on_case: OnCase | None = None,
) -> ImportReport:
    """Import every series below a folder as a case with an opaque id, as names may tell who the patient is.

    A label map among ``labels`` belongs to the case whose id it bears: so label maps come in once their cases have ids.
    """
    found, unusable = series_below(Path(folder))
    masks, ignored = label_files(labels) if labels is not None else ([], [])
    apart = (project.folder, Path(folder))
    cure = "Put all label maps into one folder, each named after its case."
    remarks = not_searched(Path(labels), apart, cure) if labels is not None else []
    by_stem = by_image_stem(masks)
    taken = {case.id for case in project.cases()}
    candidates = [_candidate(project, series, taken, role, by_stem) for series in found]
    ignored += [p.name for p in masks if p not in {c.label for c in candidates}]
    return import_candidates(
        project,
        candidates,
        label_names=label_names,
        options=options,
        ignored=ignored,
        unusable=unusable,
        remarks=remarks,
        on_case=on_case,
    )


def read_series(series: Series, where: str) -> Volume:
    """Read a series as one volume, rescaled to its physical values (slope and intercept applied slice by slice).

    Raises:
        DataError: files that may be of several series, colour, several frames a file, slices of different size or direction, missing,
            doubled or uneven slices, or slices that are shifted against each other (gantry tilt).
    """
    if series.mixed:
        cure = "Put the files of one series into one folder, or import the folders one by one."
        raise DataError(series.mixed, where=where, cure=cure)
    headers = {path: header for path in series.files if (header := header_of(path)) is not None}
    try:
        ordered, geometry = ordered_slices(headers, where)
    except NotOrthonormalError as error:
        cure = "Load it in Slicer with 'Acquisition geometry regularization', save it as NRRD, then import that."
        raise DataError("its slices are shifted against each other (gantry tilt).", where=where, cure=cure) from error
    slices = []
    for path in ordered:
        try:
            with path_for_itk(path) as readable:
                slices.append(sitk.GetArrayFromImage(sitk.ReadImage(str(readable))).reshape(geometry.size[1:]))
        except (RuntimeError, ValueError) as error:
            how = _compression(headers[path])
            cure = "Export the series uncompressed." if how else "Export the series again."
            raise DataError(f"the file {path.name} cannot be read{how}.", where=where, cure=cure) from error
    array = np.stack(slices)
    return Volume(array.astype(np.float32) if array.dtype.itemsize > 4 else array, geometry, remarks=series.remarks)


def digest_of_series(series: Series) -> str:
    """SHA-256 of the contents of its files, whatever their names and order."""
    return hashlib.sha256("".join(sorted(sha256_of(p) for p in series.files)).encode()).hexdigest()


def _candidate(project: Project, series: Series, taken: set[str], role: Role | None, labels: Mapping[str, Path]) -> Candidate:
    """The case that a series is, or becomes: then with the next id that is not ``taken``, by which a label map may already know it."""
    first = series.files[0]
    title = f"DICOM series of {name_in_folder(first)} ({len(series.files)} files)"
    digest = digest_of_series(series)
    known = KnownImages(project).of_bytes(digest)
    name = known[0].id if known else opaque_case_id(taken)
    taken.add(name)
    files = [str(p.absolute()) for p in series.files]
    return Candidate(
        name=name,
        image=Path("DICOM series"),
        label=labels.get(name),
        role=role,
        details={"dicom": {"series": series.uid, "files": files}},
        read_image=lambda _: read_series(series, title),
        identity=digest,
        title=title,
        files=tuple(name_in_folder(p) for p in series.files),
    )


def _compression(header: Dataset) -> str:
    """How a file's pixels are compressed, as the end of a sentence; empty where they are not."""
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    return f": it is compressed ({syntax.name})" if syntax is not None and syntax.is_compressed else ""


def source_datasets(case: Case) -> list[Dataset]:
    """The whole datasets of the series a case came from, in slice order.

    Raises:
        DataError: the case did not come from DICOM, or its series is no longer where it was.
    """
    stored: dict[str, Any] = case.details.get("dicom", {})
    if not stored:
        raise DataError("the case did not come from DICOM.", where=case.id, cure="Export it as NIfTI or seg.nrrd.")
    files = [Path(name) for name in stored["files"]]
    headers = {p: h for p in files if p.is_file() and (h := header_of(p)) is not None and series_uid(h) == stored["series"]}
    if len(headers) != len(files):
        raise DataError(
            f"{len(files) - len(headers)} of the {len(files)} files of its series are no longer where they were.",
            where=case.id,
            cure="Bring them back to their folder, or import the series again.",
        )
    ordered, _ = ordered_slices(headers, case.id)
    return [pydicom.dcmread(path) for path in ordered]
