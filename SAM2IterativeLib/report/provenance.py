"""What made the results: settings that a person changed, the plan, versions, seeds, time; never a path."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..project import Project
from ..settings import Settings, to_table
from ..wording import duration, rounds_in_words
from .wording import file_name, plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PLAN = {
    "network": "network",
    "spacing": "voxel size, mm (k, j, i)",
    "orientation": "orientation of k, j, i",
    "patch": "patch, voxels (k, j, i)",
    "neighbours": "neighbouring slices shown along",
    "features": "channels, level by level",
    "batch": "images in a training step",
    "first_steps": "training steps of round 0",
    "round_steps": "training steps of later rounds",
    "learning_rate": "learning rate of round 0",
    "round_learning_rate": "learning rate of later rounds",
    "snapshots": "snapshots of the weights",
    "single_component": "classes in one piece",
    "always_shown": "classes that every labelled case shows",
}
"""The decisions that a reader asks for first; the rest stands in ``plan.toml``."""


@dataclass(frozen=True)
class Row:
    """A line of a table: its name and its cells."""

    name: str
    cells: list[str]


def changed_settings(settings: Settings) -> list[Row]:
    """Every setting that differs from its default: value and default. Labels are shown elsewhere."""
    own, usual = dict(_flat(to_table(settings))), dict(_flat(to_table(Settings())))
    rows = []
    for name, value in own.items():
        if name not in ("labels", "name", "format_version") and value != usual[name]:
            rows.append(Row(name, [file_name(value) if name == "foundation.weights" else plain(value), plain(usual[name])]))
    return rows


def plan_table(project: Project) -> dict[str, Any]:
    """``plan.toml`` as it stands; empty if there is none, or if a person's edit made it unreadable."""
    try:
        return tomllib.loads(project.plan_path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}


def plan_rows(plan: Mapping[str, Any]) -> list[Row]:
    """The plan's main decisions."""
    rows = [Row(text, [plain(plan[name])]) for name, text in _PLAN.items() if name in plan]
    scheme = plan.get("normalisation", {}).get("scheme")
    return [*rows, Row("normalisation", [plain(scheme)])] if scheme else rows


@dataclass(frozen=True)
class Provenance:
    """Versions, seeds and hashes: a column for each stretch of rounds that were made in the same way."""

    columns: list[str]
    rows: list[Row]


def provenance_of(project: Project) -> Provenance:
    """What made the finished rounds."""
    stretches: list[tuple[list[int], dict[str, str]]] = []
    for round, numbers in project.journal.rounds().items():
        made = dict(_made_by(numbers.get("provenance", {})))
        if stretches and stretches[-1][1] == made:
            stretches[-1][0].append(round)
        else:
            stretches.append(([round], made))
    names = list(dict.fromkeys(name for _, made in stretches for name in made))
    columns = [rounds_in_words(rounds) for rounds, _ in stretches]
    return Provenance(columns, [Row(n, [made.get(n, "–") for _, made in stretches]) for n in names])


def time_table(project: Project) -> tuple[list[str], list[Row]]:
    """Stages, and for every finished round the time that each took."""
    units = project.journal.units()
    stages = list(dict.fromkeys(unit.stage for unit in units))
    rows = []
    for round in project.journal.rounds():
        spent = [sum(unit.seconds for unit in units if unit.round == round and unit.stage == stage) for stage in stages]
        rows.append(Row(str(round), [*map(duration, spent), duration(sum(spent))]))
    return [*(stage.replace("_", "-") for stage in stages), "all"], rows


def _made_by(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names a person understands, hashes cut to what tells two apart."""
    names = {"sam2_iterative": "SAM2Iterative", "python": "Python", "device": "device", "seed": "seed"}
    yield from ((text, plain(found[name])) for name, text in names.items() if name in found)
    if "weights" in found:
        yield "SAM2 weights", file_name(str(found["weights"]))
    yield from ((name, plain(version)) for name, version in found.get("packages", {}).items())
    for name in ("settings", "plan"):
        if f"{name}_sha256" in found:
            yield f"SHA-256 of the {name}", f"{found[f'{name}_sha256'][:16]}…"


def _flat(table: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value
