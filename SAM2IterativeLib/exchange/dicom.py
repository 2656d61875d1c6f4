"""DICOM series in, DICOM segmentations out.

Nothing of a DICOM header enters the project but the geometry; the journal alone remembers where the series lay, because a
segmentation object must name the images it belongs to.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from ..errors import DataError
from ..files import path_for_itk, sha256_of
from ..intake import NotOrthonormalError, require_orthonormal
from ..project import Case, Project, Role
from ..project.case import opaque_case_id
from ..volumes import Geometry, Volume
from .folders import by_image_stem, label_files
from .importing import Candidate, ImportOptions, ImportReport, OnCase, import_candidates
from .known_images import KnownImages

_NEEDED = (
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "SOPClassUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
)
_UNREADABLE = (
    *(InvalidDicomError, BytesLengthException, struct.error, OSError, EOFError),
    *(ValueError, KeyError, NotImplementedError, AttributeError, TypeError),
)
"""What pydicom raises for files and values that are no sound DICOM."""
_GAP_TOLERANCE = 0.01
_TEXT_TOLERANCE = 1e-4
"""Header numbers are decimal text, so the same spacing may be written with more digits in one slice than in another."""
_DICOM_SUFFIXES = ("", ".dcm", ".ima", ".dic")
_MAGIC = slice(128, 132)


@dataclass(frozen=True)
class Series:
    """One DICOM series: its unique id and its files, in no order yet."""

    uid: str
    files: tuple[Path, ...]


def find_series(folder: str | Path) -> tuple[Series, ...]:
    """All image series below a folder; files that are no DICOM images are passed over, and of copies of one slice all but the first.

    Raises:
        DataError: no such folder, or no DICOM image in it.
    """
    return _sorted_out(Path(folder))[0]


def _sorted_out(root: Path) -> tuple[tuple[Series, ...], tuple[Path, ...]]:
    """See ``find_series``; and the files that begin as DICOM does, but whose header is damaged: a slice may be missing from its series."""
    if not root.is_dir():
        raise DataError("there is no such folder.", where=root.name, cure="Check the name.")
    found: dict[str, dict[tuple[str, int], Path]] = {}
    damaged: list[Path] = []
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        header = _header(path)
        if header is None or "SeriesInstanceUID" not in header:
            damaged += [path] if _begins_like_dicom(path) else []
        elif "Rows" in header:
            slice_and_size = str(header.get("SOPInstanceUID", path)), path.stat().st_size
            found.setdefault(str(header.SeriesInstanceUID), {}).setdefault(slice_and_size, path)
    if not found:
        what = "there is no image file in this folder, and no DICOM series in or below it."
        raise DataError(what, where=root.name, cure="Choose the folder that holds the images or the series.")
    return tuple(Series(uid, tuple(files.values())) for uid, files in found.items()), tuple(damaged)


def holds_dicom(folder: Path) -> bool:
    """Whether a DICOM image lies directly in a folder."""
    headers = (_header(p) for p in sorted(folder.iterdir()) if p.is_file() and p.suffix.lower() in _DICOM_SUFFIXES)
    return any(header is not None and "Rows" in header for header in headers)


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
    found, broken = _sorted_out(Path(folder))
    masks, ignored = label_files(labels) if labels is not None else ([], [])
    by_stem = by_image_stem(masks)
    taken = {case.id for case in project.cases()}
    candidates = [_candidate(project, series, taken, role, by_stem) for series in found]
    ignored += [p.name for p in masks if p not in {c.label for c in candidates}]
    sentence = "it begins like a DICOM file and is damaged; if it is a slice, its series is not whole. Copy it again, then import again."
    damaged = [(path.name, f"{path.name}: {sentence}") for path in broken]
    return import_candidates(
        project, candidates, label_names=label_names, options=options, ignored=ignored, unusable=damaged, on_case=on_case
    )


def read_series(series: Series, where: str) -> Volume:
    """Read a series as one volume, rescaled to its physical values (slope and intercept applied slice by slice).

    Raises:
        DataError: colour, several frames a file, slices of different size or direction, missing, doubled or uneven slices, or slices
            that are shifted against each other (gantry tilt).
    """
    headers = {path: header for path in series.files if (header := _header(path)) is not None}
    try:
        ordered, geometry = _ordered(headers, where)
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
    return Volume(array.astype(np.float32) if array.dtype.itemsize > 4 else array, geometry)


def _candidate(project: Project, series: Series, taken: set[str], role: Role | None, labels: Mapping[str, Path]) -> Candidate:
    """The case that a series is, or becomes: then with the next id that is not ``taken``, by which a label map may already know it."""
    first = series.files[0]
    title = f"DICOM series of {first.parent.name}/{first.name} ({len(series.files)} files)"
    digest = hashlib.sha256("".join(sorted(sha256_of(p) for p in series.files)).encode()).hexdigest()
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
    )


def _header(path: Path) -> Dataset | None:
    """The few fields that are needed; None for a file that is no DICOM. The 128 bytes before a header may be missing, as in old files."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_NEEDED), force=path.suffix.lower() in _DICOM_SUFFIXES)
        list(header)  # pydicom reads a value when it is asked for, and what is unsound shall show here
    except _UNREADABLE:
        return None
    return header if "SOPClassUID" in header or "Rows" in header else None


def _begins_like_dicom(path: Path) -> bool:
    if path.name.upper() == "DICOMDIR":  # the list of contents of a disc, itself no image, always has this name
        return False
    with open(path, "rb") as stream:
        return stream.read(_MAGIC.stop)[_MAGIC] == b"DICM"


