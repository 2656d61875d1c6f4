"""DICOM files sorted into series, and the slices of a series put in order.

The ids of a header say what belongs together. De-identified files often repeat or lack them, so no file is dropped for its ids alone.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from ..errors import DataError
from ..files import sha256_of
from ..intake import broken_link, refuse_broken_link, require_orthonormal
from ..volumes import Geometry

DICOM_SUFFIXES = ("", ".dcm", ".ima", ".dic")

_NEEDED = (
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "PatientID",
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
_SHOWN = ("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept")
"""What a header says of the pixels' place and values."""
_UNREADABLE = (
    *(InvalidDicomError, BytesLengthException, struct.error, OSError, EOFError),
    *(ValueError, LookupError, NotImplementedError, AttributeError, TypeError),
)
"""What pydicom raises for files and values that are no sound DICOM."""
_GAP_TOLERANCE = 0.01
_TEXT_TOLERANCE = 1e-4
"""Header numbers are decimal text, so the same spacing may be written with more digits in one slice than in another."""
_MAGIC = slice(128, 132)
_LIST_OF_CONTENTS = "DICOMDIR"
"""The name of the list of contents of a disc, itself no image."""


@dataclass(frozen=True)
class Series:
    """One DICOM series.

    Attributes:
        uid: its unique id; empty where its files have none.
        files: in no order yet.
        remarks: sentences about how its files were told from others.
        mixed: why nobody can tell whether this is one series, as a sentence; empty where that is clear.
    """

    uid: str
    files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()
    mixed: str = ""


def find_series(folder: str | Path) -> tuple[Series, ...]:
    """All image series below a folder; files that are no DICOM images are passed over, and of copies of one slice all but the first.

    Raises:
        DataError: no such folder, or no DICOM image in it.
    """
    return series_below(Path(folder))[0]


def series_below(root: Path) -> tuple[tuple[Series, ...], tuple[tuple[str, str], ...]]:
    """See ``find_series``; and the files that seem to be slices and cannot be read, as (name, sentence)."""
    if not root.is_dir():
        raise DataError("there is no such folder.", where=root.name, cure="Check the name.")
    groups: dict[tuple[str, ...], dict[Path, str]] = {}
    unread: list[Path] = []
    for path in _visible(root):
        header = header_of(path)
        if header is None or ("SeriesInstanceUID" not in header and "Rows" not in header):
            unread.append(path)
        elif "Rows" in header:
            # One series is of one study and of one patient, whatever ids a de-identifier gave.
            group = tuple(_text(header, name) for name in ("SeriesInstanceUID", "StudyInstanceUID", "PatientID"))
            groups.setdefault(group, {})[path] = _text(header, "SOPInstanceUID")
    unusable = _unusable(unread, [path for slices in groups.values() for path in slices])
    if not groups:
        what = "there is no image file in this folder, and no DICOM series in or below it."
        if unusable:
            what = f"there is no whole DICOM file in or below it. {unusable[0][1]}"
        raise DataError(what, where=root.name, cure="Choose the folder that holds the images or the series.")
    return tuple(itertools.chain.from_iterable(_told_apart(group[0], slices) for group, slices in groups.items())), unusable


def series_uid(header: Dataset) -> str:
    """The id of the series that a file belongs to; empty where it has none."""
    return _text(header, "SeriesInstanceUID")


def name_in_folder(path: Path) -> str:
    """How people are told of a file: the same names occur in many folders."""
    return f"{path.parent.name}/{path.name}"


def header_of(path: Path) -> Dataset | None:
    """The few fields that are needed; None for a file that is no DICOM. The 128 bytes before a header may be missing, as in old files."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_NEEDED), force=path.suffix.lower() in DICOM_SUFFIXES)
        list(header)  # pydicom reads a value when it is asked for, and what is unsound shall show here
    except _UNREADABLE:
        return None
    return header if "SOPClassUID" in header or "Rows" in header else None


def begins_like_dicom(path: Path) -> bool:
    """Whether a file bears DICOM's mark; one without the bytes before its header does not."""
    with open(path, "rb") as stream:
        return stream.read(_MAGIC.stop)[_MAGIC] == b"DICM"


def _text(header: Dataset, name: str) -> str:
    return str(header.get(name) or "").strip()


def _visible(root: Path) -> list[Path]:
    """The files below a folder, links to what is not here too; not those of hidden folders, where git-annex keeps a second copy of each."""
    found = (path for path in root.rglob("*") if not any(part.startswith(".") for part in path.relative_to(root).parts))
    return sorted(path for path in found if path.is_file() or broken_link(path))


def _told_apart(uid: str, slices: Mapping[Path, str]) -> list[Series]:
    """The series that files of one patient with the same series id are: nearly always one.

    Args:
        uid: the series id.
        slices: the files, and the id of each one's slice.
    """
    files, repeated = _without_copies(slices)
    folders = [tuple(found) for _, found in itertools.groupby(files, key=lambda path: path.parent)]
    if not repeated or len(folders) == 1:
        return [Series(uid, files)]
    # The ids say nothing, then. Only the folders may tell, unless they could as well be parts of one volume.
    if _fit_together(files) or not _overlap(folders):
        what = f"its files lie in {len(folders)} folders and their slices bear the same ids: nobody can tell whether that is one series."
        return [Series(uid, files, mixed=what)]
    remark = "slices in other folders bear the ids of its own: only those of its own folder were taken."
    return [Series(uid, found, remarks=(remark,)) for found in folders]


