"""The terminology entries that a person can choose, against Slicer's own lists."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from SAM2IterativeLib.exchange.terminology import codes_of


def test_every_entry_is_in_slicers_list_that_it_names(scene: Any) -> None:
    from SAM2IterativeGUI.terminology_choices import choices

    known = _known_entries()
    entries = [entry for entry in choices().values() if entry]
    assert len(entries) == 29
    assert [entry for entry in entries if (entry.split("~")[0], *codes_of(entry)) not in known] == []


def test_names_lead_back_to_their_entries(scene: Any) -> None:
    from SAM2IterativeGUI.terminology_choices import choices, name_of

    assert all(name_of(entry) == name for name, entry in choices().items())


def _known_entries() -> set[tuple[str, Any, Any]]:
    """(list, category, type) of both lists in Slicer's sources; skips where they are not at hand."""
    from SAM2IterativeLib.exchange.terminology import Code

    python = os.environ.get("SAM2_ITERATIVE_SLICER_PYTHON", "")
    folder = Path(python).parents[2] / "Modules" / "Loadable" / "Terminologies" / "Resources" if python else Path("missing")
    files = sorted(folder.glob("SegmentationCategoryTypeModifier-*.json"))
    if not files:
        pytest.skip("SAM2_ITERATIVE_SLICER_PYTHON names no folder of Slicer's sources that hold Modules/Loadable/Terminologies")

    def code(table: dict[str, Any]) -> Code:
        return Code(table["CodingSchemeDesignator"], table["CodeValue"], table["CodeMeaning"])

    found = set()
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        for category in content["SegmentationCodes"]["Category"]:
            for kind in category["Type"]:
                found.add((content["SegmentationCategoryTypeContextName"], code(category), code(kind)))
    return found
