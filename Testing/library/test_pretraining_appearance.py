from __future__ import annotations

import dataclasses

import pytest
import tiny_sam2  # noqa: F401 - one thread
import torch

from SAM2IterativeLib.pretraining.anatomy import HALF, STRUCTURES, label_volumes, sample_anatomy
from SAM2IterativeLib.pretraining.appearance import (
    ADDED,
    MAGNITUDE,
    SPECKLE,
    Appearance,
    _coarse,
    _noisy,
    paint,
    sample_appearance,
)
from SAM2IterativeLib.pretraining.scenery import sample_scenery

SIDE = 64
FEATURELESS = {"textures": 0.0, "rims": 0.0, "clutter": 0.0, "bias": 0.0, "noise": 0.0, "coarse": 1.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def labels() -> torch.Tensor:
    positions = torch.linspace(-0.2, 0.2, 4).expand(3, 4)
    return label_volumes(sample_anatomy(seeded(), 3), positions, torch.zeros(3, 4, 2), SIDE)


def plain(look: Appearance, **changes: float) -> Appearance:
    """The look without its random ingredients."""
    values = FEATURELESS | changes
    return dataclasses.replace(look, **{name: torch.full_like(getattr(look, name), value) for name, value in values.items()})


def test_images_are_scaled_per_volume_and_clipped(labels: torch.Tensor) -> None:
    images = paint(labels, sample_appearance(seeded(1), 3), seeded(2))
    assert images.shape == (3, 4, 3, SIDE, SIDE) and images.dtype == torch.float32
    assert bool(torch.isfinite(images).all())
    assert float(images.abs().max()) <= 4
    for volume in images:
        assert abs(float(volume.mean())) < 0.1 and 0.8 < float(volume.std()) < 1.05


def test_the_same_seeds_paint_the_same_image(labels: torch.Tensor) -> None:
    look = sample_appearance(seeded(1), 3)
    assert torch.equal(paint(labels, look, seeded(2)), paint(labels, look, seeded(2)))
    assert not torch.equal(paint(labels, look, seeded(2)), paint(labels, look, seeded(3)))


def test_grey_volumes_have_equal_channels_and_colour_ones_do_not(labels: torch.Tensor) -> None:
    grey = paint(labels, sample_appearance(seeded(1), 3, colour_share=0.0), seeded(2))
    assert torch.equal(grey[:, :, 0], grey[:, :, 2])
    colour = paint(labels, sample_appearance(seeded(1), 3, colour_share=1.0), seeded(2))
    assert not torch.allclose(colour[:, :, 0], colour[:, :, 2])


def test_without_its_ingredients_each_tissue_has_one_intensity(labels: torch.Tensor) -> None:
    look = plain(sample_appearance(seeded(1), 3, colour_share=0.0), blur=0.05)
    images = paint(labels, look, seeded(2))[:, :, 0]
    for image, label in zip(images, labels, strict=True):
        for value in label.unique():
            tissue = image[label == value]
            assert float(tissue.max() - tissue.min()) < 0.05


@pytest.mark.parametrize(
    ("name", "amount"), [("noise", 0.1), ("bias", 0.3), ("rims", -0.3), ("clutter", 0.25), ("blur", 1.5), ("coarse", 3.0)]
)
def test_every_ingredient_changes_the_image(labels: torch.Tensor, name: str, amount: float) -> None:
    look = sample_appearance(seeded(1), 3, colour_share=0.0)
    before = paint(labels, plain(look, blur=0.05), seeded(2))
    after = paint(labels, plain(look, **{"blur": 0.05, name: amount}), seeded(2))
    assert float((before - after).abs().mean()) > 0.01


def test_blur_softens_borders_between_tissues(labels: torch.Tensor) -> None:
    look = sample_appearance(seeded(1), 3, colour_share=0.0)
    sharp, soft = (paint(labels, plain(look, blur=blur), seeded(2)) for blur in (0.05, 1.5))
    assert float(soft.diff(dim=-1).abs().max()) < float(sharp.diff(dim=-1).abs().max())


def test_labels_alone_decide_where_a_structure_is_painted(labels: torch.Tensor) -> None:
    look = plain(sample_appearance(seeded(1), 3, colour_share=0.0), blur=0.05)
    moved = labels.roll(9, dims=-1)
    torch.testing.assert_close(paint(labels, look, seeded(2)).roll(9, dims=-1)[..., 20:], paint(moved, look, seeded(2))[..., 20:])


def test_repeated_keeps_neighbours_together() -> None:
    look = sample_appearance(seeded(), 2).repeated(2)
    assert look.means.shape == (4, STRUCTURES + 1, 3)
    assert torch.equal(look.blur[0], look.blur[1]) and not torch.equal(look.blur[1], look.blur[2])


def test_more_pixels_look_the_same_only_finer() -> None:
    look = plain(sample_appearance(seeded(1), 3, colour_share=0.0), blur=1.5, coarse=3.0)
    anatomy, positions = sample_anatomy(seeded(), 3), torch.linspace(-0.2, 0.2, 4).expand(3, 4)
    small, large = (paint(label_volumes(anatomy, positions, torch.zeros(3, 4, 2), side), look, seeded(2)) for side in (SIDE, 3 * SIDE))
    assert large.shape[-1] == 3 * SIDE
    shrunk = torch.nn.functional.avg_pool2d(large.flatten(0, 1), 3).view_as(small)
    assert float((shrunk - small).abs().mean()) < 0.1
    assert float((shrunk - small.roll(3, dims=-1)).abs().mean()) > 0.2


def test_the_finest_pixels_can_be_finer_than_the_reference() -> None:
    assert float(sample_appearance(seeded(1), 200, finest=0.5).coarse.min()) < 1 <= float(sample_appearance(seeded(1), 200).coarse.min())


def test_no_structure_looks_like_what_surrounds_it() -> None:
    look = sample_appearance(seeded(1), 400, colour_share=0.0)
    means = look.means[..., 0]
    structures = means[:, 1:STRUCTURES]
    for around in (0, STRUCTURES):
        contrast = (structures - means[:, around, None]).abs()
        assert float((contrast < 0.1).float().mean()) < 0.03  # where body and background leave no room
    for inner, outer in ((2, 1), (4, 3), (HALF, 1)):
        alike = (means[:, inner] - means[:, outer]).abs() < 0.05
        assert bool((look.rims[alike].abs() > 0).float().mean() > 0.85)  # then a wall divides them
    assert 0.05 < float(((means[:, 2] - means[:, 1]).abs() < 1e-6).float().mean()) < 0.5


def test_walls_are_thin_and_lie_where_tissues_meet() -> None:
    labels = torch.ones(1, 2, SIDE, SIDE, dtype=torch.uint8)
    labels[..., SIDE // 2 :] = 2
    look = plain(sample_appearance(seeded(1), 1, colour_share=0.0), blur=0.05, rims=-0.3, rim_widths=4.0)
    look.means[:, 1:3] = 0.5
    columns = paint(labels, look, seeded(2))[0, 0, 0].mean(0)
    walled = columns < columns[0] - 0.1
    assert walled.nonzero().flatten().tolist() == [SIDE // 2 - 1, SIDE // 2]


def test_scenery_is_seen_behind_the_structures_of_its_volumes_only(labels: torch.Tensor) -> None:
    look = plain(sample_appearance(seeded(1), 3, colour_share=0.0), blur=0.05)
    scenery = sample_scenery(seeded(4), look, share=1.0)
    scenery = dataclasses.replace(scenery, shown=torch.tensor([True, True, False]))
    backdrop = scenery.backdrop(torch.linspace(-0.2, 0.2, 4).expand(3, 4), torch.zeros(3, 4, 2), SIDE)
    without, scene = paint(labels, look, seeded(2)), paint(labels, look, seeded(2), backdrop)
    assert torch.equal(without[2], scene[2])
    assert not backdrop.numbers[2].any()
    for volume in (0, 1):
        free = (labels[volume] == 0) | (labels[volume] == 255)
        structures = [scene[volume, :, 0][labels[volume] == value] for value in labels[volume].unique() if 0 < value < 255]
        assert structures and all(float(pixels.max() - pixels.min()) < 0.05 for pixels in structures)
        numbers = backdrop.numbers[volume]
        shown = numbers[free & (numbers > 0)].unique()
        assert len(shown)
        for value in shown:
            pixels = scene[volume, :, 0][free & (numbers == value)]
            assert float(pixels.max() - pixels.min()) < 0.05


def test_half_of_the_scenery_is_as_bright_as_something_that_can_be_asked_for() -> None:
    look = sample_appearance(seeded(1), 200, colour_share=0.0)
    scenery = sample_scenery(seeded(2), look, share=0.5)
    alike = (scenery.means[:, :, None] == look.means[:, None, 1:STRUCTURES, 0]).any(2)
    assert 0.45 < float(alike.float().mean()) < 0.55
    assert 0.4 < float(scenery.shown.float().mean()) < 0.6


@pytest.mark.parametrize("coarse", [1.0, 1.7, 3.0])
def test_coarse_pixels_are_resized_as_torch_does_it(labels: torch.Tensor, coarse: float) -> None:
    look = plain(sample_appearance(seeded(1), 3), coarse=coarse)
    image = torch.rand(3, 2, 3, SIDE, SIDE, generator=seeded(5))
    size = min(SIDE, max(24, round(128 / coarse)))
    small = torch.nn.functional.interpolate(image.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    expected = torch.nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    torch.testing.assert_close(_coarse(image, look, seeded()).flatten(0, 1), expected, atol=1e-5, rtol=1e-5)


def test_noise_is_added_or_lifts_the_dark_or_follows_the_image() -> None:
    look = dataclasses.replace(
        plain(sample_appearance(seeded(1), 3, colour_share=0.0), noise=0.1), noise_kind=torch.tensor([ADDED, MAGNITUDE, SPECKLE])
    )
    image = torch.zeros(3, 1, 1, SIDE, SIDE)
    image[..., SIDE // 2 :] = 0.8
    noisy = _noisy(image, look, seeded(2))[:, 0, 0]
    dark, bright = noisy[..., : SIDE // 2].flatten(1), noisy[..., SIDE // 2 :].flatten(1)
    assert abs(float(dark[0].mean())) < 0.01 < 0.1 < float(dark[1].mean()) and float(dark[1].min()) >= 0
    assert float(dark[2].abs().max()) == 0 and 0.2 < float(bright[2].std()) < 0.28
    assert all(0.09 < float(bright[i].std()) < 0.11 for i in (0, 1))


def test_half_of_the_volumes_have_other_noise_where_asked_for() -> None:
    kinds = sample_appearance(seeded(1), 400, noise_kinds_share=0.5).noise_kind
    assert all(0.18 < float((kinds == kind).float().mean()) < 0.32 for kind in (MAGNITUDE, SPECKLE))
    assert not sample_appearance(seeded(1), 400).noise_kind.any()
