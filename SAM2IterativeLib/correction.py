"""A person corrected a few slices and asks to propagate that: the correction is carried to the rest of the case.

The corrected slices go to SAM2 as exact masks and stay word for word. ``guidance.carrying`` weighs SAM2's answer against the corrected
masks and the present labels, and decides how far it reaches. Labels that were not asked for are never eaten.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .device import Device
from .errors import DataError
from .files import resolve_under
from .foundation.checkpoints import Foundation
from .foundation.features import FeatureCache, Window
from .foundation.propagation import Guidance, Propagator, axial_positions, classes_per_slice
from .guidance.carrying import SETTLED_DICE, carried_logits, merged, reached_slices, settled_dice
from .guidance.prompts import Prompt, reviewed_prompt
from .messages import CorrectionPropagated, PropagateCorrection
from .project import Project
from .settings import MemorySettings
from .volumes import LabelMap, read_label_map, require_same_grid, write_label_map

Origins = dict[int, dict[int, float]]
"""Per class to carry the corrected slices from which it is carried, each with the Dice that counts as agreement."""

_WINDOWS_KEPT = 64


@dataclass(frozen=True)
class Correction:
    """What a person corrected.

    Attributes:
        labels: class indices (k, j, i), the corrected slices among them.
        slices: the corrected slices, exactly right for every class; indices along ``axis``.
        classes: the classes to carry; empty: all.
        before: the labels before the correction, (k, j, i): only classes that changed on ``slices`` are carried, from where they
            changed. None: unknown; then a class is carried from every slice that shows it, and one named in ``classes`` from all.
        axis: array axis that the slices count along; 0 is k.
        reach: slices to go from a corrected one at most; 0: as far as it takes.
    """

    labels: NDArray[np.integer]
    slices: tuple[int, ...]
    classes: tuple[int, ...] = ()
    before: NDArray[np.integer] | None = None
    axis: int = 0
    reach: int = 0


@dataclass(frozen=True)
class Carried:
    """The proposal: class indices (k, j, i) uint8, and the slices (along the correction's axis) on which it differs."""

    labels: NDArray[np.uint8]
    slices: tuple[int, ...]


class Corrector:
    """Carries corrections with one loaded model; the features of the cases seen last are kept, so a second correction is fast.

    Args:
        memory, decay: as the project's settings have them.
        stopped: called before each slice; it may raise ``Stopped``.
    """

    def __init__(
        self,
        foundation: Foundation,
        device: Device,
        memory: MemorySettings | None = None,
        decay: float = 5.0,
        stopped: Callable[[], None] = lambda: None,
    ) -> None:
        self.foundation = foundation
        self.decay = decay
        self._features = FeatureCache(foundation, device)
        self._propagator = Propagator(foundation.model, device, memory or MemorySettings(), decay, stopped)
        self._windows: OrderedDict[tuple[str, int], Window] = OrderedDict()

    def propagate(self, key: str, image: np.ndarray, correction: Correction) -> Carried:
        """Carry one correction.

        Args:
            key: what the image is remembered under, such as its SHA-256.
            image: (k, j, i) as read, or (1, j, i, 3) colour.

        Raises:
            DataError: slices or axis that do not exist, another size than the image's, or nothing corrected on these slices.
        """
        _require_fitting(image, correction)
        view = _along(image, correction.axis)
        labels = _along(correction.labels, correction.axis).astype(np.uint8)
        before = None if correction.before is None else _along(correction.before, correction.axis).astype(np.uint8)
        origins = _origins(labels, before, correction)
        shown = (labels > 0) if before is None else (labels > 0) | (before > 0)
        window = self._window((key, correction.axis), shown)
        guidance = _guidance(labels, origins, correction)
        answer = self._propagator.propagate(self._features.get(view, window), guidance).logits
        result = self._decided(labels, before, answer, origins, correction, window)
        changed = tuple(int(z) for z in np.flatnonzero((result != labels).any(axis=(1, 2))))
        return Carried(np.ascontiguousarray(np.moveaxis(result, 0, correction.axis)), changed)

    def _decided(
        self,
        labels: NDArray[np.uint8],
        before: NDArray[np.uint8] | None,
        answer: np.ndarray,
        origins: Origins,
        correction: Correction,
        window: Window,
    ) -> NDArray[np.uint8]:
        """The new labels; outside the window SAM2 saw nothing, and nothing changes."""
        rows = slice(max(0, window.top), window.top + window.height)
        seen = (slice(None), rows, slice(max(0, window.left), window.left + window.width))
        present, others = labels[seen], np.setdiff1d(np.arange(len(labels)), correction.slices)
        logits = [np.zeros(present.shape, np.float32)]
        for c in origins:
            mask = present == c
            logits.append(
                carried_logits(
                    answer[c - 1][seen],
                    mask,
                    correction.slices,
                    decay=self.decay,
                    before=None if before is None else before[seen] == c,
                    present_speaks=bool(mask[others].any()),
                )
            )
        carried = np.array([0, *origins], np.uint8)[np.argmax(logits, axis=0)]
        reached = np.zeros((max(origins), len(labels)), dtype=bool)
        for c, starts in origins.items():
            reached[c - 1] = reached_slices(carried == c, present == c, starts, correction.slices, correction.reach)
        result = labels.copy()
        result[seen] = merged(present, carried, reached)
        return result

    def _window(self, key: tuple[str, int], shown: NDArray[np.bool_]) -> Window:
        """The window of the last correction while it still shows every label: its features are there already."""
        kept = self._windows.get(key)
        window = kept if kept is not None and _covers(kept, shown) else Window.around(shown)
        self._windows[key] = window
        self._windows.move_to_end(key)
        if len(self._windows) > _WINDOWS_KEPT:
            self._windows.popitem(last=False)
        return window


def answer_correction(project: Project, corrector: Corrector, request: PropagateCorrection) -> CorrectionPropagated:
    """Do what the message asks: read the maps from the project folder, carry the correction, write the proposal beside them.

    Raises:
        DataError, GeometryError: a map that cannot be used, see ``Corrector.propagate``.
        ProjectError: no such case, or its image was changed.
    """
    began = time.monotonic()
    case = project.case(request.case)
    volume = project.read_case_image(case)

    def classes(name: str) -> np.ndarray:
        label_map = read_label_map(resolve_under(project.folder, name), trusted=True)
        require_same_grid(label_map.geometry, volume.geometry, case.id)
        return label_map.classes(project.values)

    unknown = sorted(set(request.values) - set(project.values))
    if unknown:
        raise DataError(f"{unknown} are no labels of the project ({list(project.values)}).", where=case.id)
    asked = tuple(project.values.index(value) + 1 for value in request.values)
    before = classes(request.before) if request.before else None
    correction = Correction(classes(request.label_map), request.slices, asked, before, request.axis, request.reach)
    carried = corrector.propagate(case.image_sha256, volume.array, correction)
    path = project.cache_folder / "corrections" / case.id / "proposal.nrrd"
    write_label_map(path, LabelMap.of_classes(carried.labels, project.values, volume.geometry))
    return CorrectionPropagated(case.id, project.relative(path), time.monotonic() - began, carried.slices)


def _origins(labels: NDArray[np.uint8], before: NDArray[np.uint8] | None, correction: Correction) -> Origins:
    """What is carried, and from where.

    Raises:
        DataError: there is none.
    """
    corrected = sorted(set(correction.slices))
    origins: Origins = {}
    for c in sorted(set(correction.classes)) or range(1, int(labels.max(initial=0)) + 1):
        mask = labels == c
        if before is not None:
            starts = [z for z in corrected if not np.array_equal(mask[z], before[z] == c)]
        else:
            starts = [z for z in corrected if mask[z].any() or correction.classes]
        if starts and mask.any():
            origins[c] = {z: SETTLED_DICE if before is None else settled_dice(before[z] == c, mask[z]) for z in starts}
    if not origins:
        raise DataError(
            f"nothing was corrected on the slices {corrected} that could be carried to others.",
            cure="Correct a segment there first, or choose other slices.",
        )
    return origins


def _guidance(labels: NDArray[np.uint8], origins: Origins, correction: Correction) -> Guidance:
    """Every corrected slice as an exact mask, an empty one too: it says that the class is not there."""
    count = max(origins)
    prompts: dict[int, list[Prompt]] = {}
    for c in origins:
        mask = labels == c
        slices = set(correction.slices)
        if not mask[sorted(slices)].any():
            # Only erased: SAM2 must see somewhere what it is about, or it would find it nowhere.
            slices.add(int(mask.sum(axis=(1, 2)).argmax()))
        prompts[c] = [reviewed_prompt(mask[z], z, c) for z in sorted(slices)]
    allowed = None
    if correction.reach:
        allowed = np.zeros((count, len(labels)), dtype=bool)
        for c, starts in origins.items():
            for z in starts:
                allowed[c - 1, max(0, z - correction.reach) : z + correction.reach + 1] = True
    return Guidance(count, prompts, allowed, axial_positions(labels > 0), classes_per_slice(labels))


def _require_fitting(image: np.ndarray, correction: Correction) -> None:
    if correction.axis not in (0, 1, 2) or (image.ndim == 4 and correction.axis):
        raise DataError(f"{correction.axis} is no axis to count slices along.", cure="Use 0, 1 or 2; for colour pictures 0.")
    for array in (correction.labels, correction.before):
        if array is not None and array.shape != image.shape[:3]:
            raise DataError(f"the labels have the size {array.shape}, the image {image.shape[:3]}.")
    slices = image.shape[correction.axis]
    if not correction.slices or not all(0 <= z < slices for z in correction.slices):
        raise DataError(f"the slices {list(correction.slices)} are not among the {slices} slices of the image.")


def _along(array: np.ndarray, axis: int) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, axis, 0))


def _covers(window: Window, shown: NDArray[np.bool_]) -> bool:
    for first, size, axis in ((window.top, window.height, (0, 2)), (window.left, window.width, (0, 1))):
        found = np.flatnonzero(shown.any(axis=axis))
        if len(found) and (found[0] < first or found[-1] >= first + size):
            return False
    return True
