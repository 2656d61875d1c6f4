"""Whether the parts that the harness stands on are installed."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import sys

INSTALL = "pip install slicer-core==5.12.4.0 'PySide6-Essentials>=6.9,<6.12'"


def missing() -> str | None:
    """One sentence that names what is missing and how to get it; None where the harness can start."""
    for module, name in (("slicer_core", "slicer-core (Slicer's own MRML)"), ("PySide6", "PySide6 (Qt)")):
        if importlib.util.find_spec(module) is None:
            return f"{name} is not installed; {INSTALL} brings it."
    version = importlib.metadata.version("PySide6-Essentials")
    if sys.version_info < (3, 12) and tuple(int(n) for n in version.split(".")[:2]) >= (6, 12):
        # It takes one reference too many from None and True; where these are not immortal, Python dies after a while.
        return f"PySide6 {version} ends Python {sys.version_info[0]}.{sys.version_info[1]} by a wrong reference count; {INSTALL}."
    return _missing_library()


def _missing_library() -> str | None:
    if sys.platform.startswith("linux"):
        for library in ("libEGL.so.1", "libGL.so.1"):
            try:
                ctypes.CDLL(library)
            except OSError:
                return f"{library} is missing, without which nothing can be drawn; 'apt-get install libegl1 libgl1' brings it."
    return None
