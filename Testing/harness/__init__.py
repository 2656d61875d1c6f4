"""Slicer without the application: real MRML, real Qt, real .ui files and the real module, in one Python process.

``start()`` puts everything in its place; ``load_module(path)`` sets a scripted module up; ``click`` and its siblings do what a
person does; ``dialogs`` answers questions; ``render_widget_png`` and ``SliceView`` make pictures. The rest of the file names is
the table of contents. README.md says what is real, what is not, and what therefore still has to be looked at in Slicer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .availability import missing
from .starting import reset, start

if TYPE_CHECKING:
    from .answering import dialogs
    from .loading import LoadedModule, load_module
    from .pointing import choose, click, open_tab, press, process_events, render_widget_png, type_text, wait_until
    from .segment_widgets import EDITOR_KEYS, paint_segment
    from .slice_view import SliceView

_PLACES = {
    "dialogs": "answering",
    "LoadedModule": "loading",
    "load_module": "loading",
    "EDITOR_KEYS": "segment_widgets",
    "paint_segment": "segment_widgets",
    "SliceView": "slice_view",
    **dict.fromkeys(("choose", "click", "open_tab", "press", "process_events", "render_widget_png", "type_text", "wait_until"), "pointing"),
}

__all__ = [
    "EDITOR_KEYS",
    "LoadedModule",
    "SliceView",
    "choose",
    "click",
    "dialogs",
    "load_module",
    "missing",
    "open_tab",
    "paint_segment",
    "press",
    "process_events",
    "render_widget_png",
    "reset",
    "start",
    "type_text",
    "wait_until",
]


def __getattr__(name: str) -> Any:
    """Everything but ``missing``, ``start`` and ``reset`` needs Slicer's parts, so it is imported when it is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    start()
    import importlib

    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
