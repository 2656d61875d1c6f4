"""Images that only want a label map: the image files of a folder, or the DICOM series in and below it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..errors import DataError
from ..files import sha256_of, stem_of, suffix_of
from ..intake import refuse_broken_link
from ..volumes import Volume, read_header, read_volume
from .dicom import digest_of_series, holds_image_files, read_series
from .dicom_series import Series, series_below
from .folders import image_files

_OTHER_SUFFIX = {".jpg": ".png", ".jpeg": ".png", ".nhdr": ".nrrd", ".mhd": ".mha"}
"""JPEG blurs labels, and a header with a file beside it cannot be written whole or not at all."""
_PAGED = (".tif", ".tiff")
"""A stack of pages is a volume, and a volume of labels is not written as pages."""


@dataclass(frozen=True)
class NewImage:
    """An image of no project.

    Attributes:
        name: how people know it: its file's name, or the folders' that its series lies in.
        label_name: the file name of its label map.
        digest: SHA-256 of its content.
        read: reads it. Both raise DataError where it cannot be used.
    """

    name: str
    label_name: str
    digest: Callable[[], str]
    read: Callable[[], Volume]


def new_images(folder: str | Path, channel: int | None = None) -> tuple[tuple[NewImage, ...], tuple[tuple[str, str], ...]]:
    """The images by name, and what cannot be read as (name, sentence).

    Args:
        channel: which to take of images with several channels (``x_0000``, ``x_0001``).

    Raises:
        DataError: no such folder, no image in it, several channels and none chosen, or image files and DICOM in one folder.
    """
    root = Path(folder)
    if root.is_dir() and not holds_image_files(root):
        series, unusable = series_below(root)
        return _of_series(root, series), unusable
    return tuple(_of_file(path) for path in image_files(root, channel)), ()


def _of_file(path: Path) -> NewImage:
    return NewImage(path.name, _name_of_labels(path), partial(_digest, path), partial(read_volume, path))


def _of_series(root: Path, found: tuple[Series, ...]) -> tuple[NewImage, ...]:
    """Named after their folders below ``root``, with a number where several lie in one."""
    places = ["_".join(series.files[0].parent.relative_to(root).parts) or root.resolve().name for series in found]
    together, number, images = Counter(places), Counter[str](), []
    for place, series in zip(places, found, strict=True):
        number[place] += 1
        name = place if together[place] == 1 else f"{place}_{number[place]}"
        images.append(NewImage(name, f"{name}.nii.gz", partial(digest_of_series, series), partial(read_series, series, name)))
    return tuple(sorted(images, key=lambda image: image.name))


def _digest(path: Path) -> str:
    refuse_broken_link(path)
    return sha256_of(path)


def _name_of_labels(image: Path) -> str:
    """The name of an image's label map: its own, but for formats that cannot hold one."""
    suffix = suffix_of(image)
    if suffix in _PAGED and _is_stack(image):
        return stem_of(image) + ".nii.gz"
    return stem_of(image) + _OTHER_SUFFIX.get(suffix, suffix)


def _is_stack(image: Path) -> bool:
    with contextlib.suppress(DataError):  # of a damaged file, which reading it will name
        return read_header(image)[0].slices > 1
    return False
