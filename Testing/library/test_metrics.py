"""Dice and surface distances, against brute force and MONAI; misses never improve a mean."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr

from SAM2IterativeLib.errors import GeometryError
from SAM2IterativeLib.metrics import (
    CaseScore,
    ClassScore,
    assd_mm,
    class_dice,
    dice,
    hd95_mm,
    score_case,
    spearman,
    summarise,
    surface_distances,
)

SPACING = (2.5, 0.8, 1.1)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    offsets = [(x - c) / r for x, c, r in zip(np.indices(shape), centre, radii, strict=True)]
    return np.sqrt(np.sum(np.square(offsets), axis=0)) <= 1


def random_blob(seed: int, shape: tuple[int, int, int] = (7, 12, 11)) -> np.ndarray:
    random = np.random.default_rng(seed)
    centre = tuple(random.uniform(0.3, 0.7) * n for n in shape)
    return ball(shape, centre, tuple(random.uniform(1.5, 4.0, 3))) ^ (random.random(shape) < 0.01)


def brute_surface(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Positions in mm of voxels with a face-neighbour outside."""
    padded = np.pad(mask, 1)
    surface = []
    for index in np.argwhere(mask):
        steps = [(axis, step) for axis in range(mask.ndim) for step in (-1, 1)]
        neighbours = [tuple(index + 1 + step * np.eye(mask.ndim, dtype=int)[axis]) for axis, step in steps]
        if not all(padded[n] for n in neighbours):
            surface.append(index * np.array(spacing))
    return np.array(surface)


def brute_distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    of_a, of_b = brute_surface(a, spacing), brute_surface(b, spacing)
    all_pairs = np.linalg.norm(of_a[:, None] - of_b[None], axis=-1)
    return all_pairs.min(axis=1), all_pairs.min(axis=0)


@pytest.mark.parametrize("seed", range(8))
def test_surface_distances_equal_brute_force(seed: int) -> None:
    a, b = random_blob(seed), random_blob(seed + 100)
    expected = brute_distances(a, b, SPACING)
    for found, wanted in zip(surface_distances(a, b, SPACING), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert hd95_mm(a, b, SPACING) == pytest.approx(max(np.percentile(d, 95) for d in expected))
    assert assd_mm(a, b, SPACING) == pytest.approx(np.concatenate(expected).mean())


@pytest.mark.parametrize("seed", range(4))
def test_hd95_equals_monais(seed: int) -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    shape = (14, 24, 22)
    a = ball(shape, (7, 11, 10), (4, 7, 6))
    b = ball(shape, (7 + seed % 2, 12, 9 + seed), (4.5, 6, 5 + seed / 2))
    theirs = metrics.compute_hausdorff_distance(
        torch.as_tensor(a)[None, None], torch.as_tensor(b)[None, None], include_background=True, percentile=95, spacing=SPACING
    )
    assert hd95_mm(a, b, SPACING) == pytest.approx(float(theirs), rel=1e-5)


def test_assd_equals_monais() -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    a, b = ball((14, 24, 22), (7, 11, 10), (4, 7, 6)), ball((14, 24, 22), (8, 12, 9), (4.5, 6, 5))
    theirs = metrics.compute_average_surface_distance(
        torch.as_tensor(a)[None, None], torch.as_tensor(b)[None, None], include_background=True, symmetric=True, spacing=SPACING
    )
    assert assd_mm(a, b, SPACING) == pytest.approx(float(theirs), rel=1e-5)


def test_a_shift_is_measured_in_millimetres() -> None:
    a = np.zeros((20, 20, 20), dtype=bool)
    a[5:10, 5:10, 5:10] = True
    for axis, spacing in enumerate(SPACING):
        shifted = np.roll(a, 6, axis)
        assert hd95_mm(a, shifted, SPACING) == pytest.approx(6 * spacing)


def test_distances_are_symmetric_and_zero_for_equal_masks() -> None:
    a, b = random_blob(0), random_blob(1)
    assert hd95_mm(a, b, SPACING) == hd95_mm(b, a, SPACING)
    assert assd_mm(a, b, SPACING) == pytest.approx(assd_mm(b, a, SPACING))
    assert (hd95_mm(a, a, SPACING), assd_mm(a, a, SPACING)) == (0, 0)


def test_a_volume_of_one_slice_is_measured_as_a_picture() -> None:
    outer, inner = ball((1, 30, 30), (0, 15, 15), (1, 10, 10)), ball((1, 30, 30), (0, 15, 15), (1, 6, 6))
    expected = brute_distances(outer[0], inner[0], SPACING[1:])
    assert assd_mm(outer, inner, SPACING) == pytest.approx(np.concatenate(expected).mean())


def test_a_single_voxel_image_works() -> None:
    one = np.ones((1, 1, 1), dtype=bool)
    assert (hd95_mm(one, one, SPACING), assd_mm(one, one, SPACING)) == (0, 0)


def test_distance_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not empty"):
        surface_distances(np.ones((2, 2, 2), dtype=bool), np.zeros((2, 2, 2), dtype=bool), SPACING)


def test_dice_by_hand() -> None:
    a = np.array([[[1, 1, 1, 0]]], dtype=bool)
    b = np.array([[[0, 1, 1, 1]]], dtype=bool)
    assert dice(a, b) == pytest.approx(4 / 6)
    assert dice(a, ~a) == 0
    assert dice(a & ~a, b & ~b) is None


def test_class_dice_equals_dice_class_by_class() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 4, (2, 5, 6, 7)).astype(np.uint8)
    expected = [dice(a == c, b == c) or 0.0 for c in (1, 2, 3)]
    np.testing.assert_allclose(class_dice(a, b, 3), expected)
    np.testing.assert_allclose(class_dice(a, b, 5), [*expected, np.nan, np.nan])


