from __future__ import annotations

import numpy as np
from scipy import ndimage

from SAM2IterativeLib.doubtful_slices import MARGIN, doubt_per_slice, most_uncertain_place, near_structures, uncertain_slices

SHAPE = (12, 20, 20)
NOTHING = np.zeros(SHAPE, bool)


def box(*slices: slice) -> np.ndarray:
    mask = NOTHING.copy()
    mask[slices] = True
    return mask


def test_near_is_within_the_margin_whatever_lies_at_the_border() -> None:
    for mask in (box(slice(0, 3), slice(5, 9), slice(16, 20)), box(slice(4, 6), slice(0, 20), slice(9, 10))):
        whole = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 1), iterations=MARGIN)
        np.testing.assert_array_equal(near_structures(mask), whole)
    assert near_structures(NOTHING).all(), "without a structure doubt counts everywhere"


def test_slices_without_doubt_are_not_worth_a_look() -> None:
    doubt = np.zeros(SHAPE, np.float32)
    doubt[1, 2:6, 2:6], doubt[3, 10:18, 10:18], doubt[4, 0, 0] = 0.9, 0.5, 0.1
    assert uncertain_slices(doubt, NOTHING) == (3, 1)
    k, j, i = most_uncertain_place(doubt, NOTHING, 3)
    assert k == 3 and 11 <= j <= 16 and 11 <= i <= 16


def test_doubt_around_the_structures_goes_before_that_of_empty_border_slices() -> None:
    structures = box(slice(2, 5), slice(8, 12), slice(8, 12))
    doubt = np.zeros(SHAPE, np.float32)
    doubt[11], doubt[10] = 0.9, 0.3  # the far border: much in all, none of it near
    doubt[3, 8:10, 8:10], doubt[4, 8, 8] = 0.6, 0.6
    doubt[3, 0:6, 0:6] = 0.9  # on the same slice, far from the structure
    assert uncertain_slices(doubt, structures) == (3, 4, 11, 10)
    np.testing.assert_allclose(doubt_per_slice(doubt, structures)[[3, 4, 10, 11]], [2.4, 0.6, 0, 0], atol=1e-6)
    _, j, i = most_uncertain_place(doubt, structures, 3)
    assert 7 <= j <= 11 and 7 <= i <= 11
    assert most_uncertain_place(doubt, structures, 11)[0] == 11
