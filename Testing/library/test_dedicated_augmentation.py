"""dedicated.augmentation: all chance in one place; batched = one by one; image and labels stay together."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from dedicated_cases import PLAN_2D, PLAN_3D, STILL, case

from SAM2IterativeLib.dedicated import augmentation
from SAM2IterativeLib.dedicated.augmentation import Augmentation, augment, reach, sample_augmentation, vary_intensities
from SAM2IterativeLib.dedicated.cases import TrainingCase
from SAM2IterativeLib.dedicated.plan import AugmentationPlan, Plan
from SAM2IterativeLib.dedicated.sampling import Batch, Cutout, Cutouts, Sampler, Spot

VIEWS_2D = replace(PLAN_2D, views=(0, 1, 2))
PLANS = [PLAN_2D, PLAN_3D]
INTENSITIES = ("noise", "blur", "gain", "contrast", "coarse", "gamma", "inverted_gamma", "curve")


def tilt_of(plan: Plan) -> float:
    return 0.0 if plan.keeps_slices else 30.0


def strong(plan: Plan) -> AugmentationPlan:
    """Every kind in most images."""
    chances = {name: 0.7 for name in AugmentationPlan.__dataclass_fields__ if name.endswith("_chance")}
    return AugmentationPlan(**chances, mirror_axes=(1, 2), tilt=tilt_of(plan))


def varied(plan: Plan, drawn: Augmentation, *, spots_seed: int = 1, show_labels: bool = False) -> Batch:
    """A batch of two balls, cut and varied as drawn; with ``show_labels`` the images show their own labels."""
    count = len(drawn.matrix)
    cases = [case(n, plan) for n in range(2)]
    if show_labels:
        cases = [replace(c, image=c.labels[None].astype(np.float32)) for c in cases]
    sampler = Sampler(cases, replace(plan, batch=count, foreground_share=1.0))
    spots = sampler.sample_spots(np.random.default_rng(spots_seed))
    return augment(sampler.cut(spots, reach(drawn, plan)), drawn, plan)


def drawing(plan: Plan, seed: int, count: int = 4) -> Augmentation:
    return sample_augmentation(np.random.default_rng(seed), plan, count)


def unvaried(plan: Plan, count: int = 4, **options: bool) -> Batch:
    still = replace(plan, augmentation=STILL)
    return varied(still, drawing(still, 0, count), **options)


def part(drawn: Augmentation, n: int) -> Augmentation:
    own = {f.name: getattr(drawn, f.name)[n : n + 1] for f in fields(drawn) if f.name != "noise_seed"}
    return Augmentation(**own, noise_seed=drawn.noise_seed)


def test_the_nearest_voxels_are_found_beside_an_apple_gpu_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, beside in (("mps", "cpu"), ("mps:0", "cpu"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        assert augmentation._where_nearest_is_known(torch.device(name)) == torch.device(beside)
    asked: list[torch.device] = []
    real = augmentation._where_nearest_is_known
    monkeypatch.setattr(augmentation, "_where_nearest_is_known", lambda device: asked.append(device) or real(device))
    unvaried(PLAN_2D)
    assert set(asked) == {torch.device("cpu")}


@pytest.mark.parametrize("plan", PLANS)
def test_nothing_drawn_changes_nothing(plan: Plan) -> None:
    """What comes out stands voxel by voxel in the case."""
    still = replace(plan, augmentation=STILL)
    cases = [case(n, plan) for n in range(2)]
    sampler = Sampler(cases, replace(plan, batch=4))
    spots = sampler.sample_spots(np.random.default_rng(1))
    drawn = drawing(still, 0)
    result = augment(sampler.cut(spots, reach(drawn, still)), drawn, still)
    for n, spot in enumerate(spots):
        inside = result.weights[n] > 0
        k, j, i = (np.arange(s, s + p) for s, p in zip(spot.start, plan.patch, strict=True))
        truth = cases[spot.case]
        rows = [np.clip(axis, 0, size - 1) for axis, size in zip((k, j, i), truth.labels.shape, strict=True)]
        labels, image = (
            torch.from_numpy(a[..., rows[0][:, None, None], rows[1][:, None], rows[2]]) for a in (truth.labels, truth.image[0])
        )
        shown = result.image[n, plan.neighbours if plan.dimensions == 2 else 0]
        wanted = (labels[0], image[0]) if plan.dimensions == 2 else (labels, image)
        assert torch.equal(result.labels[n][inside], wanted[0].long()[inside])
        assert torch.allclose(shown[inside], wanted[1][inside], atol=1e-4)


@pytest.mark.parametrize("plan", PLANS)
def test_the_same_draw_gives_the_same_batch_and_another_another(plan: Plan) -> None:
    plan = replace(plan, augmentation=strong(plan))
    one, again, other = (varied(plan, drawing(plan, seed)) for seed in (3, 3, 4))
    assert torch.equal(one.image, again.image) and torch.equal(one.labels, again.labels)
    assert not torch.equal(one.image, other.image)


@pytest.mark.parametrize("plan", PLANS)
def test_batched_equals_one_by_one(plan: Plan) -> None:
    """All kinds but the noise, which is drawn for the batch as a whole."""
    plan = replace(plan, augmentation=replace(strong(plan), noise_chance=0.0))
    drawn = drawing(plan, 7)
    sampler = Sampler([case(n, plan) for n in range(2)], replace(plan, batch=4))
    cutouts = sampler.cut(sampler.sample_spots(np.random.default_rng(1)), reach(drawn, plan))
    whole = augment(cutouts, drawn, plan)
    for n in range(4):
        alone = augment(Cutouts(cutouts.parts[n : n + 1], 1), part(drawn, n), plan)
        assert torch.allclose(alone.image[0], whole.image[n], atol=1e-3)
        assert torch.equal(alone.labels[0], whole.labels[n])


@pytest.mark.parametrize("plan", PLANS)
def test_labels_follow_the_image(plan: Plan) -> None:
    """An image that shows its own labels still shows them after every movement."""
    moving = {f"{name}_chance": 1.0 for name in ("rotation", "scale", "shift", "elastic")}
    plan = replace(plan, augmentation=replace(STILL, **moving, mirror_axes=(1, 2), tilt=tilt_of(plan)))
    result = varied(plan, drawing(plan, 2), show_labels=True)
    inside = result.weights > 0
    seen = result.image[:, result.image.shape[1] // 2].round().long()
    assert (seen == result.labels)[inside].float().mean() > 0.97
    assert not torch.equal(result.labels, unvaried(plan).labels)


@pytest.mark.parametrize("plan", [*PLANS, VIEWS_2D])
def test_cutouts_reach_as_far_as_the_variation(plan: Plan) -> None:
    """Nothing that lies in the case is cut off: a case that is 1 everywhere stays so wherever there is weight, and has weight."""
    plan = replace(plan, augmentation=replace(strong(plan), mirror_axes=(), scale=(0.5, 0.6)))
    size = (90, 120, 120)
    full = TrainingCase("full", np.ones((1, *size), np.float32), np.ones(size, np.uint8), np.ones(size, np.float32), True)
    drawn = replace(drawing(plan, 5), **{name: getattr(drawing(replace(plan, augmentation=STILL), 5), name) for name in INTENSITIES})
    middle = tuple((n - p) // 2 for n, p in zip(size, plan.patch, strict=True))
    result = augment(Sampler([full], plan).cut([Spot(0, middle)] * 4, reach(drawn, plan)), drawn, plan)
    assert bool((result.weights == 1).all()) and bool((result.labels == 1).all())
    assert torch.allclose(result.image, torch.ones_like(result.image), atol=1e-5)


def test_a_slice_of_several_views_is_tilted_out_of_its_plane() -> None:
    """A plate that lies in the slice is seen as a band once the slice is tilted; a slice that is kept shows all or nothing of it."""
    size = (41, 41, 41)
    labels = np.zeros(size, np.uint8)
    labels[20] = 1
    plate = TrainingCase("plate", labels[None].astype(np.float32), labels, np.ones(size, np.float32), True)
    turning = replace(STILL, rotation_chance=1.0, rotation=0.0)
    for plan, tilt in ((VIEWS_2D, 30.0), (PLAN_2D, 0.0)):
        plan = replace(plan, augmentation=replace(turning, tilt=tilt))
        drawn = drawing(plan, 1)
        shown = augment(Sampler([plate], plan).cut([Spot(0, (20, 4, 4))] * 4, reach(drawn, plan)), drawn, plan).labels.float().mean((1, 2))
        assert bool((shown < 0.5).all() and (shown > 0).all()) if tilt else bool((shown == 1).all())


def test_mirroring_mirrors_only_the_planned_axes() -> None:
    for axes, dims in (((1,), [1]), ((2,), [2]), ((0, 1, 2), [0, 1, 2])):
        plan = replace(PLAN_3D, augmentation=replace(STILL, mirror_axes=axes))
        expected = unvaried(plan, count=2)
        seen = set()
        for seed in range(12):
            result = varied(plan, drawing(plan, seed, 2))
            for n in range(2):
                options = [tuple(d for b, d in enumerate(dims) if mask >> b & 1) for mask in range(2 ** len(dims))]
                match = [o for o in options if torch.allclose(result.image[n, 0], expected.image[n, 0].flip(o), atol=1e-4)]
                assert len(match) == 1
                seen.add(match[0])
        assert len(seen) > 1


def test_rotation_is_in_millimetres() -> None:
    """A quarter turn of a 20 x 10 mm bar with unequal spacing gives a bar of 10 x 20 mm."""
    plan = replace(PLAN_2D, spacing=(1.0, 2.0, 1.0), patch=(1, 32, 64), neighbours=0, augmentation=STILL)
    quarter = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    spacing = torch.tensor([1.0, 2.0, 1.0])
    drawn = replace(drawing(plan, 0, 1), matrix=(quarter * spacing / spacing[:, None])[None])
    labels = torch.zeros(1, 32, 64, dtype=torch.uint8)
    labels[:, 11:21, 27:37] = 1  # 20 mm of rows, 10 mm of columns
    cutout = Cutout(labels[None].float(), labels, torch.ones(1, 32, 64), (0.0, 15.5, 31.5))
    result = augment(Cutouts((cutout,), 1), drawn, plan).labels[0]
    rows, columns = torch.nonzero(result.any(1)).numel() * 2.0, torch.nonzero(result.any(0)).numel() * 1.0
    assert (rows, columns) == (pytest.approx(10, abs=2), pytest.approx(20, abs=2))


def test_size_grows_and_shrinks() -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, scale_chance=1.0, scale=(1.3, 1.3)))
    before = (unvaried(plan).labels > 0).sum()
    assert (varied(plan, drawing(plan, 0)).labels > 0).sum() / before == pytest.approx(1.3**2, rel=0.1)


def test_what_moves_in_from_outside_has_no_weight() -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, shift_chance=1.0, shift=0.4))
    result = varied(plan, drawing(plan, 3))
    empty = (result.image == 0).all(1)
    assert empty.any()
    assert result.weights[empty].sum() == 0


@pytest.mark.parametrize("name", INTENSITIES)
def test_each_intensity_change_is_drawn_by_its_chance_alone(name: str) -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, **{f"{name}_chance": 0.5}, coarse=(0.5, 0.9)))
    drawn = sample_augmentation(np.random.default_rng(0), plan, 200)
    image = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = (vary_intensities(image, drawn) - image).abs().amax((1, 2, 3)) > 1e-4
    assert changed.float().mean() == pytest.approx(0.5, abs=0.12)
    nothing = 0.0 if name in ("noise", "blur", "curve") else 1.0
    assert torch.equal(changed, (getattr(drawn, name).view(200, -1) != nothing).any(1))


@pytest.mark.parametrize("chances", [("gamma_chance", "inverted_gamma_chance"), ("curve_chance",)])
def test_gamma_and_curves_keep_mean_and_deviation(chances: tuple[str, ...]) -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, **dict.fromkeys(chances, 1.0)))
    image = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 3 + 1
    result = vary_intensities(image, sample_augmentation(np.random.default_rng(0), plan, 4))
    assert torch.allclose(result.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-3)
    assert torch.allclose(result.std((1, 2, 3)), image.std((1, 2, 3)), rtol=1e-3)


def test_a_curve_maps_equal_intensities_to_equal_ones_and_may_turn_their_order() -> None:
    """What the curve says of 101 even intensities, against the same by hand; the image's values take no part in each other's."""
    plan = replace(PLAN_2D, augmentation=STILL)
    points = torch.tensor([[0.9, 0.0, 0.0, 0.0, 0.0, -0.9]])
    drawn = replace(drawing(plan, 0, 1), curve=points)
    ramp = torch.linspace(-3, 5, 101)[torch.randperm(101, generator=torch.Generator().manual_seed(1))].view(1, 1, 1, 101)
    result = vary_intensities(ramp, drawn).flatten().numpy()
    place = ((ramp.flatten().numpy() + 2.92) / 7.84).clip(0, 1)
    expected = np.interp(place, np.linspace(0, 1, 6), np.linspace(0, 1, 6) + points[0].numpy())
    expected = (expected - expected.mean()) / expected.std() * ramp.numpy().std() + ramp.numpy().mean()
    assert np.allclose(result, expected, atol=1e-3)
    order = ramp.flatten().argsort().numpy()
    assert result[order[0]] > result[order[20]] < result[order[60]] > result[order[-1]]


def test_blur_keeps_a_constant_and_smooths_an_edge() -> None:
    plan = replace(PLAN_2D, augmentation=replace(STILL, blur_chance=1.0))
    drawn = sample_augmentation(np.random.default_rng(0), plan, 1)
    constant = torch.full((1, 3, 16, 16), 2.5)
    assert torch.allclose(vary_intensities(constant, drawn), constant, atol=1e-5)
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    blurred = vary_intensities(edge, drawn)
    assert blurred[0, 0, 8, 7] > 0.05 and blurred.mean() == pytest.approx(0.5, abs=0.01)
