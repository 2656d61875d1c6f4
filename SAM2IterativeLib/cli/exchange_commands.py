"""``predict`` and ``export``: labels leave the project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..exchange import export_labels
from ..messages import Message, Warned
from ..review import Review
from ..wording import counted
from .console import Channel, ProjectFolder, console, opened, remark
from .run_commands import stop_on_interrupt

_FORMATS = ("nrrd", "nifti", "nnunet", "dicom")


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("predict")(predict)
    app.command("export")(export)


def predict(
    project: ProjectFolder,
    images: Annotated[Path, typer.Option("--images", help="Folder of new images.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the label maps, named like the images.")],
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    channel: Channel = None,
) -> None:
    """Label new volumes with the last round's dedicated network."""
    from ..device import choose_device
    from ..inference import predict_folder

    with opened(project, to_write=False) as found, stop_on_interrupt() as stop_asked:
        chosen = choose_device(device)
        result = predict_folder(found, images, output, chosen, channel=channel, report=_tell_warnings, stop=stop_asked)
    for name, sentence in result.set_aside:
        remark(f"{name} (set aside)", sentence)
    console.print(f"{counted(len(result.written), 'label map')} written.")
    if not result.written:
        raise typer.Exit(1)


def _tell_warnings(message: Message) -> None:
    if isinstance(message, Warned):
        name, _, sentence = message.sentence.partition(": ")
        remark(name, sentence)


def export(
    project: ProjectFolder,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty folder.")],
    format: Annotated[str, typer.Option("--format", help="nrrd (Slicer segmentations), nifti, nnunet or dicom.")] = "nrrd",
    reviewed_only: Annotated[bool, typer.Option("--reviewed-only", help="Leave out what no person has decided on.")] = False,
) -> None:
    """Write the best labels of every case: a person's where a person spoke, else the newest pseudo-labels."""
    if format not in _FORMATS:
        raise typer.BadParameter(", ".join(_FORMATS), param_hint="--format")
    with opened(project, to_write=False) as found:
        report = export_labels(found, folder, format, pseudo_labels=not reviewed_only)  # type: ignore[arg-type] # checked above
        left_out = {name for name, _ in report.refused}
        open_cases = [c.id for c in found.cases("unlabelled", usable=True) if c.id not in left_out and Review(found).is_open(c)]
    if open_cases and not reviewed_only:
        remark("A machine's labels, not yet decided by a person", ", ".join(open_cases))
    for name, sentence in report.refused:
        remark(f"{name} (left out)", sentence)
    console.print(f"{len(report.written)} files written.")
    if not report.written:
        raise typer.Exit(1)
