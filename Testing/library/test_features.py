from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_sam2 import CPU, SIDE, ball_volume, encoded, tiny_foundation

from SAM2IterativeLib.foundation import features
from SAM2IterativeLib.foundation.features import OUTSIDE_LOGIT, FeatureCache, VolumeFeatures, Window, encode_volume, prepare_images
from SAM2IterativeLib.foundation.sam2_model import SAM2Base, SliceFeatures, encode_images

FOUNDATION = tiny_foundation()


def box_mask(shape: tuple[int, int, int], rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[:, rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask


def disc(rows: int, columns: int, row: float, column: float, radius: float) -> torch.Tensor:
    """Logits (1, 1, rows, columns), positive inside a disc."""
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    return (radius - ((y - row) ** 2 + (x - column) ** 2).sqrt()).clamp(-10, 10)[None, None]


@pytest.mark.parametrize("seed", range(60))
def test_a_window_holds_all_of_its_mask(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = (int(n) for n in random.integers(12, 160, 2))
    top, left = int(random.integers(rows)), int(random.integers(columns))
    bottom, right = int(random.integers(top, rows)) + 1, int(random.integers(left, columns)) + 1
    window = Window.around(box_mask((2, rows, columns), (top, bottom), (left, right)), margin=float(random.choice([0.0, 0.3, 0.5])))
    assert window.height == window.width <= max(rows, columns)
    assert window.top <= top and bottom <= window.top + window.height
    assert window.left <= left and right <= window.left + window.width


def test_a_small_structure_gets_a_small_window() -> None:
    window = Window.around(box_mask((3, 200, 200), (90, 110), (50, 70)))
    assert window.width == 32
    assert Window.around(box_mask((3, 200, 200), (50, 150), (50, 150))).width == 152


def test_a_mask_that_grows_a_little_keeps_its_window() -> None:
    before, after = ((90, 130), (60, 100)), ((90, 131), (60, 101))
    assert Window.around(box_mask((3, 200, 200), *before)) == Window.around(box_mask((3, 200, 200), *after))


def test_an_empty_mask_shows_the_whole_slice() -> None:
    assert Window.around(np.zeros((4, 30, 50), bool)) == Window(-10, 0, 50, 50)


def test_the_part_of_a_window_outside_the_slice_repeats_its_edge() -> None:
    slices = torch.arange(12.0).reshape(1, 1, 3, 4)
    cropped = Window(-1, -2, 5, 7).crop(slices)
    assert cropped.shape == (1, 1, 5, 7)
    assert torch.equal(cropped[0, 0, 1:4, 2:6], slices[0, 0])
    assert torch.equal(cropped[0, 0, 0], cropped[0, 0, 1])
    assert torch.equal(cropped[0, 0, :, 0], cropped[0, 0, :, 2])


WINDOWS = [
    ((80, 80), Window.whole((80, 80))),
    ((80, 48), Window.whole((80, 48))),
    ((40, 100), Window(4, 30, 36, 40)),
    ((80, 60), Window(-10, -14, 70, 70)),
    ((80, 60), Window(20, 10, 70, 70)),
    ((30, 30), Window(-5, -5, 40, 40)),
]


@pytest.mark.parametrize(("shape", "window"), WINDOWS)
def test_a_mask_survives_the_way_to_the_model_and_back(shape: tuple[int, int], window: Window) -> None:
    row, column = min(window.top + window.height, shape[0]) - 14, min(window.left + window.width, shape[1]) - 16
    there = disc(*shape, row, column, 9)
    back = window.logits_to_slice(window.masks_to_model(there, SIDE), shape)
    assert back.shape == (1, 1, *shape)
    truth, found = there > 0, back > 0
    assert float((truth & found).sum() / (truth | found).sum()) > 0.93
    centre = torch.nonzero(found[0, 0]).float().mean(0) + 0.5
    torch.testing.assert_close(centre, torch.tensor([float(row), float(column)]), atol=0.3, rtol=0)


@pytest.mark.parametrize(("shape", "window"), WINDOWS)
def test_points_and_masks_go_to_the_same_place(shape: tuple[int, int], window: Window) -> None:
    row, column = min(window.top + window.height, shape[0]) - 14, min(window.left + window.width, shape[1]) - 16
    y, x = np.nonzero(window.masks_to_model(disc(*shape, row, column, 8), SIDE)[0, 0].numpy() > 0)
    np.testing.assert_allclose(window.to_model(np.array([[row, column]]), SIDE)[0], [x.mean() + 0.5, y.mean() + 0.5], atol=0.6)


def test_points_outside_the_window_stay_on_the_models_image() -> None:
    points = Window(10, 10, 20, 20).to_model(np.array([[0, 0], [20, 20], [500, 12]]), SIDE)
    np.testing.assert_allclose(points, [[0, 0], [SIDE / 2, SIDE / 2], [0.1 * SIDE, SIDE]])
    assert points.dtype == np.float32


def test_outside_the_window_is_background() -> None:
    shown = Window(10, -8, 20, 20).logits_to_slice(torch.full((1, 2, SIDE, SIDE), 5.0), (40, 30))
    expected = torch.full((40, 30), OUTSIDE_LOGIT)
    expected[10:30, 0:12] = 5.0
    torch.testing.assert_close(shown[0], expected.expand(2, -1, -1))


@pytest.mark.parametrize("window", [Window(100, 100, 20, 20), Window(-50, 3, 20, 20), Window(3, -30, 20, 20)])
def test_a_window_that_misses_the_slice_shows_nothing(window: Window) -> None:
    shown = window.logits_to_slice(torch.ones(1, 1, SIDE, SIDE), (40, 30))
    assert bool((shown == OUTSIDE_LOGIT).all())


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float64, np.float32])
def test_the_compact_model_sees_mean_zero_and_deviation_one(kind: type) -> None:
    image = (np.random.default_rng(0).random((3, 50, 40)) * 200).astype(kind)
    images = prepare_images(image, Window.whole((50, 40)), FOUNDATION)
    assert images.shape == (3, 3, SIDE, SIDE) and images.dtype == torch.float32
    assert abs(float(images.mean())) < 0.02 and abs(float(images.std()) - 1) < 0.05
    assert torch.equal(images[:, 0], images[:, 2])


def test_intensities_outside_the_window_do_not_matter() -> None:
    image = np.random.default_rng(0).random((2, 60, 60)).astype(np.float32)
    bright = image.copy()
    bright[:, 40:] = 1000
    window = Window(4, 4, 32, 32)
    assert torch.equal(prepare_images(image, window, FOUNDATION), prepare_images(bright, window, FOUNDATION))


def test_a_constant_image_has_no_contrast_and_no_nan() -> None:
    for foundation in (FOUNDATION, replace(FOUNDATION, imagenet=True)):
        images = prepare_images(np.full((1, 20, 20), 7, np.int16), Window.whole((20, 20)), foundation)
        assert bool(torch.isfinite(images).all())


def test_official_models_see_what_imagenet_looked_like() -> None:
    official = replace(FOUNDATION, imagenet=True)
    grey = np.random.default_rng(0).normal(500, 200, (2, SIDE, SIDE))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = prepare_images(grey, Window.whole((SIDE, SIDE)), official)
    unit = images * deviation[:, None, None] + mean[:, None, None]
    assert float(unit.min()) == pytest.approx(0, abs=1e-6) and float(unit.max()) == pytest.approx(1, abs=1e-6)
    colour = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    colour[..., 1] = 255
    pixel = prepare_images(colour, Window.whole((SIDE, SIDE)), official)[0, :, 5, 5]
    torch.testing.assert_close(pixel, (torch.tensor([0.0, 1.0, 0.0]) - mean) / deviation)


def test_a_single_colour_picture_is_a_volume_of_one_slice() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 40, 56, 3), dtype=np.uint8)
    volume = encoded(FOUNDATION, picture)
    assert volume.shape == (1, 40, 56) and len(volume.features) == 1
    grey = encoded(FOUNDATION, picture.mean(3))
    assert not torch.allclose(volume.features.levels[-1], grey.features.levels[-1])


