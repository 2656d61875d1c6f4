"""The progress of a run on a terminal: stage, case, the rounds' numbers, time left."""

from __future__ import annotations

from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ..messages import (
    CaseSetAside,
    Message,
    Progress,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    Warned,
)

_COLUMNS = {"uncertainty": "uncertainty", "agreement": "agreement", "stability": "stability", "key_frames": "key frames"}


class LiveDisplay:
    """Shows messages as they come; where no terminal can redraw a bar, each finished unit is a line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._task = self._bars.add_task("", total=1.0, note="")
        self._bars.start()

    def close(self) -> None:
        """Give the terminal back."""
        self._bars.stop()

    def show(self, message: Message) -> None:
        """React to one message."""
        if isinstance(message, StageStarted):
            self._bars.update(self._task, description=escape(_unit(message)), completed=message.done / max(1, message.total))
        elif isinstance(message, Progress):
            left = "" if message.seconds_left is None else f"about {timedelta(seconds=round(message.seconds_left))} left"
            self._bars.update(self._task, completed=message.fraction, note=escape("  ".join(t for t in (message.text, left) if t)))
            if message.stage == "adaptation" and message.fraction == 1 and message.text:
                self._console.print(escape(message.text), highlight=False)
        elif isinstance(message, StageFinished):
            if not self._console.is_terminal:
                self._console.print(f"{_unit(message)}: {message.seconds:.0f} s", highlight=False)
        else:
            self._print(message)

    def _print(self, message: Message) -> None:
        if isinstance(message, RunStarted):
            self._console.print(f"{message.cases} cases to label. {escape(message.device)}", highlight=False)
        elif isinstance(message, RoundFinished):
            self._console.print(round_table(message))
        elif isinstance(message, CaseSetAside):
            self._console.print(f"[yellow]{escape(message.case)} was set aside[/]: {escape(message.sentence)}", soft_wrap=True)
        elif isinstance(message, Warned):
            self._console.print(f"[yellow]{escape(message.sentence)}[/]", soft_wrap=True)
        elif isinstance(message, RunFinished):
            self._console.print(f"[green]{escape(message.reason)}[/]")
        elif isinstance(message, RunFailed):
            self._console.print(f"[bold red]Problem:[/] {escape(message.sentence)}", soft_wrap=True)


def _unit(message: StageStarted | StageFinished) -> str:
    return f"Round {message.round} · {message.stage.replace('_', '-')}" + (f" {message.case}" if message.case else "")


def round_table(message: RoundFinished) -> Table:
    """A round's numbers in one row; with validation cases their Dice too."""
    numbers = message.numbers
    table = Table(title=f"Round {message.round}", title_justify="left")
    values: dict[str, object] = {title: numbers.get(name) for name, title in _COLUMNS.items()}
    for name, scores in numbers.get("validation", {}).items():
        values[f"{name.replace('_', '-')} Dice"] = scores.get("dice")
    for title in values:
        table.add_column(title, justify="right")
    table.add_row(*("–" if value is None else f"{value:.3f}" for value in values.values()))
    return table
