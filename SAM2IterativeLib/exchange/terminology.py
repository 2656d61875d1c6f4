"""Slicer's terminology tags: ``list~category~type~modifier~list~region~modifier``, each code ``scheme^value^meaning``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A coded concept, e.g. SCT, 85756007, Tissue."""

    scheme: str
    value: str
    meaning: str

    @property
    def text(self) -> str:
        """As Slicer writes it."""
        return f"{self.scheme}^{self.value}^{self.meaning}"


TISSUE = Code("SCT", "85756007", "Tissue")
_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"


def tag_of(terminology: str) -> str:
    """A label's terminology entry as Slicer expects it; the generic "Tissue" for an empty one."""
    return terminology or "~".join((_CONTEXT, TISSUE.text, TISSUE.text, "^^", _REGIONS, "^^", "^^"))


def codes_of(terminology: str) -> tuple[Code, Code]:
    """Category and type of a terminology entry; "Tissue" for what is missing."""
    parts = [_code(part) for part in tag_of(terminology).split("~")[1:3]]
    category, kind = (*parts, None, None)[:2]
    return category or TISSUE, kind or category or TISSUE


def _code(text: str) -> Code | None:
    scheme, _, rest = text.partition("^")
    value, _, meaning = rest.partition("^")
    return Code(scheme, value, meaning) if scheme and value and meaning else None