def same(a: VolumeFeatures, b: VolumeFeatures) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.features.levels, b.features.levels, strict=True))


def test_many_slices_encoded_in_batches_are_those_of_one_by_one() -> None:
    image, _ = ball_volume(slices=19)
    window = Window.whole(image.shape[1:])
    together = encode_volume(FOUNDATION, image, window, CPU)
    assert len(together.features) == 19
    images = prepare_images(image, window, FOUNDATION)
    for z in (0, 15, 16, 18):
        with torch.inference_mode():
            alone = FOUNDATION.model.forward_image(images[z : z + 1])["backbone_fpn"][-1]
        # kept in half precision
        torch.testing.assert_close(together.of_slice(z).levels[-1], alone, atol=2e-3, rtol=2e-3)


def test_slices_are_encoded_fewer_at_once_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = ball_volume(slices=7)
    window, tried = Window.whole(image.shape[1:]), []

    def short_of_memory(model: SAM2Base, images: torch.Tensor) -> SliceFeatures:
        tried.append(len(images))
        if len(images) > 4:
            raise torch.OutOfMemoryError
        return encode_images(model, images)

    plenty = encode_volume(FOUNDATION, image, window, CPU)
    monkeypatch.setattr(features, "encode_images", short_of_memory)
    assert same(encode_volume(FOUNDATION, image, window, CPU), plenty)
    assert tried == [7, 7, 4, 3]


