"""What the review reads and compares, as arrays: prompts on turned grids, the order of the slices, what a person changed."""

from __future__ import annotations

import numpy as np
import pytest

from SAM2IterativeGUI.review_changes import Baseline, change_between, merged
from SAM2IterativeGUI.review_material import on_grid
from SAM2IterativeLib.methods.working_grid import WorkingGrid
from SAM2IterativeLib.orientation import orientation_of
from SAM2IterativeLib.round_files import KeyFramePrompt
from SAM2IterativeLib.volumes import Geometry, LabelMap

_GRID = Geometry((6, 10, 8), (2.5, 0.7, 0.9), (-31.5, 12.25, 100.125))
_NONE = np.zeros((0, 3))


def _map(array: np.ndarray) -> LabelMap:
    return LabelMap(array.astype(np.uint8), _GRID)


@pytest.mark.parametrize("orientation", ["", "SPL", "IPL", "PSL", "ASL", "LPS", "RAI"])
def test_prompts_lie_where_they_were_given_however_sam2_saw_the_case(orientation: str) -> None:
    grid = WorkingGrid(_GRID, orientation or orientation_of(_GRID.direction))
    box = grid.ras_of(np.array([[2, 0.5, 1.5], [2, 0.5, 4.5], [2, 3.5, 4.5], [2, 3.5, 1.5]]))
    inside = grid.ras_of(np.array([[2, 2, 3]]))
    along, (prompt,) = on_grid([KeyFramePrompt(7, 2, False, box, inside, _NONE)], _GRID, (3, 7), None, orientation)
    assert (prompt.class_index, prompt.negative_points.shape, prompt.mask) == (2, (0, 2), None)
    shown = along.ras_of((prompt.slice_index, *prompt.positive_points[0]))
    np.testing.assert_allclose(shown, inside[0], atol=1e-4)
    assert prompt.box is not None
    j0, i0, j1, i1 = (edge - 0.5 for edge in prompt.box)
    corners = along.ras_of(np.array([(prompt.slice_index, j, i) for j in (j0, j1) for i in (i0, i1)]))
    np.testing.assert_allclose(np.sort(corners, axis=0), np.sort(box, axis=0), atol=1e-4)


@pytest.mark.parametrize("orientation", ["", "IPL", "LPS", "RAI"])
def test_what_a_reviewer_drew_is_found_on_its_slice(orientation: str) -> None:
    grid = WorkingGrid(_GRID, orientation or orientation_of(_GRID.direction))
    labels = np.random.default_rng(0).integers(0, 2, _GRID.size)
    seen = grid.turned(labels)
    along, (prompt,) = on_grid([KeyFramePrompt(1, 1, True, _NONE, _NONE, _NONE)], _GRID, (1,), _map(labels), orientation)
    assert prompt.mask is not None and prompt.mask.sum() == seen[1].sum()
    places = along.ras_of(np.array([(prompt.slice_index, *point) for point in np.argwhere(prompt.mask)]))
    expected = grid.ras_of(np.array([(1, *point) for point in np.argwhere(seen[1])]))
    key = [tuple(np.round(point, 3)) for point in places]
    assert sorted(key) == sorted(tuple(np.round(point, 3)) for point in expected)


def test_the_view_in_which_a_person_drew_is_recognised() -> None:
    before = np.zeros(_GRID.size, np.uint8)
    axial, sagittal = before.copy(), before.copy()
    axial[(2, 4), 3:6, 2:6] = 1
    sagittal[1:5, 3:6, 2] = 2
    assert change_between(before, before) is None
    found = change_between(before, axial)
    assert found is not None and (found.axis, found.slices, found.values) == (0, (2, 4), (1,))
    found = change_between(before, sagittal)
    assert found is not None and (found.axis, found.slices, found.values) == (2, (2,), (2,))
    found = change_between(axial, sagittal)
    assert found is not None and found.values == (1, 2)


def test_a_correction_counts_from_the_last_result_until_that_is_undone() -> None:
    opened, drawn, result = np.zeros(_GRID.size), np.zeros(_GRID.size), np.zeros(_GRID.size)
    drawn[2, 3:6, 2:6] = 1
    result[1:5, 3:6, 2:6] = 1
    baseline = Baseline(_map(opened))
    baseline.result_came(_map(drawn), _map(result))
    assert baseline.change(_map(result)) is None
    more = result.copy()
    more[5, 0, 0] = 1
    change = baseline.change(_map(more))
    assert change is not None and change.slices == (5,)
    change = baseline.change(_map(drawn))
    assert change is not None and change.slices == (2,), "the result was undone"
    assert baseline.change(_map(result)) is None, "and done again"


def test_later_strokes_lie_over_a_result() -> None:
    sent, shown, result = np.zeros(_GRID.size), np.zeros(_GRID.size), np.full(_GRID.size, 1)
    shown[5, 0, 0] = 2
    expected = np.full(_GRID.size, 1)
    expected[5, 0, 0] = 2
    np.testing.assert_array_equal(merged(_map(result), _map(sent), _map(shown)).array, expected)
