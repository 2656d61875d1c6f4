"""Cases coming in and labels going out, in the formats that people have."""

from __future__ import annotations

from .exporting import ExportFormat, ExportReport, export_labels
from .importing import Candidate, ImportOptions, ImportReport, import_candidates
from .masks import is_mask, labelled_mask
from .opening import import_any
from .slicer_segmentation import read_labels, write_slicer_segmentation

__all__ = [
    "Candidate",
    "ExportFormat",
    "ExportReport",
    "ImportOptions",
    "ImportReport",
    "export_labels",
    "import_any",
    "import_candidates",
    "is_mask",
    "labelled_mask",
    "read_labels",
    "write_slicer_segmentation",
]
