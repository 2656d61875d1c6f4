"""The methods that there are, found without importing them: their files need torch, which may not be installed."""

from __future__ import annotations

import ast
from pathlib import Path

import SAM2IterativeLib

_MARK = "METHOD"


def methods_on_disk() -> dict[str, str]:
    """Name -> what it does, the first sentence of its description's second paragraph; for every file of the library that holds a method."""
    folder = Path(SAM2IterativeLib.__file__).parent / "methods"
    found = {}
    for path in sorted(folder.glob("[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)}
        if _MARK in names:
            paragraphs = (ast.get_docstring(tree) or path.stem).split("\n\n")
            text = " ".join(paragraphs[min(1, len(paragraphs) - 1)].split())
            found[path.stem] = f"{text.split('. ')[0].rstrip('.')}."
    return found
