"""The module as a person opens it, for tests: fixture ``module``; and a worker that pretends, for what needs no model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import pytest

MODULE = Path(__file__).resolve().parents[2] / "SAM2Iterative" / "SAM2Iterative.py"
_LIBRARY_TESTS = Path(__file__).resolve().parents[1] / "library"
if str(_LIBRARY_TESTS) not in sys.path:
    sys.path.append(str(_LIBRARY_TESTS))


@pytest.fixture
def module(scene: Any, tmp_path: Path) -> Iterator[Any]:
    """The open module; new projects go below ``tmp_path``."""
    import qt

    qt.QSettings().setValue("SAM2Iterative/lastFolder", str(tmp_path))
    qt.QSettings().setValue("SAM2Iterative/reviewer", "Ada")
    loaded = harness.load_module(MODULE)
    loaded.enter()
    yield loaded
    loaded.unload()


@pytest.fixture
def pretending(module: Any) -> Any:
    """The open module, whose workers pretend."""
    from SAM2IterativeGUI.pretended_worker import PretendedClient

    for process in (module.widget.session.worker, module.widget.session.corrector):
        process.make_client = PretendedClient
    return module


def make_sample(module: Any, folder: Path, cases: int = 5) -> Any:
    """A small generated project, opened in the module."""
    from SAM2IterativeGUI.sample_data import make_sample_project

    project = make_sample_project(module.widget.session, folder, size=(6, 32, 32), cases=cases)
    harness.process_events()
    return project


def open_tab(module: Any, name: str) -> Any:
    """Open a tab; the widgets by name."""
    titles = [module.widget.tabs.tabText(number) for number in range(module.widget.tabs.count)]
    harness.open_tab(module.widget.tabs, next(title for title in titles if title.endswith(name)))
    return module.widget.ui


def column(table: Any, number: int) -> list[str]:
    """The texts of a table's column."""
    return [table.item(row, number).text() for row in range(table.rowCount)]
