"""Numbers and sentences as the report shows them: rounded, and without paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PureWindowsPath
from typing import Any

_PATH = re.compile(r"(?<![\w.:/\\<])(?:[A-Za-z]:[\\/]|\\\\|~?/(?=\S))(?:[^/\\\n\"'<>|:*?]+[\\/])*([^\s/\\\"'<>|:*?]*)")


def unpathed(text: str) -> str:
    """The text with every absolute path cut down to its file name: a folder's name may tell who the patient is."""
    return _PATH.sub(lambda found: found.group(1) or "…", text)


def file_name(text: str) -> str:
    """The last part of what may be a path of any operating system."""
    return PureWindowsPath(text).name or text


def number(value: float | None, digits: int = 3) -> str:
    """A fixed number of digits; a dash where there is no value."""
    return "–" if value is None else f"{value:.{digits}f}"


def plain(value: Any) -> str:
    """A setting or a decision of the plan: as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(f"({plain(v)})" if isinstance(v, (list, tuple)) else plain(v) for v in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return unpathed(str(value))


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(count: int, noun: str) -> str:
    """ "1 case", "3 cases"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def duration(seconds: float) -> str:
    """ "40 s", "3 min", "2 h 05 min"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
