"""Text that is logged and sent on: no folder of this computer, and so no patient's name in a folder's name, is left in it."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_QUOTED = re.compile(r"""(["'])(?:/|[A-Za-z]:[\\/]|\\\\)(?:[^"'\n]*[\\/])?([^"'\\/\n]*)\1""")
_BARE = re.compile(r"""(?<![\w.:/\\])/(?:[^\s"'/:]+/)+([^\s"'/:]*)""")
_BARE_ON_WINDOWS = re.compile(r"""(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|\\\\)(?:[^\s"'\\/:]+[\\/])+([^\s"'\\/:]*)""")


def without_paths(text: str) -> str:
    """The text with every absolute path cut down to its last name."""
    text = _QUOTED.sub(r"\1\2\1", text)
    return _BARE_ON_WINDOWS.sub(r"\1", _BARE.sub(r"\1", text))


def fault_sentence(error: BaseException) -> str:
    """What a person is told of an exception that nobody foresaw."""
    what = f"{type(error).__name__}: {without_paths(str(error).strip().partition(chr(10))[0])}"
    return f"An unexpected fault ({what}). The log has the details; please report it."


def traceback_text(error: BaseException) -> str:
    """An exception with its causes, as Python prints it, without absolute paths."""
    return without_paths("".join(traceback.format_exception(type(error), error, error.__traceback__)))


@contextmanager
def records_sent_to(send: Callable[[str], None]) -> Iterator[None]:
    """Send what is logged meanwhile as text: warnings of all libraries, and our own information."""
    handler, ours = _Sending(send), logging.getLogger(__package__)
    level = ours.level
    logging.captureWarnings(True)
    logging.getLogger().addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.setLevel(level)
        logging.getLogger().removeHandler(handler)
        logging.captureWarnings(False)


class _Sending(logging.Handler):
    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self._send(without_paths(self.format(record)))
