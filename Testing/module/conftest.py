"""Makes the harness, the module's packages and this folder's own files importable however pytest is called."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTING = Path(__file__).resolve().parents[1]
for _folder in (_TESTING, _TESTING.parent / "SAM2Iterative", _TESTING.parent, _TESTING / "module"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

from harness.fixtures import scene, slicer_app  # noqa: E402
from opened_module import module, pretending  # noqa: E402

__all__ = ["module", "pretending", "scene", "slicer_app"]
