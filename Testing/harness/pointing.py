"""What a person does with mouse and keyboard, on widgets that are really there and really enabled."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PySide6 import QtTest

from .qt_module import QtCore, QtWidgets, qt


def click(widget: Any) -> None:
    """Click a button, check box, radio button or folding title.

    Raises:
        AssertionError: a person could not click it: it is hidden or disabled (its tooltip says why, so it is quoted).
    """
    _require_reachable(widget)
    if not isinstance(widget, QtWidgets.QAbstractButton):
        raise AssertionError(f"{_name(widget)} is no button")
    widget.click()
    process_events()


def choose(combo: Any, text: str) -> None:
    """Choose an entry of a combo box by its text."""
    _require_reachable(combo)
    number = combo.findText(text)
    if number < 0:
        raise AssertionError(f"{_name(combo)} offers {[combo.itemText(n) for n in range(combo.count)]}, not {text!r}")
    combo.setCurrentIndex(number)
    combo.activated.emit(number)
    process_events()


def type_text(widget: Any, text: str) -> None:
    """Replace the text of a line or text field, key by key."""
    _require_reachable(widget)
    widget.setFocus()
    widget.selectAll()
    QtTest.QTest.keyClicks(widget, text)
    process_events()


def press(keys: str, widget: Any) -> None:
    """Press a key, e.g. ``"Ctrl+Shift+A"``, with the focus on ``widget``; its window's shortcuts get it first.

    The window is shown and made active, without which Qt looks for no shortcut.
    """
    window = widget.window()
    window.show()
    window.activateWindow()
    widget.setFocus()
    process_events()
    QtTest.QTest.keySequence(widget, qt.QKeySequence(keys))
    # Qt would count Shift or Ctrl as held down from now on, and select more rows or fewer.
    QtTest.QTest.keyRelease(widget, qt.Qt.Key_Shift, qt.Qt.NoModifier)
    process_events()


def open_tab(tabs: Any, name: str) -> None:
    """Open a tab by the beginning of its title."""
    titles = [tabs.tabText(number) for number in range(tabs.count)]
    found = [number for number, title in enumerate(titles) if title.startswith(name)]
    if not found or not tabs.isTabEnabled(found[0]):
        raise AssertionError(f"no tab {name!r} can be opened; there are {titles}")
    tabs.setCurrentIndex(found[0])
    process_events()


def process_events() -> None:
    """Let Qt work off what waits, deferred deletions included."""
    QtCore.QCoreApplication.processEvents()
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete)


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    """Let Qt work until something is true, such as a child process having answered.

    Raises:
        AssertionError: it did not become true within ``seconds``, which is meant to be far too long.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain: {what}")
        process_events()
        time.sleep(0.005)


def render_widget_png(widget: Any, path: Path, size: tuple[int, int] | None = None) -> Path:
    """Draw a widget into a PNG, at ``size`` (width, height) or at the size it wants."""
    widget.ensurePolished()
    if size is None:
        widget.adjustSize()
    else:
        _resize(widget, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not widget.grab().save(str(path)):
        raise OSError(f"could not write {path}")
    return path


def _resize(widget: Any, size: tuple[int, int]) -> None:
    """Give a widget a size by way of its window, since the layouts in between would take it back."""
    window = widget.window()
    window.setMinimumSize(1, 1)
    for _ in range(3):  # a layout may answer in more than one step
        window.resize(window.width + size[0] - widget.width, window.height + size[1] - widget.height)
        window.grab()
        process_events()


def _require_reachable(widget: Any) -> None:
    for hidden in _line_of(widget):
        if hidden.isHidden() and not hidden.isWindow():
            raise AssertionError(f"{_name(widget)} cannot be reached: {_name(hidden)} is hidden")
    if not widget.isEnabled():
        raise AssertionError(f"{_name(widget)} is disabled: {widget.toolTip or 'without saying why'}")


def _line_of(widget: Any) -> list[Any]:
    line = [widget]
    while line[-1].parentWidget() is not None:
        line.append(line[-1].parentWidget())
    return line


def _name(widget: Any) -> str:
    return f"{type(widget).__name__} '{widget.objectName}'"
