"""What the commands share: the console, the way a problem is told, the way a project is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ..project import Project

console = Console()
errors = Console(stderr=True)

ProjectFolder = Annotated[Path, typer.Argument(metavar="PROJECT", help="The project's folder.", show_default=False)]
Channel = Annotated[
    int | None, typer.Option("--channel", min=0, help="Which channel to take of images with several (nnU-Net's numbers), from 0.")
]


def problem(sentence: str) -> None:
    """Tell what is wrong, on standard error."""
    errors.print(f"[bold red]Problem:[/] {escape(sentence)}", soft_wrap=True, highlight=False)


def remark(name: str, sentence: str, to: Console = console) -> None:
    """Tell what is worth knowing about a case or file."""
    for known in (name, name.rpartition(" (")[0]):  # "case_1", or "case_1 (set aside)"
        sentence = sentence.removeprefix(f"{known}: ")
    to.print(f"[yellow]{escape(name)}[/]: {escape(sentence)}", soft_wrap=True, highlight=False)


@contextmanager
def opened(folder: Path, *, to_write: bool) -> Iterator[Project]:
    """Open a project, tell its notice, close it. What the command prints may be meant for programs, so notices go to standard error."""
    with Project.open(folder, read_only=not to_write) as project:
        if to_write:
            project.require_writable()
        if project.notice:
            remark("Note", project.notice, errors)
        yield project
