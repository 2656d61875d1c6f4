"""PNG, JPEG and TIFF: is the file whole?"""

from __future__ import annotations

import zlib
from pathlib import Path

from ..errors import DataError
from ..files import suffix_of
from .checks import Findings

_MAGIC = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8",),
    ".jpeg": (b"\xff\xd8",),
    ".tif": (b"II", b"MM"),
    ".tiff": (b"II", b"MM"),
}


def examine_picture(path: Path) -> Findings:
    """See ``examine``. TIFF is left to its reader, which does refuse a short file."""
    content = path.read_bytes()
    suffix = suffix_of(path)
    if not content.startswith(_MAGIC[suffix]):
        raise DataError(f"it does not begin like a {suffix[1:].upper()} file.", where=path.name, cure="Check that it is a picture.")
    whole = _png_is_whole(content) if suffix == ".png" else b"\xff\xd9" in content[-4096:] if suffix.startswith(".jp") else True
    if not whole:
        raise DataError("the picture is cut short or altered.", where=path.name, cure="Copy or export it again.")
    return Findings()


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
