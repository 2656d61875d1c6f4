"""The lists of files in the CMake files: what they say, what the tree holds, and a command that makes them agree.

``python Testing/module/cmake_lists.py`` rewrites the lists from the tree; ``test_cmake.py`` says which file they miss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_NOT_PACKAGED = ("Resources/Screenshots/", "Resources/SAM2Iterative.json")
"""For the Extensions Index only."""
_HIDDEN = ("__pycache__", ".")


@dataclass(frozen=True)
class FileList:
    """One ``set(NAME ...)`` of file names, relative to the CMake file's folder."""

    cmake: str
    name: str
    wanted: Callable[[str], bool]

    @property
    def path(self) -> Path:
        """The CMake file."""
        return REPOSITORY / self.cmake

    def listed(self) -> list[str]:
        """What the CMake file names."""
        return self._match()[2].split()

    def present(self) -> list[str]:
        """What the tree holds, sorted."""
        return sorted(name for name in _files_below(self.path.parent) if self.wanted(name))

    def rewrite(self) -> bool:
        """Make the CMake file name what the tree holds; whether that changed it."""
        match = self._match()
        text = self.path.read_text(encoding="utf-8")
        lines = "".join(f"  {name}\n" for name in self.present())
        changed = f"{text[: match.start(2)]}\n{lines}  {text[match.end(2) :]}"
        self.path.write_text(changed, encoding="utf-8")
        return changed != text

    def _match(self) -> re.Match[str]:
        match = re.search(rf"(set\({self.name}\b)([^)]*)\)", self.path.read_text(encoding="utf-8"))
        if match is None:
            raise ValueError(f"{self.cmake} has no set({self.name} ...)")
        return match


def _is_script(folder: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(folder) and name.endswith(".py")


def _is_library_resource(name: str) -> bool:
    if name.startswith("Resources/"):
        return not name.startswith(_NOT_PACKAGED)
    return name.startswith("SAM2IterativeLib/") and not name.endswith((".py", "/CMakeLists.txt"))


LISTS = (
    FileList("CMakeLists.txt", "LIBRARY_SCRIPTS", _is_script("SAM2IterativeLib/")),
    FileList("CMakeLists.txt", "LIBRARY_RESOURCES", _is_library_resource),
    FileList("SAM2Iterative/CMakeLists.txt", "MODULE_PYTHON_SCRIPTS", lambda name: name.endswith(".py")),
    FileList("SAM2Iterative/CMakeLists.txt", "MODULE_PYTHON_RESOURCES", lambda name: name.startswith("Resources/")),
)


def _files_below(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(_HIDDEN) for part in name.parts):
            yield name.as_posix()


def main() -> None:
    """Rewrite all lists and say which changed."""
    for found in LISTS:
        print(f"{found.cmake}: {found.name} {'rewritten' if found.rewrite() else 'is up to date'}")


if __name__ == "__main__":
    main()
