"""Arrays on disk: compressed .npz, the same bytes for the same content."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import ProjectError, ResourceError
from ..files import atomic_write

_STEPS = 255


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays, atomically and read back. No object arrays.

    Raises:
        ResourceError: disk full or the file read back differs.
    """
    path = Path(path)
    with atomic_write(path) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name in sorted(arrays):
                _write_member(archive, name, arrays[name])
        with zipfile.ZipFile(temporary) as archive:
            if archive.testzip() is not None:
                raise ResourceError("what was written cannot be read back.", where=path.name, cure="Check the disk, then try again.")


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read what ``save_arrays`` wrote; checksums are verified, nothing is unpickled.

    Raises:
        ProjectError: missing or damaged.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise ProjectError("the file is missing.", where=path.name, cure="Restore it from a copy of the project.") from error
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, zlib.error) as error:
        raise ProjectError("the file is damaged.", where=path.name, cure="Restore it from a copy of the project.") from error


def save_probabilities(path: str | Path, probabilities: np.ndarray) -> None:
    """Write class probabilities as uint8.

    Args:
        path: ends in ``.npz``; holds ``probabilities`` and ``steps`` (255: stored value = round(255 p)).
        probabilities: (C + 1, k, j, i) in [0, 1].
    """
    stored = np.empty(probabilities.shape, np.uint8)
    for c, p_c in enumerate(probabilities):  # class by class: a large CT fills the memory
        stored[c] = np.rint(np.clip(p_c, 0, 1) * _STEPS)
    save_arrays(path, {"probabilities": stored, "steps": np.array(_STEPS)})


def load_probabilities(path: str | Path) -> np.ndarray:
    """Read ``save_probabilities``' file: (C + 1, k, j, i) float32 that sums to 1 over classes, within 1/510 of what was saved."""
    arrays = load_arrays(path)
    probabilities = arrays["probabilities"].astype(np.float32)
    probabilities /= np.float32(arrays["steps"])
    probabilities /= np.maximum(probabilities.sum(axis=0, keepdims=True), 1e-6)
    return np.asarray(probabilities)


def _write_member(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    """One array; the ZipInfo's fixed date of 1980 keeps the bytes the same from run to run."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, order="C"), allow_pickle=False)
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = 3
    archive.writestr(member, buffer.getvalue(), compresslevel=1)
