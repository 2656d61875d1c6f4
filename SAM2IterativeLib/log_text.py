"""Text that may be logged and sent on: no folder of this computer, and so no patient's name in a folder's name, is left in it."""

from __future__ import annotations

import re
import traceback

_QUOTED = re.compile(r"""(["'])(?:/|[A-Za-z]:[\\/]|\\\\)(?:[^"'\n]*[\\/])?([^"'\\/\n]*)\1""")
_BARE = re.compile(r"""(?<![\w.:/\\])/(?:[^\s"'/:]+/)+([^\s"'/:]*)""")
_BARE_ON_WINDOWS = re.compile(r"""(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|\\\\)(?:[^\s"'\\/:]+[\\/])+([^\s"'\\/:]*)""")


def without_paths(text: str) -> str:
    """The text with every absolute path cut down to its last name."""
    text = _QUOTED.sub(r"\1\2\1", text)
    return _BARE_ON_WINDOWS.sub(r"\1", _BARE.sub(r"\1", text))


def traceback_text(error: BaseException) -> str:
    """An exception with its causes, as Python prints it, without absolute paths."""
    return without_paths("".join(traceback.format_exception(type(error), error, error.__traceback__)))
