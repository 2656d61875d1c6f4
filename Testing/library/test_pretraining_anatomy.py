from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_sam2  # noqa: F401 - one thread
import torch
from scipy import ndimage

from SAM2IterativeLib.pretraining.anatomy import (
    FORK,
    HALF,
    SHELLS,
    STRUCTURES,
    Anatomy,
    implicit_functions,
    label_volumes,
    random_rotations,
    sample_anatomy,
    slice_grid,
    uniform,
    vary,
)

SIDE = 64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels_of(anatomy: Anatomy, positions: list[float], side: int = SIDE) -> np.ndarray:
    """(B, T, side, side) without motion."""
    z = torch.tensor(positions, dtype=torch.float32)[None].expand(len(anatomy), -1)
    return label_volumes(anatomy, z, torch.zeros(*z.shape, 2), side).numpy()


def alone(slot: int, **changes: torch.Tensor) -> Anatomy:
    """One anatomy of which one upright, undeformed structure is present."""
    anatomy = sample_anatomy(seeded(), 1)
    present = torch.zeros(1, STRUCTURES, dtype=torch.bool)
    present[:, slot] = True
    upright = replace(
        anatomy,
        present=present,
        rotations=torch.eye(3).expand(1, STRUCTURES, 3, 3).clone(),
        bumps=torch.zeros_like(anatomy.bumps),
        warp=torch.zeros_like(anatomy.warp),
        centres=torch.zeros_like(anatomy.centres),
        bend=torch.zeros_like(anatomy.bend),
    )
    return replace(upright, **changes)


