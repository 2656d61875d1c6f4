"""dedicated.cases: normalisation, and cases on the plan's grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dedicated_cases import PLAN_2D, PLAN_3D, ball

from SAM2IterativeLib.dedicated.cases import channels_first, normalised, prepare_case, prepare_image
from SAM2IterativeLib.dedicated.plan import Normalisation
from SAM2IterativeLib.errors import DataError, GeometryError
from SAM2IterativeLib.volumes import Geometry


def test_zscore_does_not_depend_on_the_scanner_scale() -> None:
    image, _ = ball(0)
    one, other = (normalised(values[None], PLAN_2D) for values in (image, 731.0 * image + 5000))
    assert one.dtype == np.float32
    assert abs(one.mean()) < 1e-3 and abs(one.std() - 1) < 0.05
    assert np.allclose(one, other, atol=1e-3)


def test_percentiles_keep_an_outlier_from_mattering() -> None:
    image, _ = ball(0)
    spoiled = image.copy()
    spoiled[0, 0, 0] = 1e9
    change = np.abs(normalised(spoiled[None], PLAN_2D) - normalised(image[None], PLAN_2D)).ravel()[1:]
    assert change.max() < 0.1


def test_zeros_outside_an_organ_stay_zero() -> None:
    plan = replace(PLAN_2D, normalisation=Normalisation(ignore_zeros=True))
    image = np.zeros((1, 4, 10, 10), np.float32)
    image[:, :, 3:7, 3:7] = np.random.default_rng(0).normal(500, 20, (1, 4, 4, 4))
    result = normalised(image, plan)
    assert not result[image == 0].any()
    assert abs(result[image != 0].mean()) < 0.01 and abs(result[image != 0].std() - 1) < 0.05
    assert not normalised(np.zeros_like(image), plan).any()


def test_ct_uses_the_plans_window_for_every_image() -> None:
    plan = replace(PLAN_2D, normalisation=Normalisation("ct", -100, 300, 50, 25))
    result = normalised(np.array([-1000, -100, 50, 300, 3000], np.int16).reshape(1, 1, 1, 5), plan)
    assert result.ravel().tolist() == [-6, -6, 0, 10, 10]


def test_a_constant_image_gives_no_nan() -> None:
    assert not normalised(np.full((1, 2, 3, 3), 7, np.int16), PLAN_2D).any()


def test_colour_becomes_three_channels() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 20, 24, 3), dtype=np.uint8)
    plan = replace(PLAN_2D, channels=3, neighbours=0, normalisation=Normalisation("colour"))
    result = prepare_image(picture, Geometry((1, 20, 24)), plan)
    assert result.shape == (3, 1, 20, 24) and channels_first(picture).shape == (3, 1, 20, 24)
    assert np.allclose(result[1, 0], picture[0, :, :, 1] / 127.5 - 1, atol=1e-5)


def test_case_on_the_plans_grid() -> None:
    image, labels = ball(1)
    weights = np.full(labels.shape, 0.5, np.float32)
    geometry = Geometry(labels.shape, (2.0, 1.0, 1.0))
    result = prepare_case("a", image, geometry, replace(PLAN_3D, spacing=(1.0, 2.0, 2.0)), labels, weights, labelled=False)
    assert result.image.shape == (1, 28, 16, 15)
    assert result.labels.shape == result.weights.shape == (28, 16, 15)
    assert np.allclose(result.weights, 0.5, atol=1e-5) and not result.labelled


def test_without_weights_every_voxel_counts_fully() -> None:
    image, labels = ball(1)
    result = prepare_case("a", image, Geometry(labels.shape), PLAN_2D, labels)
    assert (result.weights == 1).all() and result.labelled


def test_labels_of_another_size_are_refused_by_name() -> None:
    image, labels = ball(1)
    with pytest.raises(GeometryError, match=r"case_7: the labels have size \(13, 32, 30\), the image \(14, 32, 30\)"):
        prepare_case("case_7", image, Geometry(labels.shape), PLAN_2D, labels[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 3, "neighbours": 0}, "1 channels, the network is made for images with 3"),
        ({"classes": 1}, r"hold class 2, the plan knows 0\.\.1"),
    ],
)
def test_a_case_that_does_not_fit_the_plan_is_refused(changes: dict[str, int], message: str) -> None:
    image, labels = ball(1)
    result = prepare_case("case_7", image, Geometry(labels.shape), PLAN_2D, labels)
    with pytest.raises(DataError, match=f"case_7: .*{message}"):
        result.check(replace(PLAN_2D, **changes))  # type: ignore[arg-type]
