"""Images in subfolders, which nobody searches, so that somebody must say so."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ..files import IMAGE_SUFFIXES, suffix_of
from ..wording import counted
from .dicom_series import DICOM_SUFFIXES, begins_like_dicom


def not_searched(folder: Path, apart: Collection[Path], cure: str) -> list[tuple[str, str]]:
    """A remark (name, sentence) if subfolders hold images, else none.

    Args:
        folder: was searched itself, but no deeper.
        apart: folders that may lie in it and are no part of it, such as the project's.
        cure: what the person can do about it.
    """
    elsewhere = {path.resolve() for path in apart}
    holding = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and _hold_images(path, elsewhere)]
    if not holding:
        return []
    what = counted(len(holding), "subfolder")
    return [(folder.resolve().name, f"images in {what} (such as {holding[0]}) were left out, since subfolders are not searched. {cure}")]


def _hold_images(folder: Path, elsewhere: Collection[Path]) -> bool:
    """Whether an image lies in or below a folder, hidden ones and those that lie ``elsewhere`` left out."""
    for at, folders, files in os.walk(folder):
        here = Path(at)
        if here.name.startswith(".") or here.resolve() in elsewhere:
            folders.clear()
        elif any(_is_image(here / name) for name in files if not name.startswith(".")):
            return True
    return False


def _is_image(path: Path) -> bool:
    if suffix_of(path) in IMAGE_SUFFIXES:
        return True
    return suffix_of(path) in DICOM_SUFFIXES and path.is_file() and begins_like_dicom(path)
