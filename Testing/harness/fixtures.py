"""The harness as pytest fixtures; a conftest.py imports them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import missing, reset, start


@pytest.fixture(scope="session")
def slicer_app() -> Any:
    """``slicer.app``, started once; skips where a part is not installed."""
    sentence = missing()
    if sentence:
        pytest.skip(f"Slicer's parts cannot be used: {sentence}")
    return start()


@pytest.fixture
def scene(slicer_app: Any) -> Iterator[Any]:
    """The real MRML scene, empty. Afterwards: no unanswered or unasked question, no VTK error, no exception in a slot."""
    from . import faults
    from .answering import dialogs

    reset()
    yield slicer_app.mrmlScene()
    unexpected = faults.unexpected()
    unused = dialogs.forget()
    reset()
    assert not unexpected, "\n".join(unexpected)
    assert not unused, f"answers that no question asked for: {unused}"
