"""The keys work while the module is open, give way when it is left, and belong to nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import harness
import pytest

_SLICE_VIEW_KEYS = {"Left", "Right", "Up", "Down", "B", "F", "V", "R", "G", "T", "[", "]", "{", "}"}
"""Slicer's user guide, "Mouse & Keyboard Shortcuts"."""


@pytest.fixture
def pressed() -> list[str]:
    return []


@pytest.fixture
def shortcuts(scene: Any, pressed: list[str]) -> Iterator[Any]:
    from SAM2IterativeGUI.shortcuts import Shortcuts, all_shortcuts

    def note(name: str) -> Any:
        return lambda: pressed.append(name)

    made = Shortcuts({shortcut.action: note(shortcut.action) for shortcut in all_shortcuts()})
    yield made
    made.remove()


@pytest.fixture
def window(scene: Any) -> Iterator[Any]:
    import qt
    import slicer.util

    main = slicer.util.mainWindow()
    main.setCentralWidget(qt.QPushButton("anything"))
    yield main
    main.takeCentralWidget().deleteLater()
    main.hide()


def test_no_key_has_another_owner(scene: Any) -> None:
    from SAM2IterativeGUI.shortcuts import all_shortcuts

    keys = [shortcut.keys for shortcut in all_shortcuts()]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & set(harness.EDITOR_KEYS)
    assert not set(keys) & _SLICE_VIEW_KEYS
    assert not any(key.startswith("Ctrl") for key in keys), "Slicer's menus have those"


def test_every_key_does_its_action(shortcuts: Any, window: Any, pressed: list[str]) -> None:
    shortcuts.install()
    for shortcut in shortcuts.shortcuts:
        harness.press(shortcut.keys, window.centralWidget())
    assert pressed == [shortcut.action for shortcut in shortcuts.shortcuts]


def test_keys_work_beside_the_segment_editors(shortcuts: Any, window: Any, pressed: list[str]) -> None:
    import slicer

    editor = slicer.qMRMLSegmentEditorWidget()
    editor.installKeyboardShortcuts(window)
    shortcuts.install()
    harness.press("A", window.centralWidget())
    harness.press("Z", window.centralWidget())
    assert pressed == ["accept"]
    editor.uninstallKeyboardShortcuts()


def test_keys_that_decide_give_way_to_an_effect(shortcuts: Any, window: Any, pressed: list[str]) -> None:
    """Slicer's SegmentEditorDrawEffect.processInteractionEvents reads a, x and Return from the view."""
    shortcuts.install()
    shortcuts.rest(True)
    for key in ("A", "X", "Shift+A", "N"):
        harness.press(key, window.centralWidget())
    assert pressed == ["next_case"]
    shortcuts.remove()
    shortcuts.install()
    harness.press("A", window.centralWidget())
    assert pressed == ["next_case"], "the effect is still active"
    shortcuts.rest(False)
    harness.press("A", window.centralWidget())
    assert pressed == ["next_case", "accept"]
    assert "these keys rest" in shortcuts.legend() and "A, X, Shift+A" in shortcuts.legend()


def test_removed_keys_do_nothing_and_can_be_installed_again(shortcuts: Any, window: Any, pressed: list[str]) -> None:
    shortcuts.install()
    shortcuts.install()
    shortcuts.remove()
    harness.press("A", window.centralWidget())
    assert pressed == []
    shortcuts.install()
    harness.press("A", window.centralWidget())
    assert pressed == ["accept"]


def test_letters_that_are_typed_into_a_line_are_text(shortcuts: Any, window: Any, pressed: list[str]) -> None:
    import qt

    line = qt.QLineEdit()
    window.setCentralWidget(line)
    shortcuts.install()
    harness.press("A", line)
    harness.press("N", line)
    assert (line.text.lower(), pressed) == ("an", [])


def test_a_panel_may_use_some_keys_only(scene: Any) -> None:
    from SAM2IterativeGUI.shortcuts import Shortcuts

    some = Shortcuts({"accept": print, "legend": print})
    assert [shortcut.keys for shortcut in some.shortcuts] == ["A", "H"]
    assert "<b>A</b>" in some.legend()
    assert "<b>X</b>" not in some.legend()
    assert some.tip("accept", "Accept the case") == "Accept the case (A)"
    assert some.tip("reject", "Reject the case") == "Reject the case"


def test_an_action_without_a_key_is_a_mistake(scene: Any) -> None:
    from SAM2IterativeGUI.shortcuts import Shortcuts

    with pytest.raises(ValueError, match="dance"):
        Shortcuts({"dance": print})


def test_without_a_main_window_nothing_happens(shortcuts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer.util

    monkeypatch.setattr(slicer.util, "mainWindow", lambda: None)
    shortcuts.install()
    shortcuts.remove()


def test_the_legend_shows_every_key_with_its_meaning(shortcuts: Any) -> None:
    legend = shortcuts.legend()
    for shortcut in shortcuts.shortcuts:
        assert f"<b>{shortcut.keys}</b>" in legend
        assert shortcut.text in legend
