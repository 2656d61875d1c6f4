"""Masks of 0 and 255, as picture editors save them (soft edges are cut when they are read, see ``label_pictures``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..settings import Label
from ..volumes import LabelMap


def is_mask(label_map: LabelMap, labels: Sequence[Label]) -> bool:
    """Whether a label map shows 255 alone, and that is no label."""
    return label_map.values == (255,) and 255 not in {label.value for label in labels}


def labelled_mask(label_map: LabelMap, labels: Sequence[Label], name: str) -> LabelMap:
    """A 0/255 mask with the value of the only label; what is no mask stays as it is.

    Args:
        label_map: as read.
        labels: the project's.
        name: the file's, for messages.

    Raises:
        DataError: a mask, but the labels are not one.
    """
    if not is_mask(label_map, labels):
        return label_map
    if len(labels) != 1:
        raise DataError(
            f"it is a 0/255 mask, but the project has the labels {[label.value for label in labels]}.",
            where=name,
            cure="Save it with the label's own value.",
        )
    value = labels[0].value
    array = np.where(label_map.array == 255, value, 0)
    return LabelMap(array.astype(np.uint8 if value <= 255 else np.uint16), label_map.geometry)
