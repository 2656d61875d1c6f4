"""Makes ``import harness`` work however pytest is called."""

from __future__ import annotations

import sys
from pathlib import Path

_TESTING = str(Path(__file__).resolve().parents[1])
if _TESTING not in sys.path:
    sys.path.insert(0, _TESTING)

from harness.fixtures import scene, slicer_app  # noqa: E402

__all__ = ["scene", "slicer_app"]
