"""``models``: SAM2 weights on this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from .console import console

app = typer.Typer(help="SAM2 weights: what is here, download, remove, verify, export.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="A name from 'models list'.", show_default=False)]


@app.command("list")
def list_models() -> None:
    """Every known model and whether it is on this computer."""
    from ..presets import installed

    table = Table()
    for column in ("model", "on this computer", "size", "about"):
        table.add_column(column)
    for name, preset, path in installed():
        size = path.stat().st_size if path else preset.size
        table.add_row(name, "yes" if path else "no", f"{size / 1e6:.0f} MB" if size else "?", preset.about)
    console.print(table)


@app.command()
def download(name: _Name, yes: Annotated[bool, typer.Option("--yes", help="Agree to the size and the source.")] = False) -> None:
    """Download a model, after you agreed to its size and source; its SHA-256 is checked."""
    from ..foundation.checkpoints import download
    from ..presets import PRESETS, preset_path

    preset = PRESETS.get(name)
    if preset and preset.url and not yes and not preset_path(name).is_file():
        size = f"{preset.size / 1e6:.0f} MB" if preset.size else "a size not known beforehand"
        yes = typer.confirm(f"Download {size} from {preset.url}?")
    path = download(name, lambda text: console.print(text, soft_wrap=True), consent=yes)
    console.print(f"{name}: {path.name} is ready.")


@app.command()
def remove(name: _Name) -> None:
    """Delete a downloaded model."""
    from ..foundation.checkpoints import remove

    console.print(f"{name}: {'removed' if remove(name) else 'nothing to remove'}.")


@app.command()
def verify(name: _Name) -> None:
    """Check a model's length and SHA-256."""
    from ..foundation.checkpoints import verify
    from ..presets import PRESETS

    digest = verify(name)
    published = PRESETS[name].sha256
    console.print(f"{name}: SHA-256 {digest} {'is as published' if published else '(none is published)'}.", soft_wrap=True)


@app.command("export")
def export_official(
    target: Annotated[Path, typer.Argument(help="The file to write (.pt).")],
    source: Annotated[Path | None, typer.Option("--from", help="A compact weight file; default: the shipped one.")] = None,
) -> None:
    """Write compact weights in SAM2's official checkpoint format."""
    from ..foundation.checkpoints import export_official, locate

    export_official(source or locate("compact")[0], target)
    console.print(f"Written: {target.name}")
