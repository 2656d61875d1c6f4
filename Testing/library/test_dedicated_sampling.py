"""dedicated.sampling: what is drawn, and that cutting is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from dedicated_cases import PLAN_2D, PLAN_3D, case

from SAM2IterativeLib.dedicated.cases import TrainingCase
from SAM2IterativeLib.dedicated.plan import Plan
from SAM2IterativeLib.dedicated.sampling import Cutout, Cutouts, Sampler, Spot
from SAM2IterativeLib.errors import DataError


def numbered(size: tuple[int, int, int], *, labelled: bool = True) -> TrainingCase:
    """A case whose every voxel has its own value, from 1."""
    image = np.arange(1, np.prod(size) + 1, dtype=np.float32).reshape(1, *size)
    return TrainingCase("numbered", image, np.zeros(size, np.uint8), np.ones(size, np.float32), labelled)


def cut(sampler: Sampler, spots: Sequence[Spot], plan: Plan) -> Cutouts:
    """Just what unvaried images show."""
    half = (np.array(plan.block) - 1) / 2
    return sampler.cut(spots, np.stack([-half, half])[None].repeat(len(spots), 0))


def only(cutouts: Cutouts) -> Cutout:
    (part,) = cutouts.parts
    return part


def test_the_same_seed_draws_the_same_batch() -> None:
    sampler = Sampler([case(n, PLAN_2D) for n in range(3)], PLAN_2D)
    first, again, other = (sampler.sample_spots(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert first == again != other


@pytest.mark.parametrize("plan", [PLAN_2D, PLAN_3D])
def test_half_of_a_batch_is_labelled_and_stands_first(plan: Plan) -> None:
    cases = [case(0, plan, labelled=False), case(1, plan), case(2, plan, labelled=False)]
    sampler = Sampler(cases, plan)
    for seed in range(5):
        spots = sampler.sample_spots(np.random.default_rng(seed))
        labelled = [cases[spot.case].labelled for spot in spots]
        assert labelled == [True] * (plan.batch // 2) + [False] * (plan.batch // 2)
        assert cut(sampler, spots, plan).labelled == plan.batch // 2


def test_without_pseudo_labels_the_whole_batch_is_labelled() -> None:
    sampler = Sampler([case(0, PLAN_2D)], PLAN_2D)
    assert cut(sampler, sampler.sample_spots(np.random.default_rng(0)), PLAN_2D).labelled == PLAN_2D.batch


def test_batches_of_one_image_are_labelled_now_and_then() -> None:
    plan = replace(PLAN_2D, batch=1)
    sampler = Sampler([case(0, plan), case(1, plan, labelled=False)], plan)
    labelled = sum(cut(sampler, sampler.sample_spots(np.random.default_rng(seed)), plan).labelled for seed in range(40))
    assert 10 <= labelled <= 30


def test_structures_are_drawn_more_often_and_rare_classes_too() -> None:
    labels = np.zeros((40, 16, 16), np.uint8)
    labels[10:30] = 1
    labels[20, 8, 8] = 2
    rare = TrainingCase("rare", np.zeros((1, 40, 16, 16), np.float32), labels, np.ones(labels.shape, np.float32), True)
    sampler = Sampler([rare], replace(PLAN_2D, foreground_share=0.5))
    spots = [spot for seed in range(60) for spot in sampler.sample_spots(np.random.default_rng(seed))]
    slices = np.array([spot.start[0] for spot in spots])
    assert np.mean((slices >= 10) & (slices < 30)) == pytest.approx(0.5 + 0.25, abs=0.08)
    assert np.mean(slices == 20) == pytest.approx(0.25 + 0.25 / 20 + 0.5 / 40, abs=0.07)


def test_blocks_are_cut_where_they_were_drawn_as_far_as_they_reach() -> None:
    big = numbered((40, 80, 80))
    sampler, spot = Sampler([big], PLAN_3D), Spot(0, (10, 20, 30))
    part = only(cut(sampler, [spot], PLAN_3D))
    assert part.centre == (7.5, 15.5, 15.5)
    assert np.array_equal(part.image[0], big.image[0, 10:26, 20:52, 30:62])
    wider = only(sampler.cut([spot], np.array([[[-8.2, -15.5, -15.5], [7.5, 15.5, 17.6]]])))
    assert wider.centre == (8.5, 15.5, 15.5)
    assert np.array_equal(wider.image[0], big.image[0, 9:26, 20:52, 30:65])


def test_outside_a_case_is_empty_and_weightless() -> None:
    small = numbered((6, 20, 24))
    part = only(cut(Sampler([small], PLAN_3D), [Spot(0, (-5, -6, -4))], PLAN_3D))
    there = np.zeros(PLAN_3D.patch, bool)
    there[5:11, 6:26, 4:28] = True
    assert np.array_equal(part.image[0].numpy()[there], small.image.ravel())
    assert not part.image[0].numpy()[~there].any()
    assert np.array_equal(part.weights.numpy() == 1, there)


def test_a_slice_comes_with_its_neighbours_and_repeats_the_end() -> None:
    volume = numbered((5, 32, 32))
    sampler = Sampler([volume], PLAN_2D)
    found = cut(sampler, [Spot(0, (2, 0, 0)), Spot(0, (0, 0, 0)), Spot(0, (4, 0, 0))], PLAN_2D)
    for part, slices in zip(found.parts, ((1, 2, 3), (0, 0, 1), (3, 4, 4)), strict=True):
        assert part.image.shape == (1, 3, 32, 32) and part.labels.shape == (3, 32, 32)
        assert np.array_equal(part.image[0], volume.image[0, list(slices)])


def test_patches_stay_inside_a_larger_case_and_smaller_cases_lie_in_the_middle() -> None:
    large, small = numbered((20, 50, 60)), numbered((9, 20, 24))
    sampler = Sampler([large, small], PLAN_3D)
    for seed in range(40):
        for spot in sampler.sample_spots(np.random.default_rng(seed)):
            if spot.case == 0:
                assert all(0 <= s <= n - p for s, n, p in zip(spot.start, (20, 50, 60), PLAN_3D.patch, strict=True))
            else:
                assert spot.start == (-4, -6, -4)


def test_memory_mapped_cases_are_cut_alike(tmp_path) -> None:  # type: ignore[no-untyped-def]
    plain = case(3, PLAN_2D)
    mapped = {}
    for name in ("image", "labels", "weights"):
        np.save(tmp_path / f"{name}.npy", getattr(plain, name))
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    spots = Sampler([plain], PLAN_2D).sample_spots(np.random.default_rng(0))
    one, other = (cut(Sampler([c], PLAN_2D), spots, PLAN_2D) for c in (plain, replace(plain, **mapped)))
    for here, there in zip(one.parts, other.parts, strict=True):
        assert torch.equal(here.image, there.image) and torch.equal(here.labels, there.labels)


def test_no_labelled_case_is_refused() -> None:
    with pytest.raises(DataError, match="no case is labelled"):
        Sampler([case(0, PLAN_2D, labelled=False)], PLAN_2D)


@pytest.mark.parametrize(("view", "axes"), [(0, (0, 1, 2)), (1, (1, 0, 2)), (2, (2, 0, 1))])
def test_a_view_is_cut_across_its_axis(view: int, axes: tuple[int, int, int]) -> None:
    volume = numbered((32, 33, 34))
    plan = replace(PLAN_2D, views=(0, 1, 2))
    part = only(cut(Sampler([volume], plan), [Spot(0, (5, 0, 1), view)], plan))
    assert np.array_equal(part.image[0], volume.image[0].transpose(axes)[4:7, 0:32, 1:33])


def test_all_views_are_drawn_and_show_structures() -> None:
    plan = replace(PLAN_2D, views=(0, 1, 2), foreground_share=1.0)
    one = case(0, plan)
    sampler = Sampler([one], plan)
    spots = [spot for seed in range(60) for spot in sampler.sample_spots(np.random.default_rng(seed))]
    assert np.bincount([spot.view for spot in spots]).min() > len(spots) / 5
    for spot in spots:
        assert np.moveaxis(one.labels, spot.view, 0)[spot.start[0]].any()


def test_a_batch_shows_one_view_cut_with_its_patch() -> None:
    plan = replace(PLAN_2D, views=(0, 1, 2), view_patches=((1, 32, 32), (1, 16, 32), (1, 16, 24)))
    volume = numbered((16, 40, 24))
    sampler = Sampler([volume], plan)
    seen = set()
    for seed in range(12):
        spots = sampler.sample_spots(np.random.default_rng(seed))
        (view,) = {spot.view for spot in spots}
        seen.add(view)
        parts = cut(sampler, spots, plan.across(view)).parts
        rows, columns = plan.view_patches[view][1:]
        assert all(part.image.shape == (1, 3, rows, columns) for part in parts)
        turned = np.moveaxis(volume.image[0], view, 0)
        for part, (k, j, i) in zip(parts, (spot.start for spot in spots), strict=True):
            inside = part.weights[1].numpy() > 0
            there = turned[k, max(j, 0) : j + rows, max(i, 0) : i + columns]
            assert np.array_equal(part.image[0, 1].numpy()[inside], there.ravel())
    assert seen == {0, 1, 2}