def test_of_slice_repeats_a_slice_per_object_in_single_precision() -> None:
    volume = encoded(FOUNDATION, ball_volume()[0])
    rows = volume.of_slice(3, objects=2)
    assert rows.levels[0].dtype == torch.float32 and len(rows) == 2
    assert torch.equal(rows.levels[0][0], rows.levels[0][1])


def test_descriptors_are_unit_vectors_that_tell_slices_apart() -> None:
    descriptors = encoded(FOUNDATION, ball_volume()[0]).descriptors()
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(8))
    assert float(descriptors[0] @ descriptors[7]) > float(descriptors[0] @ descriptors[4])


def test_cached_features_are_the_uncached_ones() -> None:
    image, _ = ball_volume()
    window = Window(4, 4, 40, 40)
    cache = FeatureCache(FOUNDATION, CPU)
    first, second = cache.get(image, window), cache.get(image.copy(), window)
    assert first is second
    assert same(first, encode_volume(FOUNDATION, image, window, CPU))


def test_another_image_window_or_number_type_is_never_served_from_the_cache() -> None:
    image, _ = ball_volume()
    window, cache = Window(4, 4, 40, 40), FeatureCache(FOUNDATION, CPU)
    first = cache.get(image, window)
    touched = image.copy()
    touched[3, 20, 20] += 50
    assert not same(first, cache.get(touched, window))
    assert not same(first, cache.get(image, Window(5, 4, 40, 40)))
    assert not same(first, cache.get(image.view(np.int32), window))


def test_the_cache_forgets_what_was_used_longest_ago() -> None:
    window, volumes = Window.whole((SIDE, SIDE)), [ball_volume(seed=seed)[0] for seed in range(3)]
    size = sum(level.nbytes for level in encoded(FOUNDATION, volumes[0]).features.levels)
    cache = FeatureCache(FOUNDATION, CPU, limit=2 * size)
    kept = [cache.get(volume, window) for volume in volumes[:2]]
    assert cache.get(volumes[0], window) is kept[0]
    cache.get(volumes[2], window)
    assert cache.get(volumes[0], window) is kept[0]
    assert cache.get(volumes[1], window) is not kept[1]


def test_a_volume_larger_than_the_cache_is_still_computed() -> None:
    cache = FeatureCache(FOUNDATION, CPU, limit=1)
    assert len(cache.get(ball_volume()[0], Window.whole((SIDE, SIDE))).features) == 8
