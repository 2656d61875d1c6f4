"""Texts that the report shows without paths, and settings as a person writes them; see ``..wording`` for the rest."""

from __future__ import annotations

import re
from pathlib import PureWindowsPath
from typing import Any

_PATH = re.compile(r"(?<![\w.:/\\<])(?:[A-Za-z]:[\\/]|\\\\|~?/(?=\S))(?:[^/\\\n\"'<>|:*?]+[\\/])*([^\s/\\\"'<>|:*?]*)")


def unpathed(text: str) -> str:
    """The text with every absolute path cut down to its file name: a folder's name may tell who the patient is."""
    return _PATH.sub(lambda found: found.group(1) or "…", text)


def file_name(text: str) -> str:
    """The last part of what may be a path of any operating system."""
    return PureWindowsPath(text).name or text


def plain(value: Any) -> str:
    """A setting or a decision of the plan: as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(f"({plain(v)})" if isinstance(v, (list, tuple)) else plain(v) for v in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return unpathed(str(value))
