"""The progress of a run on a terminal: stage, case, the rounds' numbers, time left."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from ..messages import (
    CaseSetAside,
    Message,
    Needs,
    Progress,
    RoundFinished,
    RunFailed,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    Warned,
)
from ..wording import counted, duration
from .tables import round_table, show_legend, validation_line


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
        self._explained = False
        self._bars.start()

    def close(self) -> None:
        """Give the terminal back."""
        self._bars.stop()

    def show(self, message: Message) -> None:
        """React to one message."""
        if isinstance(message, StageStarted):
            self._bars.update(self._task, description=escape(unit_name(message)), completed=message.done / max(1, message.total))
        elif isinstance(message, Progress):
            left = "" if message.seconds_left is None else f"the run: about {duration(message.seconds_left)} left"
            self._bars.update(self._task, completed=message.fraction, note=escape("  ".join(t for t in (message.text, left) if t)))
            if message.stage == "adaptation" and message.fraction == 1 and message.text:
                self._console.print(escape(message.text), highlight=False)
        elif isinstance(message, StageFinished):
            if not self._console.is_terminal:
                self._console.print(f"{unit_name(message)}: {message.seconds:.0f} s", highlight=False)
        else:
            self._print(message)

    def _print(self, message: Message) -> None:
        if isinstance(message, RunStarted):
            self._console.print(_what_a_round_does(message), highlight=False)
            self._console.print(escape(message.device), highlight=False)
        elif isinstance(message, RoundFinished):
            self._show_round(message)
        elif isinstance(message, CaseSetAside):
            self._console.print(f"[yellow]{escape(message.case)} was set aside[/]: {escape(message.sentence)}", soft_wrap=True)
        elif isinstance(message, Warned):
            self._console.print(f"[yellow]{escape(message.sentence)}[/]", soft_wrap=True)
        elif isinstance(message, Needs):
            self._show_needs(message)
        elif isinstance(message, RunFinished):
            self._console.print(f"[green]{escape(message.reason)}[/]")
        elif isinstance(message, RunFailed):
            self._console.print(f"[bold red]Problem:[/] {escape(message.sentence)}", soft_wrap=True)

    def _show_needs(self, message: Needs) -> None:
        self._console.print(escape(message.device), highlight=False)
        if message.seconds is not None:
            time = duration(message.seconds)
            self._console.print(f"The rounds asked for take about {time}; half of that or double may come true.", highlight=False)
        memory = "" if message.memory is None else f"Memory: about {message.memory / 1e9:.1f} GB. "
        disk = f"Disk: at most {message.disk / 1e9:.1f} GB, {message.disk_free / 1e9:.1f} GB are free."
        self._console.print(memory + disk, highlight=False)
        for remark in message.remarks:
            self._console.print(f"[yellow]{escape(remark)}[/]", soft_wrap=True)

    def _show_round(self, message: RoundFinished) -> None:
        table, terms = round_table(message.round, message.numbers)
        self._console.print(table)
        for line in (validation_line(message.numbers), f"The round took {duration(message.numbers.get('seconds') or 0)}."):
            if line:
                self._console.print(line, highlight=False)
        if not self._explained:
            show_legend(self._console, [*terms, *(["dice"] if validation_line(message.numbers) else [])])
        self._explained = True


def _what_a_round_does(message: RunStarted) -> str:
    """Training steps and cases of the rounds that come."""
    later = f"round{'s' if message.rounds > 1 else ''} of {message.round_steps} training steps"
    if message.first == 0:
        begin = f"Round 0 trains {message.first_steps} steps on the labelled cases"
        steps = f"{begin}, each later round {message.round_steps}." if message.rounds > 1 else f"{begin}."
    else:
        steps = f"{message.rounds} {later}."
    return f"{steps} Every round then labels {counted(message.cases, 'case')}."


def unit_name(message: StageStarted | StageFinished) -> str:
    """A unit of work in words."""
    return f"Round {message.round} · {message.stage.replace('_', '-')}" + (f" {message.case}" if message.case else "")
