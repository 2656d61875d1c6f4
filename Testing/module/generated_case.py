"""A generated case as a round leaves it: image, true labels, a doubtful coarse mask, a SAM2 result, uncertainty and prompts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from SAM2IterativeLib.guidance.prompts import Prompt, make_prompt
from SAM2IterativeLib.guidance.uncertainty import uncertainty
from SAM2IterativeLib.phantom import LABEL_NAMES, phantom_case
from SAM2IterativeLib.settings import Label, PromptSettings
from SAM2IterativeLib.volumes import LabelMap, Volume

ARTERY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~SCT^51114001^Artery~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
LABELS = (
    Label(1, LABEL_NAMES[0], (221, 130, 101)),
    Label(7, LABEL_NAMES[1], (128, 174, 128)),
    Label(300, LABEL_NAMES[2], (111, 184, 210), ARTERY),
)
"""Values with gaps, one beyond 8 bits, one with its own terminology."""
VALUES = tuple(label.value for label in LABELS)


@dataclass(frozen=True)
class GeneratedCase:
    """Everything that the review shows of a case."""

    image: Volume
    truth: LabelMap
    coarse: LabelMap
    propagated: LabelMap
    uncertainty: np.ndarray
    prompts: tuple[Prompt, ...]
    key_slice: int


def generated_case(
    seed: int = 3, size: tuple[int, int, int] = (16, 64, 64), spacing: tuple[float, float, float] = (3.0, 1.1, 0.9)
) -> GeneratedCase:
    """Oblique, flipped and anisotropic; the same arguments give the same case."""
    image, labels = phantom_case(seed, size=size, labels=3, spacing=spacing, flipped=True, oblique=True)
    classes = np.stack([labels.array == number for number in range(4)]).astype(np.float32)
    probabilities = _doubtful(classes, seed)
    history = (probabilities + _blurred(classes, 3.0)) / 2
    doubt = uncertainty(probabilities, _blurred(classes, 3.0), history, classes).map
    key_slice = int(doubt.mean(axis=(1, 2)).argmax())
    prompts = [make_prompt(history, doubt, key_slice, number, PromptSettings()) for number in (1, 2, 3)]
    return GeneratedCase(
        image,
        truth=LabelMap.of_classes(labels.array, VALUES, labels.geometry),
        coarse=LabelMap.of_classes(probabilities.argmax(axis=0), VALUES, labels.geometry),
        propagated=LabelMap.of_classes(ndimage.grey_opening(labels.array, (1, 3, 3)), VALUES, labels.geometry),
        uncertainty=doubt,
        prompts=tuple(prompt for prompt in prompts if prompt is not None),
        key_slice=key_slice,
    )


def _doubtful(classes: np.ndarray, seed: int) -> np.ndarray:
    """A network's probabilities: blurred, and wrong in patches where the blur left a choice."""
    blurred = _blurred(classes, 2.0)
    random = np.random.default_rng(seed)
    noise = np.stack([ndimage.gaussian_filter(random.normal(size=classes.shape[1:]), (1.5, 4.0, 4.0)) for _ in classes])
    undecided = (blurred > 0.02) & (blurred < 0.98)
    return _shared(blurred * np.exp(1.1 * noise / noise.std() * undecided))


def _blurred(classes: np.ndarray, pixels: float) -> np.ndarray:
    return _shared(np.stack([ndimage.gaussian_filter(one, (1.0, pixels, pixels)) for one in classes]))


def _shared(weights: np.ndarray) -> np.ndarray:
    positive = np.clip(weights, 1e-4, None)
    return (positive / positive.sum(axis=0)).astype(np.float32)
