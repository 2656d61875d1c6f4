"""What can go wrong, told to a person: what happened, to which case or file, and what to do.

One base class; the subclasses say who can mend it. Nothing in the library raises a bare ``RuntimeError`` at a person.
"""

from __future__ import annotations

from pathlib import Path


class SAM2IterativeError(Exception):
    """Base of every error that the library raises on purpose.

    Args:
        what: one sentence, what is wrong, with the value given and the values allowed.
        where: the case, file or setting it is about; None where the sentence already names it.
        cure: one sentence, what the person can do about it.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, cure: str = "") -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.cure = cure
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """The whole message as one line: ``where: what cure``."""
        head = f"{self.where}: " if self.where else ""
        return f"{head}{self.what}" + (f" {self.cure}" if self.cure else "")


class DataError(SAM2IterativeError):
    """A file that a person gave cannot be used as it is: the case is set aside, the others go on."""


class GeometryError(DataError):
    """Image and label map (or two volumes) do not lie on the same voxel grid."""


class SettingsError(SAM2IterativeError):
    """A setting is unknown, of the wrong type or out of range."""


class ProjectError(SAM2IterativeError):
    """The project folder is missing, locked, of a newer version, or holds a changed file."""


class WeightsError(SAM2IterativeError):
    """A weight file is missing, truncated, altered or of a foreign model."""


class ResourceError(SAM2IterativeError):
    """Disk, memory or device does not suffice."""


class MissingPackageError(SAM2IterativeError):
    """A package that this action needs is not installed; the cure names the exact command."""


class Stopped(Exception):  # noqa: N818 - no error
    """Raised at a safe point after a person asked to stop. No error: the same command continues."""
