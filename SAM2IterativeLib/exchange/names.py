"""Names that are compared: macOS writes an umlaut as two characters (NFD), other systems as one (NFC)."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from ..files import stem_of


def composed(name: str) -> str:
    """A name with each accented letter as one character, so that the same name is the same text."""
    return unicodedata.normalize("NFC", name)


def matching_stem(path: str | Path) -> str:
    """A file's stem, ``composed``."""
    return composed(stem_of(path))
