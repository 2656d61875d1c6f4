"""Images that are too large for the memory, told with their size."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

from ..errors import DataError
from ..files import path_for_itk

_OUT_OF_MEMORY = re.compile(r"bad_alloc|failed to allocate memory", re.IGNORECASE)
"""How ITK says that the memory does not suffice."""


@contextmanager
def refused_if_too_large(path: Path) -> Iterator[None]:
    """Turn the ways in which ITK and NumPy lack memory for an image into one sentence.

    Raises:
        DataError: the memory does not suffice for the image at ``path``.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        cure = "Close other programs, crop or downsample it, or use a computer with more memory."
        raise DataError(f"the memory does not suffice to read it{_size_text(path)}.", where=path.name, cure=cure) from error


def _size_text(path: Path) -> str:
    """An image's size by its header alone, as the end of a sentence; empty where the header cannot be read either."""
    reader = sitk.ImageFileReader()
    try:
        with path_for_itk(path) as readable:
            reader.SetFileName(str(readable))
            reader.ReadImageInformation()
    except RuntimeError:
        return ""
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    width = sitk.Image([1, 1], reader.GetPixelID(), components).GetSizeOfPixelComponent()
    return f" ({' x '.join(str(n) for n in size)} voxels, {math.prod(size) * components * width / 1e9:.3g} GB)"
