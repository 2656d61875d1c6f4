"""``run``, ``pretrain``, ``adapt``, ``demo``: what takes minutes to hours."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ..errors import SAM2IterativeError, SettingsError
from ..log_text import fault_sentence, records_sent_to, traceback_text
from ..messages import Log, Message, Reporter, RunFailed, StageStarted, to_line
from ..project import Project
from ..settings import replaced
from ..wording import duration
from .console import ProjectFolder, console, errors, opened
from .live_display import LiveDisplay, unit_name
from .next_steps import command

_ROUNDS = 3
_Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("run")(run)
    app.command("adapt")(adapt)
    app.command("pretrain")(pretrain)
    app.command("demo")(demo)


def run(
    project: ProjectFolder,
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            min=1,
            help="Rounds to do; the first time, round 0 is extra. Default: 3; with --until-converged as many as rounds.maximum allows.",
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="Change the method for this and later runs.")] = "",
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda or mps, for this and later runs; default: the project's setting.")
    ] = "",
    until_converged: Annotated[bool, typer.Option("--until-converged", help="Stop earlier once the labels stand still.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Print JSON lines instead of the display, for other programs.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Change the seed for this and later runs.")] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only try out how long it would take, and how much memory and disk; no round is run.")
    ] = False,
) -> None:
    """Run rounds: train, predict, propagate, fuse. Ctrl-C stops at a safe point; the same command continues."""
    from ..device import choose_device
    from ..iteration import Iteration, run_safely
    from ..methods import load_method
    from ..needs import estimate_run
    from ..round_method import require_method

    with (
        failures_as_events(events),
        opened(project, to_write=True) as found,
        stop_on_interrupt() as stop_asked,
        reporter(found, events, stop_asked) as report,
    ):
        wanted = found.settings
        for name, value in (("method", method), ("device", device), ("seed", seed)):
            if value not in ("", None):
                wanted = replaced(wanted, name, value)
        chosen = choose_device(wanted.device)
        load_method(wanted.method)
        require_method(found, wanted.method)
        count = rounds or (wanted.rounds.maximum if until_converged else _ROUNDS)
        if estimate:
            needs = run_safely(lambda: estimate_run(found, chosen, report, count, wanted), report)
            if needs is None:
                raise typer.Exit(1)
            report(needs)
            return
        found.change_settings(wanted)  # only now: a mistake in one of them would stand in the way of every later run
        if not events:
            _tell_time_of_a_round(found, project)
        result = run_safely(lambda: Iteration(found, chosen, report, stop_asked).run(count, until_converged=until_converged), report)
    if result is None:
        raise typer.Exit(130 if stop_asked() else 1)
    if not events:
        console.print(f"Next: {command('report', project)} and {command('review', 'list', project)}", soft_wrap=True, highlight=False)


def _tell_time_of_a_round(project: Project, folder: Path) -> None:
    """How long a round took so far, or how that can be known."""
    known = [numbers["seconds"] for round, numbers in project.journal.rounds().items() if round > 0 and numbers.get("seconds")]
    if known:
        console.print(f"A round took about {duration(sum(known) / len(known))} so far.", highlight=False)
    elif not project.journal.rounds():
        how = f"How long that takes, minutes or hours: {command('run', folder, '--estimate')} tries it out."
        console.print(how, soft_wrap=True, highlight=False)


@contextlib.contextmanager
def failures_as_events(events: bool) -> Iterator[None]:
    """Tell a program that reads events also of what keeps a run from beginning."""
    try:
        yield
    except SAM2IterativeError as error:
        if events:
            print(to_line(RunFailed(error.sentence, type(error).__name__)), flush=True)
        raise


@contextlib.contextmanager
def reporter(project: Project, events: bool, stop: StopFlag | None = None) -> Iterator[Reporter]:
    """Where messages go: the project's log file, and JSON lines or the live display; ``stop`` learns what it would have to wait for."""
    display = None if events else LiveDisplay(console)
    with open(project.log_path, "a", encoding="utf-8") as log:

        def report(message: Message) -> None:
            if stop is not None and isinstance(message, StageStarted):
                stop.waits_for = unit_name(message)
            line = to_line(message)
            with contextlib.suppress(OSError):  # a full disk: the run itself will say so
                log.write(line + "\n")
                log.flush()
            if display is None:
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
            else:
                display.show(message)

        try:
            with records_sent_to(lambda text: report(Log(text))):
                yield report
        except (SAM2IterativeError, OSError, typer.Exit, typer.BadParameter):
            raise
        except Exception as error:  # nobody foresaw it: the log and who reads the events must have it too
            report(RunFailed(fault_sentence(error), type(error).__name__, traceback_text(error)))
            raise typer.Exit(1) from error
        finally:
            if display is not None:
                display.close()


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[StopFlag]:
    """Ctrl-C (and SIGTERM) asks for a stop at the next safe point; a second Ctrl-C interrupts at once."""
    flag = StopFlag()
    previous = {number: signal.signal(number, flag.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class StopFlag:
    """Whether a person asked to stop; ``waits_for`` is the work in progress, which is told then."""

    def __init__(self) -> None:
        self._asked = False
        self.waits_for = "the step at hand"

    def __call__(self) -> bool:
        return self._asked

    def ask(self, number: int, frame: object) -> None:
        """A signal's handler."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        safe = f"waiting until {self.waits_for} can be left safely; what is finished is kept"
        sys.stderr.write(f"\nStopping: {safe}. Press Ctrl-C again to stop at once.\n")


def adapt(
    project: ProjectFolder,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Training steps at most; it stops earlier when nothing improves.")] = 300,
    encoder: Annotated[bool, typer.Option("--encoder/--no-encoder", help="Also adapt the image encoder, at a low rate.")] = True,
    device: _Device = "auto",
) -> None:
    """Fine-tune SAM2 on the project's labelled cases; used from then on only if it helps on a held-out labelled case."""
    from ..device import choose_device
    from ..pretraining.adaptation import AdaptationPlan, adapt_project

    with opened(project, to_write=True) as found, stop_on_interrupt() as stop_asked:
        plan = AdaptationPlan(steps=steps, encoder=encoder, seed=found.settings.seed)
        result = adapt_project(found, plan, choose_device(device), lambda done, text: console.print(text, highlight=False), stop_asked)
    console.print(result.sentence)


def pretrain(
    checkpoint: Annotated[Path, typer.Argument(help="Where the training is kept; an existing file is continued.")],
    output: Annotated[Path | None, typer.Option("--output", help="Where to write the finished weights (.safetensors).")] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="Training time over all sessions.")] = 120.0,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    start: Annotated[Path | None, typer.Option("--start", help="Finished compact weights to begin with.")] = None,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="The largest learning rate.")] = 8e-4,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Volumes a step, as a multiple; more than 1 is for GPUs.")] = 1,
    recorded: Annotated[int, typer.Option("--recorded", min=0, help="Kinds of exercises kept as CUDA graphs; with --start.")] = 0,
    device: _Device = "auto",
) -> None:
    """Make compact SAM2 weights from generated volumes. Ctrl-C keeps what is done; the same command continues."""
    from ..device import choose_device
    from ..pretraining.session import run_session
    from ..pretraining.training import PretrainingPlan

    if output is not None and output.suffix != ".safetensors":
        raise SettingsError(f"'{output.name}' must end in .safetensors.", where="--output")
    with stop_on_interrupt() as stop_asked:
        begun = 0.6 if start else 0.0  # the easy part of the curriculum is for random weights
        plan = PretrainingPlan(
            minutes=minutes, seed=seed, batch=batch, recorded=recorded, learning_rate=learning_rate, curriculum_from=begun
        )
        chosen = choose_device(device)
        run_session(plan, checkpoint, chosen, output, lambda text: console.print(text, highlight=False), stop_asked, start)


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where data and project go; new, or an earlier demo.")] = Path("demo"),
    device: _Device = "auto",
    events: Annotated[bool, typer.Option("--events", help="Print JSON lines instead of the display.")] = False,
) -> None:
    """The whole loop on generated volumes, with the shipped compact weights: a table and a report at the end."""
    from .demo import run_demo

    with stop_on_interrupt() as stop_asked:
        run_demo(folder, device, lambda project: reporter(project, events, stop_asked), stop_asked, errors if events else console)
