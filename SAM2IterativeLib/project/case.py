"""A case of a project, and how it gets its id."""

from __future__ import annotations

import re
import typing
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Role = Literal["labelled", "unlabelled", "validation", "excluded"]
ROLES: tuple[Role, ...] = typing.get_args(Role)

_RESERVED_ON_WINDOWS = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))}


@dataclass(frozen=True)
class Case:
    """One image of a project, as the journal has it.

    Attributes:
        id: safe as a file name; from the source's file stem, or ``case_0001`` where the name may tell who the patient is.
        image: the project's own copy.
        label: the project's own copy of the label map that came with it; None if there is none.
        role: what the case is used for. Rounds do not learn from validation cases.
        set_aside: why the case cannot be used; empty if it can.
        image_sha256, label_sha256: of the two copies.
        source: the name of the file or folder it came from, without its path.
        details: what its importer needs to find again (e.g. the DICOM series), kept only in the journal.
    """

    id: str
    image: Path
    label: Path | None
    role: Role
    set_aside: str = ""
    image_sha256: str = ""
    label_sha256: str = ""
    source: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def has_own_labels(self) -> bool:
        """Whether its label map counts: that of a case that was made unlabelled is kept, but not looked at."""
        return self.label is not None and self.role != "unlabelled"

    @property
    def usable(self) -> bool:
        """Whether the case takes part: neither set aside nor excluded."""
        return not self.set_aside and self.role != "excluded"


def case_id_of(stem: str, taken: Collection[str] = ()) -> str:
    """A case id from a file stem: letters, digits, ``.``, ``_`` and ``-``, at most 64, unique regardless of case."""
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    base = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:64] or "case"
    if base.split(".")[0].lower() in _RESERVED_ON_WINDOWS:
        base = f"case_{base}"
    used = {name.lower() for name in taken}
    return next(name for name in _numbered(base) if name.lower() not in used)


def opaque_case_id(taken: Collection[str] = ()) -> str:
    """The next free ``case_0001``, for sources whose names may tell who the patient is."""
    return next(name for n in range(1, 10**9) if (name := f"case_{n:04d}") not in taken)


def _numbered(base: str) -> typing.Iterator[str]:
    yield base
    yield from (f"{base}_{n}" for n in range(2, 10**9))
