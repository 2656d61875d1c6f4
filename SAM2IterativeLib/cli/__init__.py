"""The terminal's front door: ``sam2-iterative``, or ``python -m SAM2IterativeLib``."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from .. import __version__
from ..errors import SAM2IterativeError, Stopped
from . import exchange_commands, model_commands, project_commands, result_commands, review_commands, run_commands
from .console import problem

app = typer.Typer(
    name="sam2-iterative",
    help="From a folder of volumes with few labels to labels for all, round by round. For research; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (project_commands, run_commands, exchange_commands, result_commands):
    module.register(app)
app.add_typer(review_commands.app, name="review")
app.add_typer(model_commands.app, name="models")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; what a person can mend is told in a sentence, exit code 1; a stop has exit code 130."""
    try:
        app()
    except Stopped:
        problem("stopped; the same command continues.")
        sys.exit(130)
    except SAM2IterativeError as error:
        problem(error.sentence)
        sys.exit(1)
    except OSError as error:
        # What the library did not foresee: a file where a folder belongs, no permission, a share that went away.
        problem(f"{Path(str(error.filename)).name + ': ' if error.filename else ''}{error.strerror or error}.")
        sys.exit(1)
