"""The single checks that the formats share, each with its sentence."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, GeometryError

ORTHONORMAL_TOLERANCE_MM = 0.05
GZIP = b"\x1f\x8b"
"""How a gzip stream begins."""


@dataclass(frozen=True)
class Findings:
    """What examining a file brought to light without refusing it.

    Attributes:
        nonfinite: NaN or infinite voxels that the image reader would silently turn into 0; 0 where the reader keeps them.
        remarks: sentences for the person.
    """

    nonfinite: int = 0
    remarks: tuple[str, ...] = ()


def broken_link(path: Path) -> bool:
    """Whether this is a link to a file that is not here, as git-annex, DataLad and DVC leave where the content was not fetched."""
    return path.is_symlink() and not path.exists()


def refuse_broken_link(path: Path) -> None:
    """Raise DataError if this is a link to a file that is not here."""
    if broken_link(path):
        raise DataError("it is a link to a file that is not here.", where=path.name, cure="Fetch it first (git annex get, dvc pull).")


class NotOrthonormalError(GeometryError):
    """The voxel axes do not stand at right angles; ``volumes.resampled_orthonormal`` makes a copy that can be used."""


def require_orthonormal(columns: Sequence[Sequence[float]] | np.ndarray, size: Sequence[int], where: str) -> None:
    """Check that voxel axes stand at right angles.

    Args:
        columns: (3, 3); column a is the step in mm along voxel axis a.
        size: voxels along these axes.

    Raises:
        DataError: a step is zero or not a number.
        NotOrthonormalError: the nearest right-angled grid is more than 0.05 mm away at the far corner.
    """
    steps = np.asarray(columns, dtype=float)
    lengths = np.linalg.norm(steps, axis=0)
    if not np.all(np.isfinite(steps)) or np.any(lengths == 0):
        raise DataError(
            f"the spacing {tuple(float(v) for v in lengths)} mm has a zero or is not a number.",
            where=where,
            cure="Export it again with its true spacing.",
        )
    direction = steps / lengths
    distance = np.linalg.norm((direction - nearest_orthonormal(direction)) @ (lengths * (np.asarray(size) - 1)))
    if distance > ORTHONORMAL_TOLERANCE_MM:
        raise NotOrthonormalError(
            f"its voxel axes are not at right angles (the nearest right-angled grid is {distance:.2f} mm off at the far corner).",
            where=where,
            cure="Import it with a resampled, right-angled copy; the source stays as it is.",
        )


def require_origin(origin: Sequence[float], where: str) -> None:
    """Raise DataError if the position of the first voxel in mm is not made of numbers."""
    if not np.isfinite(origin).all():
        raise DataError(
            f"the origin {tuple(float(v) for v in origin)} mm is not a number.", where=where, cure="Export it again with its true origin."
        )


def nearest_orthonormal(direction: np.ndarray) -> np.ndarray:
    """The rotation (or reflection) nearest to a (3, 3) direction matrix in the least-squares sense (polar decomposition)."""
    u, _, vt = np.linalg.svd(direction)
    return np.asarray(u @ vt)


def gunzipped(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The uncompressed content of a gzip stream that starts at ``offset``, block by block, its checksum verified at the end.

    Raises:
        DataError: the stream is cut short or altered.
    """
    with open(path, "rb") as raw, refused_if_damaged(path):
        raw.seek(offset)
        with gzip.GzipFile(fileobj=raw) as stream:
            while block := stream.read(1 << 20):
                yield block


@contextmanager
def refused_if_damaged(path: Path) -> Iterator[None]:
    """Turn every way in which a compressed stream can be broken into one sentence."""
    try:
        yield
    except (EOFError, OSError, zlib.error) as error:
        raise DataError("the compressed data are cut short or altered.", where=path.name, cure="Copy or export it again.") from error


def require_length(found: int, expected: int, path: Path) -> None:
    """Raise DataError if fewer bytes are there than the header promises."""
    if found < expected:
        raise DataError(
            f"the file is cut short: its header promises {expected} bytes, {found} are there.",
            where=path.name,
            cure="Copy or export it again.",
        )


def require_three_dimensions(dimensions: int, path: Path) -> None:
    """Raise DataError for anything but 2-D and 3-D."""
    if dimensions not in (2, 3):
        raise DataError(
            f"it has {dimensions} dimensions; 2 or 3 are expected.",
            where=path.name,
            cure="Save the one frame or channel you mean.",
        )


def refuse_colour(path: Path, what: str) -> None:
    """Raise the refusal of several values per voxel in a volume."""
    raise DataError(f"it holds {what} per voxel; volumes need one number.", where=path.name, cure="Save one channel, or a grey copy.")
