"""Where the person keeps projects, remembered in Slicer's settings."""

from __future__ import annotations

from pathlib import Path

import qt

_LAST_FOLDER = "SAM2Iterative/lastFolder"


def last_folder() -> str:
    """Where the person keeps projects; the documents' folder at first."""
    kept = str(qt.QSettings().value(_LAST_FOLDER, "") or "")
    if kept and Path(kept).is_dir():
        return kept
    documents = qt.QStandardPaths.writableLocation(qt.QStandardPaths.DocumentsLocation)
    return str(documents) if documents and Path(documents).is_dir() else str(Path.home())


def remember_folder(folder: Path) -> None:
    """Offer this folder next time."""
    qt.QSettings().setValue(_LAST_FOLDER, str(folder))
