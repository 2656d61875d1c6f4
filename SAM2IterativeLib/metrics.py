"""How well a label map matches a reference: Dice and surface distances in millimetres, where a miss never improves a mean.

What counts (faults that others' metrics had: a missed organ gives a NaN distance, and the NaN drops out of the mean):

=========== ========= ========== ===== =======================
outcome     reference prediction Dice  distances
=========== ========= ========== ===== =======================
found       there     there      2|A∩B| / (|A|+|B|)  measured
missed      there     empty      0     the image's diagonal
false_alarm empty     there      0     the image's diagonal
absent      empty     empty      none  none: in no mean, only counted
=========== ========= ========== ===== =======================

The diagonal is the largest distance that the image allows, so a miss is worse than any structure found. Means over the found
structures alone are given beside, with the number of misses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .errors import GeometryError

Mask = NDArray[np.bool_]
Outcome = Literal["found", "missed", "false_alarm", "absent"]


@dataclass(frozen=True)
class ClassScore:
    """One label in one case. ``dice`` in [0, 1], distances in mm; all None where ``outcome`` is "absent"."""

    outcome: Outcome
    dice: float | None
    hd95_mm: float | None
    assd_mm: float | None


@dataclass(frozen=True)
class CaseScore:
    """All labels of one case, by label value."""

    per_class: Mapping[int, ClassScore]

    @property
    def dice(self) -> float | None:
        """Mean Dice over the labels that the reference or the prediction has; None where neither has any."""
        return mean_of(self.per_class.values(), lambda score: score.dice)

    @property
    def hd95_mm(self) -> float | None:
        """Mean 95th-percentile Hausdorff distance in mm, a miss counted as the image's diagonal."""
        return mean_of(self.per_class.values(), lambda score: score.hd95_mm)

    @property
    def assd_mm(self) -> float | None:
        """Mean average symmetric surface distance in mm, a miss counted as the image's diagonal."""
        return mean_of(self.per_class.values(), lambda score: score.assd_mm)


def dice(a: Mask, b: Mask) -> float | None:
    """2|A∩B| / (|A|+|B|) of two masks of one shape, in [0, 1]; None where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else None


def class_dice(a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]], class_count: int) -> NDArray[np.float64]:
    """Dice of each class 1..C between two class maps of one shape, (C,) in [0, 1]; NaN where both lack the class."""
    classes = slice(1, class_count + 1)
    in_a, in_b, shared = (np.bincount(m.ravel(), minlength=class_count + 1)[classes] for m in (a, b, a[a == b]))
    total = (in_a + in_b).astype(np.float64)
    return np.asarray(np.divide(2.0 * shared, total, out=np.full(class_count, np.nan), where=total > 0))


def surface_distances(a: Mask, b: Mask, spacing: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances in mm from every surface voxel of ``a`` to the surface of ``b``, and back.

    A surface voxel has a face-neighbour outside the mask or outside the image. A volume of one slice is measured as a 2-D
    image; otherwise each of its voxels would lie on the surface.

    Args:
        a: (k, j, i), not empty.
        b: (k, j, i), not empty.
        spacing: mm per voxel along k, j, i.

    Raises:
        ValueError: a mask is empty; there is no distance to nothing.
    """
    if not (a.any() and b.any()):
        raise ValueError("surface distances need two masks that are not empty.")
    axes = [axis for axis, length in enumerate(a.shape) if length > 1] or [0]
    # Both surfaces lie inside the joint bounding box, so distances within it are exact and much faster than in the image.
    box = ndimage.find_objects((a | b).astype(np.uint8))[0]
    a, b = (m[box].reshape([m[box].shape[axis] for axis in axes]) for m in (a, b))
    of_a, of_b = _surface(a), _surface(b)
    step = [float(spacing[axis]) for axis in axes]
    return _distance_map(of_b, step)[of_a], _distance_map(of_a, step)[of_b]


def hd95_mm(a: Mask, b: Mask, spacing: Sequence[float]) -> float:
    """The larger of the two directed 95th percentiles of ``surface_distances``, in mm (as in MONAI)."""
    a_to_b, b_to_a = surface_distances(a, b, spacing)
    return _hd95(a_to_b, b_to_a)


def assd_mm(a: Mask, b: Mask, spacing: Sequence[float]) -> float:
    """The mean of all ``surface_distances`` of both directions, in mm."""
    a_to_b, b_to_a = surface_distances(a, b, spacing)
    return _assd(a_to_b, b_to_a)