def four_outcomes() -> CaseScore:
    """Labels 1, 3, 7, 9: found, missed, false alarm, absent."""
    prediction, reference = np.zeros((6, 10, 10), dtype=np.uint8), np.zeros((6, 10, 10), dtype=np.uint8)
    reference[1:3, 2:6, 2:6] = 1
    prediction[1:3, 3:7, 2:6] = 1
    reference[4, 2:6, 2:6] = 3
    prediction[5, 7:9, 7:9] = 7
    return score_case(prediction, reference, SPACING, (1, 3, 7, 9))


def test_each_outcome_has_its_score() -> None:
    case = four_outcomes()
    diagonal = math.hypot(6 * 2.5, 10 * 0.8, 10 * 1.1)
    assert [case.per_class[label].outcome for label in (1, 3, 7, 9)] == ["found", "missed", "false_alarm", "absent"]
    assert case.per_class[1].dice == pytest.approx(0.75)
    for label in (3, 7):
        assert case.per_class[label] == ClassScore(case.per_class[label].outcome, 0.0, diagonal, diagonal)
    assert case.per_class[9] == ClassScore("absent", None, None, None)
    assert case.dice == pytest.approx(0.75 / 3)
    assert sorted(score.outcome for score in case.per_class.values()) == ["absent", "false_alarm", "found", "missed"]


@pytest.mark.parametrize("worse", ["missed", "false_alarm"])
def test_a_miss_improves_no_mean(worse: str) -> None:
    """However bad a found structure is, missing it instead is worse in every mean."""
    reference, prediction = np.zeros((8, 20, 20), dtype=np.uint8), np.zeros((8, 20, 20), dtype=np.uint8)
    reference[0, :2, :2] = 1
    prediction[7, 18:, 18:] = 1
    empty = np.zeros_like(reference)
    found = score_case(prediction, reference, SPACING, (1,))
    other = score_case(empty, reference, SPACING, (1,)) if worse == "missed" else score_case(prediction, empty, SPACING, (1,))
    good = score_case(reference, reference, SPACING, (1,))
    bad, worst = summarise({"a": good, "b": found}), summarise({"a": good, "b": other})
    assert worst["dice"] <= bad["dice"]
    assert worst["hd95_mm"] > bad["hd95_mm"]
    assert worst["assd_mm"] > bad["assd_mm"]


def test_a_case_without_any_structure_changes_no_mean() -> None:
    empty = np.zeros((6, 10, 10), dtype=np.uint8)
    absent = score_case(empty, empty, SPACING, (1, 3, 7, 9))
    assert (absent.dice, absent.hd95_mm, absent.assd_mm) == (None, None, None)
    alone, together = summarise({"a": four_outcomes()}), summarise({"a": four_outcomes(), "b": absent})
    assert all(together[key] == alone[key] for key in ("dice", "hd95_mm", "assd_mm", "missed", "found"))
    assert together["absent"] == alone["absent"] + 4


def test_the_summary_is_complete_and_fit_for_json() -> None:
    case = four_outcomes()
    summary = summarise({"x": case, "y": case})
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert (summary["found"], summary["missed"], summary["false_alarms"], summary["absent"]) == (2, 2, 2, 2)
    assert summary["dice"] == pytest.approx(0.25)
    assert summary["hd95_mm"] > summary["hd95_mm_found"] == case.per_class[1].hd95_mm
    assert set(summary["per_class"]) == {"1", "3", "7", "9"}
    assert summary["per_class"]["3"]["missed"] == 2
    assert summary["per_class"]["9"]["dice"] is None
    assert summary["per_case"]["x"]["per_class"]["1"]["dice"] == pytest.approx(0.75)
    assert summary["per_case"]["x"]["dice"] == pytest.approx(0.25)


def test_no_case_gives_an_empty_summary() -> None:
    summary = summarise({})
    assert summary["dice"] is None
    assert summary["missed"] == 0
    assert summary["per_case"] == {}


def test_other_grids_are_refused_with_both_sizes() -> None:
    with pytest.raises(GeometryError, match=r"\(2, 3, 4\).*\(2, 3, 5\)"):
        score_case(np.zeros((2, 3, 4), int), np.zeros((2, 3, 5), int), SPACING, (1,))


@pytest.mark.parametrize("seed", range(4))
def test_spearman_equals_scipys_with_ties(seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 6, 40), random.random(40).round(1)
    assert spearman(a, b) == pytest.approx(float(spearmanr(a, b).statistic))


def test_spearman_leaves_out_what_is_not_finite() -> None:
    a, b = [1, 2, 3, 4, np.nan, 9], [10, 20, 15, 30, 5, np.inf]
    assert spearman(a, b) == pytest.approx(float(spearmanr(a[:4], b[:4]).statistic))


@pytest.mark.parametrize(("a", "b"), [([1, 1, 1, 1], [1, 2, 3, 4]), ([], []), ([1, 2], [2, 1]), ([np.nan] * 4, [1, 2, 3, 4])])
def test_spearman_is_none_where_it_is_not_defined(a: list[float], b: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spearman(a, b) is None
