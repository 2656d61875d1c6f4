"""``new``, ``import``, ``status``: a project and its cases."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.table import Table

from ..agreement import contested
from ..errors import DataError
from ..exchange import ImportOptions, ImportReport, import_any
from ..learning import learning_of, validation_remarks
from ..project import Project, Role
from ..review import Review
from ..settings import Settings
from ..vocabulary import review_state
from ..wording import counted
from .console import Channel, ProjectFolder, console, opened, remark
from .next_steps import command
from .tables import rounds_table, show_with_legend

_Labels = Annotated[Path | None, typer.Option("--labels", help="Folder of label maps; one with an image's name makes that case labelled.")]
_Names = Annotated[str, typer.Option("--label-names", help="Names by comma; a leading 'background' stands for 0.")]
_Opaque = Annotated[bool, typer.Option("--opaque-ids", help="Name cases case_0001, ... instead of after their files.")]
_Resample = Annotated[bool, typer.Option("--resample-sheared", help="Make right-angled copies of images whose axes are sheared.")]
_Mismatch = Annotated[
    str, typer.Option("--on-mismatch", help="Label map on another grid than its image: refuse, 'copy geometry', or resample.")
]


def register(app: typer.Typer) -> None:
    """Add this file's commands."""
    app.command("new")(new)
    app.command("import")(import_cases)
    app.command("status")(status)
    app.command("role")(set_role)


def new(
    project: ProjectFolder,
    images: Annotated[Path, typer.Option("--images", help="Folder of images, nnU-Net or Decathlon data set, DICOM series, or pictures.")],
    labels: _Labels = None,
    label_names: _Names = "",
    method: Annotated[str, typer.Option("--method", help="The system to follow: ifdl, or knowledge_mining, made for 2-D images.")] = "ifdl",
    opaque_ids: _Opaque = False,
    resample_sheared: _Resample = False,
    on_mismatch: _Mismatch = "refuse",
    channel: Channel = None,
) -> None:
    """Make a project from a folder of images, some of them with label maps."""
    from ..methods import method_names

    if method not in method_names():
        raise typer.BadParameter(f"known methods are {', '.join(method_names())}", param_hint="--method")
    with _nothing_left_without_cases(project), Project.create(project, Settings(method=method)) as made:
        options = _options(opaque_ids, resample_sheared, on_mismatch, channel)
        report = _import(made, images, labels, label_names, None, options)
        _show_import(made, report)
        if not report.added:
            raise DataError("no image could be used.", where=images.name, cure="Mend the files, then try again.")
        if made.cases("labelled"):
            then = command("run", project, "--rounds", 3)
        else:
            again = command("import", project, "--images", images, "--labels", "LABELS")
            then = f"label a few of them, name each label map after its image (of DICOM its case's id), then {again}"
        console.print(f"\nNext: {then}", soft_wrap=True, highlight=False)


@contextmanager
def _nothing_left_without_cases(folder: Path) -> Iterator[None]:
    """Remove a new project that no case came into, so that the mended command can be given again; with cases, ``import`` goes on."""
    existed = folder.exists()
    empty = not existed or (folder.is_dir() and not any(folder.iterdir()))
    try:
        yield
    finally:
        if empty and folder.is_dir() and not (folder / "cases").exists():
            for path in folder.iterdir():  # the folder itself stays where it was there: it may be the one that one is in
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if not existed:
                folder.rmdir()


def import_cases(
    project: ProjectFolder,
    images: Annotated[Path, typer.Option("--images", help="As in 'new'.")],
    labels: _Labels = None,
    label_names: _Names = "",
    validation: Annotated[bool, typer.Option("--validation", help="Keep these labelled cases for validation: never trained on.")] = False,
    opaque_ids: _Opaque = False,
    resample_sheared: _Resample = False,
    on_mismatch: _Mismatch = "refuse",
    channel: Channel = None,
) -> None:
    """Add cases to a project."""
    with opened(project, to_write=True) as found:
        role: Role | None = "validation" if validation else None
        options = _options(opaque_ids, resample_sheared, on_mismatch, channel)
        _show_import(found, _import(found, images, labels, label_names, role, options))
        for case, sentence in validation_remarks(found) if validation else ():
            remark(case, sentence)


def _options(opaque_ids: bool, resample_sheared: bool, on_mismatch: str, channel: int | None) -> ImportOptions:
    if on_mismatch not in ("refuse", "copy geometry", "resample"):
        raise typer.BadParameter("refuse, 'copy geometry' or resample", param_hint="--on-mismatch")
    return ImportOptions(resample_sheared, on_mismatch, opaque_ids, channel)  # type: ignore[arg-type] # checked above