def test_the_same_seed_gives_the_same_anatomy_and_another_seed_another() -> None:
    positions = [-0.2, 0.0, 0.2]
    first, second, other = (labels_of(sample_anatomy(seeded(seed), 2), positions) for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_slice_is_the_same_whatever_its_neighbours() -> None:
    anatomy = sample_anatomy(seeded(1), 3)
    together = labels_of(anatomy, [-0.3, -0.1, 0.15, 0.2])
    assert np.array_equal(labels_of(anatomy, [0.15])[:, 0], together[:, 2])
    assert np.array_equal(labels_of(anatomy, [0.2, -0.3])[:, 1], together[:, 0])


def test_labels_are_exactly_where_the_implicit_functions_are_positive() -> None:
    anatomy = sample_anatomy(seeded(2), 2)
    positions = torch.zeros(2, 1)
    values = implicit_functions(anatomy, slice_grid(positions, SIDE, torch.zeros(2, 1, 2)))
    inside = values[:, :, 0] > 0
    order = torch.arange(1, STRUCTURES + 1)[None, :, None, None]
    top = torch.where(inside, order, 0).amax(1).numpy()
    expected = np.where(top == 0, 0, np.where(top == 1, 255, top - 1))
    # thresholded at full resolution from values at half: single border pixels may differ
    assert (labels_of(anatomy, [0.0])[:, 0] == expected).mean() > 0.97


def test_labels_are_background_body_or_a_structure_that_is_present() -> None:
    anatomy = sample_anatomy(seeded(5), 8)
    labels = labels_of(anatomy, list(np.linspace(-0.6, 0.6, 7)))
    for row, present in zip(labels, anatomy.present.numpy(), strict=True):
        allowed = {0} | ({255} if present[0] else set()) | {slot for slot in range(1, STRUCTURES) if present[slot]}
        assert set(np.unique(row)) <= allowed


def test_variation_of_strength_zero_is_the_same_individual() -> None:
    anatomy = sample_anatomy(seeded(6), 3)
    same = vary(anatomy, seeded(7), strength=0.0)
    for name in Anatomy.__dataclass_fields__:
        torch.testing.assert_close(getattr(same, name), getattr(anatomy, name))
    positions = list(np.linspace(-0.5, 0.5, 5))
    assert (labels_of(same, positions) == labels_of(anatomy, positions)).mean() > 0.999


def test_relatives_differ_but_are_more_alike_than_strangers() -> None:
    anatomy = sample_anatomy(seeded(8), 12)
    positions = list(np.linspace(-0.5, 0.5, 5))
    own, relative = labels_of(anatomy, positions), labels_of(vary(anatomy, seeded(9)), positions)
    strangers = np.roll(own, 1, axis=0)
    assert not np.array_equal(own, relative)
    assert (own == relative).mean() > (own == strangers).mean() + 0.1


def test_structures_appear_and_end_along_the_slices() -> None:
    labels = labels_of(sample_anatomy(seeded(10), 10), list(np.linspace(-0.8, 0.8, 17)))
    begins = ends = 0
    for volume in labels:
        for value in np.setdiff1d(np.unique(volume), [0, 255]):
            shown = (volume == value).any((1, 2)).astype(int)
            begins += int((np.diff(shown) == 1).any())
            ends += int((np.diff(shown) == -1).any())
    assert begins > 10 and ends > 10


def test_a_fork_is_one_branch_on_one_side_and_two_on_the_other() -> None:
    radii = torch.full((1, STRUCTURES, 3), 0.1)
    radii[..., 2] = 0.9
    fork = alone(FORK, radii=radii)
    below, above = labels_of(fork, [-0.4, 0.7])[0] == FORK
    assert ndimage.label(below)[1] == 1
    assert ndimage.label(above)[1] == 2


def test_a_shell_has_a_wall_and_a_cavity() -> None:
    slot = SHELLS[0]
    shell = labels_of(alone(slot, radii=torch.full((1, STRUCTURES, 3), 0.5)), [0.0])[0, 0] == slot
    filled = ndimage.binary_fill_holes(shell)
    assert shell.any() and filled[SIDE // 2, SIDE // 2] and not shell[SIDE // 2, SIDE // 2]


def test_the_half_is_part_of_the_blob_that_it_is_cut_from() -> None:
    for seed in range(5):
        anatomy = sample_anatomy(seeded(seed), 1)
        present = torch.zeros(1, STRUCTURES, dtype=torch.bool)
        present[:, HALF] = True
        half = labels_of(replace(anatomy, present=present), [0.0, 0.2]) == HALF
        whole = int(anatomy.half_of)
        present = torch.zeros(1, STRUCTURES, dtype=torch.bool)
        present[:, whole] = True
        blob = labels_of(replace(anatomy, present=present), [0.0, 0.2]) == whole
        # The half has bumps of its own.
        assert not half.any() or (half & ndimage.binary_dilation(blob, iterations=8)).sum() > 0.8 * half.sum()


def test_motion_shifts_a_slice_in_its_plane() -> None:
    anatomy = alone(1, radii=torch.full((1, STRUCTURES, 3), 0.4))
    positions = torch.zeros(1, 2)
    shifts = torch.tensor([[[0.0, 0.0], [0.25, 0.0]]])
    still, moved = label_volumes(anatomy, positions, shifts, SIDE)[0].numpy() == 1
    distance = ndimage.center_of_mass(still)[1] - ndimage.center_of_mass(moved)[1]
    assert distance == pytest.approx(0.25 * SIDE / 2, abs=0.6)


def test_rotations_are_rotations() -> None:
    turns = random_rotations(seeded(), 50)
    torch.testing.assert_close(turns @ turns.transpose(-1, -2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(50))


def test_repeated_keeps_neighbours_together() -> None:
    anatomy = sample_anatomy(seeded(), 2).repeated(3)
    assert len(anatomy) == 6
    assert torch.equal(anatomy.centres[0], anatomy.centres[2]) and not torch.equal(anatomy.centres[2], anatomy.centres[3])


def test_uniform_numbers_stay_in_their_range() -> None:
    numbers = uniform(seeded(), -2.0, 5.0, 1000)
    assert -2 <= float(numbers.min()) < -1.8 and 4.8 < float(numbers.max()) <= 5