def score_class(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> ClassScore:
    """Scores of one label; masks are (k, j, i), ``spacing`` in mm along k, j, i."""
    if not reference.any() and not prediction.any():
        return ClassScore("absent", None, None, None)
    if not (reference.any() and prediction.any()):
        diagonal = float(np.linalg.norm(np.multiply(reference.shape, spacing)))
        return ClassScore("missed" if reference.any() else "false_alarm", 0.0, diagonal, diagonal)
    a_to_b, b_to_a = surface_distances(prediction, reference, spacing)
    return ClassScore("found", dice(prediction, reference), _hd95(a_to_b, b_to_a), _assd(a_to_b, b_to_a))


def score_case(
    prediction: NDArray[np.integer[Any]], reference: NDArray[np.integer[Any]], spacing: Sequence[float], labels: Sequence[int]
) -> CaseScore:
    """Scores of one case.

    Args:
        prediction: label map, (k, j, i).
        reference: label map on the same grid.
        spacing: mm per voxel along k, j, i.
        labels: the label values to score, background left out.

    Raises:
        GeometryError: the two arrays differ in shape.
    """
    if prediction.shape != reference.shape:
        raise GeometryError(
            f"the prediction has {prediction.shape} voxels (k, j, i), the reference {reference.shape}.",
            cure="Compare label maps on the same grid.",
        )
    return CaseScore({label: score_class(prediction == label, reference == label, spacing) for label in labels})


def summarise(cases: Mapping[str, CaseScore]) -> dict[str, Any]:
    """Means over all cases and labels, and the same per label and per case; ready for JSON (None, never NaN).

    Each pair of case and label that is not absent counts once. ``hd95_mm`` and ``assd_mm`` count misses and false alarms as the
    image's diagonal; ``hd95_mm_found`` and ``assd_mm_found`` leave them out and must be read beside ``missed``.

    Returns:
        ``dice, hd95_mm, assd_mm, hd95_mm_found, assd_mm_found, found, missed, false_alarms, absent``, and the same keys within
        ``per_class`` (by label value as text) and ``per_case`` (by case name; there with ``per_class`` too).
    """
    labels = sorted({label for case in cases.values() for label in case.per_class})
    return {
        **_summary([score for case in cases.values() for score in case.per_class.values()]),
        "per_class": {
            str(label): _summary([case.per_class[label] for case in cases.values() if label in case.per_class]) for label in labels
        },
        "per_case": {
            name: {
                **_summary(list(case.per_class.values())),
                "per_class": {str(label): _summary([score]) for label, score in case.per_class.items()},
            }
            for name, case in cases.items()
        },
    }


def mean_of(scores: Iterable[ClassScore], value: Callable[[ClassScore], float | None]) -> float | None:
    """Mean of a value over the scores that have it; None where none has."""
    values = [v for v in map(value, scores) if v is not None]
    return float(np.mean(values)) if values else None


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's rank correlation in [-1, 1] over the pairs where both are finite; ties get their mean rank.

    None where it is not defined: fewer than 3 such pairs, or one side constant.
    """
    x, y = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = _ranks(x[finite]), _ranks(y[finite])
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1.0, 1.0))


def _summary(scores: Sequence[ClassScore]) -> dict[str, Any]:
    found = [score for score in scores if score.outcome == "found"]
    return {
        "dice": mean_of(scores, lambda score: score.dice),
        "hd95_mm": mean_of(scores, lambda score: score.hd95_mm),
        "assd_mm": mean_of(scores, lambda score: score.assd_mm),
        "hd95_mm_found": mean_of(found, lambda score: score.hd95_mm),
        "assd_mm_found": mean_of(found, lambda score: score.assd_mm),
        "found": len(found),
        "missed": sum(score.outcome == "missed" for score in scores),
        "false_alarms": sum(score.outcome == "false_alarm" for score in scores),
        "absent": sum(score.outcome == "absent" for score in scores),
    }


def _surface(mask: Mask) -> Mask:
    return np.asarray(mask & ~ndimage.binary_erosion(mask))


def _distance_map(surface: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(ndimage.distance_transform_edt(~surface, sampling=spacing))


def _hd95(a_to_b: NDArray[np.float64], b_to_a: NDArray[np.float64]) -> float:
    return float(max(np.percentile(a_to_b, 95), np.percentile(b_to_a, 95)))


def _assd(a_to_b: NDArray[np.float64], b_to_a: NDArray[np.float64]) -> float:
    return float(np.concatenate([a_to_b, b_to_a]).mean())


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """1-based ranks, ties at their mean."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(size) - (size - 1) / 2.0)[group]
