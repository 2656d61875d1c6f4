"""PNG, JPEG and TIFF: is the file whole?"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

from ..errors import DataError
from ..files import suffix_of
from .checks import Findings

_STRIPS, _STRIP_LENGTHS, _TILES, _TILE_LENGTHS = 273, 279, 324, 325
_TIFF_WIDTHS = {3: 2, 4: 4, 16: 8}
"""Bytes of a SHORT, a LONG and a LONG8: the types in which positions and lengths may stand."""
_PNG_COLOUR_TYPE, _GREY_WITH_ALPHA = 25, 4
"""Where a PNG says what its pixels hold, and the kind that SimpleITK refuses (PNG specification, 11.2.2)."""
_MAGIC = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8",),
    ".jpeg": (b"\xff\xd8",),
    ".tif": (b"II", b"MM"),
    ".tiff": (b"II", b"MM"),
}


def examine_picture(path: Path) -> Findings:
    """See ``examine``."""
    content = path.read_bytes()
    suffix = suffix_of(path)
    if not content.startswith(_MAGIC[suffix]):
        raise DataError(f"it does not begin like a {suffix[1:].upper()} file.", where=path.name, cure="Check that it is a picture.")
    is_whole = _png_is_whole if suffix == ".png" else _jpeg_is_whole if suffix.startswith(".jp") else _tiff_is_whole
    if not is_whole(content):
        raise DataError("the picture is cut short or altered.", where=path.name, cure="Copy or export it again.")
    if suffix == ".png" and content[_PNG_COLOUR_TYPE] == _GREY_WITH_ALPHA:
        raise DataError("it is grey with transparency.", where=path.name, cure="Save it without transparency (alpha channel).")
    return Findings()


def _jpeg_is_whole(content: bytes) -> bool:
    """Whether the mark of the end stands near the end."""
    return b"\xff\xd9" in content[-4096:]


def _tiff_is_whole(content: bytes) -> bool:
    """Walk the chain of directories, one a slice: each lies in the file, with its strips or tiles. Readers end where the chain breaks."""
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    big = int.from_bytes(content[2:4], order) == 43
    word, entry, inline = (8, 20, 8) if big else (4, 12, 4)

    def number(at: int, width: int) -> int:
        return int.from_bytes(content[at : at + width], order)

    def numbers(at: int) -> list[int]:
        """The values of the directory entry that begins there."""
        width, count = _TIFF_WIDTHS.get(number(at + 2, 2), 1), number(at + 4, word)
        first = at + 4 + word if width * count <= inline else number(at + 4 + word, word)
        return [number(first + n * width, width) for n in range(min(count, len(content)))]

    directory, seen = number(8 if big else 4, word), set[int]()
    while directory:
        count = number(directory, 8 if big else 2)
        first = directory + (8 if big else 2)
        end = first + count * entry
        if end + word > len(content) or directory in seen:
            return False
        seen.add(directory)
        tags = {number(at, 2): at for at in range(first, end, entry)}
        for offsets, lengths in ((_STRIPS, _STRIP_LENGTHS), (_TILES, _TILE_LENGTHS)):
            if offsets in tags and lengths in tags:
                parts = zip(numbers(tags[offsets]), numbers(tags[lengths]), strict=False)
                if any(start + length > len(content) for start, length in parts):
                    return False
        directory = number(end, word)
    return bool(seen)


def _png_is_whole(content: bytes) -> bool:
    """Walk the chunks (length, type, data, CRC) up to IEND."""
    at = 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        body, check = content[at + 4 : at + 8 + length], content[at + 8 + length : at + 12 + length]
        if len(check) != 4 or zlib.crc32(body) != int.from_bytes(check, "big"):
            return False
        if body[:4] == b"IEND":
            return True
        at += 12 + length
    return False
