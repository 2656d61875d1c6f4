"""The dataset.json of nnU-Net and of the Medical Segmentation Decathlon, which write the same things in two ways."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, SettingsError
from ..project import label_of
from ..settings import Label

_LARGEST = 65535
_IGNORE = "ignore"


def read_description(path: Path) -> dict[str, Any]:
    """A dataset.json as a dict.

    Raises:
        DataError: missing or not a JSON object.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"dataset.json cannot be read ({error}).", where=path.parent.name, cure="Choose the folder that holds it."
        ) from error
    if not isinstance(table, dict):
        raise DataError("dataset.json holds no table.", where=path.parent.name, cure="Choose the folder of a dataset.")
    return table


def described_labels(description: Mapping[str, Any], where: str) -> tuple[Label, ...]:
    """The labels by value: nnU-Net writes name: value, the Decathlon "value": name. Background and nnU-Net's "ignore" are left out.

    Raises:
        DataError: no such table, regions of several values, or values that are no labels (1 to 65535).
        SettingsError: one value for two labels.
    """
    table = description.get("labels") or {}
    if not isinstance(table, dict):
        raise DataError("the labels of dataset.json are no table of names and values.", where=where, cure="Correct it.")
    chosen = sorted(
        (value, name) for value, name in (_value_and_name(entry, where) for entry in table.items()) if value and name != _IGNORE
    )
    if len({value for value, _ in chosen}) != len(chosen):
        raise SettingsError("dataset.json gives one value to two labels.", where=where, cure="Correct it.")
    return tuple(label_of(value, name) for value, name in chosen)


def ignored_value(description: Mapping[str, Any], where: str) -> int | None:
    """The value of nnU-Net's "ignore", which marks voxels that nobody labelled; None if there is none.

    Raises:
        DataError: see ``described_labels``.
    """
    table = description.get("labels") or {}
    entries = [_value_and_name(entry, where) for entry in table.items()] if isinstance(table, dict) else []
    return next((value for value, name in entries if name == _IGNORE), None)


def described_channels(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of an image's channels, in order."""
    names = description.get("channel_names") or description.get("modality") or {"0": "image"}
    return tuple(str(name) for name in (names.values() if isinstance(names, dict) else names if isinstance(names, list) else [names]))


def listed(description: Mapping[str, Any], name: str, where: str) -> list[Any]:
    """The entries of a list of files.

    Raises:
        DataError: it is no list.
    """
    entries = description.get(name) or []
    if not isinstance(entries, list):
        raise DataError(f"the {name!r} of dataset.json is no list of files.", where=where, cure="Correct it.")
    return entries


def _value_and_name(entry: tuple[str, Any], where: str) -> tuple[int, str]:
    key, content = entry
    if isinstance(content, list):
        raise DataError("its labels are regions, not single values.", where=where, cure="Only one label per voxel is supported.")
    value, name = (content, key) if str(content).isdecimal() else (key, content)
    if not str(value).isdecimal() or int(value) > _LARGEST:
        raise DataError(
            f"dataset.json has the label {key!r}: {content!r}; values run from 0 to {_LARGEST}.", where=where, cure="Correct it."
        )
    return int(value), str(name)
