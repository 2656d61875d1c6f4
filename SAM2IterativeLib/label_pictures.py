"""Label maps that are pictures: palettes, whose indices are the labels, and masks of 0 and 255 with soft edges."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_PNG = b"\x89PNG\r\n\x1a\n"
_INDEXED = 3
"""The colour type of a PNG with a palette (PNG specification, 11.2.2)."""
_CUT = 128
_FEWEST_SHADES, _LEAST_WHITE, _MOST_SHADE = 8, 0.5, 0.05
"""A soft-edged mask has more values than this, so much of its foreground is 255, and no other value covers more than that of it."""
_MANY_SHADES, _RIM, _IN_RIM = 64, 3, 0.99
"""And either that many values, or nearly all of them so close (pixels) to a 255: labels beside a large "void" of 255 lie elsewhere too."""


def palette_indices(path: Path, colours: np.ndarray) -> np.ndarray | None:
    """The indices into its palette that a PNG holds, as the VOC and DAVIS data sets store labels; None for another file.

    ITK shows the palette's colours instead. Of indices with the same colour (unused ones are often all black) the lowest is taken.

    Args:
        colours: (1, j, i, 3) uint8, as ITK read the file.
    """
    palette = _palette(path)
    if palette is None or colours.dtype != np.uint8:
        return None
    table = np.full(1 << 24, -1, np.int16)
    codes = _codes(palette)
    table[codes[::-1]] = np.arange(len(codes))[::-1]
    indices = table[_codes(colours)]
    return None if (indices < 0).any() else indices.astype(np.uint8)


def without_soft_edges(labels: np.ndarray, *, blurred: bool) -> np.ndarray:
    """A mask of 0 and 255 cut at 128 where its edges are soft: drawn with a soft brush, resized, or ``blurred`` as JPEG does.

    What is no such mask stays as it is.
    """
    if not blurred and not _is_soft_mask(labels):
        return labels
    return np.where(labels >= _CUT, 255, 0).astype(np.uint8)


def _is_soft_mask(labels: np.ndarray) -> bool:
    if labels.dtype != np.uint8 or labels.max(initial=0) != 255:
        return False
    counts = np.bincount(labels.ravel(), minlength=256)
    shades, foreground = counts[1:255], int(counts[1:].sum())
    number = np.count_nonzero(shades)
    if number <= _FEWEST_SHADES or counts[255] < _LEAST_WHITE * foreground or shades.max() > _MOST_SHADE * foreground:
        return False
    return bool(number > _MANY_SHADES) or _share_in_rim(labels) >= _IN_RIM


def _share_in_rim(labels: np.ndarray) -> float:
    """Of the voxels (k, j, i) between 0 and 255 the share that lies within ``_RIM`` pixels of a 255 on its slice."""
    from scipy import ndimage  # here, since few masks need it and everybody would wait for it

    between = (labels > 0) & (labels < 255)
    plane = np.ones((1, 2 * _RIM + 1, 2 * _RIM + 1), bool)
    return float(ndimage.binary_dilation(labels == 255, plane)[between].mean())


def _palette(path: Path) -> np.ndarray | None:
    """The palette (n, 3) uint8 of an indexed PNG."""
    with open(path, "rb") as stream:
        if stream.read(len(_PNG)) != _PNG:
            return None
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind not in (b"IHDR", b"PLTE"):
                stream.seek(length + 4, 1)  # and its checksum
                continue
            content = stream.read(length)
            stream.seek(4, 1)
            if kind == b"PLTE":
                return np.frombuffer(content, np.uint8).reshape(-1, 3)
            if content[9:10] != bytes([_INDEXED]):
                return None
    return None


def _codes(colours: np.ndarray) -> np.ndarray:
    """One number per colour (..., 3)."""
    red, green, blue = (colours[..., n].astype(np.int32) for n in range(3))
    return (red << 16) | (green << 8) | blue
