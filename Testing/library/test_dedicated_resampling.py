"""dedicated.resampling: orientation without interpolation, spacing with it, and the exact way back."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from dedicated_cases import PLAN_2D, PLAN_3D

from SAM2IterativeLib.dedicated.resampling import (
    from_plan,
    labels_to_plan,
    orientation_of,
    planned_size,
    resized,
    to_plan,
    turn,
    turned_spacing,
)
from SAM2IterativeLib.errors import DataError
from SAM2IterativeLib.volumes import Geometry

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # i → P, j → I, k → L


def smooth(size: tuple[int, int, int], geometry: Geometry) -> np.ndarray:
    """A field that is linear in the patient's coordinates, so that linear resampling reproduces it inside."""
    where = geometry.ras_of(np.moveaxis(np.indices(size), 0, -1))
    return (where @ np.array([1.0, 2.0, -3.0])).astype(np.float32)


def test_orientation_names_the_growing_directions() -> None:
    assert orientation_of(AXIAL) == "SPL"
    assert orientation_of(SAGITTAL) == "LIP"
    assert orientation_of((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)) == "SAR"


def test_an_oblique_volume_gets_each_body_axis_once() -> None:
    angle = np.radians(44)
    tilted = (np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1)
    assert orientation_of(tilted) == "SPL"


def test_every_turn_is_undone_exactly() -> None:
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    codes = ["".join(p) for axes in itertools.permutations(("LR", "AP", "SI")) for p in itertools.product(*axes)]
    assert len(codes) == 48
    for code in codes:
        assert np.array_equal(turn(turn(array, "SPL", code), code, "SPL"), array)


def test_turning_agrees_with_simpleitk() -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(1).integers(0, 99, (3, 4, 5)))
    image.SetDirection(SAGITTAL)
    expected = sitk.DICOMOrient(image, "LPS")
    turned = turn(sitk.GetArrayFromImage(image), orientation_of(SAGITTAL), "SPL")
    assert np.array_equal(turned, sitk.GetArrayFromImage(expected))
    assert turned_spacing((3.0, 2.0, 1.0), "LIP", "SPL") == (2.0, 1.0, 3.0)


@pytest.mark.parametrize("plan", [replace(PLAN_2D, spacing=(9.0, 0.7, 1.3)), replace(PLAN_3D, spacing=(2.1, 0.7, 1.3))])
@pytest.mark.parametrize("direction", [AXIAL, SAGITTAL])
def test_there_and_back_has_the_exact_size_and_place(plan, direction) -> None:  # type: ignore[no-untyped-def]
    geometry = Geometry((13, 17, 19), (2.5, 1.1, 0.9), (5.0, -7.0, 11.0), direction)
    field = smooth(geometry.size, geometry)
    planned = to_plan(field[None], geometry, plan)
    assert planned.shape[1:] == planned_size(geometry, plan)
    back = from_plan(planned, geometry, plan)
    assert back.shape == (1, *geometry.size)
    inside = (slice(3, -3),) * 3
    assert np.abs(back[0][inside] - field[inside]).max() < 0.02 * np.ptp(field)


def test_voxel_centres_keep_their_places() -> None:
    """Resampling by SimpleITK to the same extent gives the same values: no half-voxel shift."""
    values = np.random.default_rng(2).normal(size=(6, 8, 10)).astype(np.float32)
    size = (9, 12, 20)
    reference = sitk.Image(size[::-1], sitk.sitkFloat32)
    factor = [old / new for old, new in zip(values.shape[::-1], size[::-1], strict=True)]
    reference.SetSpacing(factor)
    reference.SetOrigin([(f - 1) / 2 for f in factor])
    expected = sitk.GetArrayFromImage(sitk.Resample(sitk.GetImageFromArray(values), reference, sitk.Transform(), sitk.sitkLinear))
    inside = (slice(2, -2),) * 3  # SimpleITK has no value beyond the outer centres
    assert np.allclose(resized(values[None], size)[0][inside], expected[inside], atol=1e-4)


def test_in_2d_slices_stay() -> None:
    geometry = Geometry((5, 16, 16), (7.0, 1.0, 1.0))
    image = np.random.default_rng(3).normal(size=(1, 5, 16, 16)).astype(np.float32)
    plan = replace(PLAN_2D, spacing=(2.0, 0.5, 0.5))
    result = to_plan(image, geometry, plan)
    assert result.shape == (1, 5, 32, 32)
    assert np.array_equal(to_plan(image[:, 2:3], replace(geometry, size=(1, 16, 16)), plan)[:, 0], result[:, 2])


def test_a_grid_that_no_memory_holds_is_refused() -> None:
    micrometres = Geometry((16, 32, 32), (2500.0, 1000.0, 1000.0))
    with pytest.raises(DataError, match=r"2.5e\+03 × 1e\+03 × 1e\+03 mm; on the plan's grid of 1 × 1 × 1 mm .* another unit"):
        planned_size(micrometres, PLAN_3D)
    large = Geometry((300, 512, 512), (1.0, 0.9, 0.9))
    assert planned_size(large, PLAN_3D) == (300, 461, 461)


def test_labels_stay_labels() -> None:
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[1:5, 4:16, 4:16] = 1
    labels[2:4, 8:12, 8:12] = 7
    geometry = Geometry(labels.shape, (2.0, 1.0, 1.0))
    result = labels_to_plan(labels, geometry, replace(PLAN_3D, spacing=(1.0, 0.8, 1.25)))
    assert result.shape == (12, 25, 16) and result.dtype == np.uint8
    assert set(np.unique(result)) == {0, 1, 7}
    share = [(result == value).mean() / (labels == value).mean() for value in (1, 7)]
    assert np.allclose(share, 1, atol=0.15)


def test_probabilities_still_sum_to_one_on_the_way_back() -> None:
    raw = np.random.default_rng(4).random((3, 7, 9, 11)).astype(np.float32)
    back = from_plan(raw / raw.sum(0), Geometry((10, 10, 10), (0.7, 0.9, 1.1), direction=SAGITTAL), PLAN_3D)
    assert np.allclose(back.sum(0), 1, atol=1e-5)
