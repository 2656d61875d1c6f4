"""A label map as a DICOM segmentation object (highdicom makes it)."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import generate_uid

from .. import __version__
from ..errors import DataError
from ..files import atomic_write
from ..project import Case
from ..settings import Label
from ..volumes import LabelMap
from .dicom import source_datasets
from .terminology import Code, codes_of

_MAY_LACK = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
"""Attributes that the standard lets be empty and that de-identified files leave out; highdicom wants them there."""

_MUST_HAVE = ("StudyInstanceUID", "SOPClassUID", "SOPInstanceUID", "FrameOfReferenceUID")
"""What a segmentation takes over from its images and cannot make up."""


def write_segmentation(case: Case, label_map: LabelMap, labels: Sequence[Label], path: Path, reviewer: str = "") -> None:
    """Write a segmentation that belongs to the series a case came from. It names the patient, as that series does.

    Raises:
        DataError: the case did not come from DICOM, its series is no longer where it was, or lacks what a segmentation must refer to.
    """
    sources = source_datasets(case)
    lacking = next((name for dataset, name in itertools.product(sources, _MUST_HAVE) if not dataset.get(name)), None)
    if lacking:
        sentence = f"its series does not say its {lacking}, without which there is no DICOM segmentation."
        raise DataError(sentence, where=case.id, cure="Export it as NIfTI or seg.nrrd.")
    if len({dataset.SOPInstanceUID for dataset in sources}) < len(sources):
        sentence = "several of its slices bear the same id (SOPInstanceUID), so a DICOM segmentation cannot name them."
        raise DataError(sentence, where=case.id, cure="Export it as NIfTI or seg.nrrd.")
    segmentation = segmentation_of(sources, label_map, labels, reviewer)
    segmentation.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, since label names may be in any script
    with atomic_write(path) as temporary:
        segmentation.save_as(temporary)


def segmentation_of(sources: Sequence[Dataset], label_map: LabelMap, labels: Sequence[Label], reviewer: str) -> Segmentation:
    """A binary segmentation of the source images.

    Args:
        sources: one dataset per slice, in the label map's slice order.
        label_map: only labels that occur are stored.
        labels: names, colours and terminology.
        reviewer: who vouches for it; empty for an unreviewed pseudo-label.
    """
    present = [label for label in labels if label.value in label_map.values] or list(labels[:1])
    for dataset in sources:
        for name in _MAY_LACK:
            if name not in dataset:
                setattr(dataset, name, "")
        if not dataset.get("SliceThickness"):
            dataset.SliceThickness = label_map.geometry.spacing[0]
    pixels = label_map.classes([label.value for label in labels])
    number_of = {label.value: n for n, label in enumerate(present, 1)}
    table = np.array([0, *(number_of.get(label.value, 0) for label in labels)], np.uint8)
    identity = hashlib.sha256(label_map.array.tobytes()).hexdigest()
    return hd.seg.Segmentation(
        source_images=list(sources),
        pixel_array=table[pixels],
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(label, n, reviewer) for n, label in enumerate(present, 1)],
        series_instance_uid=_uid("series", sources, identity),
        series_number=900,
        sop_instance_uid=_uid("instance", sources, identity),
        instance_number=1,
        manufacturer="SAM2Iterative",
        manufacturer_model_name="SAM2Iterative",
        software_versions=__version__,
        device_serial_number="1",
        content_label="SEGMENTATION",
        series_description="SAM2Iterative" + (", reviewed" if reviewer else ", not reviewed"),
        omit_empty_frames=bool(label_map.values),
    )


def _description(label: Label, number: int, reviewer: str) -> SegmentDescription:
    category, kind = codes_of(label.terminology)
    algorithm = hd.AlgorithmIdentificationSequence(
        name="SAM2Iterative", family=CodedConcept("123110", "DCM", "Artificial Intelligence"), version=__version__
    )
    semi, automatic = hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC, hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=_concept(category),
        segmented_property_type=_concept(kind),
        algorithm_type=semi if reviewer else automatic,
        algorithm_identification=algorithm,
        tracking_uid=None,
    )
    description.RecommendedDisplayCIELabValue = list(hd.color.CIELabColor(*_lab(label.colour)).value)
    return description


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, code.meaning[:64])


def _uid(kind: str, sources: Sequence[Dataset], identity: str) -> str:
    """The same unique id for the same images and labels, so that exporting twice makes no second object."""
    return generate_uid(entropy_srcs=[kind, str(sources[0].SeriesInstanceUID), identity])


def _lab(colour: Sequence[int]) -> tuple[float, float, float]:
    """CIE L*a*b* (D65) of an sRGB colour (0-255), by the CIE's definition."""
    rgb = np.array(colour) / 255.0
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    ratio = matrix @ linear / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return float(116 * f[1] - 16), float(500 * (f[0] - f[1])), float(200 * (f[1] - f[2]))
