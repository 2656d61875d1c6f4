"""One case as the network sees it: normalised, on the plan's grid, with a weight for every voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, GeometryError
from ..volumes import Geometry
from .plan import Plan
from .resampling import labels_to_plan, to_plan


@dataclass(frozen=True)
class TrainingCase:
    """A case on the plan's grid.

    ``image`` (channels, k, j, i) float32, normalised; ``labels`` (k, j, i) uint8 class indices 0..C; ``weights`` (k, j, i) float32
    in [0, 1], 0 where a voxel teaches nothing; ``labelled`` True where a person made or checked the labels.
    The arrays may be memory-mapped: training reads only what it cuts out.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    weights: NDArray[np.float32]
    labelled: bool

    def check(self, plan: Plan) -> None:
        """Raise DataError unless the case has the plan's channels and classes, and one size."""
        if self.image.ndim != 4 or not self.image.shape[1:] == self.labels.shape == self.weights.shape:
            raise DataError(
                f"image {self.image.shape}, labels {self.labels.shape} and weights {self.weights.shape} differ in size.",
                where=self.name,
            )
        require_channels(self.image.shape[0], plan.channels, self.name)
        if int(self.labels.max(initial=0)) > plan.classes:
            raise DataError(f"the labels hold class {int(self.labels.max())}, the plan knows 0..{plan.classes}.", where=self.name)


def require_channels(found: int, wanted: int, where: str | None) -> None:
    """Raise DataError, naming ``where``, unless an image has as many values per voxel as the network is made for."""
    if found != wanted:
        raise DataError(
            f"it has {found} channels, the network is made for images with {wanted}.", where=where, cure="Give images of the same kind."
        )


def prepare_case(
    name: str,
    image: NDArray[np.generic],
    geometry: Geometry,
    plan: Plan,
    labels: NDArray[np.integer],
    weights: NDArray[np.float32] | None = None,
    *,
    labelled: bool = True,
) -> TrainingCase:
    """Bring a case onto the plan's grid.

    Args:
        name: for messages.
        image: (k, j, i), or (k, j, i, channels) for colour, as read.
        geometry: of image and labels.
        plan: grid and normalisation.
        labels: (k, j, i) class indices 0..C.
        weights: (k, j, i) in [0, 1]; None: 1 everywhere.
        labelled: False for a pseudo-label.

    Raises:
        GeometryError: labels or weights have another size than the image.
    """
    for what, array in (("labels", labels), ("weights", weights)):
        if array is not None and array.shape != geometry.size:
            raise GeometryError(f"the {what} have size {array.shape}, the image {geometry.size}.", where=name)
    return TrainingCase(name, prepare_image(image, geometry, plan), *prepare_labels(labels, geometry, plan, weights), labelled)


def prepare_labels(
    labels: NDArray[np.integer], geometry: Geometry, plan: Plan, weights: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Labels and weights of a case on the plan's grid, see ``prepare_case``."""
    grid = labels_to_plan(labels, geometry, plan)
    if weights is None:
        return grid, np.broadcast_to(np.float32(1.0), grid.shape)  # takes no memory
    return grid, to_plan(weights[None].astype(np.float32), geometry, plan)[0].clip(0.0, 1.0)


def prepare_image(image: NDArray[np.generic], geometry: Geometry, plan: Plan) -> NDArray[np.float32]:
    """Normalise an image as read and bring it onto the plan's grid: (channels, k, j, i) float32."""
    return to_plan(normalised(channels_first(image), plan), geometry, plan)


def channels_first(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """(k, j, i) or (k, j, i, channels) → (channels, k, j, i)."""
    return image[None] if image.ndim == 3 else np.moveaxis(image, -1, 0)


def normalised(image: NDArray[np.generic], plan: Plan) -> NDArray[np.float32]:
    """Apply the plan's normalisation to (channels, k, j, i); statistics are those of the whole image, per channel."""
    rule = plan.normalisation
    values = image.astype(np.float32)
    if rule.scheme == "colour":
        return np.asarray(values / 127.5 - 1.0, dtype=np.float32)
    if rule.scheme == "ct":
        return np.asarray((values.clip(rule.lower, rule.upper) - rule.mean) / rule.deviation, dtype=np.float32)
    return np.stack([_zscore(channel, rule.lower, rule.upper, rule.ignore_zeros) for channel in values])


def _zscore(values: NDArray[np.float32], lower: float, upper: float, ignore_zeros: bool) -> NDArray[np.float32]:
    """(x - mean) / deviation after clipping to two percentiles; zeros stay 0 with ``ignore_zeros``."""
    counted = values[values != 0] if ignore_zeros else values
    if counted.size == 0:
        return np.zeros_like(values)
    low, high = np.percentile(counted, (lower, upper))
    counted = counted.clip(low, high)
    result = (values.clip(low, high) - counted.mean()) / max(float(counted.std()), 1e-6)
    return np.where(values != 0, result, 0).astype(np.float32) if ignore_zeros else result.astype(np.float32)
