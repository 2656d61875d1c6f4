"""dedicated.prediction: probabilities on the original grid, whatever its size, spacing and orientation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dedicated_cases import CPU, PLAN_2D, PLAN_3D, STILL, ball, case

from SAM2IterativeLib.dedicated.networks import Weights, build_network, weights_of
from SAM2IterativeLib.dedicated.plan import AugmentationPlan, Normalisation, Plan
from SAM2IterativeLib.dedicated.prediction import Predictor
from SAM2IterativeLib.dedicated.resampling import planned_size, turn
from SAM2IterativeLib.dedicated.training import Task, TrainedNetwork, train
from SAM2IterativeLib.errors import Stopped, WeightsError
from SAM2IterativeLib.metrics import dice
from SAM2IterativeLib.volumes import Geometry

SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


@pytest.fixture(scope="module")
def trained() -> TrainedNetwork:
    plan = replace(PLAN_2D, first_steps=80, augmentation=STILL)
    return train(Task(plan, [case(n, plan) for n in range(3)], CPU))


def fresh(plan: Plan) -> Weights:
    return weights_of(build_network(plan, 0))


def test_a_trained_network_finds_the_ball(trained: TrainedNetwork) -> None:
    image, labels = ball(40)
    found = Predictor(PLAN_2D, trained.weights, CPU).predict(image, Geometry(labels.shape)).argmax(0)
    for value in (1, 2):
        score = dice(found == value, labels == value)
        assert score is not None and score > 0.8


@pytest.mark.parametrize("plan", [PLAN_2D, PLAN_3D])
@pytest.mark.parametrize("size", [(1, 9, 11), (5, 33, 20), (20, 70, 41)])
def test_any_size_comes_back_as_probabilities(plan: Plan, size: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).normal(size=size).astype(np.float32)
    result = Predictor(plan, fresh(plan), CPU).predict(image, Geometry(size, (2.0, 0.8, 1.2)))
    assert result.shape == (3, *size) and result.dtype == np.float32
    assert np.allclose(result.sum(0), 1, atol=1e-5) and result.min() >= 0


def test_a_turned_volume_gives_the_turned_answer(trained: TrainedNetwork) -> None:
    image, labels = ball(41)
    predictor = Predictor(PLAN_2D, trained.weights, CPU)
    upright = predictor.predict(image, Geometry(labels.shape))
    lying = turn(image, "SPL", "LIP")
    result = predictor.predict(lying, Geometry(lying.shape, direction=SAGITTAL))
    assert np.array_equal(turn(result, "LIP", "SPL"), upright)


def test_another_spacing_gives_nearly_the_same_answer(trained: TrainedNetwork) -> None:
    image, labels = ball(42)
    predictor = Predictor(PLAN_2D, trained.weights, CPU)
    fine = np.repeat(np.repeat(image, 2, axis=1), 2, axis=2)
    result = predictor.predict(fine, Geometry(fine.shape, (1.0, 0.5, 0.5))).argmax(0)
    score = dice(result[:, ::2, ::2] > 0, labels > 0)
    assert result.shape == fine.shape and score is not None and score > 0.85


def test_mirrored_prediction_averages_the_planned_mirror_images() -> None:
    plan = replace(PLAN_2D, augmentation=AugmentationPlan(mirror_axes=(2,)))
    image, labels = ball(44)
    geometry = Geometry(labels.shape)
    plain = Predictor(replace(plan, mirrored_prediction=False), fresh(plan), CPU)
    expected = (plain.predict(image, geometry) + plain.predict(image[:, :, ::-1], geometry)[..., ::-1]) / 2
    assert np.allclose(Predictor(plan, fresh(plan), CPU).predict(image, geometry), expected, atol=1e-5)


def test_slices_far_larger_than_the_patch_are_seen_window_by_window(trained: TrainedNetwork) -> None:
    image, labels = ball(45)
    wide = np.pad(image, ((0, 0), (40, 30), (10, 60)))
    result = Predictor(PLAN_2D, trained.weights, CPU).predict(wide, Geometry(wide.shape)).argmax(0)
    score = dice(result[:, 40:-30, 10:-60] > 0, labels > 0)
    assert score is not None and score > 0.7


def test_batches_of_slices_do_not_matter(monkeypatch: pytest.MonkeyPatch, trained: TrainedNetwork) -> None:
    image, labels = ball(46)
    expected = Predictor(PLAN_2D, trained.weights, CPU).predict(image, Geometry(labels.shape))
    monkeypatch.setattr("SAM2IterativeLib.dedicated.prediction._SLICES_AT_ONCE", 3)
    assert np.allclose(Predictor(PLAN_2D, trained.weights, CPU).predict(image, Geometry(labels.shape)), expected, atol=1e-5)


@pytest.mark.parametrize("tiles", [1, 4])
def test_full_memory_is_answered_by_fewer_slices_and_windows(monkeypatch: pytest.MonkeyPatch, trained: TrainedNetwork, tiles: int) -> None:
    image = np.tile(ball(47)[0], (1, tiles, tiles))
    geometry = Geometry(image.shape)
    predictor = Predictor(PLAN_2D, trained.weights, CPU)
    expected = predictor.predict(image, geometry)
    real = predictor._forward

    def forward(part: torch.Tensor) -> torch.Tensor:
        if len(part) > 4:
            raise torch.OutOfMemoryError("full")
        return real(part)

    monkeypatch.setattr(predictor, "_forward", forward)
    assert np.allclose(predictor.predict(image, geometry), expected, atol=1e-5)


def test_colour_pictures() -> None:
    plan = replace(PLAN_2D, channels=3, neighbours=0, normalisation=Normalisation("colour"))
    picture = np.random.default_rng(0).integers(0, 256, (1, 40, 52, 3), dtype=np.uint8)
    assert Predictor(plan, fresh(plan), CPU).predict(picture, Geometry((1, 40, 52))).shape == (3, 1, 40, 52)


def test_a_stop_is_obeyed() -> None:
    image, labels = ball(0)
    with pytest.raises(Stopped):
        Predictor(PLAN_2D, fresh(PLAN_2D), CPU).predict(image, Geometry(labels.shape), stop=lambda: True)


def test_weights_of_another_plan_are_refused() -> None:
    with pytest.raises(WeightsError):
        Predictor(PLAN_3D, fresh(PLAN_2D), CPU)


@pytest.mark.parametrize("patches", [(), ((1, 32, 32), (1, 16, 32), (1, 16, 32))])
def test_views_are_averaged_on_the_case_s_own_grid(patches: tuple[tuple[int, int, int], ...]) -> None:
    plan = replace(PLAN_2D, views=(0, 1, 2), view_patches=patches)
    image, labels = ball(3)
    geometry = Geometry(labels.shape)
    weights = fresh(plan)
    together = Predictor(plan, weights, CPU).predict(image, geometry)
    single = [replace(plan.across(view), views=(view,)) for view in plan.views]
    alone = [Predictor(one, weights, CPU).predict(image, geometry) for one in single]
    assert np.allclose(together, np.mean(alone, axis=0), atol=1e-5)
    turned = np.moveaxis(image, 2, 0)
    across = Predictor(replace(single[2], views=(0,)), weights, CPU).predict(turned, Geometry(turned.shape))
    assert np.allclose(np.moveaxis(across, 1, 3), alone[2], atol=1e-4), "a side view is the slices of the turned volume"


def test_side_views_work_on_cubic_voxels(trained: TrainedNetwork) -> None:
    plan = replace(PLAN_2D, views=(0, 1, 2), spacing=(1.0, 1.0, 1.0))
    thick = Geometry((8, 40, 44), (2.0, 1.0, 1.0))
    assert planned_size(thick, plan) == (16, 40, 44) and planned_size(thick, PLAN_2D) == (8, 40, 44)
    result = Predictor(plan, trained.weights, CPU).predict(np.zeros(thick.size, np.float32), thick)
    assert result.shape == (3, 8, 40, 44)