def _without_copies(slices: Mapping[Path, str]) -> tuple[tuple[Path, ...], bool]:
    """The files, of copies of one slice the first, sorted by folder; and whether different slices bear the same id, or none."""
    by_id: dict[str, list[Path]] = {}
    for path, id in slices.items():
        by_id.setdefault(id, []).append(path)
    kept: list[Path] = []
    repeated = False
    for paths in by_id.values():
        different = list({_digest_of_slice(path): path for path in reversed(paths)}.values()) if len(paths) > 1 else paths
        repeated |= len(different) > 1
        kept += different
    return tuple(sorted(kept, key=lambda path: (path.parent, path))), repeated


def _digest_of_slice(path: Path) -> str:
    """A digest of what a slice shows and where, whatever else its header says; of the whole file if that cannot be read."""
    try:
        data = pydicom.dcmread(path, force=True)
        shown = repr([str(data.get(name)) for name in _SHOWN]).encode()
        return hashlib.sha256(shown + data.PixelData).hexdigest()
    except _UNREADABLE:
        return sha256_of(path)


def _fit_together(files: Iterable[Path]) -> bool:
    """Whether files can be the slices of one volume."""
    try:
        ordered_slices({path: header for path in files if (header := header_of(path)) is not None}, "")
    except DataError:
        return False
    return True


def _overlap(folders: Sequence[Sequence[Path]]) -> bool:
    """Whether two folders show the same stretch of the body, as parts of one volume do not; so too if their headers do not say."""
    spans = []
    try:
        normal: np.ndarray | None = None
        for files in folders:
            headers = [header for path in files if (header := header_of(path)) is not None]
            if normal is None:
                normal = np.cross(*np.array(headers[0].ImageOrientationPatient, dtype=float).reshape(2, 3))
            heights = np.array([header.ImagePositionPatient for header in headers], dtype=float) @ normal
            spans.append((float(heights.min()), float(heights.max())))
    except _UNREADABLE:
        return True
    return any(low <= high for (_, high), (low, _) in itertools.pairwise(sorted(spans)))


def _unusable(unread: Sequence[Path], images: Iterable[Path]) -> tuple[tuple[str, str], ...]:
    """Of the files that could not be read those that are, or are called, like slices: one may be missing from its series."""
    alike = {(path.parent, _shape(path)) for path in images}
    found = []
    for path in unread:
        called_dicom = bool(path.suffix) and path.suffix.lower() in DICOM_SUFFIXES
        if path.name.upper() == _LIST_OF_CONTENTS:
            continue
        try:
            if called_dicom or (path.parent, _shape(path)) in alike:
                refuse_broken_link(path)
                what = "it is empty (0 bytes)" if path.stat().st_size == 0 else "it is called like a DICOM file and is damaged"
            elif broken_link(path) or not begins_like_dicom(path):
                continue
            else:
                what = "it begins like a DICOM file and is damaged"
        except DataError as error:
            found.append((name_in_folder(path), f"{name_in_folder(path)}: {error.what} {error.cure}"))
            continue
        except OSError as error:
            what = f"it cannot be read ({error.strerror})"
        sentence = f"{what}; if it is a slice, its series is not whole. Copy it again, then import again."
        found.append((name_in_folder(path), f"{name_in_folder(path)}: {sentence}"))
    return tuple(found)


def _shape(path: Path) -> str:
    """A name with its numbers left out: what the slices of a series have in common."""
    return re.sub(r"\d+", "#", path.name)


def ordered_slices(headers: dict[Path, Dataset], where: str) -> tuple[list[Path], Geometry]:
    """The files from the first to the last slice, and the grid they form."""
    try:
        return _arranged(headers, where)
    except _UNREADABLE as error:
        cure = "Save it as NIfTI or NRRD from Slicer, then import that."
        raise DataError(f"a header of its slices is not sound ({error}).", where=where, cure=cure) from error


def _arranged(headers: dict[Path, Dataset], where: str) -> tuple[list[Path], Geometry]:
    """See ``ordered_slices``; headers that lack a value, or hold nonsense, raise what they will."""
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
        raise DataError(
            "two of its slices lie in the same place.", where=where, cure="Export each time point, echo or patient as its own series."
        )
    if np.abs(gaps - usual).max() > max(_GAP_TOLERANCE * usual, 1e-2):
        worst = int(np.abs(gaps - usual).argmax())
        raise DataError(
            f"its slices are uneven: {gaps[worst]:.2f} mm after slice {worst + 1}, {usual:.2f} mm elsewhere.",
            where=where,
            cure="Fetch the missing slice, or import a regularised copy from Slicer.",
        )
    return np.asarray((positions[-1] - positions[0]) / (len(positions) - 1))
