"""Commands as a person can copy them into a terminal."""

from __future__ import annotations

import os
import shlex
import subprocess

from rich.markup import escape


def command(*words: object) -> str:
    """A command of ours for the console: words with spaces are quoted, and brackets are no markup."""
    texts = ["sam2-iterative", *map(str, words)]
    return f"[bold]{escape(subprocess.list2cmdline(texts) if os.name == 'nt' else shlex.join(texts))}[/]"
