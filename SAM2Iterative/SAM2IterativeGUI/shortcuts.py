"""Keys for reviewing: installed on the main window while the module is open, and gone when it is left.

No key belongs to the Segment Editor itself (1-9, 0, Q, W, Z, Y, I, Space, Esc, comma, period, ...) or to a slice view (arrows, B,
F, G, R, T, V, brackets): two shortcuts on one key make both dumb. Its effects have keys of their own, which reach them only where no
shortcut takes them before: Draw closes an outline with A or Enter, and deletes its last point with X. So the keys that decide about a
case rest while an effect is active.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import qt
import slicer.util
from slicer.i18n import tr as _


@dataclass(frozen=True)
class Shortcut:
    """One key: ``action`` names what the panel does, ``text`` tells it to a person.

    Attributes:
        rests: whether it does nothing while an effect of the Segment Editor is active.
    """

    keys: str
    action: str
    text: str
    rests: bool = False


def all_shortcuts() -> tuple[Shortcut, ...]:
    """Every key there is, in the order of the legend."""
    return (
        Shortcut("C", "coarse", _("coarse mask on or off")),
        Shortcut("S", "propagated", _("SAM2 result on or off")),
        Shortcut("M", "proposal", _("mask under review on or off")),
        Shortcut("K", "other", _("the other reviewer's mask on or off")),
        Shortcut("U", "uncertainty", _("uncertainty on or off")),
        Shortcut("P", "prompts", _("key frames and prompts on or off")),
        Shortcut("O", "outlines", _("outlines or filled areas")),
        Shortcut("D", "compare", _("coarse mask and SAM2 result side by side")),
        Shortcut("J", "next_uncertain", _("next most uncertain slice")),
        Shortcut("Shift+J", "previous_uncertain", _("previous most uncertain slice")),
        Shortcut("A", "accept", _("accept"), rests=True),
        Shortcut("X", "reject", _("reject"), rests=True),
        Shortcut("E", "correct", _("correct with the Segment Editor")),
        Shortcut("Shift+P", "propagate", _("propagate my correction")),
        Shortcut("L", "lock", _("lock or unlock the segment")),
        Shortcut("N", "next_case", _("next case")),
        Shortcut("Shift+N", "previous_case", _("previous case")),
        Shortcut("Shift+A", "take_back", _("take the last decision back"), rests=True),
        Shortcut("H", "legend", _("show or hide these keys")),
    )


class Shortcuts:
    """The keys of a panel.

    Args:
        actions: what each key does, by the action's name; keys without an action are neither installed nor shown.

    Raises:
        ValueError: an action that has no key.
    """

    def __init__(self, actions: Mapping[str, Callable[[], object]]) -> None:
        known = all_shortcuts()
        unknown = sorted(set(actions) - {shortcut.action for shortcut in known})
        if unknown:
            raise ValueError(f"there is no key for {', '.join(unknown)}")
        self.shortcuts = tuple(shortcut for shortcut in known if shortcut.action in actions)
        self._actions = dict(actions)
        self._installed: list[tuple[Shortcut, Any]] = []
        self._resting = False

    def install(self) -> None:
        """Take the keys, on Slicer's main window; nothing happens where there is none or they are taken already."""
        window = slicer.util.mainWindow()
        if window is None or self._installed:
            return
        for shortcut in self.shortcuts:
            key = qt.QShortcut(qt.QKeySequence(shortcut.keys), window)
            key.autoRepeat = False  # a key that is held down must not accept one case after the other
            key.connect("activated()", self._actions[shortcut.action])
            key.setEnabled(not (self._resting and shortcut.rests))
            self._installed.append((shortcut, key))

    def rest(self, resting: bool) -> None:
        """Whether an effect of the Segment Editor is active, to which the keys that decide give way."""
        self._resting = resting
        for shortcut, key in self._installed:
            key.setEnabled(not (resting and shortcut.rests))

    def remove(self) -> None:
        """Give the keys back."""
        for _shortcut, key in self._installed:
            key.setEnabled(False)
            key.setParent(None)
            key.deleteLater()
        self._installed.clear()

    def legend(self) -> str:
        """All keys as a small HTML table, two columns of keys with their meanings, and which of them rest when."""
        cells = [f"<td><b>{shortcut.keys}</b>&nbsp;</td><td>{shortcut.text}&nbsp;&nbsp;</td>" for shortcut in self.shortcuts]
        half = (len(cells) + 1) // 2
        rows = (f"<tr>{left}{right}</tr>" for left, right in zip(cells[:half], [*cells[half:], ""], strict=False))
        resting = ", ".join(shortcut.keys for shortcut in self.shortcuts if shortcut.rests)
        text = _("While an effect of the Segment Editor is active, which may need them itself, these keys rest: {keys}. Esc ends it.")
        return f"<table>{''.join(rows)}</table>" + (f"<p>{text.format(keys=resting)}</p>" if resting else "")

    def tip(self, action: str, text: str) -> str:
        """A tooltip with its key at the end: "Accept the case (A)"."""
        keys = next((shortcut.keys for shortcut in self.shortcuts if shortcut.action == action), "")
        return f"{text} ({keys})" if keys else text
