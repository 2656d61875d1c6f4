"""The CMake files package what the tree holds, no more and no less."""

from __future__ import annotations

import json
import re

import pytest
from cmake_lists import LISTS, REPOSITORY, FileList


@pytest.mark.parametrize("files", LISTS, ids=lambda files: files.name)
def test_every_file_is_listed_once(files: FileList) -> None:
    listed, present = files.listed(), files.present()
    cure = "run: python Testing/module/cmake_lists.py"
    assert sorted(set(present) - set(listed)) == [], f"not packaged; {cure}"
    assert sorted(set(listed) - set(present)) == [], f"listed but gone; {cure}"
    assert len(listed) == len(set(listed))


def test_the_lists_are_not_empty() -> None:
    assert all(files.listed() for files in LISTS)


def test_a_file_in_a_cache_folder_is_not_packaged() -> None:
    assert not any("__pycache__" in name for files in LISTS for name in files.present())


def test_the_extension_says_what_the_index_asks_for() -> None:
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    given = dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', text))
    assert re.search(r"project\((\w+)\)", text)[1] == "SAM2Iterative"  # type: ignore[index]
    assert given["DEPENDS"] == "PyTorch"
    for name in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS"):
        assert given[name], name
    for name in ("HOMEPAGE", "ICONURL", "SCREENSHOTURLS"):
        assert given[name].startswith("https://"), name
    assert "Slicer" not in re.search(r"project\((\w+)\)", text)[1]  # type: ignore[index]


def test_the_index_entry_agrees_with_the_extension() -> None:
    entry = json.loads((REPOSITORY / "Resources" / "SAM2Iterative.json").read_text(encoding="utf-8"))
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    assert entry["build_dependencies"] == ["PyTorch"]
    assert entry["category"] == "Segmentation"
    assert 1 <= entry["tier"] <= 5
    assert entry["scm_url"].removesuffix(".git") in text


def test_pictures_of_the_index_exist_where_their_addresses_say() -> None:
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    for address in re.findall(r'set\(EXTENSION_(?:ICONURL|SCREENSHOTURLS) "([^"]*)"\)', text):
        for one in address.split():
            path = REPOSITORY / one.partition("/main/")[2]
            assert path.is_file(), f"{path.relative_to(REPOSITORY)} is missing"
