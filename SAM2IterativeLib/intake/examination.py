"""The door through which every file of a person comes in: raw checks that the image readers do not make.

SimpleITK reads a truncated or bit-flipped NIfTI without a word, turns NaN into 0 and a spacing of 0 into 1. So the container is
read here once, byte by byte, before the voxels are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from ..errors import DataError
from ..files import IMAGE_SUFFIXES, suffix_of
from .checks import Findings, refuse_broken_link
from .meta_image import data_file_of_meta_image, examine_meta_image
from .nifti import examine_nifti
from .nrrd import data_file_of_nrrd, examine_nrrd
from .pictures import examine_picture

_POINTER = b"version https://git-lfs"


def examine(path: str | Path) -> Findings:
    """Check a file's container and header.

    Raises:
        DataError: missing, a link to nothing, empty, truncated, altered, of an unknown format, 4-D, colour 3-D, a spacing of zero,
            spacing or origin not a number.
        NotOrthonormalError: the voxel axes are sheared by more than 0.05 mm at the far corner.
    """
    path = Path(path)
    doors: dict[str, Callable[[Path], Findings]] = {
        **dict.fromkeys((".nii", ".nii.gz"), examine_nifti),
        **dict.fromkeys((".nrrd", ".seg.nrrd", ".nhdr"), examine_nrrd),
        **dict.fromkeys((".mha", ".mhd"), examine_meta_image),
        **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff"), examine_picture),
    }
    door = doors.get(suffix_of(path))
    if door is None:
        raise DataError("the format is not known.", where=path.name, cure=f"Known are {', '.join(IMAGE_SUFFIXES)}.")
    refuse_broken_link(path)
    if not path.is_file():
        raise DataError("the file does not exist.", where=path.name, cure="Check the name and the folder.")
    if path.stat().st_size == 0:
        raise DataError("the file is empty (0 bytes).", where=path.name, cure="Export or copy it again.")
    try:
        _refuse_pointer(path)
        findings = door(path)
    except (ValueError, OverflowError, TypeError, IndexError, struct.error) as error:
        raise DataError(f"its header is not sound ({error}).", where=path.name, cure="Export or copy it again.") from error
    except PermissionError as error:
        raise DataError("it may not be read.", where=path.name, cure="Ask for the permission to read it.") from error
    return findings


def _refuse_pointer(path: Path) -> None:
    """Raise DataError if the file only says where Git LFS keeps the true one."""
    with open(path, "rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise DataError("it is a pointer of Git LFS, not the image itself.", where=path.name, cure="Fetch it first (git lfs pull).")


def data_file_of(path: Path) -> Path | None:
    """The file beside a detached header (.mhd, .nhdr) that holds its voxels; None for other files, and where none can be used."""
    doors = {".mhd": data_file_of_meta_image, ".nhdr": data_file_of_nrrd}
    door = doors.get(suffix_of(path))
    try:
        return door(path) if door is not None else None
    except (DataError, OSError):  # which reading the image will name
        return None
