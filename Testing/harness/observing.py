"""Observing VTK objects from widgets: the observation ends with the widget, and does not keep it alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class Observations:
    """The observations of one widget."""

    def __init__(self, widget: Any) -> None:
        self._kept: list[tuple[Any, int]] = []
        kept = self._kept  # the widget's end must not find the widget in its own callback
        widget.destroyed.connect(lambda *_: _remove(kept))

    def add(self, observed: Any, event: int | str, method: Callable[..., None]) -> None:
        """Call ``method(caller, event)`` whenever ``observed`` invokes ``event``."""
        reference = weakref.WeakMethod(method)

        def call(caller: Any, name: str) -> None:
            alive = reference()
            if alive is not None:
                alive(caller, name)

        self._kept.append((observed, observed.AddObserver(event, call)))

    def clear(self) -> None:
        """Stop observing."""
        _remove(self._kept)


def _remove(kept: list[tuple[Any, int]]) -> None:
    while kept:
        observed, tag = kept.pop()
        observed.RemoveObserver(tag)
