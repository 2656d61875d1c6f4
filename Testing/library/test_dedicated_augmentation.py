"""dedicated.augmentation: all chance in one place; batched = one by one; image and labels stay together."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from dedicated_cases import PLAN_2D, PLAN_3D, STILL, case

from SAM2IterativeLib.dedicated.augmentation import Augmentation, augment, crop, sample_augmentation, vary_intensities
from SAM2IterativeLib.dedicated.plan import AugmentationPlan, Plan
from SAM2IterativeLib.dedicated.sampling import Batch, Sampler

STRONG = AugmentationPlan(**{name: 0.7 for name in AugmentationPlan.__dataclass_fields__ if name.endswith("_chance")}, mirror_axes=(1, 2))
PLANS = [PLAN_2D, PLAN_3D]


def drawn_batch(plan: Plan, count: int = 4) -> Batch:
    sampler = Sampler([case(n, plan) for n in range(2)], replace(plan, batch=count, foreground_share=1.0))
    return sampler.cut(sampler.sample_spots(np.random.default_rng(1)))


def patch_of(plan: Plan) -> tuple[int, ...]:
    return plan.patch[3 - plan.dimensions :]


def part(drawn: Augmentation, n: int) -> Augmentation:
    own = {f.name: getattr(drawn, f.name)[n : n + 1] for f in fields(drawn) if f.name != "noise_seed"}
    return Augmentation(**own, noise_seed=drawn.noise_seed)


@pytest.mark.parametrize("plan", PLANS)
def test_nothing_drawn_changes_nothing(plan: Plan) -> None:
    plan = replace(plan, augmentation=STILL)
    batch = drawn_batch(plan)
    result = augment(batch, sample_augmentation(np.random.default_rng(0), plan, 4), patch_of(plan))
    expected = crop(batch, patch_of(plan))
    assert torch.allclose(result.image, expected.image, atol=1e-5)
    assert torch.equal(result.labels, expected.labels) and torch.allclose(result.weights, expected.weights)


@pytest.mark.parametrize("plan", PLANS)
def test_the_same_draw_gives_the_same_batch_and_another_another(plan: Plan) -> None:
    plan = replace(plan, augmentation=STRONG)
    batch = drawn_batch(plan)
    one, again, other = (augment(batch, sample_augmentation(np.random.default_rng(s), plan, 4), patch_of(plan)) for s in (3, 3, 4))
    assert torch.equal(one.image, again.image) and torch.equal(one.labels, again.labels)
    assert not torch.equal(one.image, other.image)


@pytest.mark.parametrize("plan", PLANS)
def test_batched_equals_one_by_one(plan: Plan) -> None:
    """All kinds but the noise, which is drawn for the batch as a whole."""
    plan = replace(plan, augmentation=replace(STRONG, noise_chance=0.0))
    batch = drawn_batch(plan)
    drawn = sample_augmentation(np.random.default_rng(7), plan, 4)
    whole = augment(batch, drawn, patch_of(plan))
    for n in range(4):
        single = Batch(batch.image[n : n + 1], batch.labels[n : n + 1], batch.weights[n : n + 1], 1)
        alone = augment(single, part(drawn, n), patch_of(plan))
        assert torch.allclose(alone.image[0], whole.image[n], atol=1e-3)
        assert torch.equal(alone.labels[0], whole.labels[n])


@pytest.mark.parametrize("plan", PLANS)
def test_labels_follow_the_image(plan: Plan) -> None:
    """An image that shows its own labels still shows them after every movement."""
    moving = {f"{name}_chance": 1.0 for name in ("rotation", "scale", "shift", "elastic")}
    plan = replace(plan, augmentation=replace(STILL, **moving, mirror_axes=(1, 2)))
    batch = drawn_batch(plan)
    middle = batch.image.shape[1] // 2
    image = batch.image.clone()
    image[:, middle] = batch.labels.float()
    result = augment(replace(batch, image=image), sample_augmentation(np.random.default_rng(2), plan, 4), patch_of(plan))
    inside = result.weights > 0
    seen = result.image[:, middle].round().long()
    assert (seen == result.labels)[inside].float().mean() > 0.97
    assert not torch.equal(result.labels, crop(batch, patch_of(plan)).labels)


def test_mirroring_mirrors_only_the_planned_axes() -> None:
    for axes, dims in (((1,), [1]), ((2,), [2]), ((0, 1, 2), [0, 1, 2])):
        plan = replace(PLAN_3D, augmentation=replace(STILL, mirror_axes=axes))
        batch = drawn_batch(plan, count=2)
        expected = crop(batch, plan.patch)
        seen = set()
        for seed in range(12):
            result = augment(batch, sample_augmentation(np.random.default_rng(seed), plan, 2), plan.patch)
            for n in range(2):
                options = [tuple(d for b, d in enumerate(dims) if mask >> b & 1) for mask in range(2 ** len(dims))]
                match = [o for o in options if torch.allclose(result.image[n, 0], expected.image[n, 0].flip(o), atol=1e-4)]
                assert len(match) == 1
                seen.add(match[0])
        assert len(seen) > 1


def test_rotation_is_in_millimetres() -> None:
    """A quarter turn of a 20 x 10 mm bar with unequal spacing gives a bar of 10 x 20 mm."""
    plan = replace(PLAN_2D, spacing=(1.0, 2.0, 1.0), patch=(1, 32, 64), neighbours=0)
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    spacing = torch.tensor([2.0, 1.0])
    drawn = sample_augmentation(np.random.default_rng(0), replace(plan, augmentation=STILL), 1)
    drawn = replace(drawn, matrix=(quarter * spacing / spacing[:, None])[None])
    labels = torch.zeros(1, 32, 64, dtype=torch.long)
    labels[:, 11:21, 27:37] = 1  # 20 mm of rows, 10 mm of columns
    result = augment(Batch(labels[:, None].float(), labels, torch.ones(1, 32, 64), 1), drawn, (32, 64)).labels[0]
    rows, columns = torch.nonzero(result.any(1)).numel() * 2.0, torch.nonzero(result.any(0)).numel() * 1.0
    assert (rows, columns) == (pytest.approx(10, abs=2), pytest.approx(20, abs=2))


def test_size_grows_and_shrinks() -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, scale_chance=1.0, scale=(1.3, 1.3)))
    batch = drawn_batch(plan)
    result = augment(batch, sample_augmentation(np.random.default_rng(0), plan, 4), (32, 32))
    before = (crop(batch, (32, 32)).labels > 0).sum()
    assert (result.labels > 0).sum() / before == pytest.approx(1.3**2, rel=0.1)


def test_what_moves_in_from_outside_has_no_weight() -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, shift_chance=1.0, shift=0.4))
    result = augment(drawn_batch(plan), sample_augmentation(np.random.default_rng(3), plan, 4), (32, 32))
    empty = (result.image == 0).all(1)
    assert empty.any()
    assert result.weights[empty].sum() == 0


@pytest.mark.parametrize("name", ["noise", "blur", "gain", "contrast", "coarse", "gamma", "inverted_gamma"])
def test_each_intensity_change_is_drawn_by_its_chance_alone(name: str) -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, **{f"{name}_chance": 0.5}, coarse=(0.5, 0.9)))
    drawn = sample_augmentation(np.random.default_rng(0), plan, 200)
    image = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = (vary_intensities(image, drawn) - image).abs().amax((1, 2, 3)) > 1e-4
    assert changed.float().mean() == pytest.approx(0.5, abs=0.12)
    nothing = 0.0 if name in ("noise", "blur") else 1.0
    assert torch.equal(changed, getattr(drawn, name) != nothing)


def test_gamma_keeps_mean_and_deviation() -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, gamma_chance=1.0, inverted_gamma_chance=1.0))
    image = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 3 + 1
    result = vary_intensities(image, sample_augmentation(np.random.default_rng(0), plan, 4))
    assert torch.allclose(result.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-3)
    assert torch.allclose(result.std((1, 2, 3)), image.std((1, 2, 3)), rtol=1e-3)


def test_blur_keeps_a_constant_and_smooths_an_edge() -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, blur_chance=1.0))
    drawn = sample_augmentation(np.random.default_rng(0), plan, 1)
    constant = torch.full((1, 3, 16, 16), 2.5)
    assert torch.allclose(vary_intensities(constant, drawn), constant, atol=1e-5)
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    blurred = vary_intensities(edge, drawn)
    assert blurred[0, 0, 8, 7] > 0.05 and blurred.mean() == pytest.approx(0.5, abs=0.01)