def _import(project: Project, images: Path, labels: Path | None, names: str, role: Role | None, options: ImportOptions) -> ImportReport:
    with Bar(console=console, transient=True) as bar:
        task = bar.add_task("Reading", total=None)
        return import_any(
            project,
            images,
            labels,
            label_names=tuple(name.strip() for name in names.split(",")) if names.strip() else (),
            role=role,
            options=options,
            on_case=lambda done, total, name: bar.update(task, completed=done, total=total, description=f"Reading {name}"),
        )


def _show_import(project: Project, report: ImportReport) -> None:
    for name, sentence in report.remarks:
        remark(name, sentence)
    for name, sentence in report.set_aside:
        remark(f"{name} (set aside)", sentence)
    if report.ignored:
        what = "no images, or label maps of no image here; a label map bears its image's name"
        remark(f"Left out, {what}", ", ".join(report.ignored))
    labelled = sum(case.label is not None for case in report.added)
    console.print(
        f"{counted(len(report.added), 'case')} added, {labelled} of them with a label map; {len(report.completed)} completed,"
        f" {len(report.known)} known already, {len(report.set_aside)} set aside."
    )
    _show_labels(project)


def _show_labels(project: Project) -> None:
    listed = ", ".join(f"{label.value} {escape(label.name)}" for label in project.settings.labels)
    console.print(f"Labels: {listed or 'none yet'}", soft_wrap=True, highlight=False)


def status(project: ProjectFolder, cases: Annotated[bool, typer.Option("--cases", help="List every case.")] = False) -> None:
    """Show cases, rounds, what waits for review, and disk use."""
    with opened(project, to_write=False) as found:
        review = Review(found)
        queue = review.queue()
        waiting = [entry for entry in queue if entry.round is not None]
        everyone = found.cases()
        console.print(f"[bold]{escape(found.settings.name)}[/], method {found.settings.method}")
        _show_labels(found)
        for role in ("labelled", "unlabelled", "validation", "excluded"):
            console.print(f"  {role:11} {sum(c.role == role and not c.set_aside for c in everyone):5}")
        for case in everyone:
            if case.set_aside:
                remark(f"  {case.id} (set aside)", case.set_aside)
        _show_rounds(found)
        _show_unfinished(found)
        unproposed = f"{len(queue) - len(waiting)} without a proposal yet, " if len(queue) > len(waiting) else ""
        waits = f"{counted(len(waiting), 'case')} {'waits' if len(waiting) == 1 else 'wait'} for review"
        console.print(f"{waits}, {unproposed}{len(review.decided())} decided.")
        contradicted = [case.id for case in everyone if contested(review, case)]
        if contradicted:
            names = ", ".join(contradicted)
            remark("Reviewers contradict each other on", f"{names}. The newest decision counts; 'review show' has them all.")
        used = found.disk_used()
        console.print("Disk: " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in used.items() if size))
        if cases:
            _show_cases(found, review)


def _show_rounds(project: Project) -> None:
    if project.journal.rounds():
        show_with_legend(console, *rounds_table(project))
    else:
        console.print("No round is finished yet.")
    for case, sentence in validation_remarks(project):
        remark(case, sentence)
    gap = learning_of(project).gap
    if gap and project.cases("validation", usable=True):
        remark("Validation", f"{gap} Whether a validation case was among them is not known.")


def _show_unfinished(project: Project) -> None:
    """How far a round is that runs now, or was stopped."""
    finished = project.journal.rounds()
    units = [unit for unit in project.journal.units() if unit.round not in finished]
    if units:
        cases, counts = len(project.cases("unlabelled", "validation", usable=True)), Counter(unit.stage for unit in units)
        of_cases = {unit.stage for unit in units if unit.case}
        done = (f"{stage.replace('_', '-')} {f'{n} of {cases} cases' if stage in of_cases else 'done'}" for stage, n in counts.items())
        console.print(f"Round {units[-1].round} is under way, or was stopped: {', '.join(done)}.")


def _show_cases(project: Project, review: Review) -> None:
    uncertainties = project.journal.latest_numbers("uncertainty")
    table = Table()
    for column in ("case", "role", "review", "uncertainty"):
        table.add_column(column)
    for case in project.cases():
        number = uncertainties.get(case.id)
        state = review_state(review.status(case), review.proposal_round(case)) if case.role == "unlabelled" else ""
        table.add_row(escape(case.id), "set aside" if case.set_aside else case.role, state, f"{number[1]:.3f}" if number else "")
    console.print(table)


def set_role(
    project: ProjectFolder,
    case: Annotated[str, typer.Argument(help="The case's id.")],
    role: Annotated[str, typer.Argument(help="labelled, unlabelled, validation or excluded.")],
) -> None:
    """Change what a case is used for."""
    with opened(project, to_write=True) as found:
        changed = found.set_role(case, role)  # type: ignore[arg-type] # set_role refuses what is no role
        console.print(f"{escape(changed.id)} is {changed.role} now.")
        learned = dict(validation_remarks(found)).get(changed.id)
        if learned:
            remark(changed.id, f"{learned} Import cases that took no part yet with --validation instead.")
