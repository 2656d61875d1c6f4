"""What a person changed in a mask: on which slices, in which labels. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from SAM2IterativeLib.volumes import LabelMap

_RESULTS_KEPT = 10
"""As many as can be undone."""


@dataclass(frozen=True)
class Change:
    """Where two label maps differ.

    Attributes:
        axis: array axis along which the fewest slices differ: the view in which the person drew (0: k).
        slices: along ``axis``, ascending.
        values: label values, ascending, that gained or lost voxels.
    """

    axis: int
    slices: tuple[int, ...]
    values: tuple[int, ...]


def change_between(before: np.ndarray, now: np.ndarray) -> Change | None:
    """How ``now`` differs from ``before``, both (k, j, i) label values; None where it does not."""
    changed = before != now
    if not changed.any():
        return None
    touched = [np.flatnonzero(changed.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    axis = int(np.argmin([len(slices) for slices in touched]))  # the first of equals, which is k
    values = np.union1d(before[changed], now[changed])
    return Change(axis, tuple(int(k) for k in touched[axis]), tuple(int(v) for v in values if v))


@dataclass
class Baseline:
    """The mask against which a correction counts: as it was opened, or as SAM2's last result left it. Undo is noticed.

    Attributes:
        label_map: the mask that counts now.
    """

    label_map: LabelMap
    _results: list[tuple[np.ndarray, LabelMap, LabelMap]] = field(default_factory=list)

    def result_came(self, shown: LabelMap, result: LabelMap) -> None:
        """A result took the place of ``shown``; what a person draws from now on counts against it."""
        self._results = [*self._results[1 - _RESULTS_KEPT :], (shown.array, self.label_map, result)]
        self.label_map = result

    def decided(self, label_map: LabelMap) -> None:
        """The person vouched for this mask; corrections count from here."""
        self.label_map = label_map
        self._results.clear()

    def change(self, shown: LabelMap) -> Change | None:
        """What a person corrected, given the mask that is on the screen."""
        for before_result, baseline, result in reversed(self._results):
            if np.array_equal(shown.array, result.array):
                self.label_map = result
                break
            if np.array_equal(shown.array, before_result):
                self.label_map = baseline  # the result was taken back: the correction that led to it counts again
                break
        return change_between(self.label_map.array, shown.array)


def merged(result: LabelMap, sent: LabelMap, shown: LabelMap) -> LabelMap:
    """A result, with what the person drew after the correction was sent laid over it."""
    drawn = sent.array != shown.array
    kind = np.promote_types(result.array.dtype, shown.array.dtype)
    return LabelMap(np.where(drawn, shown.array, result.array).astype(kind), result.geometry)