def _compression(header: Dataset) -> str:
    """How a file's pixels are compressed, as the end of a sentence; empty where they are not."""
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    return f": it is compressed ({syntax.name})" if syntax is not None and syntax.is_compressed else ""


def _ordered(headers: dict[Path, Dataset], where: str) -> tuple[list[Path], Geometry]:
    """The files from the first to the last slice, and the grid they form."""
    try:
        return _arranged(headers, where)
    except _UNREADABLE as error:
        cure = "Save it as NIfTI or NRRD from Slicer, then import that."
        raise DataError(f"a header of its slices is not sound ({error}).", where=where, cure=cure) from error


def _arranged(headers: dict[Path, Dataset], where: str) -> tuple[list[Path], Geometry]:
    """See ``_ordered``; headers that lack a value, or hold nonsense, raise what they will."""
    first = next(iter(headers.values()))
    if int(first.get("NumberOfFrames", 1) or 1) > 1:
        raise DataError("it holds several frames in one file.", where=where, cure="Save it as NIfTI or NRRD from Slicer, then import that.")
    if int(first.get("SamplesPerPixel", 1)) > 1:
        raise DataError("it is in colour; volumes need one number per voxel.", where=where, cure="Save a grey copy.")
    for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        kinds = {path: h.get(name) for path, h in headers.items()}
        missing = next((path.name for path, value in kinds.items() if value is None or value == ""), None)
        if missing and name != "ImageOrientationPatient":
            cure = "Save it as NIfTI or NRRD from Slicer, then import that."
            raise DataError(f"{missing} does not say its {name}.", where=where, cure=cure)
        if not _alike(list(kinds.values())):
            texts = sorted({str(value) for value in kinds.values()})
            raise DataError(f"its slices differ in {name}: {', '.join(texts[:3])}.", where=where, cure="Export one series alone.")
    if any("ImagePositionPatient" not in h for h in headers.values()) or "ImageOrientationPatient" not in first:
        raise DataError(
            "its slices do not say where they lie.", where=where, cure="Save it as NIfTI or NRRD from Slicer, then import that."
        )
    along_i, along_j = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(along_i, along_j)
    positions = {path: np.array(h.ImagePositionPatient, dtype=float) for path, h in headers.items()}
    ordered = sorted(positions, key=lambda path: float(positions[path] @ normal))
    step = _slice_step([positions[p] for p in ordered], normal, first, where)
    row_mm, column_mm = (float(v) for v in first.PixelSpacing)
    size = (len(ordered), int(first.Rows), int(first.Columns))
    require_orthonormal(np.stack([along_i * column_mm, along_j * row_mm, step], axis=1), size[::-1], where)
    direction = np.stack([along_i, along_j, normal], axis=1)
    origin = tuple(float(v) for v in positions[ordered[0]])
    spacing = (float(np.linalg.norm(step)), row_mm, column_mm)
    return ordered, Geometry(size, spacing, origin, tuple(float(v) for v in direction.ravel()))  # type: ignore[arg-type]


def _alike(values: Sequence[Any]) -> bool:
    """Whether header values agree, as numbers where they are numbers."""
    if len({str(value) for value in values}) == 1:
        return True
    try:
        table = np.array([np.atleast_1d(np.array(value, dtype=float)) for value in values])
    except (ValueError, TypeError):
        return False
    return bool(np.abs(table - table[0]).max() < _TEXT_TOLERANCE)


def _slice_step(positions: Sequence[np.ndarray], normal: np.ndarray, first: Dataset, where: str) -> np.ndarray:
    """The vector in mm from a slice to the next; refuses missing, doubled and uneven slices."""
    if len(positions) == 1:
        return np.asarray(normal * float(first.get("SliceThickness") or 1.0))
    gaps = np.diff(np.array(positions) @ normal)
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3:
        raise DataError("two of its slices lie in the same place.", where=where, cure="Export each time point or echo as its own series.")
    if np.abs(gaps - usual).max() > max(_GAP_TOLERANCE * usual, 1e-2):
        worst = int(np.abs(gaps - usual).argmax())
        raise DataError(
            f"its slices are uneven: {gaps[worst]:.2f} mm after slice {worst + 1}, {usual:.2f} mm elsewhere.",
            where=where,
            cure="Fetch the missing slice, or import a regularised copy from Slicer.",
        )
    return np.asarray((positions[-1] - positions[0]) / (len(positions) - 1))


def source_datasets(case: Case) -> list[Dataset]:
    """The whole datasets of the series a case came from, in slice order.

    Raises:
        DataError: the case did not come from DICOM, or its series is no longer where it was.
    """
    stored: dict[str, Any] = case.details.get("dicom", {})
    if not stored:
        raise DataError("the case did not come from DICOM.", where=case.id, cure="Export it as NIfTI or seg.nrrd.")
    files = [Path(name) for name in stored["files"]]
    headers = {p: h for p in files if p.is_file() and (h := _header(p)) is not None and h.SeriesInstanceUID == stored["series"]}
    if len(headers) != len(files):
        raise DataError(
            f"{len(files) - len(headers)} of the {len(files)} files of its series are no longer where they were.",
            where=case.id,
            cure="Bring them back to their folder, or import the series again.",
        )
    ordered, _ = _ordered(headers, case.id)
    return [pydicom.dcmread(path) for path in ordered]
