"""Buttons that cannot be used say why, on themselves and in a line below; and how tables look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROW_HEIGHT = 24
"""Of tables, in pixels."""


class Explained:
    """The buttons of a panel, with the tooltips of their form, and the label that says why some cannot be used.

    Args:
        label: shows the reasons, each once; hidden where there are none. None: the tooltips alone say them.
        buttons: widgets whose tooltips teach what they do.
    """

    def __init__(self, label: Any, *buttons: Any) -> None:
        self._label = label
        self._tips = {button: button.toolTip for button in buttons}

    def set(self, reasons: Mapping[Any, str]) -> None:
        """Enable the buttons whose reason is empty; disable the others, which then say theirs."""
        for button, reason in reasons.items():
            button.setEnabled(not reason)
            tip = self._tips[button]
            button.setToolTip(f"<p>{reason}</p><p>{tip}</p>" if reason else tip)
        if self._label is None:
            return
        said = list(dict.fromkeys(reason for reason in reasons.values() if reason))
        self._label.setText(" ".join(said))
        self._label.setVisible(bool(said))


def plain_table(table: Any) -> None:
    """No row numbers, low rows, the last column takes what is left."""
    table.verticalHeader().setVisible(False)
    table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
    table.horizontalHeader().setStretchLastSection(True)
    table.horizontalHeader().setHighlightSections(False)
