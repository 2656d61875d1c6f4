"""What all tests share: the real data, if they are there, and a small project.

Real data are found through the environment variable SAM2_ITERATIVE_DATA, else in ``shared/data`` beside the repository; tests
that need them skip where they are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_cases import small_image, small_labels

from SAM2IterativeLib.project import Project, label_of
from SAM2IterativeLib.settings import Settings

_REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; skips the test where it is absent."""
    folder = Path(os.environ.get("SAM2_ITERATIVE_DATA", _REPOSITORY.parent / "shared" / "data"))
    if not (folder / "hippocampus").is_dir():
        pytest.skip(f"no real data in {folder}; set SAM2_ITERATIVE_DATA to their folder")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with the labels 1 and 2, one labelled case "a" and two unlabelled ones, "b" and "c"."""
    settings = Settings(name="test", labels=(label_of(1, "anterior"), label_of(2, "posterior")))
    with Project.create(tmp_path / "project", settings) as made:
        made.add_case("a", small_image(1), small_labels())
        made.add_case("b", small_image(2))
        made.add_case("c", small_image(3))
        yield made
