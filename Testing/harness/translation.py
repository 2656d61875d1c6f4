"""Stands in for ``slicer.i18n``: no translation is installed, so every text stays as it is."""

from __future__ import annotations


def tr(text: str) -> str:
    """The text in the application's language."""
    return text


def translate(context: str, text: str) -> str:
    """The text in the application's language, in the words of ``context``."""
    return text
