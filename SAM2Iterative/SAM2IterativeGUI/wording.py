"""Times and sizes as a person reads them."""

from __future__ import annotations

from slicer.i18n import tr as _


def duration(seconds: float) -> str:
    """ "40 s", "3 min", "2 h 05 min"."""
    if seconds < 59.5:
        return _("{n} s").format(n=f"{seconds:.0f}")
    minutes = round(seconds / 60)
    if minutes < 60:
        return _("{n} min").format(n=minutes)
    return _("{h} h {m} min").format(h=minutes // 60, m=f"{minutes % 60:02d}")


def bytes_text(count: int | None) -> str:
    """ "340 MB", "2.1 GB"."""
    if count is None:
        return _("an unknown amount")
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
