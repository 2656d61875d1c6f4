"""How labels get their values, names and colours when a person gave none."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from ..errors import SettingsError
from ..settings import Label

_BACKGROUND = "background"
_CLOSE = 0.8
"""Likeness (difflib's ratio) from which on a first name is taken for a misspelt "background"."""


def label_of(value: int, name: str = "") -> Label:
    """A label with the colour that belongs to its value, named "label 3" unless a name is given."""
    return Label(value, name or f"label {value}")


def labels_of_names(names: Sequence[str], values: Sequence[int] = ()) -> tuple[Label, ...]:
    """Labels for names in order of value; a leading "background" is left out, as it is always 0.

    Args:
        names: e.g. ``["background", "anterior", "posterior"]``.
        values: the foreground values that the files hold, ascending. Where they are not among 1..n (ids with gaps), the names are
            given to them in order.

    Raises:
        SettingsError: an empty or doubled name, a misspelt "background", or as many names as cannot be matched to the values.
    """
    names = [name.strip() for name in names]
    if names and names[0].lower() != _BACKGROUND and difflib.get_close_matches(names[0].lower(), [_BACKGROUND], cutoff=_CLOSE):
        cure = "Write 'background', or leave it out: 0 always is the background."
        raise SettingsError(f"the first label name is {names[0]!r}; every other name would move by one.", cure=cure)
    if names and names[0].lower() in (_BACKGROUND, "0"):
        names = names[1:]
    if not all(names) or len(set(names)) != len(names):
        raise SettingsError(f"the label names {names} hold an empty or doubled one.", cure="Give each label its own name.")
    own = list(range(1, len(names) + 1))
    if not set(values) <= set(own):
        if len(values) != len(names):
            raise SettingsError(
                f"{len(names)} label names were given, but the files hold the values {sorted(values)}.",
                cure="Give one name for each value, background first.",
            )
        own = sorted(values)
    return tuple(replace(label_of(n, name), value=value) for n, (value, name) in enumerate(zip(own, names, strict=True), 1))
