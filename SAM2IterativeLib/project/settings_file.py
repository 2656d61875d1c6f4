"""``project.toml``: strict when read; when written, it teaches: every setting stands there, the defaults as comments."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

from ..errors import ProjectError, SettingsError
from ..files import write_text
from ..settings import FORMAT_VERSION, MOST_LABELS, Label, Settings, from_table, to_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HEAD = """\
# A SAM2Iterative project. This file is yours to edit while no run is in progress; a name that is not known is refused.
# Lines that begin with '#' show the defaults of the version that wrote them: remove the '#' and change the value.
"""
_LABELS_HEAD = """\
# The labels: 'value' is what stands in every file, 'name' and 'colour' (red, green, blue) what a person sees.
"""


def read_settings(path: Path) -> Settings:
    """Read a project's settings.

    Raises:
        ProjectError: no such file, or made by a newer version.
        SettingsError: not TOML, or a setting that is unknown, of the wrong type or out of range.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors begin files with a mark
    except FileNotFoundError as error:
        raise ProjectError(
            f"there is no project here ({path.name} is missing).",
            where=path.parent.name,
            cure="Choose a project folder, or create one.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the file cannot be read: {error}.", where=path.name, cure="Correct that line.") from error
    version = table.get("format_version", FORMAT_VERSION)
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ProjectError(
            f"the project is of format {version}, this software knows {FORMAT_VERSION}.",
            where=path.parent.name,
            cure="Update SAM2Iterative to open it.",
        )
    settings = from_table(Settings, table, path.name)
    require_sound_labels(settings.labels, path.name)
    return settings


def write_settings(path: Path, settings: Settings) -> None:
    """Write ``project.toml`` atomically; a previous one is kept as ``project.previous.toml``.

    Only the lines of what changed are written anew, so that what a person wrote between them stays.
    """
    require_sound_labels(settings.labels, path.name)
    if not path.exists():
        write_text(path, settings_text(settings))
        return
    text = path.read_text(encoding="utf-8-sig")
    write_text(path.with_name("project.previous.toml"), text)
    edited = _edited(text, read_settings(path), settings)
    write_text(path, edited if _says(edited, settings, path.name) else settings_text(settings))


def _edited(text: str, before: Settings, after: Settings) -> str:
    """The text with the values that differ; where it has an unusual form, it may not say what was meant (see ``_says``)."""
    old, new = to_table(before), to_table(after)
    for name, value in new.items():
        if isinstance(value, dict):
            for key in value:
                if value[key] != old[name][key]:
                    text = _with_value(text, name, key, value[key])
        elif name == "labels" and value != old[name]:
            before_labels, _, _ = text.partition("[[labels]]")
            text = before_labels.rstrip("\n") + "\n\n" + "\n".join(_label_text(label) for label in after.labels)
        elif name != "labels" and value != old[name]:
            text = _with_value(text, "", name, value)
    return text


def _with_value(text: str, section: str, key: str, value: Any) -> str:
    """The text with one line changed, or a commented default brought to life."""
    head = re.search(rf"^\[{section}\][^\n]*\n", text, re.MULTILINE) if section else None
    start = head.end() if head else 0
    following = re.compile(r"^\[", re.MULTILINE).search(text, start)
    end = following.start() if following else len(text)
    part = text[start:end]
    plain = r'(?:\[[^\]\n]*\]|"[^"\n]*"|[^\s#]+)'
    for mark in ("", r"#[ \t]*"):
        part, found = re.subn(rf"^{mark}{key}[ \t]*=[ \t]*{plain}", lambda _: f"{key} = {_toml(value)}", part, count=1, flags=re.MULTILINE)
        if found:
            break
    return text[:start] + part + text[end:]


def _says(text: str, settings: Settings, where: str) -> bool:
    try:
        return from_table(Settings, tomllib.loads(text), where) == settings
    except (tomllib.TOMLDecodeError, SettingsError):
        return False


def settings_text(settings: Settings) -> str:
    """The text of ``project.toml``."""
    table, defaults = to_table(settings), to_table(Settings())
    sections = [f.name for f in dataclasses.fields(Settings) if isinstance(defaults[f.name], dict)]
    plain = [name for name in table if name not in (*sections, "labels")]
    parts = [_HEAD + "\n".join(_line(name, table[name], defaults[name], name == "format_version") for name in plain)]
    parts += [_section(name, getattr(settings, name), defaults[name]) for name in sections]
    parts.append(_LABELS_HEAD + "\n".join(_label_text(label) for label in settings.labels))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def require_sound_labels(labels: tuple[Label, ...], where: str) -> None:
    """Raise SettingsError if labels are too many, two share a value or a name, or one is nameless or named as what is no label."""
    if len(labels) > MOST_LABELS:
        cure = "Split them over several projects."
        raise SettingsError(f"{len(labels)} labels are more than the {MOST_LABELS} that a project can have.", where=where, cure=cure)
    for label in labels:
        if not label.name.strip() or label.name.strip().lower() == "background":
            raise SettingsError(f"label {label.value} has the name {label.name!r}.", where=where, cure="Give it a name of its own.")
    for what in ("value", "name"):
        seen = [getattr(label, what) for label in labels]
        twice = next((v for v in seen if seen.count(v) > 1), None)
        if twice is not None:
            raise SettingsError(f"two labels have the {what} {twice!r}.", where=where, cure=f"Give each its own {what}.")


def _section(name: str, section: Any, defaults: dict[str, Any]) -> str:
    summary = (type(section).__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()
    lines = [_line(key, value, defaults[key]) for key, value in to_table(section).items()]
    return "\n".join([f"# {summary}", f"[{name}]", *lines])


def _label_text(label: Label) -> str:
    table, defaults = to_table(label), to_table(Label())
    return "\n".join(["[[labels]]", *(_line(k, v, defaults[k], k in ("value", "name", "colour")) for k, v in table.items()), ""])


def _line(name: str, value: Any, default: Any, always: bool = False) -> str:
    mark = "" if always or value != default else "# "
    return f"{mark}{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return repr(value)
